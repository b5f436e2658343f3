package task

import (
	"cmp"
	"container/heap"
	"fmt"
	"maps"
	"slices"

	"dos/meta"
	"dos/meta/state"
)

const (
	// DecideMax bounds the decisions of one command, each of which makes some rows.
	DecideMax = 1024
	// tryMax bounds the lanes that a pass tries in vain. What is beyond has its turn when
	// something before it is out of the way.
	tryMax = 4096
	// workMax bounds the timers, chores and old jobs of one command.
	workMax = 512
)

// schedule does what is due, and then assigns tasks to machines.
func (room Room) schedule(tx *state.Tx, req Bound) (More, error) {
	if req.Limit < 1 || req.Limit > DecideMax {
		return More{}, fmt.Errorf("%d decisions, from 1 to %d: %w", req.Limit, DecideMax, meta.Invalid)
	}
	w := begin(tx)
	w.deaf()
	left := w.forgetOld(w.chores(w.tick(workMax)))
	out := More{More: left <= 0}
	if seen := room.epoch(tx); w.c.Dirty || w.c.Epoch != seen {
		w.c.Epoch = seen
		for _, job := range slices.Sorted(maps.Keys(w.arrays)) { // so that lanes have them
			w.settle(ID{Job: job}, w.arrays[job])
			delete(w.arrays, job)
		}
		w.stirred = false
		p := room.pass(w, req.Limit)
		more := p.run()
		w.c.Dirty = more || w.stirred
		out.Done = p.decided
		out.More = out.More || w.c.Dirty
	}
	w.done()
	return out, nil
}

// tick wakes the tasks that something is due of.
func (w *work) tick(limit int) int {
	if w.c.Next == 0 || w.c.Next > w.now {
		return limit
	}
	var ids []ID
	var keys [][]byte
	from := w.c.Next
	w.c.Next = 0
	for k := range w.tx.Scan(key('T', uint64(from)), state.After(key('T'))) {
		if at := meta.Time(numberAt(k[:10])); at > w.now || len(ids) == limit {
			w.c.Next = at
			break
		}
		ids, keys = append(ids, idAt(k)), append(keys, k)
	}
	for i, id := range ids {
		w.tx.Delete(keys[i])
		r, err := w.task(id)
		if err != nil {
			panic(fmt.Sprintf("task: %v has a timer: %v", id, err))
		}
		r.Due = 0
		w.put(id, r)
	}
	return limit - len(ids)
}

// due is asked often: it looks at few rows.
func (room Room) due(r state.Reader, req Due) (Work, error) {
	c := readCounters(r)
	return Work{c.Dirty || c.Epoch != room.epoch(r) || c.Chore < c.Chores || c.Next != 0 && c.Next <= req.Now ||
		c.Claims != 0 && c.Claims <= req.Now || tooOld(r, c, req.Now)}, nil
}

// A pass decides which tasks begin, and where.
type pass struct {
	room  Room
	w     *work
	limit int

	nodes    []*node // by name
	kept     []kept  // as it was before
	keeps    []kept  // as it will be
	decided  int
	tried    int
	preempts bool // some partition's tasks may have to make room
}

func (room Room) pass(w *work, limit int) *pass {
	p := &pass{room: room, w: w, limit: limit}
	read(w.tx, keptKey, &p.kept)
	p.nodes = room.nodes(w.tx, w.node)
	for _, val := range w.tx.Scan(queueKey(""), state.After(queueKey(""))) {
		var q queueRow
		state.MustUnmarshal(val, &q)
		p.preempts = p.preempts || q.Rules.Preempt != Keep
	}
	return p
}

// run works through the levels, and says whether it stopped before it was through.
func (p *pass) run() (more bool) {
	dir := slices.Clone(p.w.directory())
	for len(dir) > 0 && !more {
		n := 1
		for n < len(dir) && dir[n].prio() == dir[0].prio() {
			n++
		}
		var stop bool
		if more, stop = p.priority(dir[:n]); stop {
			break
		}
		dir = dir[n:]
	}
	if !more && !slices.Equal(p.kept, p.keeps) {
		p.w.tx.Set(keptKey, state.Marshal(p.keeps))
	}
	return more
}

// A turn is a user's place among those of one priority.
type turn struct {
	key   levelKey
	lanes []*lane // the oldest head first
	order int64
	rules *queueRow
}

// A round is the turns, the next first; it is a heap.
type round []*turn

func (r round) Len() int { return len(r) }
func (r round) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(r[i].order, r[j].order), cmp.Compare(r[i].lanes[0].Head.Job, r[j].lanes[0].Head.Job), cmp.Compare(r[i].key, r[j].key)) < 0
}
func (r round) Swap(i, j int) { r[i], r[j] = r[j], r[i] }
func (r *round) Push(x any)   { *r = append(*r, x.(*turn)) }
func (r *round) Pop() any {
	old := *r
	last := old[len(old)-1]
	*r = old[:len(old)-1]
	return last
}

