package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/queue"
	"dos/meta/session"
	"dos/meta/state"
)

// A role is what a unit is for its queue.
type role int

const (
	filling   role = iota // it is given what the primary has
	following             // it is the backup
	taking                // it was, and has itself made the primary: it takes nothing any more
	leading               // it is the primary
	stopped               // it is nothing any more
)

// A unit is a queue that is held here.
type unit struct {
	holder *Holder
	id     uint64
	name   string
	begun  uint64

	still sync.RWMutex // held for writing while the queue stands still

	mu    sync.Mutex
	role  role           // guarded by mu, as all below
	epoch uint64         // of the home by which it is that
	store *state.Overlay // after index commands
	index uint64
	time  int64 // of the last command, in ns since 1970
	size  int64 // of the store, as the Holder has counted it
	heard time.Duration
	whom  meta.SessionID // the primary that it follows
	from  meta.Time      // nothing was due before

	// Of a primary:
	ready  time.Duration // it answers from then on
	acked  uint64        // the backup has so many commands, or there is none
	link   *link         // to the backup, or to one that is to be; nil: there is none
	waits  []wait        // for acked, in order
	news   map[string][]*watcher
	tries  int       // to find a backup
	moves  bool      // it is about to be the primary
	lost   uint64    // how often the queue was,
	lostAt meta.Time // and when last
}

// A wait is for a number of commands to be acknowledged. done is told whether they were.
type wait struct {
	index uint64
	done  chan bool
}

func newUnit(h *Holder, id uint64, name string, begun uint64) *unit {
	return &unit{holder: h, id: id, name: name, begun: begun, store: state.NewOverlay(nil), news: make(map[string][]*watcher), heard: now()}
}

// stop ends what the unit is. Who waits for it hears that it is not known how that
// ended.
func (u *unit) stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.halt()
}

// halt is stop. u.mu is held.
func (u *unit) halt() {
	u.role = stopped
	if u.link != nil {
		u.link.end()
		u.link = nil
	}
	for _, w := range u.waits {
		w.done <- false
	}
	u.waits = nil
	for key, list := range u.news {
		for _, w := range list {
			close(w.changed)
		}
		delete(u.news, key)
	}
	u.holder.size.Add(-u.size)
	u.size = 0
}

// measure counts what the store has. u.mu is held.
func (u *unit) measure() {
	count, size := u.store.Size()
	is := int64(size) + int64(count)*rowSize
	u.holder.size.Add(is - u.size)
	u.size = is
}

// errUnknown says that a command may have been executed.
var errUnknown = fmt.Errorf("the machine that held the queue has lost it: %w", meta.Unavailable)

// execute executes a command, and answers when the backup has it.
func (u *unit) execute(ctx context.Context, cmd state.Command) (state.Reply, error) {
	u.still.RLock()
	defer u.still.RUnlock()
	return u.apply(ctx, cmd)
}

func (u *unit) apply(ctx context.Context, cmd state.Command) (state.Reply, error) {
	u.mu.Lock()
	if u.role != leading || now() < u.ready {
		u.mu.Unlock()
		return state.Reply{}, errElsewhere
	}
	if (u.holder.full() || u.link != nil && u.link.full) && u.holder.machine.Adds(cmd) {
		u.mu.Unlock()
		return state.Reply{}, fmt.Errorf("queue %q: the machines that hold it have no more memory for queues, %d bytes are in use here: %w", u.name, u.holder.size.Load(), meta.NoSpace)
	}
	u.time = max(u.time+1, time.Now().UnixNano())
	cmd.Time = u.time
	reply := u.holder.machine.Apply(u.store, cmd)
	u.index++
	u.measure()
	if u.link != nil {
		u.link.add(cmd)
	}
	if u.link == nil || !u.link.inSync {
		u.acked = u.index
		u.tell()
	}
	done := u.await(u.index)
	u.mu.Unlock()
	return reply, u.confirmed(ctx, done)
}

