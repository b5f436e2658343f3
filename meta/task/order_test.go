package task

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/meta"
)

// begun schedules, claims for each session, and says what began, in the order of assignment.
func (w *world) begun(sessions ...meta.SessionID) (ids []ID) {
	w.t.Helper()
	w.schedule()
	type one struct {
		id    ID
		token uint64
	}
	var all []one
	for _, s := range sessions {
		for _, id := range w.claim(s) {
			all = append(all, one{id, w.get(id).Token})
		}
	}
	slices.SortFunc(all, func(a, b one) int { return int(a.token) - int(b.token) })
	for _, o := range all {
		ids = append(ids, o.id)
	}
	return ids
}

func (w *world) finishAll(s meta.SessionID) {
	w.t.Helper()
	for _, a := range w.orders(s) {
		if a.Claimed {
			w.finish(s, a.ID, Exit{})
		}
	}
}

// Priority counts first, then who has used the least, then age.
func TestOrder(t *testing.T) {
	w := newWorld(t)
	alice, bob := Owner{UID: 1}, Owner{UID: 2}
	a1, a2, a3 := w.submitAs(alice, ""), w.submitAs(alice, "mem=1m"), w.submitAs(alice, "")
	b1, b2 := w.submitAs(bob, ""), w.submitAs(bob, "")
	high := w.submitAs(alice, "prio=1")
	low := w.submitAs(bob, "prio=-1")
	s := w.offer("n1", 7)
	if got := w.begun(s); !slices.Equal(got, []ID{high, b1, a1, b2, a2, a3, low}) {
		t.Errorf("began %v", got)
	}
	w.check()
	// What was used counts when nothing runs any more, and is forgotten in time.
	w.clock = w.clock.Add(time.Hour)
	w.finishAll(s)
	w.schedule()
	must[none](w, s, OpOffer, Offer{Node: "n1", Have: Resources{CPU: 1000}, Slots: 9})
	a, b := w.submitAs(alice, ""), w.submitAs(bob, "") // alice has used four, bob three
	if got := w.begun(s); !slices.Equal(got, []ID{b}) {
		t.Errorf("began %v", got)
	}
	w.finishAll(s)
	if got := w.begun(s); !slices.Equal(got, []ID{a}) {
		t.Errorf("began %v", got)
	}
	w.check()
}

func TestShare(t *testing.T) {
	now := meta.Time(1e18)
	var s share
	s.charge(now, 1000, time.Hour)
	if s.Use != 3600_000 {
		t.Errorf("an hour of a core is %d", s.Use)
	}
	for days, want := range map[int]int64{0: 3600_000, 1: 1800_000, 2: 900_000, 30: 0} {
		if got := s.at(later(now, time.Duration(days)*halfLife)); got < want-2 || got > want+2 {
			t.Errorf("after %d half-lives: %d, want %d", days, got, want)
		}
	}
	if got := s.at(later(now, halfLife/2)); got < 2545583 || got > 2545586 {
		t.Errorf("after half of one: %d", got)
	}
	// Many small charges forget as one does.
	many := s
	for i := range 1000 {
		many.charge(later(now, time.Duration(i)*halfLife/1000), 0, 0)
	}
	if got := many.at(later(now, halfLife)); got < 1800_000-20 || got > 1800_000+20 {
		t.Errorf("charged in between: %d", got)
	}
}

// The weights of partitions and the shares of users count.
func TestWeights(t *testing.T) {
	w := newWorld(t)
	for name, rules := range map[string]Rules{"big": {Weight: 3}, "small": {Weight: 1}} {
		must[none](w, 0, OpMakeQueue, MakeQueue{Name: name})
		must[none](w, 0, OpSetQueue, SetQueue{Name: name, Rules: &rules})
	}
	for range 40 {
		w.submit("queue=big")
		w.submit("queue=small")
	}
	s := w.offer("n1", 40)
	w.begun(s)
	if q := must[Queue](w, 0, OpQueue, Named{"big"}); q.Tasks < 29 || q.Tasks > 31 {
		t.Errorf("a partition with three times the weight runs %d of 40", q.Tasks)
	}
	w.check()
}

