package queue

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dos/meta"
)

var seed = flag.Uint64("seed", 0, "of the random test; 0: some")

// A model says without any cleverness what one queue does: every group has all of
// its messages in a list.
type model struct {
	order    Order
	attempts int
	groups   map[string]*modelGroup
	next     uint64
	now      time.Time
}

type modelGroup struct {
	undone  []*modelMessage // in order of their numbers
	waiters []*modelWaiter
}

type modelMessage struct {
	n        uint64
	priority uint8
	key      string
	expires  time.Time // zero: never
	attempts int
	claim    uint64    // that has it
	due      time.Time // before which nobody gets it
}

type modelWaiter struct {
	session meta.SessionID
	place   uint64
	max     int
}

// A modelClaim is what a session has.
type modelClaim struct {
	session meta.SessionID
	group   string
	until   time.Time
}

// first returns what a group gives out next; nil if there is nothing.
func (m *model) first(g *modelGroup) *modelMessage {
	var best *modelMessage
	keys := make(map[string]bool)
	for _, msg := range g.undone {
		free := m.order != ByKey || msg.key == "" || !keys[msg.key]
		keys[msg.key] = true
		if free && msg.claim == 0 && !msg.due.After(m.now) && (best == nil || m.order == ByPri && msg.priority > best.priority) {
			best = msg
		}
	}
	return best
}

// claim claims messages for n and returns their numbers and attempts.
func (m *model) claim(g *modelGroup, n uint64, most int) (got []string) {
	for len(got) < most {
		msg := m.first(g)
		if msg == nil {
			break
		}
		msg.claim = n
		msg.attempts++
		got = append(got, fmt.Sprint(msg.n, "/", msg.attempts))
	}
	return got
}

func (m *model) remove(g *modelGroup, msg *modelMessage) {
	g.undone = slices.DeleteFunc(g.undone, func(each *modelMessage) bool { return each == msg })
}

// resolve does what s says of the messages of a claim.
func (m *model) resolve(g *modelGroup, s Settle) {
	for _, msg := range slices.Clone(g.undone) {
		if msg.claim != s.Claim || len(s.Numbers) > 0 && !slices.Contains(s.Numbers, msg.n) {
			continue
		}
		msg.claim = 0
		switch {
		case s.What == Ack:
			m.remove(g, msg)
		case s.What == Return:
			msg.attempts--
		case s.What == Discard, msg.attempts >= m.attempts:
			m.remove(g, msg)
		default:
			msg.due = m.now.Add(s.Time)
		}
	}
	m.expire()
}

// expire removes what is too old and nobody has. A message that one group has taken
// is removed from the others when these come to it, which nobody sees.
func (m *model) expire() {
	for _, g := range m.groups {
		g.undone = slices.DeleteFunc(g.undone, func(msg *modelMessage) bool {
			return msg.claim == 0 && !msg.expires.IsZero() && !msg.expires.After(m.now)
		})
	}
}

func numbers(got []Got) (list []string) {
	for _, g := range got {
		list = append(list, fmt.Sprint(g.Number, "/", g.Attempt))
	}
	return list
}

// The room does what the model does, and its rows are what the package says, after
// each of many random commands.
func TestModel(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d", s)
	for round := range uint64(12) {
		model := newRun(t, s+round, Order(round%3))
		for range 400 {
			model.step()
			if t.Failed() {
				t.Fatalf("seed %d round %d: %s", s, round, model.did)
			}
		}
	}
}

// A run is a model beside a world.
type run struct {
	*model
	w        *world
	t        *testing.T
	rnd      *rand.Rand
	sessions []meta.SessionID
	claims   map[uint64]*modelClaim
	did      string
}

func newRun(t *testing.T, seed uint64, order Order) *run {
	w := newWorld(t)
	w.make("q")
	attempts := 3
	must[none](w, 0, OpSet, Set{Name: "q", Order: &order, Attempts: &attempts})
	r := &run{
		model: &model{order: order, attempts: attempts, next: 1, now: w.clock, groups: map[string]*modelGroup{"": {}}},
		w:     w, t: t, rnd: rand.New(rand.NewPCG(seed, 0)), claims: make(map[uint64]*modelClaim),
	}
	for range 3 {
		r.sessions = append(r.sessions, w.open())
	}
	return r
}

