package lock

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// A world is a machine with sessions and locks, on a store in memory.
type world struct {
	t     testing.TB
	m     *state.Machine
	store *state.Overlay
	now   int64
}

func newWorld(t testing.TB, sessions int) *world {
	w := &world{t: t, m: new(state.Machine), store: state.NewOverlay(nil), now: 1e18}
	session.Register(w.m, Release)
	Register(w.m)
	for range sessions {
		w.open()
	}
	return w
}

func (w *world) open() meta.SessionID {
	w.t.Helper()
	info, err := call[session.Info](w, 0, session.OpOpen, session.Open{Name: "test"})
	if err != nil {
		w.t.Fatal(err)
	}
	return info.ID
}

// call sends a request. A command that fails must have changed nothing.
func call[Resp any](w *world, s meta.SessionID, op state.Op, req any) (resp Resp, err error) {
	w.t.Helper()
	if !w.m.IsQuery(op) {
		w.now += 1e9
	}
	reply := statetest.Do(w.t, w.m, w.store, state.Command{Op: op, Time: w.now, Session: s, Body: state.Marshal(req)})
	if reply.Kind == 0 {
		state.MustUnmarshal(reply.Body, &resp)
	}
	return resp, reply.Err()
}

func (w *world) set(s meta.SessionID, l meta.Lock, wait bool) (Outcome, error) {
	w.t.Helper()
	return call[Outcome](w, s, OpSet, Set{Lock: l, Wait: wait})
}

func (w *world) cancel(s meta.SessionID, ino meta.Ino, number uint64, kind meta.LockKind, owner uint64) {
	w.t.Helper()
	if _, err := call[none](w, s, OpCancel, Cancel{Ino: ino, Wait: number, Kind: kind, Owner: owner}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) drop(s meta.SessionID, ino meta.Ino, kind meta.LockKind, number uint64) {
	w.t.Helper()
	if _, err := call[none](w, s, OpDrop, Drop{Ino: ino, Kind: kind, Owner: number}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) end(s meta.SessionID) {
	w.t.Helper()
	for more := true; more; {
		ended, err := call[session.Ended](w, 0, session.OpEnd, session.End{ID: s})
		if err != nil {
			w.t.Fatal(err)
		}
		more = ended.More
	}
}

func flock(ino meta.Ino, mode meta.LockMode, number uint64) meta.Lock {
	return meta.Lock{Ino: ino, Kind: meta.Flock, Mode: mode, Owner: number, Last: meta.LockEnd}
}

func record(ino meta.Ino, mode meta.LockMode, number uint64, first, last int64) meta.Lock {
	return meta.Lock{Ino: ino, Kind: meta.Record, Mode: mode, Owner: number, First: first, Last: last}
}

func (w *world) rows() string {
	var rows bytes.Buffer
	for k, v := range w.store.Scan([]byte("6"), state.After([]byte("6"))) {
		fmt.Fprintf(&rows, "%s %x %x\n", k[:2], k[2:], v)
	}
	return rows.String()
}

// inodes returns every inode's row, in order.
func (w *world) inodes() (list []*file) {
	prefix := []byte("6i")
	for k := range w.store.Scan(prefix, state.After(prefix)) {
		list = append(list, load(w.store, inoOf(k)))
	}
	return list
}

// check holds the rows to what the package says of them.
func (w *world) check() {
	w.t.Helper()
	var present, places []string
	files := make(map[meta.SessionID]uint64)
	waits := make(map[meta.SessionID]int)
	for _, f := range w.inodes() {
		if len(f.Locks)+len(f.Waits) == 0 {
			w.t.Errorf("inode %d: an empty row", f.ino)
		}
		here := make(map[meta.SessionID]bool)
		var all []hold
		for h := range f.held() {
			all = append(all, h)
		}
		for i, h := range all {
			here[h.Session] = true
			for _, o := range all[:i] {
				if h.against(o) {
					w.t.Errorf("inode %d: %+v beside %+v", f.ino, h, o)
				}
			}
		}
		for i, h := range f.Locks {
			for _, o := range f.Locks[:i] {
				if h.owner() == o.owner() && (h.overlaps(o) || h.Mode == o.Mode && (touch(h, o) || touch(o, h))) {
					w.t.Errorf("inode %d: %+v and %+v should be one", f.ino, h, o)
				}
			}
		}
		for i, q := range f.Waits {
			here[q.Hold.Session] = true
			if q.Granted {
				continue
			}
			waits[q.Hold.Session]++
			places = append(places, string(placeKey(q.Hold.owner(), q.Number, f.ino)))
			if f.free(q.Hold) && !slices.ContainsFunc(f.Waits[:i], func(e place) bool { return !e.Granted && e.Hold.against(q.Hold) }) {
				w.t.Errorf("inode %d: nothing keeps %+v waiting", f.ino, q)
			}
		}
		for s := range here {
			present = append(present, string(presenceKey(s, f.ino)))
			files[s]++
		}
	}
	var got []string
	for k := range w.store.Scan([]byte("6s"), []byte("6t")) {
		got = append(got, string(k))
	}
	slices.Sort(present)
	if !slices.Equal(got, present) {
		w.t.Errorf("presence rows %q, want %q", got, present)
	}
	got = nil
	for k := range w.store.Scan([]byte("6w"), []byte("6x")) {
		got = append(got, string(k))
	}
	slices.Sort(places)
	if !slices.Equal(got, places) {
		w.t.Errorf("places %q, want %q", got, places)
	}
	for s := range meta.SessionID(10) {
		var n uint64
		read(w.store, sessionKey('n', s), &n)
		var q queued
		read(w.store, AwaitKey(s), &q)
		if n != files[s] || q.Places != waits[s] {
			w.t.Errorf("session %d: %d files, %d places; want %d, %d", s, n, q.Places, files[s], waits[s])
		}
	}
}
