package task

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/state"
)

var (
	seed  = flag.Uint64("seed", 0, "of the simulations; 0: some, and as many as are usual")
	long  = flag.Bool("long", false, "run thousands of simulations")
	times = flag.Int("seeds", 0, "how many simulations of each kind; 0: as many as are usual")
)

// seeds calls fn for each seed of a run.
func seeds(t *testing.T, usual int, fn func(t *testing.T, seed uint64)) {
	first, n := *seed, 1
	if first == 0 {
		first, n = rand.Uint64N(1<<62), usual
		if *long {
			n *= 20
		}
		if *times > 0 {
			n = *times
		}
	}
	for i := range uint64(n) {
		fn(t, first+i)
		if t.Failed() {
			t.Fatalf("go test ./meta/task -run '^%s$' -seed=%d", t.Name(), first+i)
		}
	}
}

// A sim is a cluster: machines with agents that run what is assigned to them, some
// programs in all of which time alone passes, and users who want this and that.
type sim struct {
	*world
	rnd    *rand.Rand
	agents []*agent
	jobs   []ID
	specs  map[uint64]Spec
	ends   map[ID]State // how each task ended first
	holder map[ID]*agent
	lossy  bool // answers to reports are lost
	log    []string
}

type agent struct {
	node    string
	have    Resources
	session meta.SessionID // 0: the machine is away
	seen    uint64
	runs    map[ID]*program
	// waits are reports that are on their way: they may be sent twice.
	waits []Report
}

type program struct {
	token uint64
	end   time.Time
	exit  Exit
	need  Resources
}

func newSim(t *testing.T, seed uint64, machines int) *sim {
	s := &sim{
		world: newWorld(t), rnd: rand.New(rand.NewPCG(seed, 1)), specs: make(map[uint64]Spec), ends: make(map[ID]State), holder: make(map[ID]*agent),
	}
	for i := range machines {
		a := &agent{node: fmt.Sprint("n", i), have: Resources{CPU: int64(1+s.rnd.IntN(8)) * 1000, Mem: int64(1+s.rnd.IntN(8)) << 30}, runs: make(map[ID]*program)}
		if s.rnd.IntN(3) == 0 {
			a.have.Count = map[string]int64{GPU: int64(1 + s.rnd.IntN(3))}
		}
		s.agents = append(s.agents, a)
	}
	return s
}

func (s *sim) say(format string, args ...any) { s.log = append(s.log, fmt.Sprintf(format, args...)) }

// up brings a machine back; down takes it away with all that runs on it.
func (s *sim) up(a *agent) {
	a.session, a.seen = s.open(), 0
	must[none](s.world, a.session, OpOffer, Offer{Node: a.node, Have: a.have, Slots: 6})
	s.say("%s is up", a.node)
}

func (s *sim) down(a *agent) {
	s.say("%s is down", a.node)
	s.end(a.session)
	a.session, a.waits = 0, nil
	for id := range a.runs {
		delete(s.holder, id)
	}
	clear(a.runs)
}

// turn is what an agent does when it hears of its orders.
func (s *sim) turn(a *agent) {
	if a.session == 0 {
		return
	}
	out := must[Orders](s.world, a.session, OpOrders, Seen{Session: a.session, Version: a.seen})
	a.seen = out.Version
	for _, at := range out.Attempts {
		if at.Claimed {
			s.obey(a, at)
			continue
		}
		s.claimOne(a, at)
	}
	for _, id := range slices.SortedFunc(maps.Keys(a.runs), ID.Compare) {
		if p := a.runs[id]; !p.end.After(s.clock) {
			a.waits = append(a.waits, Report{ID: id, Token: p.token, What: Ended, Exit: &p.exit, Usage: &Usage{Wall: time.Second}})
			delete(a.runs, id)
			delete(s.holder, id)
		}
	}
	// Answers are lost, and so reports come twice.
	if len(a.waits) > 0 && (!s.lossy || s.rnd.IntN(4) > 0) {
		list := a.waits
		if s.lossy && s.rnd.IntN(4) == 0 {
			list = nil
			for _, r := range a.waits {
				list = append(list, r, r)
			}
		}
		for i, kind := range s.reportAll(a.session, list...) {
			if kind != 0 {
				s.t.Errorf("%s: report %+v: %v", a.node, list[i], kind)
			}
		}
		a.waits = nil
	}
}

