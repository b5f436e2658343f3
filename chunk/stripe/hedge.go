package stripe

import (
	"context"
	"errors"
	"sync"
	"time"

	"dos/chunk"
)

// A hedge is a read of one shard from its store, with a timer that asks others
// for the same range when the store takes long. The store fills the caller's
// buffer, the others fill one of the hedge's own.
type hedge struct {
	path    *Path
	want    want               // its own answers: the caller may be adding to the other's
	primary context.CancelFunc // ends the read of the store

	mu       sync.Mutex
	timer    *time.Timer        // guarded by mu
	phase    phase              // guarded by mu
	over     bool               // the store has answered; guarded by mu
	stuck    bool               // it is counted as stuck; guarded by mu
	unwanted bool               // with the bytes; guarded by mu
	started  chan struct{}      // nil until others are asked, closed when they have answered; guarded by mu
	stop     context.CancelFunc // ends asking others; guarded by mu
	out      []byte             // what others gave, nil if they could not; guarded by mu
}

// A phase says what the timer does next.
type phase int

const (
	mayAsk  phase = iota // ask others if hedges are left
	mustAsk              // ask others: the store is slow beyond doubt
	giveUp               // others cannot help, and the store had its time
	linger               // the store has been cancelled and should have returned
)

// lingerMax is how long a store may take to return from a read that was
// cancelled. After that nothing else is read there until it does.
const lingerMax = 100 * time.Millisecond

// direct reads w from its own store. It returns nil when w.b is filled, by
// that store or by others after some time.
func (p *Path) direct(ctx context.Context, w *want) error {
	id := w.stripe.Stores[w.index]
	store, live := p.config.Cluster.Store(id)
	switch {
	case !live:
		w.why.add(w.index, errNotLive)
		return errNotLive
	case p.doubtful(id):
		return errSlow // if others cannot give it, gather comes back to this store
	}
	start := time.Now()
	p.pace.began()
	rctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &hedge{path: p, want: *w, primary: cancel}
	h.want.why = nil
	h.mu.Lock()
	h.timer = time.AfterFunc(p.pace.delay(), func() { h.fire(ctx) })
	h.mu.Unlock()

	err := readFull(rctx, store, w.id(), w.b, w.off)

	h.mu.Lock()
	h.over, h.unwanted = true, err == nil
	h.timer.Stop()
	if h.stuck {
		p.doubt(id, afterSlow)
		p.healthOf(id).stuck.Add(-1)
	}
	started, stuck := h.started, h.stuck
	if h.unwanted && started != nil {
		h.stop()
		h.drop()
	}
	h.mu.Unlock()
	if err == nil {
		p.pace.took(time.Since(start))
		if !stuck {
			p.trust(id)
		}
		return nil
	}
	if rctx.Err() != nil && ctx.Err() == nil && !aboutShard(err) {
		err = errSlow // we cancelled it
	}
	if started == nil {
		w.why.add(w.index, err)
		if ctx.Err() == nil && !aboutShard(err) {
			p.doubt(id, afterError)
		}
		return err
	}
	<-started // fire has a time limit
	w.why, w.final = h.want.why, true
	w.why.add(w.index, err)
	if h.out == nil {
		return err
	}
	copy(w.b, h.out)
	p.coder.Free(h.out)
	p.report(w)
	return nil
}

// drop frees what others gave. Called with mu held.
func (h *hedge) drop() {
	if h.out != nil {
		h.path.coder.Free(h.out)
		h.out = nil
	}
}

// cancel ends the read of the store. Called with mu held.
func (h *hedge) cancel() {
	h.primary()
	h.phase = linger
	h.timer.Reset(lingerMax)
}

// fire asks others, in the timer's goroutine. When the share of hedges is used
// up it waits until the store is slow beyond doubt.
func (h *hedge) fire(ctx context.Context) {
	p, id := h.path, h.want.stripe.Stores[h.want.index]
	h.mu.Lock()
	if h.over {
		h.mu.Unlock()
		return
	}
	switch h.phase {
	case giveUp:
		p.doubt(id, afterSlow)
		h.cancel()
		h.mu.Unlock()
		return
	case linger:
		h.stuck = true
		p.healthOf(id).stuck.Add(1)
		h.mu.Unlock()
		return
	case mustAsk:
		p.doubt(id, afterSlow)
	case mayAsk:
		if !p.pace.allow(int(h.want.stripe.Code.K)) {
			h.phase = mustAsk
			h.timer.Reset(max(p.config.Slow-p.pace.delay(), 0))
			h.mu.Unlock()
			return
		}
	}
	start := time.Now()
	ctx, stop := context.WithTimeoutCause(ctx, p.config.Timeout, errTimeout)
	h.started, h.stop = make(chan struct{}), stop
	p.wg.Add(1) // the read is still under way, so Close is not
	h.mu.Unlock()
	defer p.wg.Done()
	defer stop()

	out := p.coder.Buffer(len(h.want.b))
	h.want.why.add(h.want.index, errSlow)
	ok := p.gather(ctx, &h.want, out, nil)

	h.mu.Lock()
	defer h.mu.Unlock()
	defer close(h.started)
	switch {
	case ok && !h.unwanted:
		h.out = out
		if !h.over {
			h.cancel()
		}
		return
	case !h.over:
		h.phase = giveUp
		h.timer.Reset(max(p.config.Timeout-time.Since(start), 0))
	}
	p.coder.Free(out)
}

// aboutShard reports whether an error says something of one shard only.
func aboutShard(err error) bool {
	return errors.Is(err, chunk.ErrNotExist) || errors.Is(err, chunk.ErrCorrupt) || errors.Is(err, errShort)
}
