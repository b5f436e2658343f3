package cache

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

// A world is a machine with sessions and buckets, on a store in memory.
type world struct {
	t     testing.TB
	m     *state.Machine
	store *state.Overlay
	now   time.Time
}

func newWorld(t testing.TB, sessions int) *world {
	w := &world{t: t, m: new(state.Machine), store: state.NewOverlay(nil), now: time.Unix(1e9, 0)}
	session.Register(w.m, Release)
	Register(w.m)
	for range sessions {
		must[session.Info](w, 0, session.OpOpen, session.Open{Name: "test"})
	}
	return w
}

// call sends a request. A command that fails must have changed nothing.
func call[Resp any](w *world, s meta.SessionID, op state.Op, req any) (resp Resp, err error) {
	w.t.Helper()
	w.now = w.now.Add(time.Millisecond)
	reply := statetest.Do(w.t, w.m, w.store, state.Command{Op: op, Time: w.now.UnixNano(), Session: s, Body: state.Marshal(req)})
	if err := reply.Err(); err != nil {
		return resp, err
	}
	return resp, state.Unmarshal(reply.Body, &resp)
}

func must[Resp any](w *world, s meta.SessionID, op state.Op, req any) Resp {
	w.t.Helper()
	resp, err := call[Resp](w, s, op, req)
	if err != nil {
		w.t.Fatalf("op %#x %+v: %v", uint16(op), req, err)
	}
	return resp
}

func (w *world) overview() Overview {
	w.t.Helper()
	return must[Overview](w, 0, OpFollow, Follow{})
}

func (w *world) serve(s meta.SessionID, node string, weight uint32) uint64 {
	w.t.Helper()
	return must[Changed](w, s, OpServe, Serve{Node: node, Addr: node + ":1", Weight: weight}).Version
}

func p[T any](v T) *T { return &v }

// A change here is a change of format: what is written must be read for ever.
func TestGolden(t *testing.T) {
	w := newWorld(t, 2)
	must[Changed](w, 0, OpMake, Make{Name: "b", UID: 1, GID: 2, Mode: 0o750})
	must[Changed](w, 0, OpSet, Set{Name: "b", Max: p(int64(9)), Tier: p(Both), TTL: p(time.Minute), Policy: p(FIFO), Replicas: p(2), Clear: true})
	must[Changed](w, 0, OpMkdir, Dir{"b", "d"})
	w.serve(1, "a", 4)
	must[none](w, 1, OpKnow, Know{Version: w.overview().Version})
	w.serve(2, "b", 8)
	must[Changed](w, 1, OpDistrust, Distrust{Session: 2, Fresh: w.overview().Members[1].Fresh})
	var got bytes.Buffer
	for _, op := range w.m.Ops() {
		fmt.Fprintln(&got, op)
	}
	for k, v := range w.store.Scan([]byte("A"), []byte("B")) {
		fmt.Fprintf(&got, "%s %x %x\n", k[:2], k[2:], v)
	}
	statetest.Golden(t, "testdata/golden", got.String())
}

