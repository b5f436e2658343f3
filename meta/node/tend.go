package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/namespace"
	"dos/meta/session"
	"dos/meta/state"
)

const (
	// purgeRows bounds the rows that one Purge removes: well under a
	// transaction's, and short enough that others' commands wait little.
	purgeRows = 1024
	// tendBatch is how many inodes or sessions are looked at once.
	tendBatch = 256
	// tendEvery is the pause between two looks at a state that moves.
	tendEvery = 100 * time.Millisecond
	// tendRetry is the pause after something went wrong.
	tendRetry = 5 * time.Second
)

// Run does, while this member leads, what commands left to be done in bounded
// steps: removing the contents of deleted inodes, and giving up what ended
// sessions held. It ends sessions that were not renewed in time, as those are not
// that do not give back a lease that others wait for. It tells those who wait for
// the state to change, and does what is due in queues, and
// has tasks assigned to machines. It returns nil when ctx ends.
func (n *Node) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { n.expire(ctx) })
	wg.Go(func() { n.watchLeases(ctx) })
	wg.Go(func() { n.watchRows(ctx) })
	wg.Go(func() { n.tendQueues(ctx) })
	wg.Go(func() { n.tendTasks(ctx) })
	n.work(ctx)
	return nil
}

// work tends to the state each time it has moved.
func (n *Node) work(ctx context.Context) {
	for {
		moved := n.replica.Moved() // before looking, so that nothing is missed
		pause := tendEvery
		if err := n.tend(ctx); err != nil && ctx.Err() == nil {
			pause = tendRetry
			if !unavailable(err) {
				n.log.Warn("meta: work in the background failed, will be tried again", "err", err)
			}
		} else {
			select {
			case <-moved:
			case <-ctx.Done():
				return
			}
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// tend does what there is to do now.
func (n *Node) tend(ctx context.Context) error {
	if _, leads := n.replica.Leads(); !leads {
		return nil
	}
	if err := n.purge(ctx); err != nil {
		return err
	}
	return n.endSessions(ctx)
}

// purge empties the purge queue.
func (n *Node) purge(ctx context.Context) error {
	var after meta.Ino
	for {
		var queue namespace.PurgingReply
		if err := n.Local(namespace.OpPurging, namespace.After{After: after, Limit: tendBatch}, &queue); err != nil {
			return err
		}
		for _, ino := range queue.Inos {
			after = ino
			for more := true; more; {
				var err error
				if more, err = (client.Stripes{Caller: n}).Purge(ctx, ino, purgeRows); err != nil {
					return fmt.Errorf("purge inode %d: %w", ino, err)
				}
			}
		}
		if !queue.More || len(queue.Inos) == 0 {
			return nil
		}
	}
}

// endSessions goes on with sessions whose end was begun.
func (n *Node) endSessions(ctx context.Context) error {
	var ending []meta.SessionID
	if err := n.eachSession(func(s session.Info) {
		if s.Ending {
			ending = append(ending, s.ID)
		}
	}); err != nil {
		return err
	}
	for _, id := range ending {
		if err := (client.Session{Caller: n}).End(ctx, id); err != nil {
			return fmt.Errorf("end session %d: %w", id, err)
		}
	}
	return nil
}

// Local answers a query from what is applied here, which costs nobody anything. It
// may be behind what was answered elsewhere: background work that misses something
// finds it at the next move.
func (n *Node) Local(op state.Op, req, resp any) error {
	var reply state.Reply
	if err := n.replica.Local(func(r state.Reader) error {
		reply = n.machine.Answer(r, state.Command{Op: op, Body: state.Marshal(req)})
		return nil
	}); err != nil {
		return err
	}
	if err := reply.Err(); err != nil {
		return err
	}
	return state.Unmarshal(reply.Body, resp)
}
