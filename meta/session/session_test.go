package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"dos/chunk"
	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// A world is a machine whose sessions hold numbered things, at rows "y" and "z".
type world struct {
	t     *testing.T
	m     *state.Machine
	store *state.Overlay
	now   int64
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, m: new(state.Machine), store: state.NewOverlay(nil), now: 1e18}
	session.Register(w.m, release('y'), release('z'))
	return w
}

func thing(prefix byte, id meta.SessionID, n int) []byte {
	return fmt.Appendf(nil, "%c%d/%06d", prefix, id, n)
}

func release(prefix byte) session.Release {
	return func(tx *state.Tx, id meta.SessionID, limit int) (n int, more bool) {
		var keys [][]byte
		for k := range tx.Scan(thing(prefix, id, 0), state.After(fmt.Appendf(nil, "%c%d/", prefix, id))) {
			if len(keys) == limit {
				return len(keys), true
			}
			keys = append(keys, k)
			tx.Delete(k)
		}
		return len(keys), false
	}
}

func call[Resp any](w *world, me meta.SessionID, op state.Op, req any) (resp Resp, err error) {
	w.t.Helper()
	w.now += 1e9
	var reply state.Reply
	if w.m.IsQuery(op) {
		reply = w.m.Answer(w.store, state.Command{Op: op, Session: me, Body: state.Marshal(req)})
	} else {
		var before bytes.Buffer
		for k, v := range w.store.Scan(nil, nil) {
			fmt.Fprintf(&before, "%x %x\n", k, v)
		}
		reply = w.m.Apply(w.store, state.Command{Op: op, Time: w.now, Session: me, Body: state.Marshal(req)})
		var after bytes.Buffer
		for k, v := range w.store.Scan(nil, nil) {
			fmt.Fprintf(&after, "%x %x\n", k, v)
		}
		if reply.Kind != 0 && before.String() != after.String() {
			w.t.Errorf("op %#x failed with %v and changed the state", uint16(op), reply.Err())
		}
	}
	if reply.Kind == 0 {
		state.MustUnmarshal(reply.Body, &resp)
	}
	return resp, reply.Err()
}

func must[Resp any](w *world, me meta.SessionID, op state.Op, req any) Resp {
	w.t.Helper()
	resp, err := call[Resp](w, me, op, req)
	if err != nil {
		w.t.Fatalf("op %#x: %v", uint16(op), err)
	}
	return resp
}

func (w *world) open() meta.SessionID {
	w.t.Helper()
	return must[session.Info](w, 0, session.OpOpen, session.Open{Name: "mount", Node: "here"}).ID
}

func (w *world) info(id meta.SessionID) session.Info {
	w.t.Helper()
	return must[session.Info](w, 0, session.OpSession, session.Ask{ID: id})
}

