package node

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"dos/meta/cache"
	"dos/meta/kv"
	"dos/meta/lock"
	"dos/meta/named"
	"dos/meta/queue"
	"dos/meta/state"
	"dos/meta/task"
)

// awaitMax is how long an answer is held back: short enough that
// a client which waits through a leader that nobody follows any more hears
// nothing for a few seconds at most.
const awaitMax = 2 * time.Second

// heldBack are the queries whose answers are held back until there is news.
var heldBack = map[state.Op]holdBack{
	cache.OpFollow: holding(
		func(cache.Follow) []byte { return cache.FollowKey() },
		func(req cache.Follow, now cache.Overview) bool { return now.Stamp != req.Seen }),
	lock.OpAwait: holding(
		func(req lock.Await) []byte { return lock.AwaitKey(req.Session) },
		func(req lock.Await, now lock.Waiting) bool { return now.Grants != req.Seen }),
	kv.OpFollow: holding(
		func(req kv.Follow) []byte { return kv.FollowKey(req.Table) },
		func(_ kv.Follow, now kv.Changes) bool { return len(now.Changes) > 0 }),
	named.OpAwait: holding(
		func(req named.Await) []byte { return named.AwaitKey(req.Session) },
		func(_ named.Await, now named.Arrived) bool { return len(now.News) > 0 }),
	named.OpFollow: holding(
		func(req named.Follow) []byte { return named.FollowKey(req.Name) },
		func(req named.Follow, now named.Info) bool { return now.Version != req.Seen }),
	queue.OpAwait: holding(queue.AwaitKey, func(_ queue.Await, now queue.Waiting) bool { return !now.Still }),
	queue.OpHomes: holding(
		func(queue.Homes) []byte { return queue.HomesKey() },
		func(req queue.Homes, now queue.HomeList) bool { return now.Version != req.Seen }),
	queue.OpRoom: holding(queue.RoomKey, func(_ queue.Fit, now queue.Space) bool { return now.Fits }),
	task.OpAwait: holding(task.TaskKey, func(req task.Follow, now task.Task) bool {
		return now.Version != req.Seen || now.State.Ended()
	}),
	task.OpEvents: holding(task.EventsKey, func(_ task.Since, now task.Events) bool { return len(now.List) > 0 }),
	task.OpOrders: holding(task.OrdersKey, func(_ task.Seen, now task.Orders) bool { return len(now.Attempts) > 0 }),
}

// A holdBack says what one query waits for.
type holdBack struct {
	key  func(req []byte) []byte       // the row with which its answer changes; nil if the request is none
	news func(req, answer []byte) bool // whether it is to be answered now
}

func holding[Req, Resp any](key func(Req) []byte, news func(Req, Resp) bool) holdBack {
	return holdBack{
		key: func(body []byte) []byte {
			var req Req
			if state.Unmarshal(body, &req) != nil {
				return nil
			}
			return key(req)
		},
		news: func(body, answer []byte) bool {
			var req Req
			var resp Resp
			return state.Unmarshal(body, &req) != nil || state.Unmarshal(answer, &resp) != nil || news(req, resp)
		},
	}
}

// await answers a query when there is news or awaitMax is over. Only the first look
// asks the other members whether this one leads: it sees all that was answered before
// the query came, and what is applied here later was committed later, so that the state
// then is one that the query may see, whoever leads by now.
func (n *Node) await(ctx context.Context, cmd state.Command, hold holdBack) (state.Reply, error) {
	key := hold.key(cmd.Body)
	late := time.NewTimer(awaitMax)
	defer late.Stop()
	view := func(look func(state.Reader) error) error { return n.replica.View(ctx, look) }
	for {
		var reply state.Reply
		var seen uint64
		err := view(func(r state.Reader) error {
			reply = n.machine.Answer(r, cmd)
			seen = n.rows.sum(r, key)
			return nil
		})
		if err != nil || key == nil || reply.Err() != nil || hold.news(cmd.Body, reply.Body) {
			return reply, err
		}
		view = n.replica.Local
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
