package queues

import (
	"context"
	"errors"
	"testing"
	"time"

	"dos/meta/client"
	"dos/meta/queue"
	"dos/meta/state"
)

// A hasty one does not wait for what nobody waits for any more.
type hasty struct{ client.Stay }

func (h hasty) Call(ctx context.Context, op state.Op, req, resp any) error {
	if err := h.Stay.Call(context.WithoutCancel(ctx), op, req, resp); err != nil {
		return err
	}
	return ctx.Err() // it was done, and nobody hears of it
}

// Who is interrupted while it acknowledges hears how that ended: saying it again
// would be saying it of what is not held any more.
func TestSettledInterrupted(t *testing.T) {
	w := newWorld(t)
	w.make("q", 0o755, "a", "b")
	taker := client.NewTaker(hasty{w.stay}, nil)
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	for _, what := range []queue.What{queue.Ack, queue.Discard} {
		r, _, err := taker.Take(t.Context(), "q", "", "test", client.Process{}, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Do(interrupted, what, 0); err != nil {
			t.Errorf("settling by %v: %v", what, err)
		}
	}
}

// Threads of one process that are interrupted while they wait find their places again,
// each one: a place that nobody knew of would get messages.
func TestWaitsInterrupted(t *testing.T) {
	w := newWorld(t)
	w.make("q", 0o755)
	ctx, interrupt := context.WithCancel(t.Context())
	take := func(ctx context.Context) error {
		_, _, err := w.taker.Take(ctx, "q", "", "test", client.Process{PID: 1}, true)
		return err
	}
	const threads = 3
	ends := make(chan error, threads)
	for range threads {
		go func() { ends <- take(ctx) }()
	}
	for n := 0; n < threads; {
		st, err := w.taker.Status(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		g, _ := st.Group("")
		n = int(g.Waiters)
	}
	interrupt()
	for range threads {
		if err := <-ends; !errors.Is(err, context.Canceled) {
			t.Errorf("who is interrupted: %v", err)
		}
	}
	if _, err := w.taker.Push(t.Context(), "q", make([]queue.Message, threads)...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for n := range threads {
		if err := take(ctx); err != nil {
			t.Errorf("who comes back as number %d: %v", n+1, err)
		}
	}
}