func TestPlacement(t *testing.T) {
	w := newWorld(t)
	s1, s2, s3 := w.open(), w.open(), w.open()
	must[none](w, s1, OpOffer, Offer{Node: "n1", Have: Resources{CPU: 4000, Count: map[string]int64{"gpu": 2}}, Slots: 9})
	must[none](w, s2, OpOffer, Offer{Node: "n2", Have: Resources{CPU: 4000}, Slots: 9, Labels: map[string]string{"ssd": "", "zone": "a"}})
	must[none](w, s3, OpOffer, Offer{Node: "n3", Have: Resources{CPU: 4000}, Slots: 2, Labels: map[string]string{"zone": "b"}})
	w.stand["n3"] = Standing{Labels: map[string]string{"rack": "7"}}
	for _, c := range []struct{ options, node string }{
		{"gpu=1", "n1"}, {"label=ssd", "n2"}, {"label=zone=b", "n3"}, {"label=rack=7", "n3"}, {"node=n1", "n1"}, {"", "n2"},
	} {
		id := w.submit(c.options)
		w.schedule()
		if got := w.get(id); got.Node != c.node {
			t.Errorf("%s: on %s (%s)", c.options, got.Node, got.Reason)
		}
	}
	w.check()
	spec := NewSpec()
	spec.Args, spec.Prefer = []string{"x"}, []string{"n1"}
	id := ID{Job: must[Submitted](w, 0, OpSubmit, Submit{Owner: user, Specs: []Spec{spec}}).First}
	w.schedule()
	if got := w.get(id); got.Node != "n1" {
		t.Errorf("near to n1: on %s", got.Node)
	}
}

// Tasks spread over machines, by their weights.
func TestSpread(t *testing.T) {
	w := newWorld(t)
	w.stand["n2"] = Standing{Weight: 200}
	for i := range 3 {
		w.offer(fmt.Sprint("n", i+1), 10)
	}
	for range 12 {
		w.submit("")
	}
	w.schedule()
	var got []int
	for _, n := range must[Offers](w, 0, OpOffers, none{}).Nodes {
		got = append(got, n.Tasks)
	}
	if !slices.Equal(got, []int{3, 6, 3}) {
		t.Errorf("%v", got)
	}
}

func TestReasons(t *testing.T) {
	w := newWorld(t)
	id := w.submit("")
	want := func(text string) {
		t.Helper()
		w.schedule()
		if got := w.get(id); got.State != Pending && got.State != Held || got.Reason != text {
			t.Errorf("%v: %q, want %q", got.State, got.Reason, text)
		}
	}
	want("no node offers to run tasks")
	s := w.open()
	must[none](w, s, OpOffer, Offer{Node: "n1", Have: Resources{CPU: 2000, Mem: 1 << 30, Count: map[string]int64{"gpu": 1}}, Slots: 3, Labels: map[string]string{"a": "1"}})
	w.submit("mem=1g")
	w.schedule()
	for options, text := range map[string]string{
		"gpu=4": "no node has 4 gpus", "gpu=2 node=n9": "no node n9 offers to run tasks", "cpu=3": "no node has 3 cpus", "mem=2g": "no node has 2g of memory", "res=tpu:1": "no node has 1 tpu",
		"label=b": "no node has label b", "label=a=2": "no node has label a=2", "cpu=2": "cpu: 2 wanted, 0 free on best node n1",
	} {
		id = w.submit(options)
		want(text)
	}
	id = w.submit("node=n1 label=a=1")
	want("cpu: 1 wanted, 0 free on best node n1")
	must[none](w, s, OpOffer, Offer{Node: "n1", Have: Resources{CPU: 9000, Mem: 1 << 30}, Slots: 4, Labels: map[string]string{"a": "1"}})
	id = w.submit("mem=1g")
	want("mem: 1g wanted, 0 free on best node n1")
	id = w.submit("mem=512m cpu=1 prio=-5")
	want("mem: 512m wanted, 0 free on best node n1")
	w.stand["n1"], w.epoch = Standing{Drained: true}, 1
	want("every node for it is drained or closed")
	w.stand["n1"], w.epoch = Standing{}, 2
	id = w.submit("hold")
	want("")
	must[none](w, 0, OpMakeQueue, MakeQueue{Name: "p"})
	must[none](w, 0, OpSetQueue, SetQueue{Name: "p", Rules: &Rules{Paused: true}})
	id = w.submit("queue=p cpu=0.1")
	want("its queue is paused")
	must[none](w, 0, OpSetQueue, SetQueue{Name: "p", Rules: &Rules{Label: "z"}})
	want("no node has label z of its queue")
	w.check()
}

