package lease_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"dos/meta"
	"dos/meta/lease"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

type world struct {
	t     *testing.T
	m     *state.Machine
	store *state.Overlay
	seq   map[meta.SessionID]uint64
	now   int64
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, m: new(state.Machine), store: state.NewOverlay(nil), seq: make(map[meta.SessionID]uint64)}
	lease.Register(w.m)
	return w
}

// do sends a command as a client does, once.
func (w *world) do(s meta.SessionID, op state.Op, req any) state.Reply {
	w.seq[s]++
	w.now++
	reply := w.m.Apply(w.store, state.Command{Op: op, Time: w.now, Session: s, Seq: w.seq[s], Body: state.Marshal(req)})
	if reply.Kind == meta.Leased {
		w.seq[s]-- // the number is not used up
	}
	return reply
}

func (w *world) holder(ino meta.Ino) meta.SessionID { return lease.Holder(w.store, ino) }

func (w *world) rows() string {
	var rows bytes.Buffer
	for k, v := range w.store.Scan([]byte("4"), state.After([]byte("4"))) {
		fmt.Fprintf(&rows, "%s %x %x\n", k[:2], k[2:], v)
	}
	return rows.String()
}

func TestTakeAndGive(t *testing.T) {
	w := newWorld(t)
	take := func(s meta.SessionID, ino meta.Ino) state.Reply { return w.do(s, lease.OpTake, lease.Take{Ino: ino}) }
	for range 2 {
		if err := take(1, 7).Err(); err != nil || w.holder(7) != 1 {
			t.Fatalf("%v, holder %d", err, w.holder(7))
		}
	}
	reply := take(2, 7)
	if got, want := blockedBy(t, reply), []lease.Held{{Ino: 7, Session: 1, Since: 1}}; !slices.Equal(got, want) {
		t.Fatalf("another session is refused for %+v, want %+v", got, want)
	}
	// The refused request is executed when it is sent again with its number.
	w.do(2, lease.OpGive, lease.Give{Inos: []meta.Ino{7, 8}})
	if w.holder(7) != 1 {
		t.Fatal("a session gave back what another holds")
	}
	if err := w.do(1, lease.OpGive, lease.Give{Inos: []meta.Ino{7, 8}}).Err(); err != nil || w.holder(7) != 0 || w.rows() != "" {
		t.Fatalf("%v, holder %d, rows\n%s", err, w.holder(7), w.rows())
	}
	if err := take(2, 7).Err(); err != nil || w.holder(7) != 2 {
		t.Fatalf("%v, holder %d", err, w.holder(7))
	}
	for _, bad := range []state.Reply{
		take(1, 0), take(0, 9), w.do(1, lease.OpGive, lease.Give{Inos: make([]meta.Ino, lease.ListMax+1)}),
	} {
		if kind := bad.Kind; kind != meta.Invalid && kind != meta.TooLarge {
			t.Errorf("bad request: %+v", bad)
		}
	}
	for _, may := range []func(state.Reader, meta.SessionID, meta.Ino) error{lease.MayRead, lease.MayChange} {
		if err := may(w.store, 2, 7); err != nil {
			t.Errorf("the holder is refused: %v", err)
		}
		if err := may(w.store, 0, 7); !errors.Is(err, meta.Leased) {
			t.Errorf("nobody in particular is let in: %v", err)
		}
	}
}

// blockedBy is whose leases a refusal names.
func blockedBy(t *testing.T, reply state.Reply) []lease.Held {
	t.Helper()
	var blocked lease.Blocked
	if reply.Kind != meta.Leased || state.Unmarshal(reply.Body, &blocked) != nil {
		t.Fatalf("not refused for a lease: %+v", reply)
	}
	return blocked.By
}

func TestRelease(t *testing.T) {
	w := newWorld(t)
	var want []meta.Ino
	for ino := range meta.Ino(10) {
		want = append(want, ino+1)
		w.do(1, lease.OpTake, lease.Take{Ino: ino + 1})
	}
	w.do(2, lease.OpTake, lease.Take{Ino: 100})
	var got []meta.Ino
	for more := true; more; {
		var page lease.Leases
		after := meta.Ino(0)
		if len(got) > 0 {
			after = got[len(got)-1]
		}
		reply := w.m.Answer(w.store, state.Command{Op: lease.OpHolding, Body: state.Marshal(lease.Holding{Session: 1, After: after, Limit: 3})})
		if reply.Err() != nil || state.Unmarshal(reply.Body, &page) != nil || len(page.Inos) > 3 {
			t.Fatalf("%+v", reply)
		}
		got, more = append(got, page.Inos...), page.More
	}
	if !slices.Equal(got, want) {
		t.Errorf("session 1 holds %v, want %v", got, want)
	}
	m := new(state.Machine)
	const op = 0x7f00
	state.Handle(m, op, "release", func(tx *state.Tx, limit int) (bool, error) {
		n, more := lease.Release(tx, 1, limit)
		if n > limit {
			t.Errorf("%d were released, at most %d", n, limit)
		}
		return more, nil
	})
	calls := 0
	for more := true; more; calls++ {
		reply := m.Apply(w.store, state.Command{Op: op, Body: state.Marshal(4)})
		if reply.Err() != nil || state.Unmarshal(reply.Body, &more) != nil || calls > 3 {
			t.Fatalf("%+v", reply)
		}
	}
	if w.holder(1) != 0 || w.holder(10) != 0 || w.holder(100) != 2 {
		t.Errorf("left are\n%s", w.rows())
	}
}

func TestFormat(t *testing.T) {
	w := newWorld(t)
	w.do(0x0102, lease.OpTake, lease.Take{Ino: 0x0a0b})
	w.do(0x0102, lease.OpTake, lease.Take{Ino: 0x0c0d, Shared: true})
	w.do(0x0304, lease.OpTake, lease.Take{Ino: 0x0c0d, Shared: true})
	got := w.rows()
	for _, req := range []any{lease.Take{Ino: 1}, lease.Take{Ino: 1, Shared: true}, lease.Give{Inos: []meta.Ino{1, 2}}, lease.Held{Ino: 1, Session: 2, Since: 3},
		lease.Blocked{By: []lease.Held{{Ino: 1, Session: 2, Since: 3, Shared: true}}},
		lease.Holding{Session: 1, After: 2, Limit: 3}, lease.Leases{Inos: []meta.Ino{1}, More: true},
		lease.Want{Term: 1, After: 2}, lease.Wanted{Term: 1, After: 2, Inos: []meta.Ino{3}}} {
		got += fmt.Sprintf("%T %x\n", req, state.Marshal(req))
	}
	statetest.Golden(t, "testdata/golden", got)
}
