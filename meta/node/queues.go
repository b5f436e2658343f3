package node

import (
	"context"
	"time"

	"dos/meta"
	"dos/meta/queue"
)

const (
	// queuesEvery is how late what is due in queues may be.
	queuesEvery = 50 * time.Millisecond
	// queueRows bounds what one command does of it.
	queueRows = 512
	// queueLag is more than the time of a command is before it is applied: a timer
	// that is set has no earlier time than this before it is seen here.
	queueLag = time.Minute
)

// tendQueues does, while this member leads, what is due in queues.
func (n *Node) tendQueues(ctx context.Context) {
	tick := time.NewTicker(queuesEvery)
	defer tick.Stop()
	var from time.Time // nothing was due before
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if _, leads := n.replica.Leads(); !leads {
			from = time.Time{}
			continue
		}
		now := time.Now()
		due := queue.Due{Now: meta.At(now)}
		if !from.IsZero() {
			due.From = meta.At(from)
		}
		var work queue.Work
		err := n.Local(queue.OpDue, due, &work)
		if err == nil && work.Tick {
			err = n.Call(ctx, queue.OpTick, queue.Bound{Limit: queueRows}, nil)
		} else if err == nil {
			from = now.Add(-queueLag)
		}
		if err == nil && work.Sweep {
			err = n.Call(ctx, queue.OpSweep, queue.Bound{Limit: queueRows}, nil)
		}
		if err != nil && ctx.Err() == nil && !unavailable(err) {
			n.log.Warn("meta: what is due in queues", "err", err)
		}
	}
}