func TestRefused(t *testing.T) {
	w := newWorld(t, 2)
	must[Changed](w, 0, OpMake, Make{Name: "b"})
	must[Changed](w, 0, OpMkdir, Dir{"b", "d"})
	must[Changed](w, 0, OpMkdir, Dir{"b", "d/e"})
	w.serve(1, "a", 1)
	for _, c := range []struct {
		s    meta.SessionID
		op   state.Op
		req  any
		want error
	}{
		{0, OpMake, Make{Name: "b"}, meta.Exist},
		{0, OpMake, Make{Name: ".b"}, meta.Invalid},
		{0, OpMake, Make{Name: "a/b"}, meta.Invalid},
		{0, OpMake, Make{}, meta.Invalid},
		{0, OpRemove, Named{"none"}, meta.NotExist},
		{0, OpRemove, Named{"b"}, meta.NotEmpty},
		{0, OpSet, Set{Name: "none"}, meta.NotExist},
		{0, OpSet, Set{Name: "b", Max: p(int64(-1))}, meta.Invalid},
		{0, OpSet, Set{Name: "b", TTL: p(time.Duration(-1))}, meta.Invalid},
		{0, OpSet, Set{Name: "b", Tier: p(Both + 1)}, meta.Invalid},
		{0, OpSet, Set{Name: "b", Policy: p(FIFO + 1)}, meta.Invalid},
		{0, OpSet, Set{Name: "b", Replicas: p(0)}, meta.Invalid},
		{0, OpSet, Set{Name: "b", Replicas: p(ReplicasMax + 1)}, meta.Invalid},
		{0, OpMkdir, Dir{"none", "d"}, meta.NotExist},
		{0, OpMkdir, Dir{"b", "d"}, meta.Exist},
		{0, OpMkdir, Dir{"b", ""}, meta.Invalid},
		{0, OpMkdir, Dir{"b", "d//x"}, meta.Invalid},
		{0, OpMkdir, Dir{"b", ".d"}, meta.Invalid},
		{0, OpMkdir, Dir{"b", "x/y"}, meta.NotExist},
		{0, OpMkdir, Dir{"b", string(bytes.Repeat([]byte("x"), KeyMax))}, meta.NameTooLong},
		{0, OpRmdir, Dir{"b", "d"}, meta.NotEmpty},
		{0, OpRmdir, Dir{"b", "x"}, meta.NotExist},
		{0, OpServe, Serve{Node: "a", Weight: 1}, meta.Invalid},
		{1, OpServe, Serve{Node: "a"}, meta.Invalid},
		{2, OpServe, Serve{Node: "a", Weight: WeightMax + 1}, meta.Invalid},
		{2, OpKnow, Know{}, meta.NotExist},
		{1, OpKnow, Know{Version: 99}, meta.Invalid},
		{2, OpWeigh, Weigh{Weight: 1}, meta.NotExist},
		{1, OpWeigh, Weigh{}, meta.Invalid},
		{2, OpDistrust, Distrust{Session: 1}, meta.NotExist},
		{0, OpBucket, Named{"none"}, meta.NotExist},
		{0, OpDirs, Dirs{Bucket: "b"}, meta.Invalid},
		{0, OpIsDir, Dir{Bucket: "none"}, meta.NotExist},
	} {
		if _, err := call[any](w, c.s, c.op, c.req); !errors.Is(err, c.want) {
			t.Errorf("op %#x %+v: %v, want %v", uint16(c.op), c.req, err, c.want)
		}
	}
}