func (s *sim) claimOne(a *agent, at Attempt) {
	if at.Node != a.node {
		s.t.Errorf("%s is to run what is for %s", a.node, at.Node)
	}
	claim := Report{ID: at.ID, Token: at.Token, What: Claim}
	kind := s.reportAll(a.session, claim)[0]
	if kind == meta.Fenced {
		return // it was taken back
	}
	if other := s.holder[at.ID]; other != nil || kind != 0 {
		s.t.Errorf("%s runs %v, which runs already: %v, %v", a.node, at.ID, other != nil, kind)
	}
	s.began(at)
	run := time.Duration(1+s.rnd.IntN(600)) * time.Second
	if at.Spec.Timeout > 0 {
		run = min(run, at.Spec.Timeout)
	}
	p := &program{token: at.Token, end: s.clock.Add(run), need: at.Spec.Need}
	if s.rnd.IntN(5) == 0 {
		p.exit.Code = 1
	}
	a.runs[at.ID], s.holder[at.ID] = p, a
	s.reportAll(a.session, Report{ID: at.ID, Token: at.Token, What: Started})
	var sum Resources
	for _, p := range a.runs {
		sum.Add(p.need)
	}
	if !sum.Fits(a.have) {
		s.t.Errorf("%s has %+v and runs %+v", a.node, a.have, sum)
	}
}

// began holds what begins to what it comes after.
func (s *sim) began(at Attempt) {
	for _, d := range at.Spec.After {
		end, ok := s.ends[d.ID]
		if !ok { // nothing happened to an element but that its array was cancelled
			end = s.get(d.ID).State
		}
		if !end.Ended() || !d.On.met(end) {
			s.t.Errorf("%v began, after=%v:%v, which is %v", at.ID, d.On, d.ID, end)
		}
	}
}

func (s *sim) obey(a *agent, at Attempt) {
	p := a.runs[at.ID]
	for _, o := range at.Orders {
		if p != nil && (o.Verb == Cancel || o.Number == 9) && p.end.After(s.clock) {
			p.end, p.exit = s.clock.Add(time.Duration(s.rnd.IntN(20))*time.Second), Exit{Cause: Killed, Signal: 15}
		}
		a.waits = append(a.waits, Report{ID: at.ID, Token: at.Token, What: Obeyed, Order: o.Seq})
	}
	if p == nil { // the end is on its way
		a.waits = slices.DeleteFunc(a.waits, func(r Report) bool { return r.ID == at.ID && r.What == Obeyed })
	}
}

// note remembers how tasks ended first, from the events since the last one.
func (s *sim) note(from uint64) uint64 {
	for {
		out := must[Events](s.world, 0, OpEvents, Since{Seq: from, Limit: ListMax})
		for _, e := range out.List {
			from = e.Seq
			if _, ok := s.ends[e.ID]; !ok && e.State.Ended() && !(e.State == Lost && s.get(e.ID).State != Lost) {
				s.ends[e.ID] = e.State
			}
		}
		if len(out.List) == 0 {
			return from
		}
	}
}

func (s *sim) options() string {
	o := fmt.Sprintf("cpu=%d", 1+s.rnd.IntN(4))
	for _, c := range []struct {
		part int
		text string
	}{
		{2, fmt.Sprintf("timeout=%ds", 30*(1+s.rnd.IntN(20)))}, {4, fmt.Sprintf("mem=%dg", 1+s.rnd.IntN(4))}, {8, fmt.Sprintf("gpu=%d", 1+s.rnd.IntN(2))},
		{6, fmt.Sprintf("prio=%d", s.rnd.IntN(3))}, {6, "retries=2"}, {8, fmt.Sprintf("array=0-%d%%%d", 1+s.rnd.IntN(8), 1+s.rnd.IntN(4))}, {12, fmt.Sprintf("at=+%ds", 1+s.rnd.IntN(600))},
		{4, "queue=low"}, {12, "hold"}, {16, fmt.Sprint("node=n", s.rnd.IntN(len(s.agents)))},
	} {
		if s.rnd.IntN(c.part) == 0 {
			o += " " + c.text
		}
	}
	seen := make(map[ID]bool)
	for range s.rnd.IntN(3) {
		if len(s.jobs) == 0 || s.rnd.IntN(2) == 0 {
			break
		}
		id := s.jobs[s.rnd.IntN(len(s.jobs))]
		if spec := s.specs[id.Job]; spec.Array != nil && s.rnd.IntN(2) == 0 {
			id = id.Element(s.rnd.IntN(spec.Array.Len()))
		}
		if !seen[id] {
			o += fmt.Sprintf(" after=%v:%v", Condition(s.rnd.IntN(3)), id)
		}
		seen[id] = true
	}
	return o
}

