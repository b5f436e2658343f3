package named

import (
	"errors"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// A world is a machine with sessions and named locks, on a store in memory.
type world struct {
	t     testing.TB
	m     *state.Machine
	store *state.Overlay
	now   int64
}

func newWorld(t testing.TB, sessions int) *world {
	w := &world{t: t, m: new(state.Machine), store: state.NewOverlay(nil), now: 1e18}
	session.Register(w.m, Drop)
	Register(w.m)
	for range sessions {
		w.open()
	}
	return w
}

func (w *world) open() meta.SessionID {
	w.t.Helper()
	return must[session.Info](w, 0, session.OpOpen, session.Open{Name: "test"}).ID
}

func (w *world) end(s meta.SessionID) {
	w.t.Helper()
	must[session.Ended](w, 0, session.OpEnd, session.End{ID: s})
}

func (w *world) pass(d time.Duration) {
	w.t.Helper()
	w.now += int64(d)
	must[none](w, 0, OpExpire, none{})
}

// call sends a request. A command that fails must have changed nothing.
func call[Resp any](w *world, s meta.SessionID, op state.Op, req any) (resp Resp, err error) {
	w.t.Helper()
	if !w.m.IsQuery(op) {
		w.now += 1e6
	}
	reply := statetest.Do(w.t, w.m, w.store, state.Command{Op: op, Time: w.now, Session: s, Body: state.Marshal(req)})
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

func (w *world) ask(s meta.SessionID, name string, number uint64, mode meta.LockMode, wait bool) Outcome {
	w.t.Helper()
	return must[Outcome](w, s, OpAsk, Ask{Name: name, Claim: Claim{Number: number, Mode: mode}, Wait: wait})
}

func (w *world) release(s meta.SessionID, name string, number uint64) {
	w.t.Helper()
	must[none](w, s, OpRelease, Release{Name: name, Number: number})
}

func (w *world) news(s meta.SessionID, seen uint64) []News {
	w.t.Helper()
	return must[Arrived](w, 0, OpAwait, Await{Session: s, Seen: seen}).News
}

func (w *world) status(name string) Info {
	w.t.Helper()
	return must[Info](w, 0, OpStatus, Follow{Name: name})
}

// rows counts the rows of the room.
func (w *world) rows() (n int) {
	for range w.store.Scan([]byte("6"), []byte("7")) {
		n++
	}
	return n
}

func is(err, want error) bool { return errors.Is(err, want) && (want != nil || err == nil) }