func TestBuckets(t *testing.T) {
	w := newWorld(t, 0)
	for _, name := range []string{"b", "c"} {
		must[Changed](w, 0, OpMake, Make{Name: name, Mode: 0o755})
	}
	first := must[Bucket](w, 0, OpBucket, Named{"b"})
	must[Changed](w, 0, OpSet, Set{Name: "b", Clear: true})
	cleared := must[Bucket](w, 0, OpBucket, Named{"b"})
	if cleared.ID != first.ID || cleared.Generation == first.Generation || cleared.Placed != first.Placed {
		t.Errorf("cleared, %+v is %+v", first, cleared)
	}
	done := must[Changed](w, 0, OpSet, Set{Name: "b", Replicas: p(2)})
	if b := must[Bucket](w, 0, OpBucket, Named{"b"}); b.Placed != done.Version || b.Generation != cleared.Generation {
		t.Errorf("with other replicas at version %d: %+v", done.Version, b)
	}
	must[Changed](w, 0, OpRemove, Named{"b"})
	must[Changed](w, 0, OpMake, Make{Name: "b"})
	if b := must[Bucket](w, 0, OpBucket, Named{"b"}); b.ID == first.ID {
		t.Errorf("another one has the number of the one that was removed: %+v", b)
	}
	for _, dir := range []string{"d", "d/e", "d/f", "g"} {
		must[Changed](w, 0, OpMkdir, Dir{"b", dir})
	}
	must[Changed](w, 0, OpMkdir, Dir{"c", "d"})
	must[Changed](w, 0, OpRmdir, Dir{"b", "d/f"})
	for path, want := range map[string]string{"": "[d g]", "d": "[e]", "d/e": "[]", "none": "[]"} {
		var names []string
		for req := (Dirs{Bucket: "b", Path: path, Limit: 1}); ; {
			list := must[DirList](w, 0, OpDirs, req)
			names = append(names, list.Names...)
			if !list.More {
				break
			}
			req.After = names[len(names)-1]
		}
		if got := fmt.Sprint(names); got != want {
			t.Errorf("directories in %q: %s, want %s", path, got, want)
		}
	}
	if is := must[Is](w, 0, OpIsDir, Dir{"b", "d/e"}); !is.Dir || must[Is](w, 0, OpIsDir, Dir{"c", "d/e"}).Dir {
		t.Error("d/e is a directory of b alone")
	}
	seen := w.overview()
	again := must[Overview](w, 0, OpFollow, Follow{Version: seen.Version})
	if len(seen.Buckets) != 2 || !seen.Whole || again.Whole || again.Buckets != nil {
		t.Errorf("all %+v, and again %+v", seen, again)
	}
}

// A map is kept until everybody has done with it, and the one in force for ever.
func TestMembers(t *testing.T) {
	w := newWorld(t, 3)
	a := w.serve(1, "a", 1)
	if again := w.serve(1, "a", 1); again != a {
		t.Errorf("asked again, version %d is %d", a, again)
	}
	b := w.serve(2, "b", 1)
	epochs := func() (list []uint64) {
		for _, m := range w.overview().Maps {
			list = append(list, m.Epoch)
		}
		return list
	}
	if got := epochs(); !slices.Equal(got, []uint64{a, b}) {
		t.Errorf("maps %v, want %v: a may still act by the first", got, []uint64{a, b})
	}
	stamp := w.overview().Stamp
	must[none](w, 1, OpKnow, Know{Version: b})
	o := w.overview()
	if got := epochs(); !slices.Equal(got, []uint64{b}) || o.Version != b || o.Stamp == stamp {
		t.Errorf("maps %v at version %d, stamp %d after %d", got, o.Version, o.Stamp, stamp)
	}
	must[Changed](w, 1, OpDistrust, Distrust{Session: 2, Fresh: b})
	if m := w.overview().Members[1]; m.Fresh != w.overview().Version || m.Known != b {
		t.Errorf("distrusted: %+v", m)
	}
	fresh := w.overview().Members[1].Fresh
	must[Changed](w, 1, OpDistrust, Distrust{Session: 2, Fresh: b})
	if m := w.overview().Members[1]; m.Fresh != fresh {
		t.Errorf("distrusted again for the same: %+v", m)
	}
	// Another process of a machine takes the place of the one before.
	w.serve(3, "a", 1)
	o = w.overview()
	if len(o.Members) != 2 || o.Members[1].Session != 3 {
		t.Errorf("members %+v", o.Members)
	}
	must[session.Ended](w, 0, session.OpEnd, session.End{ID: 2})
	o = w.overview()
	if last := o.Maps[len(o.Maps)-1]; len(o.Members) != 1 || len(last.Places) != 1 || last.Places[0].Session != 3 || last.Epoch != o.Version {
		t.Errorf("after the end of a session: %+v", o)
	}
	for i := range uint32(3 * MapsMax) { // nobody tells that he knows
		must[Changed](w, 3, OpWeigh, Weigh{Weight: i + 1})
	}
	if got := epochs(); len(got) != MapsMax {
		t.Errorf("%d maps are kept", len(got))
	}
}

