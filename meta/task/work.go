package task

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"dos/meta"
	"dos/meta/state"
)

// A work is one command: rows that many decisions touch are read once and written at
// the end.
type work struct {
	tx  *state.Tx
	now meta.Time
	c   counters

	dir      []levelKey // with lanes, in order
	dirRead  bool
	dirMoved bool
	levels   map[levelKey]*level
	stirred  bool // something that a pass which is under way may not have seen
	nodes    map[string]*used
	accounts map[[2]uint32]*account
	queues   map[uint32]*running
	rules    map[uint32]*queueRow
	feeds    map[meta.SessionID]uint64
	arrays   map[uint64]*row // that have changed
}

func begin(tx *state.Tx) *work {
	w := &work{
		tx: tx, now: meta.At(tx.Now), levels: make(map[levelKey]*level), nodes: make(map[string]*used), accounts: make(map[[2]uint32]*account),
		queues: make(map[uint32]*running), rules: make(map[uint32]*queueRow), feeds: make(map[meta.SessionID]uint64), arrays: make(map[uint64]*row),
	}
	w.c = readCounters(tx)
	return w
}

func readCounters(r state.Reader) (c counters) {
	read(r, counterKey, &c)
	if len(c.Counts) < int(states) {
		c.Counts = append(c.Counts, make([]int64, int(states)-len(c.Counts))...)
	}
	c.Chore, c.Chores, c.Ended, c.Ends = max(c.Chore, 1), max(c.Chores, 1), max(c.Ended, 1), max(c.Ends, 1)
	return c
}

// done writes what is kept. Order does not matter for what is written, but for which
// row over the limits is named.
func (w *work) done() {
	for _, job := range slices.Sorted(maps.Keys(w.arrays)) {
		w.settle(ID{Job: job}, w.arrays[job])
	}
	if w.dirMoved {
		var all []byte
		for _, k := range w.dir {
			all = append(all, k...)
		}
		w.tx.Set(levelsKey, all)
	}
	for _, k := range slices.Sorted(maps.Keys(w.levels)) {
		if l := w.levels[k]; len(l.Lanes) > 0 {
			w.tx.Set(levelRowKey(k), state.Marshal(l))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		if u := w.nodes[name]; len(u.Runs) > 0 {
			w.tx.Set(usedKey(name), state.Marshal(u))
		} else if has(w.tx, usedKey(name)) {
			w.tx.Delete(usedKey(name))
		}
	}
	byPair := func(a, b [2]uint32) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) }
	for _, k := range slices.SortedFunc(maps.Keys(w.accounts), byPair) {
		w.tx.Set(accountKey(k[0], k[1]), state.Marshal(w.accounts[k]))
	}
	for _, id := range slices.Sorted(maps.Keys(w.queues)) {
		w.tx.Set(short('k', id), state.Marshal(w.queues[id]))
	}
	for _, s := range slices.Sorted(maps.Keys(w.feeds)) {
		w.tx.Set(key('w', uint64(s)), state.Marshal(w.feeds[s]))
	}
	w.tx.Set(counterKey, state.Marshal(w.c))
}

// stir says that something may begin that could not.
func (w *work) stir() { w.c.Dirty, w.stirred = true, true }

// task returns a task's row for a change, which put writes: an element that was bare is
// so no more.
func (w *work) task(id ID) (*row, error) {
	if id.Place == 0 {
		if r := w.arrays[id.Job]; r != nil {
			return r, nil
		}
	}
	r, bare, ok := find(w.tx, id)
	switch {
	case !ok:
		return nil, fmt.Errorf("task %v: %w", id, meta.NotExist)
	case bare:
		all := w.array(id)
		r = all.element()
		i, _ := id.Index()
		r.Lane = contains(all.Array.Ready, uint32(i))
		all.Array.Bare--
		w.tx.Set(stateKey(r.State, id), []byte{})
	case r.Array != nil:
		w.arrays[id.Job] = r // there is one of it, whoever changes it
	}
	return r, nil
}

// array returns the row of a task's array, which is written in the end.
func (w *work) array(id ID) *row {
	r := w.arrays[id.Job]
	if r == nil {
		r = new(row)
		if !read(w.tx, taskKey(id.Array()), r) || r.Array == nil {
			panic(fmt.Sprintf("task: %v is of no array", id))
		}
		w.arrays[id.Job] = r
	}
	return r
}

// put writes a task after a change: what it is, is what is seen in the indices and lanes.
func (w *work) put(id ID, r *row) {
	if r.Array != nil {
		w.arrays[id.Job] = r // in the end
		return
	}
	w.settle(id, r)
}