// priority works through the levels of one priority. Stop says that nothing else can begin.
func (p *pass) priority(keys []levelKey) (more, stop bool) {
	w := p.w
	var turns round
	for _, k := range keys {
		t := &turn{key: k, rules: w.ruleOf(k.queue()), lanes: slices.Clone(w.level(k).Lanes)}
		if t.rules.Rules.Paused || len(t.lanes) == 0 {
			continue
		}
		slices.SortFunc(t.lanes, func(a, b *lane) int { return a.Head.Compare(b.Head) })
		t.order = p.order(t)
		turns = append(turns, t)
	}
	heap.Init(&turns)
	for len(turns) > 0 {
		if p.decided >= p.limit {
			return true, true
		}
		if p.tried >= tryMax {
			return false, true
		}
		t := turns[0]
		one := t.lanes[0]
		if p.try(t, one) {
			p.decided++
			// The lane has its new place among the user's, if there is anything left in it.
			t.lanes = t.lanes[1:]
			if one.Count > 0 {
				n, _ := slices.BinarySearchFunc(t.lanes, one, func(a, b *lane) int { return a.Head.Compare(b.Head) })
				t.lanes = slices.Insert(slices.Clip(t.lanes), n, one)
			}
			t.order = p.order(t)
		} else {
			p.tried++
			t.lanes = t.lanes[1:]
			if !p.preempts && len(p.keeps) > 0 && p.full() {
				return false, true
			}
		}
		if len(t.lanes) == 0 {
			heap.Pop(&turns)
		} else {
			heap.Fix(&turns, 0)
		}
	}
	return false, false
}

func (p *pass) order(t *turn) int64 {
	k := t.key
	weight := int64(max(t.rules.Rules.Weight, 1))
	if own := t.rules.Rules.Shares[k.uid()]; own != 0 {
		weight *= int64(own)
	}
	return p.w.account(k.queue(), k.uid()).Share.order(p.w.now, weight)
}

// full reports whether nothing at all has room anywhere.
func (p *pass) full() bool {
	return !slices.ContainsFunc(p.nodes, func(n *node) bool { return n.slots > 0 && n.free.CPU > 0 && n.why == "" })
}

// try begins the task at the head of a lane, if there is room.
func (p *pass) try(t *turn, l *lane) bool {
	w := p.w
	acc, q := w.account(t.key.queue(), t.key.uid()), w.running(t.key.queue())
	if t.rules.Rules.Limits.over(q.Used, q.Tasks, l.Demand.Need) != "" || t.rules.Rules.PerUser.over(acc.Used, acc.Tasks, l.Demand.Need) != "" {
		return false
	}
	n := p.place(&l.Demand, t.rules.Rules.Label)
	if n == nil {
		p.blocked(t, l)
		return false
	}
	p.start(t, l, n)
	return true
}

// start assigns the head of a lane to a machine, and takes it out of the lane.
func (p *pass) start(t *turn, l *lane, n *node) {
	w := p.w
	id := l.Head
	r, err := w.task(id)
	if err != nil {
		panic(fmt.Sprintf("task: %v stands in a lane: %v", id, err))
	}
	all := r
	if r.Array != nil { // it goes on standing there
		id = id.Element(int(r.Array.Ready[0].First))
		r.Array.Ready = remove(r.Array.Ready, r.Array.Ready[0].First)
		r.Array.Active++
		if r, err = w.task(id); err != nil {
			panic(fmt.Sprintf("task: %v is ready: %v", id, err))
		}
	}
	if all.Array == nil || !all.ready(w.now) {
		w.drop(t.key, w.level(t.key), l, l.Head)
		all.Lane = false
	}
	r.Lane = false
	w.c.Token++
	need := l.Demand.Need
	a := &attempt{Token: w.c.Token, Node: n.name, Session: n.session, Assigned: w.now}
	r.Attempt, r.Node, r.Token = a, a.Node, a.Token
	r.Attempts++
	one := run{ID: id, Token: a.Token, Session: a.Session, Need: need, Prio: t.key.prio(), Queue: r.Queue, UID: r.UID, Since: w.now}
	if l.Demand.Limit != 0 {
		one.Until = later(w.now, l.Demand.Limit+slack)
	}
	if w.c.Claims == 0 {
		w.c.Claims = later(w.now, ClaimWait)
	}
	u := w.node(n.name)
	u.Runs = append(u.Runs, one)
	u.Sum.Add(need)
	n.take(need, one.Until)
	acc, q := w.account(r.Queue, r.UID), w.running(r.Queue)
	acc.Used.Add(need)
	acc.Tasks++
	acc.Share.charge(w.now, 0, 0)
	acc.Share.Rate += cost(need)
	q.Used.Add(need)
	q.Tasks++
	w.news(id, a)
	w.put(id, r)
}