func (r *run) step() {
	names := slices.Sorted(maps.Keys(r.groups))
	name := names[r.rnd.IntN(len(names))]
	g, who := r.groups[name], r.rnd.IntN(len(r.sessions))
	s := r.sessions[who]
	switch p := r.rnd.IntN(100); {
	case p < 22:
		r.push()
	case p < 30:
		r.all(s, name, g)
	case p < 60:
		r.take(s, name, g)
	case p < 80:
		r.settle()
	case p < 86:
		r.leave()
	case p < 92:
		r.pass(time.Duration(r.rnd.IntN(8)) * time.Second)
	case p < 94:
		r.regroup()
	case p < 95:
		r.did = "purge"
		must[none](r.w, 0, OpPurge, Named{"q"})
		for _, g := range r.groups {
			g.undone = nil
		}
		clear(r.claims)
	case p < 97:
		r.w.sweep(1 + r.rnd.IntN(20))
	default:
		r.end(who)
	}
	r.serve()
	r.compare()
}

func (r *run) push() {
	req := Push{Name: "q", Messages: r.messages()}
	r.did = fmt.Sprintf("push %+v", req)
	must[Pushed](r.w, 0, OpPush, req)
}

// messages makes some, which the model has from then on.
func (r *run) messages() (list []Message) {
	for range 1 + r.rnd.IntN(3) {
		m := Message{Body: fmt.Appendf(nil, "%d", r.next), Priority: uint8(r.rnd.IntN(3))}
		if r.rnd.IntN(3) > 0 {
			m.Key = string(rune('a' + r.rnd.IntN(3)))
		}
		msg := &modelMessage{n: r.next, priority: m.Priority, key: m.Key}
		if r.rnd.IntN(6) == 0 {
			m.Expires = time.Duration(1+r.rnd.IntN(9)) * time.Second
			msg.expires = r.now.Add(m.Expires)
		}
		r.next++
		list = append(list, m)
		for _, g := range r.groups {
			one := *msg
			g.undone = append(g.undone, &one)
		}
	}
	return list
}

// all settles, pushes and has several take, in one command.
func (r *run) all(s meta.SessionID, name string, g *modelGroup) {
	req := Pass{Name: "q"}
	for range 1 + r.rnd.IntN(3) {
		req.Takes = append(req.Takes, Take{Group: name, Max: 1 + r.rnd.IntN(3), Wait: r.rnd.IntN(2) == 0, Hold: time.Duration(1+r.rnd.IntN(20)) * time.Second})
	}
	for _, n := range slices.Sorted(maps.Keys(r.claims)) {
		if c := r.claims[n]; c.session == s {
			one := Settle{Name: "q", Claim: n, What: What(r.rnd.IntN(3))}
			req.Takes[0].Settle = []Settle{one}
			r.resolve(r.groups[c.group], one)
			r.drop(n)
			break
		}
	}
	if r.rnd.IntN(3) > 0 {
		req.Push.Messages = r.messages()
	}
	r.did = fmt.Sprintf("session %d: all %+v", s, req)
	out := must[Passed](r.w, s, OpPass, req)
	r.serve() // those who waited come first
	if len(out.Pushed.IDs) != len(req.Push.Messages) || len(out.Taken) != len(req.Takes) || out.Taken[0].Stale != 0 {
		r.t.Fatalf("%s: %+v", r.did, out)
	}
	for i, t := range req.Takes {
		r.took(s, name, g, t, out.Taken[i])
	}
}

func (r *run) take(s meta.SessionID, name string, g *modelGroup) {
	req := Take{Name: "q", Group: name, Max: 1 + r.rnd.IntN(3), Wait: r.rnd.IntN(2) == 0, Hold: time.Duration(1+r.rnd.IntN(20)) * time.Second}
	r.did = fmt.Sprintf("session %d: take %+v", s, req)
	r.took(s, name, g, req, must[Taken](r.w, s, OpTake, req))
}

// took compares what a take got.
func (r *run) took(s meta.SessionID, name string, g *modelGroup, req Take, got Taken) {
	want := r.claim(g, got.Claim, req.Max)
	if !slices.Equal(numbers(got.Messages), want) || (len(want) == 0) == (got.Claim != 0) || (got.Place != 0) != (req.Wait && len(want) == 0) {
		r.t.Fatalf("%s: %+v, want %v", r.did, got, want)
	}
	switch {
	case got.Claim != 0:
		r.claims[got.Claim] = &modelClaim{s, name, r.now.Add(req.Hold)}
	case got.Place != 0:
		g.waiters = append(g.waiters, &modelWaiter{s, got.Place, req.Max})
	}
}

