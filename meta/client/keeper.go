package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"dos/internal/boottime"
	"dos/meta"
	"dos/meta/session"
)

const (
	// SessionTTL is the time to live of a client's session: long enough for a new
	// leader to be found, short enough that what a dead client held is free soon.
	SessionTTL = 15 * time.Second
	// renewals is how many renewals fit into a session's time to live.
	renewals = 3
	// trustMargin is how long before its end a session is not relied on any more,
	// for clocks that run at different speeds and requests that are on their way.
	trustMargin = 3 * time.Second
)

// A Keeper renews a session.
type Keeper struct {
	caller Caller
	info   session.Info
	clock  func() time.Duration
	until  atomic.Int64 // a time.Duration of clock
	look   chan struct{}

	mu   sync.Mutex
	news chan struct{} // closed at the next renewal; guarded by mu
}

// NewKeeper returns a Keeper of a session that was opened with a ttl, by a
// request that was sent when boottime.Now was at opened.
func NewKeeper(c Caller, info session.Info, opened time.Duration) *Keeper {
	k := &Keeper{caller: c, info: info, clock: boottime.Now, look: make(chan struct{}, 1)}
	k.trust(opened)
	return k
}

// trust notes that the service knew of the session at or after sent.
func (k *Keeper) trust(sent time.Duration) {
	k.until.Store(int64(sent + k.info.TTL - trustMargin))
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.news != nil {
		close(k.news)
		k.news = nil
	}
}

// listen returns a channel that is closed at the next renewal.
func (k *Keeper) listen() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.news == nil {
		k.news = make(chan struct{})
	}
	return k.news
}

// Look has Run renew the session now: there are signs that it is over.
func (k *Keeper) Look() {
	select {
	case k.look <- struct{}{}:
	default:
	}
}

// Valid reports whether the session is certainly not over. While it is not
// valid, what the session holds may belong to others.
func (k *Keeper) Valid() bool { return k.Left() > 0 }

// Left is how long the session stays valid without a renewal; 0 or less if it is
// not.
func (k *Keeper) Left() time.Duration { return time.Duration(k.until.Load()) - k.clock() }

// Run renews the session until ctx ends, and then returns nil. It returns
// meta.Expired when the session is over.
func (k *Keeper) Run(ctx context.Context) error {
	every := k.info.TTL / renewals
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-k.look:
		case <-ctx.Done():
			return nil
		}
		sent := k.clock()
		attempt, cancel := context.WithTimeout(ctx, every)
		err := k.caller.Call(attempt, session.OpRenew, session.Ask{ID: k.info.ID}, nil)
		cancel()
		switch {
		case err == nil:
			k.trust(sent)
		case errors.Is(err, meta.Expired):
			return err
		}
	}
}
