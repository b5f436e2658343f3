package repair

import (
	"context"
	"sync"
	"time"
)

// A rate bounds bytes a second. Its zero value does not.
type rate struct {
	perSecond int64

	mu   sync.Mutex
	next time.Time // when the next bytes may go; guarded by mu
}

// wait returns when n more bytes may go.
func (r *rate) wait(ctx context.Context, n int64) error {
	if r.perSecond <= 0 {
		return ctx.Err()
	}
	r.mu.Lock()
	now := time.Now()
	at := r.next
	if at.Before(now) {
		at = now
	}
	r.next = at.Add(time.Duration(float64(n) / float64(r.perSecond) * float64(time.Second)))
	r.mu.Unlock()
	timer := time.NewTimer(at.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
