package lease_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"dos/meta"
	"dos/meta/lease"
	"dos/meta/state"
)

var seed = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")

// A model is what the leases are, said otherwise: who holds which inode, and how.
type model map[meta.Ino]map[meta.SessionID]bool // true: S

// blocking lists the sessions that are in the way of s.
func (m model) blocking(s meta.SessionID, ino meta.Ino, changes bool) []meta.SessionID {
	var list []meta.SessionID
	for _, other := range slices.Sorted(maps.Keys(m[ino])) {
		if other != s && (changes || !m[ino][other]) {
			list = append(list, other)
		}
	}
	return list
}

// Random commands of several sessions do what the model says, and leave no row
// that stands for nothing.
func TestModel(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d; replay with -seed=%d", s, s)
	rnd := rand.New(rand.NewPCG(s, 0))
	const sessions, inodes = 4, 3
	w, m := newWorld(t), make(model)
	const opDrop, opRelease = 0x7f00, 0x7f01
	state.Handle(w.m, opDrop, "drop", func(tx *state.Tx, ino meta.Ino) (struct{}, error) {
		lease.Drop(tx, ino)
		return struct{}{}, nil
	})
	state.Handle(w.m, opRelease, "release", func(tx *state.Tx, s meta.SessionID) (bool, error) {
		_, more := lease.Release(tx, s, 2)
		return more, nil
	})
	for step := range 5000 {
		me, ino := meta.SessionID(1+rnd.IntN(sessions)), meta.Ino(1+rnd.IntN(inodes))
		if m[ino] == nil {
			m[ino] = make(map[meta.SessionID]bool)
		}
		var what string
		switch k := rnd.IntN(20); {
		case k < 12:
			shared := rnd.IntN(3) > 0
			what = fmt.Sprintf("%d takes %d, shared %v", me, ino, shared)
			reply := w.do(me, lease.OpTake, lease.Take{Ino: ino, Shared: shared})
			blocking := m.blocking(me, ino, !shared)
			if len(blocking) == 0 {
				if reply.Err() != nil {
					t.Fatalf("step %d: %s: %v", step, what, reply.Err())
				}
				m[ino][me] = shared
				break
			}
			var got []meta.SessionID
			for _, held := range blockedBy(t, reply) {
				got = append(got, held.Session)
				if held.Ino != ino || held.Shared != m[ino][held.Session] || !lease.Holds(w.store, held) {
					t.Fatalf("step %d: %s: refused for %+v", step, what, held)
				}
				held.Since--
				if lease.Holds(w.store, held) {
					t.Fatalf("step %d: %s: it is held since earlier too: %+v", step, what, held)
				}
			}
			if !slices.Equal(got, blocking) {
				t.Fatalf("step %d: %s: refused for %v, want %v", step, what, got, blocking)
			}
		case k < 17:
			what = fmt.Sprintf("%d gives %d", me, ino)
			w.do(me, lease.OpGive, lease.Give{Inos: []meta.Ino{ino, inodes + 1}})
			delete(m[ino], me)
		case k < 18:
			what = fmt.Sprintf("%d is gone", ino)
			w.do(0, opDrop, ino)
			clear(m[ino])
		default:
			what = fmt.Sprintf("%d ends", me)
			for more := true; more; {
				if err := state.Unmarshal(w.do(0, opRelease, me).Body, &more); err != nil {
					t.Fatal(err)
				}
			}
			for _, holders := range m {
				delete(holders, me)
			}
		}
		rows := 0
		for ino, holders := range m {
			if len(holders) > 0 {
				rows++ // "4i"
			}
			for s, shared := range holders {
				rows++ // "4s"
				if shared {
					rows++ // "4r"
				}
				if x := lease.Holder(w.store, ino) == s; x == shared {
					t.Fatalf("step %d: %s: %d holds X of %d: %v", step, what, s, ino, x)
				}
			}
			for s := range meta.SessionID(sessions + 2) {
				read, change := lease.MayRead(w.store, s, ino) == nil, lease.MayChange(w.store, s, ino) == nil
				if read != (len(m.blocking(s, ino, false)) == 0) || change != (len(m.blocking(s, ino, true)) == 0) {
					t.Fatalf("step %d: %s: %d may read %d: %v, and change: %v; held are %v", step, what, s, ino, read, change, holders)
				}
			}
		}
		got := 0
		for range w.store.Scan([]byte("4"), state.After([]byte("4"))) {
			got++
		}
		if got != rows {
			t.Fatalf("step %d: %s: %d rows, want %d:\n%s", step, what, got, rows, w.rows())
		}
	}
}
