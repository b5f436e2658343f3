package kv

import (
	"testing"
	"time"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// A world is a machine with sessions and tables, on a store in memory.
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
	if !w.m.IsQuery(op) {
		w.now = w.now.Add(time.Millisecond)
	}
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

func (w *world) make(table string) { must[none](w, 0, OpMake, Make{Name: table, Mode: 0o755}) }

func (w *world) put(table, key, val string) uint64 {
	w.t.Helper()
	return must[Written](w, 1, OpPut, Put{Table: table, Key: key, Data: []byte(val), Mode: 0o644}).Version
}

func p[T any](v T) *T { return &v }
