package node

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"dos/meta/lock"
	"dos/meta/state"
)

// awaitMax is how long an answer to lock.OpAwait is held back: short enough that
// a client which waits through a leader that nobody follows any more hears
// nothing for a few seconds at most.
const awaitMax = 2 * time.Second

// await answers lock.OpAwait when there is news or awaitMax is over.
func (n *Node) await(ctx context.Context, cmd state.Command) (state.Reply, error) {
	var req lock.Await
	known := state.Unmarshal(cmd.Body, &req) == nil
	key := lock.AwaitKey(req.Session)
	late := time.NewTimer(awaitMax)
	defer late.Stop()
	for {
		var reply state.Reply
		var seen uint64
		err := n.replica.View(ctx, func(r state.Reader) error {
			reply = n.machine.Answer(r, cmd)
			seen = n.rows.sum(r, key)
			return nil
		})
		if err != nil || !known || reply.Err() != nil {
			return reply, err
		}
		var now lock.Waiting
		if state.Unmarshal(reply.Body, &now) != nil || now.Grants != req.Seen {
			return reply, nil
		}
		w := n.rows.add(key, seen)
		select {
		case <-w.changed:
		case <-late.C:
			n.rows.remove(w)
			return reply, nil
		case <-ctx.Done():
			n.rows.remove(w)
			return state.Reply{}, context.Cause(ctx)
		}
	}
}

// A watch tells those who wait for rows to change. One look at the state each
// time it has moved serves all of them.
type watch struct {
	seed maphash.Seed
	came chan struct{} // of one: somebody waits now

	mu   sync.Mutex
	rows map[string][]*watcher // by key; guarded by mu
}

// A watcher waits for one row.
type watcher struct {
	key     string
	seen    uint64        // the sum of the row as the waiter knows it
	changed chan struct{} // closed when it is another
}

func newWatch() *watch {
	return &watch{seed: maphash.MakeSeed(), came: make(chan struct{}, 1), rows: make(map[string][]*watcher)}
}

// sum stands for what a row holds; 0 if there is none.
func (w *watch) sum(r state.Reader, key []byte) uint64 {
	val, ok := r.Get(key)
	if !ok {
		return 0
	}
	return maphash.Bytes(w.seed, val) | 1
}

func (w *watch) add(key []byte, seen uint64) *watcher {
	one := &watcher{string(key), seen, make(chan struct{})}
	w.mu.Lock()
	w.rows[one.key] = append(w.rows[one.key], one)
	w.mu.Unlock()
	select {
	case w.came <- struct{}{}: // the row may have changed since it was seen
	default:
	}
	return one
}

func (w *watch) remove(one *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keep(one.key, func(each *watcher) bool { return each != one })
}

// keep removes the watchers of a row that are not to be kept.
func (w *watch) keep(key string, is func(*watcher) bool) {
	left := slices.DeleteFunc(w.rows[key], func(one *watcher) bool { return !is(one) })
	if len(left) > 0 {
		w.rows[key] = left
	} else {
		delete(w.rows, key)
	}
}

// tell tells those whose row is another in r.
func (w *watch) tell(r state.Reader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.rows {
		now := w.sum(r, []byte(key))
		w.keep(key, func(one *watcher) bool {
			if one.seen == now {
				return true
			}
			close(one.changed)
			return false
		})
	}
}

func (w *watch) empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.rows) == 0
}

// watchRows looks at the state as long as somebody waits for it.
func (n *Node) watchRows(ctx context.Context) {
	for {
		moved := n.replica.Moved() // before looking, so that nothing is missed
		if n.rows.empty() {
			moved = nil
		} else if err := n.replica.Local(func(r state.Reader) error { n.rows.tell(r); return nil }); err != nil && !unavailable(err) {
			n.log.Warn("meta: looking for rows that changed", "err", err)
		}
		select {
		case <-moved:
		case <-n.rows.came:
		case <-ctx.Done():
			return
		}
	}
}
