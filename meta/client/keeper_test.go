package client

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// renewing answers renewals as it is told.
type renewing struct {
	mu    sync.Mutex
	says  error         // guarded by mu
	takes time.Duration // guarded by mu
}

func (r *renewing) Call(ctx context.Context, op state.Op, req, _ any) error {
	if op != session.OpRenew || req != (session.Ask{ID: 7}) {
		return meta.Invalid
	}
	r.mu.Lock()
	says, takes := r.says, r.takes
	r.mu.Unlock()
	time.Sleep(takes)
	return says
}

func (r *renewing) set(says error, takes time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.says, r.takes = says, takes
}

func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := new(renewing)
		k := NewKeeper(r, session.Info{ID: 7, TTL: SessionTTL}, 0)
		k.clock = func() time.Duration { return time.Since(start) }
		ended := make(chan error, 1)
		go func() { ended <- k.Run(t.Context()) }()

		time.Sleep(10 * time.Minute)
		if !k.Valid() {
			t.Error("not valid although every renewal is answered")
		}
		r.set(nil, 4*time.Second) // slow answers count from when they were asked for
		time.Sleep(time.Minute)
		if !k.Valid() {
			t.Error("not valid although every renewal is answered, slowly")
		}
		r.set(meta.Unavailable, 0)
		time.Sleep(SessionTTL - trustMargin - SessionTTL/renewals - time.Second)
		if !k.Valid() {
			t.Error("gives up too early")
		}
		time.Sleep(SessionTTL/renewals + 2*time.Second)
		if k.Valid() {
			t.Error("valid although nothing was heard for the time to live less the margin")
		}
		r.set(nil, 0)
		time.Sleep(SessionTTL / renewals)
		if !k.Valid() {
			t.Error("not valid although it was renewed again")
		}
		r.set(meta.Expired, 0)
		if err := <-ended; !errors.Is(err, meta.Expired) {
			t.Errorf("Run returned %v", err)
		}
	})
}