// Whatever a machine's administrator says counts at once.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	w.stand["n1"], w.epoch = Standing{Drained: true, Why: "dust"}, 1
	id := w.submit("")
	if got := w.begun(s); len(got) != 0 {
		t.Errorf("began %v", got)
	}
	if n := must[Offers](w, 0, OpOffers, none{}).Nodes[0]; n.Why != "drained: dust" {
		t.Errorf("%+v", n)
	}
	w.stand["n1"], w.epoch = Standing{}, 2
	if got := w.begun(s); !slices.Equal(got, []ID{id}) {
		t.Errorf("began %v", got)
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	must[none](w, 0, OpMakeQueue, MakeQueue{Name: "p"})
	set := func(r Rules) { must[none](w, 0, OpSetQueue, SetQueue{Name: "p", Rules: &r}) }
	set(Rules{Limits: Limits{Tasks: 3}, PerUser: Limits{Need: Resources{CPU: 2000}}, Timeout: time.Hour, Default: time.Minute})
	s := w.offer("n1", 20)
	a, b := Owner{UID: 1}, Owner{UID: 2}
	var as, bs []ID
	for range 4 {
		as, bs = append(as, w.submitAs(a, "queue=p")), append(bs, w.submitAs(b, "queue=p"))
	}
	if got := w.begun(s); !slices.Equal(got, []ID{as[0], bs[0], as[1]}) {
		t.Errorf("began %v", got)
	}
	if got := w.get(bs[1]); got.Reason != "partition limit: 3 tasks" {
		t.Error(got.Reason)
	}
	set(Rules{PerUser: Limits{Need: Resources{CPU: 2000}}})
	if got := w.begun(s); !slices.Equal(got, []ID{bs[1]}) {
		t.Errorf("began %v", got)
	}
	if got := w.get(as[2]); got.Reason != "partition limit of each user: cpu 2" {
		t.Error(got.Reason)
	}
	if spec := must[Spec](w, 0, OpSpec, Ask{as[0]}); spec.Timeout != time.Minute {
		t.Errorf("the default time limit is %v", spec.Timeout)
	}
	w.check()
	set(Rules{PerUser: Limits{Need: Resources{CPU: 2000}}, Timeout: time.Hour})
	for options, want := range map[string]string{"queue=p timeout=2h": "at most 1h", "queue=p cpu=3": "one task alone", "queue=q": "no queue"} {
		spec, err := Parse([]byte("#DOS "+options+"\ntrue"), NewSpec(), w.clock)
		if err != nil {
			t.Fatal(err)
		}
		if err := wantKind[Submitted](w, 0, OpSubmit, Submit{Specs: []Spec{spec}}, meta.Invalid); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", options, err)
		}
	}
	wantKind[none](w, 0, OpRemoveQueue, Named{"p"}, meta.Busy)
	wantKind[none](w, 0, OpRemoveQueue, Named{""}, meta.Fixed)
	wantKind[none](w, 0, OpMakeQueue, MakeQueue{Name: "p"}, meta.Exist)
	wantKind[none](w, 0, OpMakeQueue, MakeQueue{Name: "a/b"}, meta.Invalid)
	wantKind[none](w, 0, OpSetQueue, SetQueue{Name: "p", Rules: &Rules{Weight: -1}}, meta.Invalid)
	wantKind[none](w, 0, OpSetQueue, SetQueue{Name: "x"}, meta.NotExist)
	for _, id := range append(as, bs...) {
		must[none](w, 0, OpControl, Control{ID: id, Verb: Cancel})
	}
	w.finishAll(s)
	must[none](w, 0, OpRemoveQueue, Named{"p"})
	w.check()
}

