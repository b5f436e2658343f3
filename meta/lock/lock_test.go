package lock

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// A session hears which of its waits are over.
func TestAwait(t *testing.T) {
	w := newWorld(t, 2)
	ask := func(s meta.SessionID) string {
		t.Helper()
		a, err := call[Waiting](w, 0, OpAwait, Await{Session: s})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(a)
	}
	set := func(s meta.SessionID, l meta.Lock) Outcome {
		t.Helper()
		out, err := w.set(s, l, true)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	set(1, flock(7, meta.Exclusive, 1))
	set(1, record(8, meta.Exclusive, 1, 0, 9))
	if got := ask(2); got != "{0 0 []}" {
		t.Errorf("at first: %s", got)
	}
	for i, l := range []meta.Lock{flock(7, meta.Shared, 5), record(8, meta.Shared, 5, 3, 3), record(8, meta.Shared, 6, 9, 9)} {
		if out := set(2, l); out.Wait != uint64(i+1) {
			t.Errorf("%+v: %+v", l, out)
		}
	}
	if got := ask(2); got != "{0 3 [1 2 3]}" {
		t.Errorf("with all waiting: %s", got)
	}
	seen := string(w.row(AwaitKey(2)))
	set(1, record(8, meta.Unlocked, 1, 5, 9))
	if got := ask(2); got != "{1 3 [1 2]}" || string(w.row(AwaitKey(2))) == seen {
		t.Errorf("one was granted: %s", got)
	}
	w.cancel(2, 7, 1, meta.Flock, 5)
	w.cancel(2, 8, 3, meta.Record, 6)
	w.cancel(2, 8, 2, meta.Record, 6) // another's
	if got := ask(2); got != "{1 3 [2]}" {
		t.Errorf("one was given up, and one that was granted: %s", got)
	}
	w.drop(2, 8, meta.Record, 5)
	if got := ask(2); got != "{1 3 []}" {
		t.Errorf("another's file was closed: %s", got)
	}
	w.end(2)
	if _, err := call[Waiting](w, 0, OpAwait, Await{Session: 2}); !errors.Is(err, meta.Expired) {
		t.Errorf("the session has ended: %v", err)
	}
	w.drop(1, 7, meta.Flock, 1)
	w.drop(1, 8, meta.Record, 1)
	w.drop(1, 8, meta.Record, 1)
	if rows := w.rows(); rows != "" {
		t.Errorf("rows are left:\n%s", rows)
	}
}

func (w *world) row(key []byte) []byte {
	val, _ := w.store.Get(key)
	return val
}

// Whatever there may be many of has an end, and the end of it all is taken in steps.
func TestLimits(t *testing.T) {
	w := newWorld(t, 3)
	quota := func(what string, s meta.SessionID, l meta.Lock, wait bool) {
		t.Helper()
		if _, err := w.set(s, l, wait); !errors.Is(err, meta.Quota) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ok := func(s meta.SessionID, l meta.Lock, wait bool) {
		t.Helper()
		if _, err := w.set(s, l, wait); err != nil {
			t.Fatalf("%+v: %v", l, err)
		}
	}
	for i := range int64(LocksMax) {
		ok(1, record(1, meta.Exclusive, 1, 10*i, 10*i+4), false)
	}
	quota("one more lock", 1, record(1, meta.Shared, 1, 1<<40, 1<<40), false)
	quota("a hole in one", 1, record(1, meta.Unlocked, 1, 2, 2), false)
	ok(1, record(1, meta.Unlocked, 1, 4, 4), false)
	for i := range uint64(WaitsMax) {
		ok(2, record(1, meta.Shared, i, 0, 0), true)
	}
	quota("one more waiter", 3, record(1, meta.Shared, 1, 0, 0), true)
	ok(1, flock(2, meta.Exclusive, 1), false)
	quota("one more wait of the session", 2, flock(2, meta.Shared, 1), true)
	// The longest row that there can be has room.
	if size := len(w.row(fileKey(1))); size > state.MaxValue/2 {
		t.Errorf("a row of %d bytes", size)
	}
	w.drop(1, 1, meta.Record, 1)
	w.check()
	for i := range meta.Ino(2 * session.EndMax) {
		ok(3, flock(100+i, meta.Exclusive, 1), false)
	}
	steps := 0
	for more := true; more; steps++ {
		ended, err := call[session.Ended](w, 0, session.OpEnd, session.End{ID: 3})
		if err != nil {
			t.Fatal(err)
		}
		more = ended.More
	}
	if steps < 2 {
		t.Errorf("the session ended in %d steps", steps)
	}
	w.check()
	w.end(1)
	w.end(2)
	if rows := w.rows(); rows != "" {
		t.Errorf("rows are left:\n%s", rows)
	}

	w.open()
	w.store.Set(sessionKey('n', 4), state.Marshal(uint64(SessionFiles)))
	quota("one more file", 4, flock(9, meta.Shared, 1), false)
}

func TestInvalid(t *testing.T) {
	w := newWorld(t, 1)
	bad := record(1, 3, 1, 0, 9)
	whole := record(1, meta.Shared, 1, 0, 9)
	whole.Kind = meta.Flock
	for _, l := range []meta.Lock{{}, bad, whole, record(0, meta.Shared, 1, 0, 9), record(1, meta.Shared, 1, 9, 8), record(1, meta.Shared, 1, -1, 8), {Ino: 1, Kind: 3, Mode: meta.Shared}} {
		if _, err := w.set(1, l, true); !errors.Is(err, meta.Invalid) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	if _, err := w.set(0, flock(1, meta.Shared, 1), true); !errors.Is(err, meta.Invalid) {
		t.Errorf("without a session: %v", err)
	}
	if _, err := call[none](w, 1, OpDrop, Drop{Ino: 1, Kind: 0}); !errors.Is(err, meta.Invalid) {
		t.Errorf("drop of no kind: %v", err)
	}
	if _, err := call[meta.LockHolder](w, 1, OpTest, Test{Lock: bad}); !errors.Is(err, meta.Invalid) {
		t.Errorf("test: %v", err)
	}
	w.cancel(1, 5, 5, meta.Flock, 5)
	if rows := w.rows(); rows != "" {
		t.Errorf("rows are left:\n%s", rows)
	}
}

// What is written here is read for ever: a change is a change of format.
func TestGolden(t *testing.T) {
	w := newWorld(t, 2)
	var got bytes.Buffer
	for _, l := range []meta.Lock{
		{Ino: 0x0a0b, Kind: meta.Record, Mode: meta.Exclusive, Owner: math.MaxUint64, First: 1, Last: 9, PID: 77},
		{Ino: 0x0a0b, Kind: meta.Flock, Mode: meta.Shared, Owner: 3, Last: meta.LockEnd, PID: 78},
	} {
		if _, err := w.set(1, l, false); err != nil {
			t.Fatal(err)
		}
		l.Owner, l.PID, l.Mode = 4, 79, meta.Exclusive
		if _, err := w.set(2, l, true); err != nil {
			t.Fatal(err)
		}
	}
	w.drop(1, 0x0a0b, meta.Flock, 3)
	for _, op := range w.m.Ops() {
		if op > "0x0500" {
			fmt.Fprintln(&got, op)
		}
	}
	got.WriteString(w.rows())
	l := meta.Lock{Ino: 1, Kind: 2, Mode: 1, Owner: 4, First: 5, Last: 6, PID: 7}
	for _, v := range []any{
		Set{l, true}, Outcome{1, true}, Cancel{1, 2, meta.Flock, 4}, Drop{1, 2, 3}, Test{1, l}, meta.LockHolder{Session: 1, Lock: l}, Await{1, 2}, Waiting{1, 2, []uint64{3}},
	} {
		fmt.Fprintf(&got, "%T %x\n", v, state.Marshal(v))
	}
	statetest.Golden(t, "testdata/golden", got.String())
}

// FuzzRequest gives each operation arbitrary bodies.
func FuzzRequest(f *testing.F) {
	l := record(1, meta.Shared, 1, 3, 9)
	for op, req := range map[state.Op]any{
		OpSet: Set{l, true}, OpCancel: Cancel{1, 1, meta.Record, 1}, OpDrop: Drop{1, meta.Record, 1}, OpTest: Test{1, l}, OpAwait: Await{Session: 1},
	} {
		f.Add(uint16(op), state.Marshal(req))
	}
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		w := newWorld(t, 2)
		for i, l := range []meta.Lock{record(1, meta.Exclusive, 1, 0, 9), flock(1, meta.Exclusive, 2), record(1, meta.Shared, 1, 5, 20)} {
			if _, err := w.set(meta.SessionID(i%2+1), l, true); err != nil {
				t.Fatal(err)
			}
		}
		switch op := state.Op(op); {
		case w.m.IsQuery(op):
			w.m.Answer(w.store, state.Command{Op: op, Body: body})
		case w.m.IsCommand(op):
			w.m.Apply(w.store, state.Command{Op: op, Session: 2, Body: body})
		}
		w.check()
	})
}
