package namespace_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/lease"
	"dos/meta/namespace"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// A world is a machine on a store in memory, and one session.
type world struct {
	t     testing.TB
	m     *state.Machine
	store *state.Overlay
	now   int64
	me    meta.SessionID
	log   []state.Command // everything applied
}

func newMachine() *state.Machine {
	m := new(state.Machine)
	session.Register(m, namespace.Release, lease.Release)
	namespace.Register(m)
	lease.Register(m)
	return m
}

// newWorld returns a world with a root and a session.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, m: newMachine(), store: newStore(), now: 1e18}
	must[meta.Attr](w, namespace.OpInit, namespace.Init{Mode: 0o755, UID: 1, GID: 2})
	w.me = must[session.Info](w, session.OpOpen, session.Open{Name: "test"}).ID
	return w
}

// apply applies one command, a second after the one before. If it fails it
// must have changed nothing.
func (w *world) apply(op state.Op, body []byte) state.Reply {
	w.now += 1e9
	cmd := state.Command{Op: op, Time: w.now, Session: w.me, Body: body}
	w.log = append(w.log, cmd)
	return statetest.Do(w.t, w.m, w.store, cmd)
}

// try sends a request and returns what came of it.
func try[Resp any](w *world, op state.Op, req any) (Resp, error) {
	w.t.Helper()
	var reply state.Reply
	if w.m.IsQuery(op) {
		reply = w.m.Answer(w.store, state.Command{Op: op, Session: w.me, Body: state.Marshal(req)})
	} else {
		reply = w.apply(op, state.Marshal(req))
	}
	var resp Resp
	if reply.Kind != 0 {
		return resp, reply.Err()
	}
	if err := state.Unmarshal(reply.Body, &resp); err != nil {
		w.t.Fatalf("op %#x: %v", uint16(op), err)
	}
	return resp, nil
}

func must[Resp any](w *world, op state.Op, req any) Resp {
	w.t.Helper()
	resp, err := try[Resp](w, op, req)
	if err != nil {
		w.t.Fatalf("op %#x: %v", uint16(op), err)
	}
	return resp
}

// check fails the test if Check finds a problem.
func (w *world) check() namespace.Counts {
	w.t.Helper()
	return namespace.Check(w.store, func(problem string) {
		w.t.Helper()
		w.t.Errorf("check: %s", problem)
	})
}

// dump returns all rows as text.
func dump(r state.Reader) []byte {
	var b bytes.Buffer
	for k, v := range r.Scan(nil, nil) {
		fmt.Fprintf(&b, "%s %x: %x\n", k[:1], k[1:], v)
	}
	return b.Bytes()
}

func (w *world) file(name string) meta.Ino {
	w.t.Helper()
	return must[meta.Attr](w, namespace.OpCreate, namespace.Create{Parent: meta.Root, Name: name, Node: meta.Node{Mode: meta.TypeFile | 0o644}}).Ino
}

func (w *world) attr(ino meta.Ino) meta.Attr {
	w.t.Helper()
	return must[meta.Attr](w, namespace.OpAttr, namespace.Inode{Ino: ino})
}

func (w *world) write(req meta.Write) (meta.Attr, error) {
	w.t.Helper()
	return try[meta.Attr](w, namespace.OpWrite, req)
}

func (w *world) truncate(ino meta.Ino, size int64) meta.Attr {
	w.t.Helper()
	return must[meta.Attr](w, namespace.OpSetAttr, namespace.SetAttr{Ino: ino, Set: meta.SetAttr{Size: &size}})
}

// reserve returns the first of n new stripe IDs.
func (w *world) reserve(n int) chunk.StripeID {
	w.t.Helper()
	return must[session.Range](w, session.OpReserve, session.Reserve{N: uint32(n)}).First
}

// purge empties the purge queue in steps of limit.
func (w *world) purge(limit int) {
	w.t.Helper()
	for _, ino := range must[namespace.PurgingReply](w, namespace.OpPurging, namespace.After{Limit: namespace.ListMax}).Inos {
		for must[namespace.Purged](w, namespace.OpPurge, namespace.Purge{Ino: ino, Limit: limit}).More {
		}
	}
}

func stripeOf(id chunk.StripeID, size uint32) chunk.Stripe {
	if size <= chunk.CopyMax {
		return chunk.Stripe{ID: id, Len: size, Code: chunk.Code{K: 1, M: 2}, Stores: []chunk.StoreID{1, 2, 3}}
	}
	return chunk.Stripe{ID: id, Len: size, Code: chunk.Code{K: 4, M: 2}, Stores: []chunk.StoreID{1, 2, 3, 4, 5, 6}}
}

// small returns n inline extents of size bytes, stride bytes apart.
func small(n int, size, stride int64) (list []meta.Extent) {
	for i := range int64(n) {
		list = append(list, meta.Extent{Off: i * stride, Len: size, Inline: bytes.Repeat([]byte{byte(i%255 + 1)}, int(size))})
	}
	return list
}

// at is the time of the last command.
func (w *world) at() meta.Time { return meta.At(time.Unix(0, w.now)) }

func is(err, kind error) bool { return errors.Is(err, kind) }

func newStore() *state.Overlay { return state.NewOverlay(nil) }