func (w *work) settle(id ID, r *row) {
	r.Version++
	if r.Array != nil && r.Final == 0 && r.Array.ended() {
		w.final(id, r, r.Array.outcome(), r.Reason)
	}
	w.index(id, r)
	if may := r.ready(w.now); may != r.Lane {
		w.line(id, r, may)
	}
	w.tx.Set(taskKey(id), state.Marshal(r))
}

// is is the state of a task.
func (r *row) is() State {
	switch {
	case r.Final != 0:
		return r.Final
	case r.Array != nil && (r.Array.Active > 0 || r.Array.Counts[Running] > 0):
		return Running
	case r.Attempt != nil && r.Attempt.Claimed:
		return Running
	case r.Held && r.Attempt == nil:
		return Held
	}
	return Pending
}

// ready reports whether a task may begin, if there is room for it.
func (r *row) ready(now meta.Time) bool {
	if r.Final != 0 || r.Held || r.Waits > 0 || r.Due > now || r.Attempt != nil {
		return false
	}
	return r.Array == nil || len(r.Array.Ready) > 0 && (r.Array.Throttle == 0 || r.Array.Active < r.Array.Throttle)
}

func (a *array) ended() bool {
	for _, s := range []State{Held, Pending, Running} {
		if a.Counts[s] > 0 {
			return false
		}
	}
	return true
}

// outcome is the state of an array that has ended: the worst of its elements.
func (a *array) outcome() State {
	for _, s := range []State{Failed, Lost, Cancelled} {
		if a.Counts[s] > 0 {
			return s
		}
	}
	return Done
}

// index keeps what is known of states.
func (w *work) index(id ID, r *row) {
	now := r.is()
	if now == r.State {
		return
	}
	switch {
	case id.Place != 0:
		all := w.array(id)
		all.Array.Counts[r.State]--
		all.Array.Counts[now]++
		w.c.Counts[r.State]--
		w.c.Counts[now]++
	case r.Array == nil:
		if r.State != 0 {
			w.c.Counts[r.State]--
		}
		w.c.Counts[now]++
	}
	if r.State != 0 {
		w.tx.Delete(stateKey(r.State, id))
	}
	w.tx.Set(stateKey(now, id), []byte{})
	r.State = now
	e := Event{ID: id, State: now, Text: r.Reason}
	if now == Running || now.Ended() {
		e.Node = r.Node
	}
	w.event(e)
}

func (w *work) event(e Event) {
	w.c.Event++
	e.Seq, e.Time = w.c.Event, w.now
	w.tx.Set(key('E', e.Seq), state.Marshal(e))
	w.tx.Set(eventsKey, state.Marshal(e.Seq))
	if e.Seq > EventsMax {
		w.tx.Delete(key('E', e.Seq-EventsMax))
	}
}

// account returns that of a user in a partition.
func (w *work) account(queue, uid uint32) *account {
	k := [2]uint32{queue, uid}
	a := w.accounts[k]
	if a == nil {
		a = new(account)
		read(w.tx, accountKey(queue, uid), a)
		w.accounts[k] = a
	}
	return a
}

// running returns what a partition runs.
func (w *work) running(queue uint32) *running {
	q := w.queues[queue]
	if q == nil {
		q = new(running)
		read(w.tx, short('k', queue), q)
		w.queues[queue] = q
	}
	return q
}

// node returns what runs on a machine.
func (w *work) node(name string) *used {
	u := w.nodes[name]
	if u == nil {
		u = new(used)
		read(w.tx, usedKey(name), u)
		w.nodes[name] = u
	}
	return u
}

// news says that an attempt has something new for its machine.
func (w *work) news(id ID, a *attempt) {
	v, ok := w.feeds[a.Session]
	if !ok {
		read(w.tx, key('w', uint64(a.Session)), &v)
	}
	v++
	w.feeds[a.Session] = v
	if a.Version != 0 {
		w.tx.Delete(orderKey(a.Session, a.Version))
	}
	a.Version = v
	w.tx.Set(orderKey(a.Session, v), withID(nil, id))
}

// wake sets when something is due of a task.
func (w *work) wake(id ID, r *row, at meta.Time) {
	w.sleep(id, r)
	r.Due = at
	w.tx.Set(timerKey(at, id), []byte{})
	if w.c.Next == 0 || at < w.c.Next {
		w.c.Next = at
	}
}

// sleep takes the task's timer away.
func (w *work) sleep(id ID, r *row) {
	if r.Due != 0 {
		w.tx.Delete(timerKey(r.Due, id))
		r.Due = 0
	}
}

// levelKeys reads the levels that have lanes.
func levelKeys(r state.Reader) (dir []levelKey) {
	all, _ := r.Get(levelsKey)
	for ; len(all) > 0; all = all[idSize:] {
		dir = append(dir, levelKey(all[:idSize]))
	}
	return dir
}
