package fleet

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"dos/chunk"
)

// calls are those under way to the stores of one machine. They end when the
// machine stops answering: whoever waits would wait for as long as a connection
// takes to be given up, when it has others to ask.
type calls struct {
	mu   sync.Mutex
	gone bool                               // guarded by mu
	next uint64                             // guarded by mu
	open map[uint64]context.CancelCauseFunc // guarded by mu
}

var errGone = errors.New("its machine does not answer")

// begin returns the context for a call, and what is to be called at its end.
func (c *calls) begin(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		cancel(errGone)
		return ctx, func() {}
	}
	id := c.next
	c.next++
	if c.open == nil {
		c.open = make(map[uint64]context.CancelCauseFunc)
	}
	c.open[id] = cancel
	return ctx, func() {
		c.mu.Lock()
		delete(c.open, id)
		c.mu.Unlock()
		cancel(nil)
	}
}

// answers says whether the machine does. If not, all calls end.
func (c *calls) answers(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = !yes
	if c.gone {
		for _, cancel := range c.open {
			cancel(errGone)
		}
	}
}

// guarded is a store of another machine. Its calls fail with chunk.ErrLost when
// the machine stops answering, and at once while it does not.
type guarded struct {
	id    chunk.StoreID
	calls *calls
	store chunk.Store
}

var (
	_ chunk.Store    = guarded{}
	_ chunk.Scrubber = guarded{}
)

// call makes one call.
func (g guarded) call(ctx context.Context, do func(context.Context) error) error {
	ctx, end := g.calls.begin(ctx)
	defer end()
	if ctx.Err() == nil {
		err := do(ctx)
		if err == nil || context.Cause(ctx) != errGone {
			return err
		}
	}
	return g.why(ctx)
}

// why is the error of a call whose context has ended.
func (g guarded) why(ctx context.Context) error {
	if context.Cause(ctx) == errGone {
		return fmt.Errorf("%w: store %d: %w", chunk.ErrLost, g.id, errGone)
	}
	return ctx.Err()
}

func (g guarded) Put(ctx context.Context, id chunk.ID, data []byte) error {
	return g.call(ctx, func(ctx context.Context) error { return g.store.Put(ctx, id, data) })
}

func (g guarded) ReadAt(ctx context.Context, id chunk.ID, p []byte, off int64) (n int, err error) {
	err = g.call(ctx, func(ctx context.Context) (err error) {
		n, err = g.store.ReadAt(ctx, id, p, off)
		return err
	})
	return n, err
}

func (g guarded) Stat(ctx context.Context, id chunk.ID) (info chunk.Info, err error) {
	err = g.call(ctx, func(ctx context.Context) (err error) {
		info, err = g.store.Stat(ctx, id)
		return err
	})
	return info, err
}

func (g guarded) Delete(ctx context.Context, ids ...chunk.ID) error {
	return g.call(ctx, func(ctx context.Context) error { return g.store.Delete(ctx, ids...) })
}

func (g guarded) Usage(ctx context.Context) (u chunk.Usage, err error) {
	err = g.call(ctx, func(ctx context.Context) (err error) {
		u, err = g.store.Usage(ctx)
		return err
	})
	return u, err
}

func (g guarded) List(ctx context.Context, from chunk.ID) iter.Seq2[chunk.Info, error] {
	return func(yield func(chunk.Info, error) bool) {
		ctx, end := g.calls.begin(ctx)
		defer end()
		if ctx.Err() != nil {
			yield(chunk.Info{}, g.why(ctx))
			return
		}
		for info, err := range g.store.List(ctx, from) {
			if err != nil && context.Cause(ctx) == errGone {
				err = g.why(ctx)
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// Verify is of chunk.Scrubber: errors.ErrUnsupported if the store is none.
func (g guarded) Verify(ctx context.Context, id chunk.ID) error {
	scrubber, ok := g.store.(chunk.Scrubber)
	if !ok {
		return errors.ErrUnsupported
	}
	return g.call(ctx, func(ctx context.Context) error { return scrubber.Verify(ctx, id) })
}