// The first that has no room gets a machine reserved; what comes behind it begins only
// if that costs it nothing.
func TestBackfill(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 4)
	w.submit("cpu=3 timeout=1h")
	w.begun(s)
	big := w.submit("cpu=4")
	endless := w.submit("")
	long, fits := w.submit("timeout=2h"), w.submit("timeout=58m")
	if got := w.begun(s); !slices.Equal(got, []ID{fits}) {
		t.Errorf("began %v", got)
	}
	got := w.get(big)
	if want := w.clock.Add(time.Hour + slack); got.Start.Std() != want {
		t.Errorf("reserved from %v, want %v", got.Start.Std(), want)
	}
	if n := must[Offers](w, 0, OpOffers, none{}).Nodes[0]; n.Kept != big || n.Start != got.Start {
		t.Errorf("%+v", n)
	}
	w.finish(s, fits, Exit{})
	if got := w.begun(s); len(got) != 0 {
		t.Errorf("began %v", got)
	}
	w.finishAll(s)
	if got := w.begun(s); !slices.Equal(got, []ID{big}) {
		t.Errorf("began %v", got)
	}
	w.finishAll(s)
	if got := w.begun(s); !slices.Equal(got, []ID{endless, long}) {
		t.Errorf("began %v", got)
	}
	w.check()
}

// A long task may take what the first does not need at its reserved start.
func TestBackfillBeside(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 4)
	w.submit("cpu=2 timeout=1h")
	w.begun(s)
	w.submit("cpu=3")
	a, b := w.submit("cpu=1 timeout=2h"), w.submit("cpu=1 timeout=2h")
	if got := w.begun(s); !slices.Equal(got, []ID{a}) {
		t.Errorf("began %v, not %v alone of it and %v", got, a, b)
	}
}

// If nobody knows when there will be room, the machine is emptied for the first; others
// are used by what has a limit.
func TestDrainFor(t *testing.T) {
	w := newWorld(t)
	s1, s2 := w.offer("n1", 2), w.offer("n2", 2)
	w.submit("node=n1")
	w.submit("node=n2")
	w.begun(s1, s2)
	big := w.submit("cpu=2")
	short := w.submit("timeout=1m")
	next := w.submit("timeout=1m")
	if got := w.begun(s1, s2); !slices.Equal(got, []ID{short}) {
		t.Errorf("began %v, not %v of it and %v", got, short, next)
	}
	kept := ""
	for _, n := range must[Offers](w, 0, OpOffers, none{}).Nodes {
		if n.Kept == big {
			kept = n.Offer.Node
		}
	}
	if node := w.get(short).Node; kept == "" || node == kept {
		t.Errorf("%s is kept, and a task began on %s", kept, node)
	}
}

// What no machine could run stands in nobody's way; nor does what waits for other machines.
func TestPassedOver(t *testing.T) {
	w := newWorld(t)
	s1, s2 := w.offer("n1", 2), w.offer("n2", 2)
	w.submit("cpu=64")
	w.submit("node=n1 cpu=2")
	w.begun(s1, s2)
	w.submit("node=n1 cpu=2")
	id := w.submit("node=n2")
	blocked := w.submit("node=n1")
	if got := w.begun(s1, s2); !slices.Equal(got, []ID{id}) {
		t.Errorf("began %v", got)
	}
	w.is(blocked, Pending)
}

