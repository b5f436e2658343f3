package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// A writer writes stripes in a session.
type writer struct {
	w    *world
	id   meta.SessionID
	next chunk.StripeID
}

func (w *world) writer() *writer {
	w.t.Helper()
	id := w.open()
	r := must[session.Range](w, id, session.OpReserve, session.Reserve{N: 100})
	return &writer{w, id, r.First}
}

// large is a message of n stripes.
func (by *writer) large(n int) Message {
	m := Message{Whole: true}
	for range n {
		m.Stripes = append(m.Stripes, chunk.Stripe{ID: by.next, Len: 1 << 20, Code: chunk.Code{K: 1, M: 1}, Stores: []chunk.StoreID{1, 2}})
		by.next++
	}
	return m
}

func (by *writer) push(m ...Message) []uint64 {
	by.w.t.Helper()
	return must[Pushed](by.w, by.id, OpPush, Push{Name: "q", Messages: m}).IDs
}

// lives checks that stripes live as often as they are named, and returns how many do.
func (w *world) lives() int {
	w.t.Helper()
	return Check(w.store, func(problem string) { w.t.Error(problem) }).Kept
}

// dead are the stripes that are to be collected.
func (w *world) dead() map[chunk.StripeID]uint64 {
	dead := make(map[chunk.StripeID]uint64)
	for k := range w.store.Scan([]byte("g"), state.After([]byte("g"))) {
		dead[chunk.StripeID(binary.BigEndian.Uint64(k[9:]))] = binary.BigEndian.Uint64(k[1:])
	}
	return dead
}

func (w *world) wantLives(when string, n int) {
	w.t.Helper()
	if got := w.lives(); got != n {
		w.t.Errorf("%s: %d stripes live, want %d", when, got, n)
	}
	w.check()
}

// Stripes live as long as something names them, whatever becomes of the message.
func TestLarge(t *testing.T) {
	one, two := 1, 2
	dead, drop := "dead", DropOld
	for name, test := range map[string]struct {
		set  Set
		do   func(w *world, by *writer)
		left int // stripes that live then, of the two of a message
	}{
		"acknowledged":                 {do: func(w *world, by *writer) { w.settle(by.id, "q", w.take(by.id, "q", "", 1).Claim, Ack) }},
		"given back":                   {do: func(w *world, by *writer) { w.settle(by.id, "q", w.take(by.id, "q", "", 1).Claim, Nack) }, left: 2},
		"taken, and the session ended": {do: func(w *world, by *writer) { w.take(by.id, "q", "", 1); w.end(by.id) }, left: 2},
		"dead":                         {do: func(w *world, by *writer) { w.settle(by.id, "q", w.take(by.id, "q", "", 1).Claim, Discard) }, left: 2},
		"dead and buried": {do: func(w *world, by *writer) {
			w.settle(by.id, "q", w.take(by.id, "q", "", 1).Claim, Discard)
			must[none](w, 0, OpBury, Bury{"q", 1})
		}},
		"dead in another queue": {set: Set{Dead: &dead}, left: 2, do: func(w *world, by *writer) {
			w.settle(by.id, "q", w.take(by.id, "q", "", 1).Claim, Discard)
			must[none](w, 0, OpSet, Set{Name: "q", Attempts: &two})
		}},
		"acknowledged in another queue": {set: Set{Dead: &dead}, do: func(w *world, by *writer) {
			w.settle(by.id, "q", w.take(by.id, "q", "", 1).Claim, Discard)
			w.settle(by.id, "dead", w.take(by.id, "dead", "", 1).Claim, Ack)
		}},
		"dead in two groups": {left: 2, do: func(w *world, by *writer) {
			for _, group := range []string{"", "g"} {
				w.settle(by.id, "q", w.take(by.id, "q", group, 1).Claim, Discard)
			}
		}},
		"purged": {do: func(w *world, _ *writer) { must[none](w, 0, OpPurge, Named{"q"}); w.sweep(1) }},
		"purged when dead": {do: func(w *world, by *writer) {
			w.settle(by.id, "q", w.take(by.id, "q", "", 1).Claim, Discard)
			must[none](w, 0, OpPurge, Named{"q"})
			w.sweep(ListMax)
		}},
		"dropped":   {set: Set{Full: &drop, Max: &one}, do: func(w *world, _ *writer) { w.push("q", "small") }},
		"expired":   {do: func(w *world, _ *writer) { w.pass(2 * time.Hour) }},
		"delayed":   {left: 4, do: func(w *world, by *writer) { m := by.large(2); m.Delay = time.Minute; by.push(m) }},
		"came late": {left: 4, do: func(w *world, by *writer) { m := by.large(2); m.Delay = time.Minute; by.push(m); w.pass(time.Minute) }},
		"delayed and purged": {do: func(w *world, by *writer) {
			m := by.large(2)
			m.Delay = time.Minute
			by.push(m)
			must[none](w, 0, OpPurge, Named{"q"})
			w.sweep(ListMax)
			w.pass(time.Minute)
		}},
		"delayed and removed": {do: func(w *world, by *writer) {
			m := by.large(2)
			m.Delay = time.Minute
			by.push(m)
			must[none](w, 0, OpPurge, Named{"q"})
			must[none](w, 0, OpRemove, Named{"q"})
			w.sweep(ListMax)
			w.pass(time.Minute)
		}},
		"known already": {left: 2, do: func(w *world, by *writer) { m := by.large(2); m.Dedup = "id"; by.push(m) }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.make("q")
			w.make("dead")
			if name == "dead in two groups" {
				must[none](w, 0, OpMakeGroup, Grouped{"q", "g"})
			}
			test.set.Name = "q"
			must[none](w, 0, OpSet, test.set)
			by := w.writer()
			m := by.large(2)
			m.Dedup, m.Expires = "id", time.Hour
			by.push(m)
			w.wantLives("sent", 2)
			test.do(w, by)
			w.wantLives("then", test.left)
			if all := len(w.dead()) + w.lives(); test.left < 4 && all != 2 && name[:7] != "delayed" {
				t.Errorf("%d stripes live or are dead, of 2", all)
			}
		})
	}
}

