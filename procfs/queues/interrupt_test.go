package queues

import (
	"context"
	"testing"

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
