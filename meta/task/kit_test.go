package task

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// A world is a machine with sessions and tasks, on two stores in memory: on one the
// commands change the rows, on the other a layer above them, as on a replica.
type world struct {
	t     testing.TB
	m     *state.Machine
	store *state.Overlay
	twin  *state.Overlay
	clock time.Time
	stand map[string]Standing
	epoch uint64
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, m: new(state.Machine), store: state.NewOverlay(nil), twin: state.NewOverlay(nil), clock: time.Unix(1e9, 0), stand: make(map[string]Standing)}
	session.Register(w.m, Drop)
	Room{
		Node:  func(_ state.Reader, name string) Standing { return w.stand[name] },
		Epoch: func(state.Reader) uint64 { return w.epoch },
	}.Register(w.m)
	return w
}

// call sends a request. A command that fails must have changed nothing.
func call[Resp any](w *world, s meta.SessionID, op state.Op, req any) (resp Resp, err error) {
	w.t.Helper()
	cmd := state.Command{Op: op, Time: w.clock.UnixNano(), Session: s, Body: state.Marshal(req)}
	reply := statetest.Do(w.t, w.m, w.store, cmd)
	if w.twin != nil && !w.m.IsQuery(op) {
		if twin := w.m.Apply(w.twin, cmd); twin.Kind != reply.Kind || !bytes.Equal(twin.Body, reply.Body) {
			w.t.Fatalf("op %#x answers %x, and %x where all is in one layer", uint16(op), reply.Body, twin.Body)
		}
	}
	if reply.Kind == 0 {
		state.MustUnmarshal(reply.Body, &resp)
	}
	return resp, reply.Err()
}

func must[Resp any](w *world, s meta.SessionID, op state.Op, req any) Resp {
	w.t.Helper()
	resp, err := call[Resp](w, s, op, req)
	if err != nil {
		w.t.Fatalf("op %#x %+v: %v", uint16(op), req, err)
	}
	return resp
}

func wantKind[Resp any](w *world, s meta.SessionID, op state.Op, req any, kind meta.Kind) error {
	w.t.Helper()
	_, err := call[Resp](w, s, op, req)
	if !errors.Is(err, kind) {
		w.t.Errorf("op %#x %+v: %v, want %v", uint16(op), req, err, kind)
	}
	return err
}

func (w *world) open() meta.SessionID {
	w.t.Helper()
	return must[session.Info](w, 0, session.OpOpen, session.Open{Name: "test"}).ID
}

func (w *world) end(s meta.SessionID) {
	w.t.Helper()
	for more := true; more; {
		more = must[session.Ended](w, 0, session.OpEnd, session.End{ID: s}).More
	}
}

// offer opens a session that offers cores.
func (w *world) offer(node string, cpu int) meta.SessionID {
	w.t.Helper()
	s := w.open()
	must[none](w, s, OpOffer, Offer{Node: node, Have: Resources{CPU: int64(cpu) * 1000, Mem: 8 << 30}, Slots: 64})
	return s
}

var user = Owner{UID: 7, GID: 8, Groups: []uint32{8, 9}, Umask: 0o22}

// submit submits a script with options, as a user.
func (w *world) submit(options string) ID {
	w.t.Helper()
	return w.submitAs(user, options)
}

func (w *world) submitAs(owner Owner, options string) ID {
	w.t.Helper()
	spec, err := Parse([]byte("#DOS "+options+"\ntrue\n"), NewSpec(), w.clock)
	if err != nil {
		w.t.Fatal(err)
	}
	return ID{Job: must[Submitted](w, 0, OpSubmit, Submit{Owner: owner, Specs: []Spec{spec}}).First}
}

// schedule does all that is due, and returns how much was decided.
func (w *world) schedule() (decided int) {
	w.t.Helper()
	for rounds := 0; must[Work](w, 0, OpDue, Due{Now: meta.At(w.clock)}).Schedule; rounds++ {
		if rounds > 1000 {
			w.t.Fatal("there is always something due")
		}
		decided += must[More](w, 0, OpSchedule, Bound{DecideMax}).Done
	}
	return decided
}

// pass lets time pass, and does what becomes due.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	w.clock = w.clock.Add(d)
	w.schedule()
}

func (w *world) get(id ID) Task {
	w.t.Helper()
	return must[Task](w, 0, OpGet, Ask{id})
}

// orders are all attempts that a session has to know of.
func (w *world) orders(s meta.SessionID) []Attempt {
	w.t.Helper()
	return must[Orders](w, s, OpOrders, Seen{Session: s}).Attempts
}

func (w *world) report(s meta.SessionID, id ID, token uint64, what What) meta.Kind {
	w.t.Helper()
	one := Report{ID: id, Token: token, What: what}
	if what == Ended {
		one.Exit = &Exit{}
	}
	return w.reportAll(s, one)[0]
}

