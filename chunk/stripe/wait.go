package stripe

import (
	"context"
	"time"
)

// lookEvery is how often a call that waits for stores tries them without having
// heard of a change: one that failed for another reason than being away has
// nobody to tell that it works again.
const lookEvery = time.Second

// changed is the channel of the next change in the cluster, or nil if nobody tells.
func (p *Path) changed() <-chan struct{} {
	if p.config.Changed == nil {
		return nil
	}
	return p.config.Changed()
}

// wait waits for a change, or for so long that another attempt is in order. It
// reports whether there is to be one.
func (p *Path) wait(ctx context.Context, changed <-chan struct{}) bool {
	if changed == nil || ctx.Err() != nil {
		return false
	}
	look := time.NewTimer(lookEvery)
	defer look.Stop()
	select {
	case <-changed:
	case <-look.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