// await returns what tells when so many commands are acknowledged; nil if they are.
// u.mu is held.
func (u *unit) await(index uint64) chan bool {
	if u.acked >= index {
		return nil
	}
	w := wait{index, make(chan bool, 1)}
	u.waits = append(u.waits, w)
	return w.done
}

// confirmed waits for what await returned, and that this is still who is to answer.
func (u *unit) confirmed(ctx context.Context, done chan bool) error {
	if done != nil {
		select {
		case ok := <-done:
			if !ok {
				return errUnknown
			}
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errUnknown, context.Cause(ctx))
		}
	}
	u.mu.Lock()
	single := u.link == nil || !u.link.inSync
	u.mu.Unlock()
	if single && !u.holder.cfg.Valid() {
		return errUnknown
	}
	return nil
}

// settled notes that the backup has so many commands. u.mu is held.
func (u *unit) settled(index uint64) {
	if index <= u.acked {
		return
	}
	u.acked = index
	n := 0
	for n < len(u.waits) && u.waits[n].index <= index {
		u.waits[n].done <- true
		n++
	}
	u.waits = slices.Delete(u.waits, 0, n)
	u.tell()
}

// answer answers a question. One whose answer is held back waits for news.
func (u *unit) answer(ctx context.Context, q state.Command) (state.Reply, error) {
	hold, holds := heldBack[q.Op]
	if !holds {
		reply, _, err := u.ask(ctx, q, nil)
		return reply, err
	}
	key := hold.key(q.Body)
	late := time.NewTimer(awaitMax)
	defer late.Stop()
	for {
		reply, w, err := u.ask(ctx, q, key)
		if err != nil || w == nil || reply.Err() != nil || hold.news(q.Body, reply.Body) {
			u.forget(w)
			return reply, err
		}
		select {
		case <-w.changed:
		case <-late.C:
			u.forget(w)
			return reply, nil
		case <-ctx.Done():
			u.forget(w)
			return state.Reply{}, context.Cause(ctx)
		}
	}
}

// ask answers a question from what the backup has too. With a key it returns what
// tells when that row changes.
func (u *unit) ask(ctx context.Context, q state.Command, key []byte) (state.Reply, *watcher, error) {
	u.mu.Lock()
	if u.role != leading || now() < u.ready {
		u.mu.Unlock()
		return state.Reply{}, nil, errElsewhere
	}
	reply := u.holder.machine.Answer(u.store, q)
	if q.Op == queue.OpStatus && reply.Kind == 0 {
		reply = u.status(reply)
	}
	var w *watcher
	if key != nil {
		w = u.watch(key)
	}
	done := u.await(u.index)
	u.mu.Unlock()
	err := u.confirmed(ctx, done)
	if err == nil {
		err = u.sure(ctx)
	}
	if err != nil {
		u.forget(w)
		return state.Reply{}, nil, err
	}
	return reply, w, nil
}

// sure returns when no other can have become the primary meanwhile.
func (u *unit) sure(ctx context.Context) error {
	asked := now()
	for {
		u.mu.Lock()
		leads, l := u.role == leading, u.link
		var answered <-chan struct{}
		fine := l == nil || !l.inSync || asked-l.lease <= leaseTime
		if !fine {
			answered = l.beat()
		}
		u.mu.Unlock()
		switch {
		case !leads:
			return errUnknown
		case fine:
			return nil
		}
		select {
		case <-answered:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errUnknown, context.Cause(ctx))
		}
	}
}

// status adds to what a queue says of itself who holds it. u.mu is held.
func (u *unit) status(reply state.Reply) state.Reply {
	var st queue.Status
	state.MustUnmarshal(reply.Body, &st)
	st.Settings.Memory = true
	me := u.holder.cfg
	st.Home = &queue.Home{Queue: u.id, Name: u.name, Epoch: u.epoch, Begun: u.begun, Primary: queue.Holder{Session: me.Session, Node: me.Node, Addr: me.Addr}, Lost: u.lost, LostAt: u.lostAt}
	if u.link != nil && u.link.inSync {
		st.Home.Backup = u.link.to
	}
	reply.Body = state.Marshal(st)
	return reply
}