func TestPreempt(t *testing.T) {
	for _, mode := range []Preemption{Keep, PreemptRetry, PreemptCancel} {
		w := newWorld(t)
		must[none](w, 0, OpMakeQueue, MakeQueue{Name: "low"})
		must[none](w, 0, OpSetQueue, SetQueue{Name: "low", Rules: &Rules{Preempt: mode}})
		s1, s2 := w.offer("n1", 2), w.offer("n2", 2)
		old, young := w.submit("queue=low node=n1"), w.submit("queue=low node=n1")
		keep := w.submit("node=n2 cpu=2")
		w.begun(s1, s2)
		high := w.submit("prio=5")
		w.schedule()
		w.schedule()
		stops := func(id ID) bool {
			for _, a := range append(w.orders(s1), w.orders(s2)...) {
				if a.ID == id {
					return len(a.Orders) > 0
				}
			}
			return false
		}
		if stops(old) || stops(keep) || stops(young) != (mode != Keep) {
			t.Errorf("%v: %v %v %v are to end", mode, stops(old), stops(keep), stops(young))
		}
		if mode == Keep {
			continue
		}
		if got := w.is(young, Running); got.Reason == "" {
			t.Errorf("%v: nothing says why %v ends", mode, young)
		}
		w.finish(s1, young, Exit{Cause: Killed, Signal: 15})
		if got := w.begun(s1, s2); !slices.Equal(got, []ID{high}) {
			t.Errorf("%v: began %v", mode, got)
		}
		want := Pending
		if mode == PreemptCancel {
			want = Cancelled
		}
		if got := w.is(young, want); got.Failures != 0 {
			t.Errorf("%v: %+v", mode, got)
		}
		w.check()
	}
}

// What was not begun yet makes room at once.
func TestPreemptUnclaimed(t *testing.T) {
	w := newWorld(t)
	must[none](w, 0, OpSetQueue, SetQueue{Rules: &Rules{Preempt: PreemptRetry}})
	s := w.offer("n1", 1)
	low := w.submit("")
	w.schedule()
	high := w.submit("prio=1")
	if got := w.begun(s); !slices.Equal(got, []ID{high}) {
		t.Errorf("began %v", got)
	}
	if got := w.is(low, Pending); got.Losses != 0 {
		t.Errorf("%+v", got)
	}
	w.check()
}

// A user with more demands than a level has lanes gets all of them in the end.
func TestManyDemands(t *testing.T) {
	w := newWorld(t)
	const n = 2*lanesMax + 50
	var ids []ID
	for i := range n {
		ids = append(ids, w.submit(fmt.Sprint("mem=", i+1)))
	}
	w.check()
	w.control(ids[lanesMax+7], Cancel, 0)
	w.control(ids[n-1], Cancel, 0)
	w.check()
	s := w.offer("n1", 60)
	var got []ID
	for range 3 * n {
		began := w.begun(s)
		if len(began) == 0 {
			break
		}
		got = append(got, began...)
		w.finishAll(s)
	}
	if len(got) != n-2 || !slices.IsSortedFunc(got, ID.Compare) {
		t.Errorf("%d of %d began, in order: %v", len(got), n-2, slices.IsSortedFunc(got, ID.Compare))
	}
	w.check()
}

func TestDecline(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	id := w.submit("")
	w.schedule()
	a := w.orders(s)[0]
	if kind := w.reportAll(s, Report{ID: id, Token: a.Token, What: Decline, Text: "no cgroup"})[0]; kind != 0 {
		t.Error(kind)
	}
	if got := w.is(id, Pending); got.Losses != 1 || !strings.Contains(got.Reason, "could not start it: no cgroup") || got.Due == 0 {
		t.Errorf("%+v", got)
	}
	w.check()
	w.pass(RetryMin)
	if got := w.claim(s); len(got) != 1 {
		t.Errorf("claimed %v", got)
	}
	w.check()
}

