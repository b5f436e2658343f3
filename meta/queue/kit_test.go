package queue

import (
	"bytes"
	"encoding/binary"
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

// A world is a machine with sessions and queues, on two stores in memory: on one the
// commands change the rows, on the other a layer above them, as on a replica.
type world struct {
	t     testing.TB
	m     *state.Machine
	store *state.Overlay
	twin  *state.Overlay
	clock time.Time
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, m: new(state.Machine), store: state.NewOverlay(nil), twin: state.NewOverlay(nil), clock: time.Unix(1e9, 0)}
	session.Register(w.m, Release)
	Room{Fence: func(_ state.Reader, t Token) error {
		if t.Number < 18 {
			return fmt.Errorf("token %d: %w", t.Number, meta.Conflict)
		}
		return nil
	}}.Register(w.m)
	return w
}

// call sends a request. A command that fails must have changed nothing.
func call[Resp any](w *world, s meta.SessionID, op state.Op, req any) (resp Resp, err error) {
	w.t.Helper()
	cmd := state.Command{Op: op, Time: w.clock.UnixNano(), Session: s, Body: state.Marshal(req)}
	reply := statetest.Do(w.t, w.m, w.store, cmd)
	if !w.m.IsQuery(op) {
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

func wantKind[Resp any](w *world, s meta.SessionID, op state.Op, req any, kind meta.Kind) {
	w.t.Helper()
	if _, err := call[Resp](w, s, op, req); !errors.Is(err, kind) {
		w.t.Errorf("op %#x %+v: %v, want %v", uint16(op), req, err, kind)
	}
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

// pass lets time pass, and does what becomes due.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	w.clock = w.clock.Add(d)
	for work := w.due(); work.Tick; work = w.due() {
		for more := true; more; {
			more = must[More](w, 0, OpTick, Bound{Limit: ListMax}).More
		}
	}
}

func (w *world) due() Work {
	w.t.Helper()
	return must[Work](w, 0, OpDue, Due{Now: meta.At(w.clock)})
}

func (w *world) sweep(limit int) {
	w.t.Helper()
	for w.due().Sweep {
		must[More](w, 0, OpSweep, Bound{Limit: limit})
	}
}

func (w *world) make(name string) {
	w.t.Helper()
	must[none](w, 0, OpMake, Make{Name: name, UID: 1, GID: 2, Mode: 0o755})
}

func (w *world) push(name string, bodies ...string) []uint64 {
	w.t.Helper()
	req := Push{Name: name}
	for _, b := range bodies {
		req.Messages = append(req.Messages, Message{Body: []byte(b)})
	}
	return must[Pushed](w, 0, OpPush, req).IDs
}

func (w *world) take(s meta.SessionID, name, group string, n int) Taken {
	w.t.Helper()
	return must[Taken](w, s, OpTake, Take{Name: name, Group: group, Max: n})
}

// bodies are those of what was taken, with the number of the attempt if it is not the first.
func bodies(got []Got) string {
	var out []string
	for _, g := range got {
		if g.Attempt > 1 {
			out = append(out, fmt.Sprintf("%s/%d", g.Body, g.Attempt))
		} else {
			out = append(out, string(g.Body))
		}
	}
	return fmt.Sprint(out)
}

func (w *world) settle(s meta.SessionID, name string, claim uint64, what What) {
	w.t.Helper()
	if stale := must[Settled](w, s, OpSettle, Settles{[]Settle{{Name: name, Claim: claim, What: what}}}).Stale; stale != 0 {
		w.t.Errorf("claim %d of %s is no more", claim, name)
	}
}

func (w *world) status(name string) Status {
	w.t.Helper()
	return must[Status](w, 0, OpStatus, Named{name})
}

func (w *world) rows() string {
	var rows bytes.Buffer
	for k, v := range w.store.Scan([]byte("8"), []byte("9")) {
		fmt.Fprintf(&rows, "%s %x %x\n", k[:2], k[2:], v)
	}
	return rows.String()
}

// check holds the rows to what the package says of them.
func (w *world) check() {
	w.t.Helper()
	count := func(prefix []byte) (n int64) {
		for range w.store.Scan(prefix, state.After(prefix)) {
			n++
		}
		return n
	}
	for k := range w.store.Scan([]byte("8n"), []byte("8o")) {
		name := string(k[2:])
		q := load(w.store, name)
		var messages, bytes int64
		for k, v := range w.store.Scan(key('m', q.Log), state.After(key('m', q.Log))) {
			var m message
			state.MustUnmarshal(v, &m)
			n := number(k, 0)
			messages++
			bytes += int64(m.size())
			if n < q.First || n >= q.Next {
				w.t.Errorf("%s: message %d is not in [%d, %d)", name, n, q.First, q.Next)
			}
			done := true
			for _, g := range q.Groups {
				_, has := w.store.Get(key('p', g.Run, n))
				done = done && n < g.Cursor && !has
			}
			// One that a group had not settled when that was removed goes when it is the first.
			if done && !q.Settings.Keeps() && messages == 1 {
				w.t.Errorf("%s: message %d is settled, the first, and still there", name, n)
			}
		}
		if messages != q.Count || bytes != q.Bytes || count(key('x', q.Log)) != q.Dead {
			w.t.Errorf("%s: %d messages of %d bytes, %d dead; counted %d, %d, %d", name, messages, bytes, count(key('x', q.Log)), q.Count, q.Bytes, q.Dead)
		}
		for i := range q.Groups {
			w.checkGroup(q, &q.Groups[i])
		}
	}
	// Each claim is in one piece, and has its timer.
	for k, v := range w.store.Scan([]byte("8l"), []byte("8m")) {
		var c claim
		state.MustUnmarshal(v, &c)
		id, s, n := number(k, 1), number(k, 2), number(k, 0)
		if _, has := w.store.Get(timerKey(c.Until, timerClaim, id, s, n)); !has || len(c.Numbers) == 0 {
			w.t.Errorf("claim %d of session %d: %+v, timer %v", n, s, c, has)
		}
	}
}

func (w *world) checkGroup(q *queue, g *group) {
	w.t.Helper()
	got := map[status]int64{}
	ready := make([]int64, Priorities)
	for k, v := range w.store.Scan(key('p', g.Run), state.After(key('p', g.Run))) {
		var e entry
		state.MustUnmarshal(v, &e)
		n := number(k, 0)
		got[e.Status]++
		if _, there := w.store.Get(key('m', q.Log, n)); !there || n >= g.Cursor {
			w.t.Errorf("%s/%s: message %d has an entry; it is there: %v, the cursor is %d", q.name, g.Name, n, there, g.Cursor)
		}
		switch e.Status {
		case isReady:
			ready[e.Priority]++
			if _, has := w.store.Get(readyKey(g.Run, e.Priority, n)); !has || n < g.Ready[e.Priority].Low {
				w.t.Errorf("%s/%s: message %d is ready and has a row: %v; low is %d", q.name, g.Name, n, has, g.Ready[e.Priority].Low)
			}
		case isOut:
			var c claim
			if !read(w.store, claimKey(e.Session, q.ID, e.Claim), &c) || !slices.Contains(c.Numbers, n) {
				w.t.Errorf("%s/%s: message %d is out, and not in claim %d: %+v", q.name, g.Name, n, e.Claim, c)
			}
		}
	}
	rows := func(table byte) (n int64) {
		for range w.store.Scan(key(table, g.Run), state.After(key(table, g.Run))) {
			n++
		}
		return n
	}
	var sum int64
	for i, c := range g.Ready {
		sum += c.Count
		if c.Count != ready[i] {
			w.t.Errorf("%s/%s: %d of class %d are ready, counted %d", q.name, g.Name, ready[i], i, c.Count)
		}
	}
	if sum != rows('r') || rows('r') != got[isReady] || got[isOut] != g.Out || got[isLater] != g.Later || got[isParked] != g.Parked || rows('k') != g.Parked {
		w.t.Errorf("%s/%s: %v, counted %+v", q.name, g.Name, got, g)
	}
	var waiters int64
	for k, v := range w.store.Scan(key('w', g.ID), state.After(key('w', g.ID))) {
		var who place
		state.MustUnmarshal(v, &who)
		waiters++
		val, has := w.store.Get(placeOfKey(who.Session, q.ID, number(k, 0)))
		var id uint64
		if has {
			state.MustUnmarshal(val, &id)
		}
		if number(k, 0) < g.Front || id != g.ID {
			w.t.Errorf("%s/%s: place %d before the front %d, or of group %d", q.name, g.Name, number(k, 0), g.Front, id)
		}
	}
	if waiters != g.Waiters {
		w.t.Errorf("%s/%s: %d wait, counted %d", q.name, g.Name, waiters, g.Waiters)
	}
	// Whoever waits does so in vain, or a timer goes on.
	if g.Waiters > 0 && g.ready() > 0 && !q.Settings.Paused {
		prefix := append(key('t', uint64(w.clock.UnixNano())), timerServe)
		if _, _, ok := first(w.store, binary.BigEndian.AppendUint64(prefix, q.ID), state.After(prefix)); !ok {
			w.t.Errorf("%s/%s: %d wait although %d are ready", q.name, g.Name, g.Waiters, g.ready())
		}
	}
}