func ring(weights map[string]uint32) *Ring {
	var m Map
	var names []string
	for name := range weights {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		m.Places = append(m.Places, Place{Session: meta.SessionID(name[0]), Node: name, Weight: weights[name]})
	}
	return m.Ring()
}

// Each member owns as much as it weighs; one that comes or goes moves no more than what
// it has; the next in the order is the owner when the first is gone.
func TestPlacement(t *testing.T) {
	const keys = 100_000
	three := ring(map[string]uint32{"a": 100, "b": 200, "c": 100})
	four := ring(map[string]uint32{"a": 100, "b": 200, "c": 100, "d": 400})
	count := make(map[meta.SessionID]int)
	for i := range keys {
		hash := Hash(7, fmt.Sprintf("key-%d", i))
		was, is := three.Owner(hash), four.Owner(hash)
		count[is]++
		if is != was && is != 'd' {
			t.Fatalf("key %d went from %c to %c when d came", i, was, is)
		}
		order := four.Order(hash, 4)
		if order[0] != is || len(order) != 4 || !four.Among(order[2], hash, 3) || four.Among(order[2], hash, 2) {
			t.Fatalf("key %d: owner %c, order %v", i, is, order)
		}
		if i := slices.Index(order, 'd'); i == 0 && order[1] != was {
			t.Fatalf("key %d would be %c's without d, not %c's", i, was, order[1])
		}
	}
	for s, want := range map[meta.SessionID]int{'a': keys / 8, 'b': keys / 4, 'c': keys / 8, 'd': keys / 2} {
		if got := count[s]; got < want*95/100 || got > want*105/100 {
			t.Errorf("%c has %d keys of %d, want %d", s, got, keys, want)
		}
	}
	none := ring(nil)
	if none.Owner(1) != 0 || len(none.Order(1, 3)) != 0 {
		t.Error("nobody owns something")
	}
	// All machines, and all versions of the program, must agree.
	var got []byte
	for i := range 40 {
		got = append(got, byte(four.Owner(Hash(1, fmt.Sprint("key-", i)))))
	}
	if want := "dddabddddcaddddadadbdcddadcdbcbcdcddbdda"; string(got) != want {
		t.Errorf("the owners of 40 keys are %s, not %s", got, want)
	}
}

// The logarithm is what it is called.
func TestLog(t *testing.T) {
	for _, c := range []struct{ x, want uint64 }{{1, 0}, {2, 1 << logBits}, {3, 26591258}, {1 << 63, 63 << logBits}, {3 << 62, 63<<logBits + 26591258 - 1<<logBits}} {
		if got := log2(c.x); got+2 < c.want || got > c.want+2 {
			t.Errorf("log2(%d) = %d, want %d", c.x, got, c.want)
		}
	}
	last := uint64(0)
	for x := uint64(1); x < 1<<40; x += 1 + x/1000 {
		now := log2(x)
		if now < last {
			t.Fatalf("log2(%d) = %d, after %d", x, now, last)
		}
		last = now
	}
}

// FuzzRequest gives each operation arbitrary bodies.
func FuzzRequest(f *testing.F) {
	for op, req := range map[state.Op]any{
		OpMake: Make{Name: "n"}, OpSet: Set{Name: "b", Replicas: p(3)}, OpMkdir: Dir{"b", "x"}, OpServe: Serve{Node: "n", Weight: 1},
		OpKnow: Know{1}, OpFollow: Follow{}, OpDirs: Dirs{Bucket: "b", Limit: 1},
	} {
		f.Add(uint16(op), state.Marshal(req))
	}
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		w := newWorld(t, 1)
		must[Changed](w, 0, OpMake, Make{Name: "b"})
		if op := state.Op(op); op>>8 == OpMake>>8 && (w.m.IsQuery(op) || w.m.IsCommand(op)) {
			statetest.Do(t, w.m, w.store, state.Command{Op: op, Session: 1, Time: 1, Body: body})
		}
	})
}