// A machine that does not take what is assigned to it is passed over for a while.
func TestDeaf(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 2)
	id, other := w.submit("cpu=2"), w.submit("cpu=2")
	w.schedule()
	w.pass(ClaimWait - time.Second)
	if got := w.get(id); got.Reason != "begins on n1" {
		t.Error(got.Reason)
	}
	s2 := w.offer("n2", 2)
	w.pass(time.Second)
	if got := w.begun(s2); !slices.Equal(got, []ID{id}) && !slices.Equal(got, []ID{other}) {
		t.Errorf("began %v", got)
	}
	w.check()
	w.finishAll(s2)
	if got := w.begun(s2); len(got) != 1 || w.get(id).Losses != 0 {
		t.Errorf("began %v", got)
	}
	third := w.submit("cpu=2")
	w.pass(ClaimWait - time.Second)
	w.finishAll(s2)
	must[none](w, s2, OpWithdraw, Named{"n2"})
	if n := must[Offers](w, 0, OpOffers, none{}).Nodes[0]; n.Why == "" || w.get(third).Node != "" {
		t.Errorf("%+v, %+v", n, w.get(third))
	}
	w.pass(time.Second)
	if got := w.begun(s); !slices.Equal(got, []ID{third}) {
		t.Errorf("began %v", got)
	}
	w.check()
}

// What was assigned and not claimed goes elsewhere when its machine says that it takes nothing.
func TestClosed(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 2)
	runs := w.submit("")
	w.begun(s)
	id := w.submit("")
	w.schedule()
	must[none](w, s, OpOffer, Offer{Node: "n1", Have: Resources{CPU: 2000, Mem: 8 << 30}, Slots: 4, Closed: "no mount"})
	w.schedule()
	if got := w.is(id, Pending); got.Reason != "its machine takes nothing: no mount; every node for it is drained or closed" || w.is(runs, Running).Node != "n1" {
		t.Error(got.Reason)
	}
	w.check()
	must[none](w, s, OpOffer, Offer{Node: "n1", Have: Resources{CPU: 2000, Mem: 8 << 30}, Slots: 4})
	if got := w.begun(s); !slices.Equal(got, []ID{id}) {
		t.Errorf("began %v", got)
	}
}

func TestRetention(t *testing.T) {
	w := newWorld(t)
	w.twin = nil
	spec := NewSpec()
	spec.Args = []string{"true"}
	specs := slices.Repeat([]Spec{spec}, 500)
	for range EndedMax/500 + 1 {
		first := must[Submitted](w, 0, OpSubmit, Submit{Specs: specs}).First
		for i := range uint64(500) {
			must[none](w, 0, OpControl, Control{ID: ID{Job: first + i}, Verb: Cancel})
		}
	}
	w.schedule()
	if n := w.count(key('t')); n != EndedMax {
		t.Errorf("%d jobs are kept, want %d", n, EndedMax)
	}
	wantKind[Task](w, 0, OpGet, Ask{ID{Job: 500}}, meta.NotExist)
	jobs := must[Jobs](w, 0, OpForgotten, none{}).Jobs
	if len(jobs) != 500 || jobs[0] != 1 {
		t.Errorf("%d jobs have output to be removed", len(jobs))
	}
	must[none](w, 0, OpCleared, Cleared{jobs})
	if jobs = must[Jobs](w, 0, OpForgotten, none{}).Jobs; len(jobs) != 0 {
		t.Errorf("%v", jobs)
	}
	w.pass(EndedKeep + time.Hour)
	if n := w.count(key('t')); n != 0 {
		t.Errorf("%d jobs are kept", n)
	}
	w.check()
}