// A kept log has its stripes until it is trimmed.
func TestLargeKept(t *testing.T) {
	w := newWorld(t)
	w.make("q")
	week := 7 * 24 * time.Hour
	must[none](w, 0, OpSet, Set{Name: "q", KeepFor: &week})
	by := w.writer()
	by.push(by.large(1), by.large(1))
	for range 2 {
		w.settle(by.id, "q", w.take(by.id, "q", "", 1).Claim, Ack)
	}
	w.wantLives("settled", 2)
	w.pass(week)
	w.wantLives("a week later", 0)
}

func TestLargeTaken(t *testing.T) {
	w := newWorld(t)
	w.make("q")
	by := w.writer()
	by.push(by.large(3), by.large(1))
	w.push("q", "small")
	got := w.take(by.id, "q", "", 9).Messages // one is more than a claim has
	if len(got) != 1 || got[0].Size != 3<<20 || fmt.Sprint(got[0].Parts) != fmt.Sprint([]chunk.StripeID{by.next - 4, by.next - 3, by.next - 2}) || !got[0].Whole {
		t.Errorf("taken %+v", got)
	}
	want(t, "bytes", fmt.Sprint(w.status("q").Bytes), fmt.Sprint(4<<20+len("small")))
}

// What is refused names nothing: its stripes are garbage.
func TestLargeBad(t *testing.T) {
	w := newWorld(t)
	w.make("q")
	by, other := w.writer(), w.writer()
	two := by.large(2)
	by.push(by.large(1))
	again := by.large(1)
	again.Stripes[0].ID -= 1
	short := by.large(1)
	short.Stripes[0].Len = BodyMax
	both := by.large(1)
	both.Body = []byte("x")
	for name, test := range map[string]struct {
		by   meta.SessionID
		list []Message
		want meta.Kind
	}{
		"of another session": {by.id, []Message{other.large(1)}, meta.Invalid},
		"of no session":      {0, []Message{by.large(1)}, meta.Invalid},
		"named before":       {by.id, []Message{again}, meta.Conflict},
		"named twice":        {by.id, []Message{two, two}, meta.Conflict},
		"too small":          {by.id, []Message{short}, meta.Invalid},
		"with a body":        {by.id, []Message{both}, meta.Invalid},
		"too many":           {by.id, []Message{by.large(PartsMax + 1)}, meta.Invalid},
		"no stripe":          {by.id, []Message{{Stripes: []chunk.Stripe{{ID: by.next, Len: 1 << 20}}}}, meta.Invalid},
	} {
		_, err := call[Pushed](w, test.by, OpPush, Push{Name: "q", Messages: test.list})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	w.wantLives("after what was refused", 1)

	// Of a full queue, too.
	one, reject := 1, Reject
	must[none](w, 0, OpSet, Set{Name: "q", Max: &one, Full: &reject})
	wantKind[Pushed](w, by.id, OpPush, Push{Name: "q", Messages: []Message{by.large(1)}}, meta.Quota)
	w.wantLives("full", 1)
}

// A change here is a change of format: what is written must be read for ever.
func TestGoldenLarge(t *testing.T) {
	w := newWorld(t)
	w.make("q")
	by := w.writer()
	m := by.large(2)
	m.Delay = time.Minute
	by.push(by.large(1), m)
	w.settle(by.id, "q", w.take(by.id, "q", "", 1).Claim, Discard)
	w.take(by.id, "q", "", 1)
	by.push(by.large(1))
	var rows bytes.Buffer
	for k, v := range w.store.Scan([]byte("s"), state.After([]byte("s"))) {
		fmt.Fprintf(&rows, "%s %x %x\n", k[:1], k[1:], v)
	}
	statetest.Golden(t, "testdata/large.golden", w.rows()+rows.String())
}

// Check tells of each stripe that is not named as often as it is kept.
func TestCheck(t *testing.T) {
	w := newWorld(t)
	w.make("q")
	by := w.writer()
	by.push(by.large(1), by.large(2))
	w.wantLives("sent", 3)
	said := func() (list []string) {
		Check(w.store, func(problem string) { list = append(list, problem) })
		return list
	}
	q := load(w.store, "q")
	row := key('m', q.Log, 2)
	val, _ := w.store.Get(row)
	w.store.Delete(row)
	if got := said(); len(got) != 2 || got[0] != "stripe 2 is kept for 1 messages, and 0 name it" {
		t.Errorf("a message without a row: %q", got)
	}
	w.store.Set(key('m', q.Log, 3), val)
	if got := said(); len(got) != 0 {
		t.Errorf("under another number: %q", got)
	}
	w.store.Set(row, val)
	if got := said(); len(got) != 2 || got[0] != "stripe 2 is kept for 1 messages, and 2 name it" {
		t.Errorf("a message that is there twice: %q", got)
	}
	w.store.Delete(row)
	stripe := binary.BigEndian.AppendUint64([]byte("s"), 2)
	w.store.Delete(stripe)
	if got := said(); len(got) != 1 || got[0] != "stripe 2 is named by 1 messages and is not kept" {
		t.Errorf("a stripe without a row: %q", got)
	}
	w.store.Set(row, []byte{0xff})
	if got := said(); len(got) != 2 {
		t.Errorf("a row that cannot be read: %q", got)
	}
}