// look does what is due: in the queue, or because nothing was heard of its primary.
func (u *unit) look(ctx context.Context) {
	u.mu.Lock()
	var work queue.Work
	at := time.Now()
	switch u.role {
	case leading:
		reply := u.holder.machine.Answer(u.store, state.Command{Op: queue.OpDue, Body: state.Marshal(queue.Due{From: u.from, Now: meta.At(at)})})
		state.MustUnmarshal(reply.Body, &work)
		if !work.Tick {
			u.from = meta.At(at.Add(-time.Minute)) // more than commands' times differ from ours
		}
	case following, taking:
		if now()-u.heard > takeOver && !u.moves {
			u.moves, u.role = true, taking
			u.mu.Unlock()
			u.holder.start(ctx, u.take)
			return
		}
	}
	u.mu.Unlock()
	bound := state.Marshal(queue.Bound{Limit: dueRows})
	if !work.Tick && !work.Sweep || !u.still.TryRLock() {
		return
	}
	defer u.still.RUnlock()
	if work.Tick {
		_, _ = u.apply(ctx, state.Command{Op: queue.OpTick, Body: bound}) // else it is due still
	}
	if work.Sweep {
		_, _ = u.apply(ctx, state.Command{Op: queue.OpSweep, Body: bound})
	}
}

// dueRows bounds what one command does of what is due.
const dueRows = 512

// users adds the sessions that have something here.
func (u *unit) users(used map[meta.SessionID]bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.role != leading {
		return
	}
	for _, s := range append(queue.Sessions(u.store), state.SlotSessions(u.store)...) {
		used[s] = true
	}
}

// release gives back what sessions had that are over.
func (u *unit) release(ctx context.Context, over map[meta.SessionID]bool) {
	if !u.still.TryRLock() {
		return // it is tried again
	}
	defer u.still.RUnlock()
	mine := make(map[meta.SessionID]bool)
	u.users(mine)
	for s := range mine {
		for more := over[s]; more && ctx.Err() == nil; {
			reply, err := u.apply(ctx, state.Command{Op: session.OpEnd, Body: state.Marshal(session.End{ID: s})})
			if err != nil || reply.Err() != nil {
				break // it is tried again
			}
			var ended session.Ended
			state.MustUnmarshal(reply.Body, &ended)
			more = ended.More
		}
	}
}

// A watcher waits for one row to change.
type watcher struct {
	key     string
	val     []byte // as the waiter knows it; nil: there is none
	changed chan struct{}
}

// watch returns what tells when a row changes. u.mu is held.
func (u *unit) watch(key []byte) *watcher {
	val, _ := u.store.Get(key)
	w := &watcher{string(key), val, make(chan struct{})}
	u.news[w.key] = append(u.news[w.key], w)
	return w
}

func (u *unit) forget(w *watcher) {
	if w == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.keep(w.key, func(one *watcher) bool { return one != w })
}

// keep removes the watchers of a row that are not to be kept. u.mu is held.
func (u *unit) keep(key string, is func(*watcher) bool) {
	left := slices.DeleteFunc(u.news[key], func(one *watcher) bool { return !is(one) })
	if len(left) > 0 {
		u.news[key] = left
	} else {
		delete(u.news, key)
	}
}

// tell tells those whose row is another. u.mu is held.
func (u *unit) tell() {
	for key := range u.news {
		val, _ := u.store.Get([]byte(key))
		u.keep(key, func(one *watcher) bool {
			if bytes.Equal(one.val, val) {
				return true
			}
			close(one.changed)
			return false
		})
	}
}