func (w *world) reportAll(s meta.SessionID, list ...Report) []meta.Kind {
	w.t.Helper()
	return must[Heard](w, s, OpReport, Reports{list}).Kinds
}

// claim claims and starts all that is assigned to a session, and says what it is.
func (w *world) claim(s meta.SessionID) (ids []ID) {
	w.t.Helper()
	for _, a := range w.orders(s) {
		if a.Claimed {
			continue
		}
		if kinds := w.reportAll(s, Report{ID: a.ID, Token: a.Token, What: Claim}, Report{ID: a.ID, Token: a.Token, What: Started}); kinds[0] != 0 || kinds[1] != 0 {
			w.t.Fatalf("claiming %v: %v", a.ID, kinds)
		}
		ids = append(ids, a.ID)
	}
	return ids
}

// finish has a task that runs end.
func (w *world) finish(s meta.SessionID, id ID, exit Exit) {
	w.t.Helper()
	t := w.get(id)
	if kind := w.reportAll(s, Report{ID: id, Token: t.Token, What: Ended, Exit: &exit, Usage: &Usage{Wall: time.Second}})[0]; kind != 0 {
		w.t.Fatalf("ending %v: %v", id, kind)
	}
}

// is holds a task to a state.
func (w *world) is(id ID, want State) Task {
	w.t.Helper()
	got := w.get(id)
	if got.State != want {
		w.t.Fatalf("task %v is %v (%s), want %v", id, got.State, got.Reason, want)
	}
	return got
}

func (w *world) control(id ID, verb Verb, number int) {
	w.t.Helper()
	must[none](w, 0, OpControl, Control{ID: id, Verb: verb, Number: number, UID: user.UID})
}

func (w *world) rows() string {
	var rows bytes.Buffer
	for k, v := range w.store.Scan([]byte("9"), []byte(":")) {
		fmt.Fprintf(&rows, "%s %x %x\n", k[:2], k[2:], v)
	}
	return rows.String()
}

func (w *world) count(prefix []byte) (n int64) {
	for range w.store.Scan(prefix, state.After(prefix)) {
		n++
	}
	return n
}

