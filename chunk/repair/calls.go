package repair

import (
	"context"
	"errors"
	"sync"
	"time"

	"dos/chunk"
)

const (
	// tardy is how long a store may take for a call before others are asked, and
	// before it counts as slow.
	tardy = time.Second
	// afterTardy is how long a slow store is asked only if there is no other, and
	// is waited for no longer than tardy when it is looked at.
	afterTardy = 10 * time.Second
	// linger is how long a store may take to return from a call that has ended.
	linger = 100 * time.Millisecond
)

var (
	errAway = errors.New("store is away")
	errSlow = errors.New("no answer in time")
	// errStuck is errSlow of a store that does not return from the call, and may
	// still use the memory that it was given.
	errStuck = &stuckError{}
)

type stuckError struct{}

func (*stuckError) Error() string   { return "no answer in time, and none when asked to stop" }
func (*stuckError) Is(e error) bool { return e == errSlow }

// patience knows which stores are slow. A store in a network can be slow in many
// ways, and no worker is to wait for one for long, or again and again.
type patience struct {
	calls sync.WaitGroup // all calls, also those that nobody waits for any more

	mu     sync.Mutex
	slow   map[chunk.StoreID]time.Time // until when; guarded by mu
	silent map[chunk.StoreID]time.Time // until when it is not asked, having let a call time out; guarded by mu
	stuck  map[chunk.StoreID]int       // calls that it does not return from; guarded by mu
}

func (p *patience) init() {
	p.slow, p.silent = make(map[chunk.StoreID]time.Time), make(map[chunk.StoreID]time.Time)
	p.stuck = make(map[chunk.StoreID]int)
}

// isSlow reports whether others are to be asked before that store.
func (p *patience) isSlow(id chunk.StoreID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stuck[id] > 0 || time.Now().Before(p.slow[id]) || time.Now().Before(p.silent[id])
}

// isSilent reports whether that store is not to be asked at all.
func (p *patience) isSilent(id chunk.StoreID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stuck[id] > 0 || time.Now().Before(p.silent[id])
}

func (p *patience) took(id chunk.StoreID, d time.Duration, timedOut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case timedOut:
		p.silent[id] = time.Now().Add(afterTardy)
	case d >= tardy:
		p.slow[id] = time.Now().Add(afterTardy)
	default:
		delete(p.slow, id)
		delete(p.silent, id)
	}
}

// ask makes one call of a store: errAway if it does not live, errSlow if it does
// not answer within limit, or has just not answered. If the error is errStuck
// the call is still using what do refers to.
func (r *Repairer) ask(ctx context.Context, id chunk.StoreID, limit time.Duration, do func(context.Context, chunk.Store) error) error {
	s, live := r.config.Cluster.Store(id)
	if !live {
		r.missed(id)
		return errAway
	}
	p := &r.patience
	if p.isSilent(id) {
		return errSlow
	}
	call, cancel := context.WithTimeoutCause(ctx, limit, errSlow)
	defer cancel()
	begun := time.Now()
	done := make(chan error, 1)
	p.calls.Go(func() { done <- do(call, s) })
	var err error
	select {
	case err = <-done:
	case <-call.Done():
		timer := time.NewTimer(linger)
		defer timer.Stop()
		select {
		case err = <-done:
		case <-timer.C:
			p.leave(id, done)
			err = errStuck
		}
	}
	switch {
	case err == nil:
	case ctx.Err() != nil && err != errStuck: // not the store's fault
		return ctx.Err()
	case err != errStuck && errors.Is(err, context.DeadlineExceeded):
		err = errSlow
	}
	p.took(id, time.Since(begun), errors.Is(err, errSlow) && ctx.Err() == nil)
	return err
}

// leave lets a call be that does not return. Its store is not asked until it does.
func (p *patience) leave(id chunk.StoreID, done <-chan error) {
	p.mu.Lock()
	p.stuck[id]++
	p.mu.Unlock()
	p.calls.Go(func() {
		<-done
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stuck[id]--
	})
}

// glance is how long a store may take to say whether it has a shard.
func (r *Repairer) glance(id chunk.StoreID) time.Duration {
	if r.patience.isSlow(id) {
		return min(tardy, r.config.Slow)
	}
	return r.config.Slow
}