func (s *sim) step() {
	switch p := s.rnd.IntN(100); {
	case p < 30:
		options := s.options()
		owner := Owner{UID: uint32(1 + s.rnd.IntN(3))}
		id := s.submitAs(owner, options)
		spec, _ := Parse([]byte("#DOS "+options+"\ntrue\n"), NewSpec(), s.clock)
		s.jobs, s.specs[id.Job] = append(s.jobs, id), spec
		s.say("%v of user %d: %s", id, owner.UID, options)
	case p < 50:
		s.clock = s.clock.Add(time.Duration(1+s.rnd.IntN(120)) * time.Second)
	case p < 54:
		a := s.agents[s.rnd.IntN(len(s.agents))]
		if a.session == 0 {
			s.up(a)
		} else {
			s.down(a)
		}
	case p < 60 && len(s.jobs) > 0:
		s.someControl()
	case p < 80:
		if out := must[More](s.world, 0, OpSchedule, Bound{1 + s.rnd.IntN(8)}); out.Done > 0 {
			s.say("%d decisions", out.Done)
		}
	default:
		s.turn(s.agents[s.rnd.IntN(len(s.agents))])
	}
}

func (s *sim) someControl() {
	id := s.jobs[s.rnd.IntN(len(s.jobs))]
	if spec := s.specs[id.Job]; spec.Array != nil && s.rnd.IntN(2) == 0 {
		id = id.Element(s.rnd.IntN(spec.Array.Len()))
	}
	verb := []Verb{Cancel, Hold, Release, SetPrio, Requeue, Freeze, Thaw}[s.rnd.IntN(7)]
	if _, ended := s.ends[id]; ended && verb == Requeue {
		return // what came after it would have come after another end
	}
	_, err := call[none](s.world, 0, OpControl, Control{ID: id, Verb: verb, Number: s.rnd.IntN(5)})
	s.say("%v %v: %v", verb, id, err)
}

// settle lets all come to its end: nothing may wait for ever.
func (s *sim) settle(from uint64) {
	for _, a := range s.agents {
		if a.session == 0 {
			s.up(a)
		}
	}
	for _, id := range s.jobs {
		if t := s.get(id); !t.State.Ended() {
			_, _ = call[none](s.world, 0, OpControl, Control{ID: id, Verb: Release})
			_, _ = call[none](s.world, 0, OpControl, Control{ID: id, Verb: Thaw})
		}
	}
	for range 4000 {
		s.clock = s.clock.Add(20 * time.Second)
		s.schedule()
		from = s.note(from)
		left := 0
		for _, a := range s.agents {
			s.turn(a)
			left += len(a.runs) + len(a.waits)
		}
		if left == 0 && s.timers() == 0 && must[More](s.world, 0, OpSchedule, Bound{8}).Done == 0 && !s.due() {
			break
		}
	}
	s.check()
	for _, id := range s.jobs {
		t := s.get(id)
		if t.State.Ended() {
			continue
		}
		could := false
		for _, a := range s.agents {
			could = could || t.Need.Fits(a.have) && (s.specs[id.Job].Node == "" || s.specs[id.Job].Node == a.node)
		}
		for _, d := range s.specs[id.Job].After {
			could = could && s.get(d.ID).State.Ended()
		}
		if could && !slices.ContainsFunc(t.held(s.world), func(one Task) bool { return one.State == Held }) {
			s.t.Errorf("%v never ended: %v (%s)", id, t.State, t.Reason)
		}
	}
}

// held are a task and its elements.
func (t Task) held(w *world) []Task {
	return append(must[Listed](w, 0, OpList, List{Job: t.ID.Job, Limit: ListMax}).Tasks, t)
}

// due reports whether there is anything to schedule.
func (s *sim) due() bool { return must[Work](s.world, 0, OpDue, Due{Now: meta.At(s.clock)}).Schedule }

func (s *sim) timers() int64 { return s.count(key('T')) }

// Whatever comes in whichever order: nothing is overcommitted, nothing runs twice or
// before what it comes after, nothing is lost or waits for ever, and every replica has
// the same rows.
func TestSim(t *testing.T) {
	seeds(t, 80, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 4)
		s.lossy = true
		must[none](s.world, 0, OpMakeQueue, MakeQueue{Name: "low"})
		must[none](s.world, 0, OpSetQueue, SetQueue{Name: "low", Rules: &Rules{Preempt: Preemption(seed % 3), Limits: Limits{Tasks: 5}, PerUser: Limits{Need: Resources{CPU: 6000}}, Weight: 2}})
		var from uint64
		for i := range 200 {
			s.step()
			from = s.note(from)
			if i%20 == 0 {
				s.check()
			}
			if t.Failed() {
				break
			}
		}
		if !t.Failed() {
			s.settle(from)
		}
		if a, b := s.rows(), rowsOf(s.twin); a != b {
			t.Error("two replicas have different rows")
		}
		if t.Failed() {
			for _, line := range s.log {
				t.Log(line)
			}
		}
	})
}

func rowsOf(r state.Reader) string { return (&world{store: r.(*state.Overlay)}).rows() }

