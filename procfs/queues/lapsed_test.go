package queues

import (
	"context"
	"errors"
	"testing"

	"dos/meta"
	"dos/meta/client"
)

// A lapsed one does not know that its session is over before it looks.
type lapsed struct {
	client.Stay
	next client.Stay // nil: it is not over
}

func (l *lapsed) Trust(ctx context.Context) (err error) {
	if l.next != nil {
		err = client.Session{Caller: l}.End(ctx, l.Session())
		l.Stay, l.next = l.next, nil
	}
	return err
}

// Whoever stood still for longer than his session gives out nothing of what he had
// claimed then: somebody else may have acknowledged it.
func TestLapsed(t *testing.T) {
	w := newWorld(t)
	w.make("q", 0o755, "a", "b")
	first := &lapsed{Stay: w.open()}
	stream := client.NewTaker(first, nil).Open("q", "", "test")
	if m, err := stream.Next(t.Context(), false); err != nil || string(m.Body) != "a" {
		t.Fatalf("%q, %v", m.Body, err)
	}
	first.next = w.open()
	if m, err := stream.Next(t.Context(), false); !errors.Is(err, meta.Fenced) {
		t.Errorf("what another may have acknowledged: %q, %v", m.Body, err)
	}
	if m, err := stream.Next(t.Context(), false); err != nil || string(m.Body) != "a" {
		t.Errorf("what comes next: %q, %v", m.Body, err)
	}

	// What is taken while the session ends is not had.
	w.make("p", 0o755, "a")
	first.next = w.open()
	if r, m, err := client.NewTaker(first, nil).Take(t.Context(), "p", "", "test", client.Process{}, false); err != nil {
		t.Error(err)
	} else if err := r.Close(t.Context(), true); err != nil {
		t.Errorf("%q cannot be acknowledged: %v", m.Body, err)
	}
}