// check holds the rows to what the package says of them.
func (w *world) check() {
	w.t.Helper()
	c := readCounters(w.store)
	type who struct{ queue, uid uint32 }
	counts := make([]int64, states)
	waits := make(map[uint32]int)
	inLane := make(map[ID]bool)
	runs := make(map[uint64]ID)
	active := make(map[uint64]int)
	elements := make(map[uint64]int)
	sums, accounts := make(map[string]Resources), make(map[who]Resources)
	for k, val := range w.store.Scan(key('t'), state.After(key('t'))) {
		id := idAt(k)
		var r row
		state.MustUnmarshal(val, &r)
		if r.State != r.is() {
			w.t.Errorf("%v is %v, the indices say %v", id, r.is(), r.State)
		}
		if _, ok := w.store.Get(stateKey(r.State, id)); !ok {
			w.t.Errorf("%v is %v and not in the index", id, r.State)
		}
		switch {
		case r.Array != nil:
			a := r.Array
			counts[a.bare(r.Held)] += int64(a.Bare)
			got := make([]int, states)
			got[a.bare(r.Held)] += a.Bare
			for k, val := range w.store.Scan(taskKey(ID{id.Job, 1}), state.After(key('t', id.Job))) {
				var e row
				state.MustUnmarshal(val, &e)
				got[e.State]++
				elements[id.Job]++
				i, _ := idAt(k).Index()
				if in := contains(a.Ready, uint32(i)); in != e.Lane && (in || c.Chore == c.Chores) {
					w.t.Errorf("%v is to be started: %v, its array says %v", idAt(k), e.Lane, in)
				}
				if e.Attempt != nil {
					active[id.Job]++
				}
			}
			if !slices.Equal(got, a.Counts) || active[id.Job] != a.Active || elements[id.Job]+a.Bare != rangesLen(a.Indices) {
				w.t.Errorf("%v: %v, %d active, %d with rows; counted %+v", id, got, active[id.Job], elements[id.Job], a)
			}
			fallthrough
		case id.Place == 0:
			if r.Array == nil {
				counts[r.State]++
			}
			if r.Final == 0 {
				waits[r.Queue]++
			}
			if r.Lane {
				inLane[id] = true
			}
		default:
			counts[r.State]++
		}
		if may := r.ready(meta.At(w.clock)); may != r.Lane && r.Due == 0 {
			w.t.Errorf("%v may begin: %v, and stands in a lane: %v", id, may, r.Lane)
		}
		if a := r.Attempt; a != nil {
			runs[a.Token] = id
			if val, ok := w.store.Get(orderKey(a.Session, a.Version)); !ok || idAt(val) != id {
				w.t.Errorf("%v: no order %d of session %d", id, a.Version, a.Session)
			}
		}
	}
	if !slices.Equal(counts, c.Counts) {
		w.t.Errorf("%v, counted %v", counts, c.Counts)
	}
	// What runs on the machines is what the tasks say, and none has more than it offers.
	var total int
	for k, val := range w.store.Scan(usedKey(""), state.After(usedKey(""))) {
		var u used
		state.MustUnmarshal(val, &u)
		var sum Resources
		for _, one := range u.Runs {
			total++
			if runs[one.Token] != one.ID {
				w.t.Errorf("machine %s runs %v under token %d, which is %v's", k[2:], one.ID, one.Token, runs[one.Token])
			}
			if r, _, ok := find(w.store, one.ID); !ok || r.Attempt == nil || r.Attempt.Claimed != one.Claimed {
				w.t.Errorf("machine %s has claimed %v: %v, says its room", k[2:], one.ID, one.Claimed)
			}
			sum.Add(one.Need)
			all := accounts[who{one.Queue, one.UID}]
			all.Add(one.Need)
			accounts[who{one.Queue, one.UID}] = all
		}
		sums[string(k[2:])] = sum
		if !same(sum, u.Sum) {
			w.t.Errorf("machine %s: %+v, counted %+v", k[2:], sum, u.Sum)
		}
	}
	if total != len(runs) {
		w.t.Errorf("%d tasks have attempts, %d run on machines", len(runs), total)
	}
	if n := w.count(key('e')); n != int64(len(runs)) {
		w.t.Errorf("%d orders of %d attempts", n, len(runs))
	}
	for k, val := range w.store.Scan(nodeKey(""), state.After(nodeKey(""))) {
		var n nodeRow
		state.MustUnmarshal(val, &n)
		if sum := sums[string(k[2:])]; !sum.Fits(n.Offer.Have) {
			w.t.Errorf("machine %s offers %+v, and %+v is given out", k[2:], n.Offer.Have, sum)
		}
	}
	for k, val := range w.store.Scan(key('a'), state.After(key('a'))) {
		var a account
		state.MustUnmarshal(val, &a)
		id := who{levelKey(append(make([]byte, 4), k[2:]...)).queue(), levelKey(append(make([]byte, 4), k[2:]...)).uid()}
		if !same(a.Used, accounts[id]) || a.Share.Use < 0 || a.Share.Rate < 0 {
			w.t.Errorf("user %d in partition %d: %+v, counted %+v", id.uid, id.queue, accounts[id], a)
		}
	}
	for k, val := range w.store.Scan(key('k'), state.After(key('k'))) {
		var q running
		state.MustUnmarshal(val, &q)
		id := levelKey(append(make([]byte, 4), append(k[2:], 0, 0, 0, 0)...)).queue()
		if q.Waits != waits[id] {
			w.t.Errorf("partition %d: %d jobs have not ended, counted %d", id, waits[id], q.Waits)
		}
	}
	w.checkLanes(inLane)
}

func same(a, b Resources) bool { return a.Fits(b) && b.Fits(a) }

// checkLanes holds the lanes to the tasks that are to stand there.
func (w *world) checkLanes(inLane map[ID]bool) {
	w.t.Helper()
	var members int64
	dir := levelKeys(w.store)
	if n := w.count(key('q')); n != int64(len(dir)) || !slices.IsSorted(dir) {
		w.t.Errorf("%d levels, %d in the directory", n, len(dir))
	}
	for _, k := range dir {
		var l level
		if !read(w.store, levelRowKey(k), &l) || len(l.Lanes) == 0 || len(l.Lanes) > lanesMax {
			w.t.Errorf("level %x has %d lanes", k, len(l.Lanes))
		}
		for _, one := range l.Lanes {
			prefix := memberKey(k, one.shape(), ID{})
			prefix = prefix[:len(prefix)-idSize]
			first := true
			var n int64
			for mk := range w.store.Scan(prefix, state.After(prefix)) {
				if id := idAt(mk); first && id != one.Head || !inLane[id] {
					w.t.Errorf("level %x: %v stands in a lane with head %v, and is to: %v", k, id, one.Head, inLane[id])
				}
				first = false
				n++
			}
			if members += n; n != one.Count || n == 0 {
				w.t.Errorf("level %x: %d tasks in a lane, counted %d", k, n, one.Count)
			}
		}
		over := w.count(append(key('o'), k...))
		if members += over; over != l.Over {
			w.t.Errorf("level %x: %d without a lane, counted %d", k, over, l.Over)
		}
		for ok := range w.store.Scan(append(key('o'), k...), overKey(k, l.Low)) {
			w.t.Errorf("level %x: %v is before %v", k, idAt(ok), l.Low)
		}
	}
	if members != int64(len(inLane)) || w.count(key('m'))+w.count(key('o')) != members {
		w.t.Errorf("%d tasks stand in lanes, %d are to; %d rows", members, len(inLane), w.count(key('m'))+w.count(key('o')))
	}
}