// Tasks of one user and priority: the first that waits begins no later than it was told,
// whatever is begun before its turn, and that has a time limit.
func TestSimReserved(t *testing.T) {
	total := 0
	seeds(t, 25, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3)
		s.twin = nil
		for _, a := range s.agents {
			s.up(a)
		}
		told := make(map[ID]meta.Time)
		backfilled := 0
		for i := range 300 {
			if i < 250 && s.rnd.IntN(6) == 0 {
				o := fmt.Sprintf("cpu=%d", 1+s.rnd.IntN(8))
				if s.rnd.IntN(5) > 0 {
					o += fmt.Sprintf(" timeout=%ds", 10*(1+s.rnd.IntN(30)))
				}
				id := s.submit(o)
				s.jobs = append(s.jobs, id)
				s.specs[id.Job], _ = Parse([]byte("#DOS "+o+"\ntrue\n"), NewSpec(), s.clock)
				s.say("%v: %s", id, o)
			}
			s.clock = s.clock.Add(time.Duration(1+s.rnd.IntN(20)) * time.Second) // less than the slack
			for _, a := range s.agents {
				s.turn(a)
			}
			s.jobs = slices.DeleteFunc(s.jobs, func(id ID) bool { return s.get(id).State.Ended() })
			before := make(map[ID]bool) // that waited
			for _, id := range s.jobs {
				before[id] = s.get(id).State == Pending
			}
			s.schedule()
			backfilled += s.reserved(told, before)
			for _, a := range s.agents { // at once, or what begins late would end late
				s.turn(a)
			}
			if t.Failed() {
				for _, line := range s.log {
					t.Log(line)
				}
				return
			}
		}
		total += backfilled
	})
	if total == 0 && *seed == 0 {
		t.Error("nothing was ever begun before its turn")
	}
}

// reserved looks at what one pass decided.
func (s *sim) reserved(told map[ID]meta.Time, before map[ID]bool) (backfilled int) {
	now := meta.At(s.clock)
	for _, id := range s.jobs {
		t := s.get(id)
		waits := t.State == Pending && t.Reason != "begins on "+t.Node
		start, was := told[id]
		switch {
		case !waits:
			if before[id] && was && now > start {
				s.t.Errorf("%v began at %v, and was told %v", id, s.clock, start.Std())
			}
			delete(told, id)
		case was && now > start:
			s.t.Errorf("%v waits at %v, and was told that it would begin by %v", id, s.clock, start.Std())
		case was && t.Start != 0 && t.Start > start:
			s.t.Errorf("%v is to begin at %v, and was told %v", id, t.Start.Std(), start.Std())
		}
		if t.Start != 0 {
			told[id] = t.Start
		}
		if !waits && before[id] {
			backfilled += s.overtook(id, t)
		}
	}
	return backfilled
}

// overtook holds a task that has just begun to what it may do before others that wait.
func (s *sim) overtook(id ID, t Task) int {
	n := 0
	for _, other := range s.jobs {
		o := s.get(other)
		if other.Compare(id) >= 0 || o.State != Pending || o.Reason == "begins on "+o.Node {
			continue
		}
		for _, a := range s.agents {
			if a.node != t.Node || !o.Need.Fits(a.have) {
				continue
			}
			n++
			if s.specs[id.Job].Timeout == 0 {
				s.t.Errorf("%v has no time limit and began on %s before %v", id, t.Node, other)
			}
		}
	}
	return n
}

// Users who are equal get equal parts, whatever the sizes of their tasks.
func TestSimFair(t *testing.T) {
	seeds(t, 2, func(t *testing.T, seed uint64) {
		s := newSim(t, seed, 3)
		s.twin = nil
		for _, a := range s.agents {
			a.have = Resources{CPU: 4000}
			s.up(a)
		}
		const users = 4
		got := make([]int64, users)
		for range 400 {
			for u := range users { // there is always something that they want
				n := int(must[Listed](s.world, 0, OpList, List{State: Pending, UID: ptr(uint32(u)), Limit: 50}).count())
				for range max(0, 5-n) {
					s.submitAs(Owner{UID: uint32(u)}, fmt.Sprintf("cpu=%d", 1+u%4))
				}
			}
			s.schedule()
			for _, a := range s.agents {
				s.turn(a)
			}
			s.clock = s.clock.Add(30 * time.Second)
			for _, a := range s.agents {
				for id, p := range a.runs {
					got[s.get(id).Owner.UID] += p.need.CPU * 30 / 1000
				}
			}
		}
		// One task of each size, as long as they come, is what may be between them.
		if least, most := slices.Min(got), slices.Max(got); most-least > 4*2*600*users {
			t.Errorf("users have used %v core-seconds", got)
		}
	})
}

func ptr[T any](v T) *T { return &v }

func (l Listed) count() int { return len(l.Tasks) }