func (r *run) settle() {
	list := slices.Sorted(maps.Keys(r.claims))
	if len(list) == 0 {
		return
	}
	n := list[r.rnd.IntN(len(list))]
	c := r.claims[n]
	s := Settle{Name: "q", Claim: n, What: What(r.rnd.IntN(5))}
	if s.What == Extend || s.What == Nack && r.rnd.IntN(2) == 0 {
		s.Time = time.Duration(1+r.rnd.IntN(5)) * time.Second
	}
	g := r.groups[c.group]
	for _, msg := range g.undone {
		if msg.claim == n && s.What != Extend && r.rnd.IntN(3) == 0 {
			s.Numbers = append(s.Numbers, msg.n)
		}
	}
	r.did = fmt.Sprintf("session %d: settle %+v", c.session, s)
	if got := must[Settled](r.w, c.session, OpSettle, Settles{[]Settle{s}}); got.Stale != 0 {
		r.t.Fatalf("%s: it is no more", r.did)
	}
	if s.What == Extend {
		c.until = r.now.Add(s.Time)
		return
	}
	r.resolve(g, s)
	r.drop(n)
}

// drop forgets a claim of which nothing is left.
func (r *run) drop(n uint64) {
	c := r.claims[n]
	if !slices.ContainsFunc(r.groups[c.group].undone, func(m *modelMessage) bool { return m.claim == n }) {
		delete(r.claims, n)
	}
}

func (r *run) leave() {
	for _, name := range slices.Sorted(maps.Keys(r.groups)) {
		g := r.groups[name]
		if len(g.waiters) == 0 {
			continue
		}
		i := r.rnd.IntN(len(g.waiters))
		who := g.waiters[i]
		g.waiters = slices.Delete(g.waiters, i, i+1)
		r.did = fmt.Sprintf("leave %+v", who)
		must[none](r.w, who.session, OpLeave, Leave{"q", who.place})
		return
	}
}

// pass lets time pass second by second, as it passes where it is looked at often.
func (r *run) pass(d time.Duration) {
	r.did = fmt.Sprintf("pass %v", d)
	for range d / time.Second {
		r.now = r.now.Add(time.Second)
		r.w.pass(time.Second)
		for _, n := range slices.Sorted(maps.Keys(r.claims)) {
			if c := r.claims[n]; !c.until.After(r.now) {
				r.resolve(r.groups[c.group], Settle{Claim: n, What: Nack})
				delete(r.claims, n)
			}
		}
		r.expire()
		r.serve()
	}
}

func (r *run) regroup() {
	g := r.groups["g"]
	r.did = "regroup"
	switch {
	case g == nil:
		must[none](r.w, 0, OpMakeGroup, Grouped{"q", "g"})
		r.groups["g"] = new(modelGroup)
	case len(g.waiters) == 0 && !slices.ContainsFunc(g.undone, func(m *modelMessage) bool { return m.claim != 0 }):
		must[none](r.w, 0, OpRemoveGroup, Grouped{"q", "g"})
		delete(r.groups, "g")
	default:
		wantKind[none](r.w, 0, OpRemoveGroup, Grouped{"q", "g"}, meta.Busy)
	}
}

func (r *run) end(who int) {
	s := r.sessions[who]
	r.did = fmt.Sprintf("end %d", s)
	r.w.end(s)
	r.sessions[who] = r.w.open()
	for _, g := range r.groups {
		g.waiters = slices.DeleteFunc(g.waiters, func(w *modelWaiter) bool { return w.session == s })
	}
	for _, n := range slices.Sorted(maps.Keys(r.claims)) {
		if c := r.claims[n]; c.session == s {
			r.resolve(r.groups[c.group], Settle{Claim: n, What: Nack})
			delete(r.claims, n)
		}
	}
}

// serve gives what there is to who waits.
func (r *run) serve() {
	for _, name := range slices.Sorted(maps.Keys(r.groups)) {
		g := r.groups[name]
		for len(g.waiters) > 0 && r.first(g) != nil {
			who := g.waiters[0]
			g.waiters = g.waiters[1:]
			want := r.claim(g, who.place, who.max)
			got := must[Waiting](r.w, who.session, OpAwait, Await{Session: who.session, Queue: r.w.status("q").ID, Place: who.place})
			if got.Still || !slices.Equal(numbers(got.Taken.Messages), want) {
				r.t.Fatalf("%s: place %d got %+v, want %v", r.did, who.place, got, want)
			}
			r.claims[who.place] = &modelClaim{who.session, name, got.Taken.Until.Std()}
		}
	}
}

func (r *run) compare() {
	st := r.w.status("q")
	if len(st.Groups) != len(r.groups) {
		r.t.Errorf("%d groups, want %d", len(st.Groups), len(r.groups))
	}
	for _, g := range st.Groups {
		want := r.groups[g.Name]
		out := int64(0)
		for _, msg := range want.undone {
			if msg.claim != 0 {
				out++
			}
		}
		// What is too old and was taken by another group is still counted.
		if g.Out != out || g.Depth() < int64(len(want.undone)) || g.Waiters != int64(len(want.waiters)) {
			r.t.Errorf("group %q: %+v, want %d out of %d, %d waiters", g.Name, g, out, len(want.undone), len(want.waiters))
		}
	}
	r.w.check()
}