func TestOpenAndList(t *testing.T) {
	w := newWorld(t)
	for range 5 {
		w.open()
	}
	must[session.Ended](w, 0, session.OpEnd, session.End{ID: 3})
	if id := w.open(); id != 6 {
		t.Errorf("session %d: numbers are not used again, want 6", id)
	}
	if got := w.info(2); got.Name != "mount" || got.Node != "here" || got.Opened == 0 || got.ID != 2 {
		t.Errorf("got %+v", got)
	}
	if _, err := call[session.Info](w, 0, session.OpSession, session.Ask{ID: 3}); !errors.Is(err, meta.NotExist) {
		t.Errorf("an ended session: %v", err)
	}
	var ids []meta.SessionID
	req := session.List{Limit: 2}
	for more := true; more; {
		reply := must[session.Listed](w, 0, session.OpSessions, req)
		for _, s := range reply.Sessions {
			ids = append(ids, s.ID)
			req.After = s.ID
		}
		more = reply.More
	}
	if fmt.Sprint(ids) != "[1 2 4 5 6]" {
		t.Errorf("sessions %v", ids)
	}
	if _, err := call[session.Info](w, 0, session.OpOpen, session.Open{Name: strings.Repeat("n", session.TextMax+1)}); !errors.Is(err, meta.TooLarge) {
		t.Errorf("a long name: %v", err)
	}
	for _, bad := range []session.List{{}, {Limit: -1}, {Limit: 1, After: ^meta.SessionID(0)}} {
		if _, err := call[session.Listed](w, 0, session.OpSessions, bad); !errors.Is(err, meta.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// settled returns which of the IDs from 0 to n are settled.
func (w *world) settled(n int) string {
	w.t.Helper()
	var req session.IDs
	for id := range chunk.StripeID(n) {
		req.IDs = append(req.IDs, id)
	}
	var list []int
	for id, is := range must[session.Settlement](w, 0, session.OpSettled, req).Settled {
		if is {
			list = append(list, id)
		}
	}
	return fmt.Sprint(list)
}

func TestStripeIDs(t *testing.T) {
	w := newWorld(t)
	a, b := w.open(), w.open()
	reserve := func(id meta.SessionID, n uint32, want chunk.StripeID) {
		t.Helper()
		if r := must[session.Range](w, id, session.OpReserve, session.Reserve{N: n}); r.First != want || r.End != want+chunk.StripeID(n) {
			t.Errorf("reserved %+v, want %d from %d", r, n, want)
		}
	}
	advance := func(id meta.SessionID, low chunk.StripeID) {
		must[struct{}](w, id, session.OpAdvance, session.Advance{Low: low})
	}
	want := func(when, list string) {
		t.Helper()
		if got := w.settled(12); got != list {
			t.Errorf("%s: settled %s, want %s", when, got, list)
		}
	}
	reserve(a, 2, 1)
	reserve(a, 2, 3) // adjacent: one range
	reserve(b, 3, 5)
	reserve(a, 2, 8)
	if r := w.info(a).Ranges; fmt.Sprint(r) != "[{1 5} {8 10}]" {
		t.Errorf("ranges %v", r)
	}
	want("all open", "[]")
	advance(a, 3)
	want("a at 3", "[1 2]")
	advance(a, 2)
	advance(a, 0)
	want("a not back", "[1 2]")
	advance(b, 10)
	want("b done", "[1 2 5 6 7]")
	advance(a, 8)
	if r := w.info(a).Ranges; fmt.Sprint(r) != "[{8 10}]" {
		t.Errorf("ranges %v", r)
	}
	reserve(b, 1, 10)
	want("b has one more", "[1 2 3 4 5 6 7]")
	must[session.Ended](w, 0, session.OpEnd, session.End{ID: a})
	want("a ended", "[1 2 3 4 5 6 7 8 9]")
	must[session.Ended](w, 0, session.OpEnd, session.End{ID: b})
	want("b ended", "[1 2 3 4 5 6 7 8 9 10]")

	c := w.open()
	for _, bad := range []struct {
		op   state.Op
		as   meta.SessionID
		req  any
		want meta.Kind
	}{
		{session.OpAdvance, c, session.Advance{Low: 12}, meta.Invalid}, // would settle what is not reserved yet
		{session.OpAdvance, 0, session.Advance{Low: 1}, meta.Invalid},
		{session.OpAdvance, a, session.Advance{Low: 1}, meta.Expired},
		{session.OpReserve, c, session.Reserve{}, meta.Invalid},
		{session.OpReserve, c, session.Reserve{N: session.ReserveMax + 1}, meta.Invalid},
		{session.OpReserve, 0, session.Reserve{N: 1}, meta.Invalid},
		{session.OpReserve, b, session.Reserve{N: 1}, meta.Expired},
		{session.OpReserve, 99, session.Reserve{N: 1}, meta.Expired},
	} {
		if _, err := call[any](w, bad.as, bad.op, bad.req); !errors.Is(err, bad.want) {
			t.Errorf("%#x %+v: got %v, want %v", uint16(bad.op), bad.req, err, bad.want)
		}
	}
	if _, err := call[session.Settlement](w, 0, session.OpSettled, session.IDs{IDs: make([]chunk.StripeID, session.IDsMax+1)}); !errors.Is(err, meta.TooLarge) {
		t.Errorf("too many IDs: %v", err)
	}
}

// A session that uses none of its ranges up is told so.
func TestRangesMax(t *testing.T) {
	w := newWorld(t)
	a, b := w.open(), w.open()
	for i := range session.RangesMax + 1 {
		_, err := call[session.Range](w, a, session.OpReserve, session.Reserve{N: 1})
		if want := i == session.RangesMax; errors.Is(err, meta.Busy) != want {
			t.Fatalf("range %d: %v", i, err)
		} else if want {
			break
		}
		must[session.Range](w, b, session.OpReserve, session.Reserve{N: 1}) // so that a's are apart
		must[struct{}](w, b, session.OpAdvance, session.Advance{Low: chunk.StripeID(2*i + 3)})
	}
	must[struct{}](w, a, session.OpAdvance, session.Advance{Low: 3})
	must[session.Range](w, a, session.OpReserve, session.Reserve{N: 1})
}

// The end of a session takes what it holds in bounded steps, and fences it at once.
func TestEnd(t *testing.T) {
	w := newWorld(t)
	a, b := w.open(), w.open()
	for i := range 2*session.EndMax + 5 {
		w.store.Set(thing("yz"[i%2], a, i), nil)
	}
	w.store.Set(thing('z', b, 0), nil)
	reserve := state.Command{Op: session.OpReserve, Session: a, Slot: 3, Seq: 1, Body: state.Marshal(session.Reserve{N: 1})}
	for range 2 {
		if err := w.m.Apply(w.store, reserve).Err(); err != nil {
			t.Fatal(err)
		}
	}
	steps := 1
	for ; must[session.Ended](w, 0, session.OpEnd, session.End{ID: a}).More; steps++ {
		if !w.info(a).Ending {
			t.Error("not ending")
		}
		if reply := w.m.Apply(w.store, reserve); reply.Kind != meta.Expired {
			t.Errorf("a request of an ending session: %v", reply.Err())
		}
	}
	if steps != 3 {
		t.Errorf("%d steps", steps)
	}
	must[session.Ended](w, 0, session.OpEnd, session.End{ID: a})
	rows := 0
	for k := range w.store.Scan(nil, nil) {
		rows++
		t.Logf("row %q", k)
	}
	if rows != 3 { // counters, b, what b holds
		t.Errorf("%d rows are left", rows)
	}
}

// A session may end itself, once.
func TestEndOneself(t *testing.T) {
	w := newWorld(t)
	a := w.open()
	cmd := state.Command{Op: session.OpEnd, Session: a, Seq: 1, Body: state.Marshal(session.End{ID: a})}
	if err := w.m.Apply(w.store, cmd).Err(); err != nil {
		t.Fatal(err)
	}
	if reply := w.m.Apply(w.store, cmd); reply.Kind != meta.Expired {
		t.Errorf("again: %v", reply.Err())
	}
	if n, _ := w.store.Size(); n != 1 {
		t.Errorf("%d rows are left, want the counters", n)
	}
}

// What is written here is read for ever: a change is a change of format.
func TestGolden(t *testing.T) {
	w := newWorld(t)
	a := w.open()
	must[session.Range](w, a, session.OpReserve, session.Reserve{N: 300})
	must[struct{}](w, a, session.OpAdvance, session.Advance{Low: 7})
	var got bytes.Buffer
	for _, op := range w.m.Ops() {
		fmt.Fprintln(&got, op)
	}
	for k, v := range w.store.Scan(nil, nil) {
		fmt.Fprintf(&got, "%s %x %x\n", k[:2], k[2:], v)
	}
	want, err := os.ReadFile("testdata/golden")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

// FuzzRequest gives each operation arbitrary bodies.
func FuzzRequest(f *testing.F) {
	for op, req := range map[state.Op]any{
		session.OpOpen: session.Open{Name: "n"}, session.OpEnd: session.End{ID: 1}, session.OpReserve: session.Reserve{N: 9},
		session.OpAdvance: session.Advance{Low: 2}, session.OpSession: session.Ask{ID: 1}, session.OpSessions: session.List{Limit: 1},
		session.OpSettled: session.IDs{IDs: []chunk.StripeID{1}},
	} {
		f.Add(uint16(op), state.Marshal(req))
	}
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		w := newWorld(t)
		a := w.open()
		must[session.Range](w, a, session.OpReserve, session.Reserve{N: 3})
		switch op := state.Op(op); {
		case w.m.IsQuery(op):
			w.m.Answer(w.store, state.Command{Op: op, Body: body})
		case w.m.IsCommand(op):
			o := state.NewOverlay(w.store)
			reply := w.m.Apply(o, state.Command{Op: op, Session: a, Body: body})
			for k, v := range o.Changes() {
				if old, had := w.store.Get(k); reply.Kind != 0 && (had != (v != nil) || !bytes.Equal(old, v)) {
					t.Errorf("op %#x failed with %v and changed row %q", uint16(op), reply.Err(), k)
				}
			}
		}
	})
}
