package lock

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"dos/meta"
)

var seed = flag.Uint64("seed", 0, "of the random test; 0: some")

const bytesMax = 12 // of a file of the model; the last one stands for all behind it

// A model says, byte by byte and without any cleverness, what the room should.
type model struct {
	base  map[meta.Ino]map[owner]*[bytesMax]meta.LockMode // what owners have
	queue map[meta.Ino][]*spot
}

type spot struct {
	hold
	number  uint64
	granted bool
}

func last(l int64) int64 { return min(l, bytesMax-1) }

func (m *model) of(ino meta.Ino, o owner) *[bytesMax]meta.LockMode {
	if m.base[ino] == nil {
		m.base[ino] = make(map[owner]*[bytesMax]meta.LockMode)
	}
	if m.base[ino][o] == nil {
		m.base[ino][o] = new([bytesMax]meta.LockMode)
	}
	return m.base[ino][o]
}

func (m *model) put(ino meta.Ino, h hold) {
	for b := h.First; b <= last(h.Last); b++ {
		m.of(ino, h.owner())[b] = h.Mode
	}
}

// blockers are the owners whose locks are in the way of want.
func (m *model) blockers(ino meta.Ino, want hold) map[owner]bool {
	list := make(map[owner]bool)
	bad := func(a, b meta.LockMode) bool {
		return a != meta.Unlocked && b != meta.Unlocked && (a == meta.Exclusive || b == meta.Exclusive)
	}
	for o, has := range m.base[ino] {
		for b := want.First; b <= last(want.Last); b++ {
			if o != want.owner() && o.Kind == want.Kind && bad(has[b], want.Mode) {
				list[o] = true
			}
		}
	}
	for _, s := range m.queue[ino] {
		if s.granted && meets(s.hold, want) {
			list[s.owner()] = true
		}
	}
	return list
}

func meets(a, b hold) bool {
	return a.owner() != b.owner() && a.Kind == b.Kind && a.First <= b.Last && b.First <= a.Last && (a.Mode == meta.Exclusive || b.Mode == meta.Exclusive)
}

func (m *model) has(ino meta.Ino, o owner) bool {
	return *m.of(ino, o) != [bytesMax]meta.LockMode{} ||
		slices.ContainsFunc(m.queue[ino], func(s *spot) bool { return s.granted && s.owner() == o })
}

// reach returns all that an owner waits for, directly or not.
func (m *model) reach(from owner, turns bool) map[owner]bool {
	found := make(map[owner]bool)
	for grew := true; grew; {
		grew = false
		for ino, q := range m.queue {
			for i, s := range q {
				if s.granted || s.owner() != from && !found[s.owner()] {
					continue
				}
				next := m.blockers(ino, s.hold)
				for _, e := range q[:i] {
					if turns && !e.granted && meets(e.hold, s.hold) {
						next[e.owner()] = true
					}
				}
				for o := range next {
					grew = grew || !found[o]
					found[o] = true
				}
			}
		}
	}
	return found
}

func (m *model) mayGo(ino meta.Ino, want hold, n int) bool {
	if len(m.blockers(ino, want)) > 0 {
		return false
	}
	if m.has(ino, want.owner()) {
		return true
	}
	for _, e := range m.queue[ino][:n] {
		if !e.granted && meets(e.hold, want) && !m.reach(e.owner(), true)[want.owner()] {
			return false
		}
	}
	return true
}

func (m *model) grant(ino meta.Ino) {
	for again := true; again; {
		again = false
		for i, s := range m.queue[ino] {
			if !s.granted && m.mayGo(ino, s.hold, i) {
				s.granted, again = true, true
			}
		}
	}
}

func (m *model) settle(ino meta.Ino, o owner) {
	m.queue[ino] = slices.DeleteFunc(m.queue[ino], func(s *spot) bool {
		if s.granted && s.owner() == o {
			m.put(ino, s.hold)
			return true
		}
		return false
	})
}

// set returns what comes of want: "done", "busy", "waits", "new" or "deadlock".
func (m *model) set(ino meta.Ino, want hold, wait bool) string {
	m.settle(ino, want.owner())
	if want.Mode == meta.Unlocked {
		m.put(ino, want)
		return "done"
	}
	if has := m.of(ino, want.owner()); want.Kind == meta.Flock && has[0] != want.Mode {
		*has = [bytesMax]meta.LockMode{}
	}
	if wait && slices.ContainsFunc(m.queue[ino], func(s *spot) bool { return s.hold == want }) {
		return "waits"
	}
	blockers := m.blockers(ino, want)
	switch {
	case len(blockers) == 0 && (!wait || m.mayGo(ino, want, len(m.queue[ino]))):
		m.put(ino, want)
		return "done"
	case !wait:
		return "busy"
	}
	for o := range blockers {
		if want.Kind == meta.Record && m.reach(o, false)[want.owner()] {
			return "deadlock"
		}
	}
	return "new"
}

func (m *model) drop(ino meta.Ino, is func(owner) bool) {
	for o, has := range m.base[ino] {
		if is(o) {
			*has = [bytesMax]meta.LockMode{}
		}
	}
	m.queue[ino] = slices.DeleteFunc(m.queue[ino], func(s *spot) bool { return is(s.owner()) })
	m.grant(ino)
}

// compare fails if an inode's row is not what the model has.
func (m *model) compare(t *testing.T, w *world, ino meta.Ino) {
	t.Helper()
	f := load(w.store, ino)
	for o, want := range m.base[ino] {
		var got [bytesMax]meta.LockMode
		for _, h := range f.Locks {
			for b := h.First; h.owner() == o && b <= last(h.Last); b++ {
				got[b] = h.Mode
			}
		}
		if got != *want {
			t.Errorf("inode %d: %+v has %v, want %v", ino, o, got, *want)
		}
	}
	for _, h := range f.Locks {
		if m.base[ino][h.owner()] == nil {
			t.Errorf("inode %d: %+v has something", ino, h)
		}
	}
	var got, want []string
	for _, q := range f.Waits {
		got = append(got, fmt.Sprintf("%+v %d %v", q.Hold, q.Number, q.Granted))
	}
	for _, s := range m.queue[ino] {
		want = append(want, fmt.Sprintf("%+v %d %v", s.hold, s.number, s.granted))
	}
	if !slices.Equal(got, want) {
		t.Errorf("inode %d: the queue is\n%q, want\n%q", ino, got, want)
	}
}

// Random requests of a few owners, on few bytes of few files, have the outcome
// that the model says.
func TestModel(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 10
	}
	for range rounds {
		s := *seed
		if s == 0 {
			s = rand.Uint64()
		}
		if !t.Run(fmt.Sprint(s), func(t *testing.T) { playRandom(t, s) }) {
			t.Fatalf("again with -seed=%d", s)
		}
	}
}

func playRandom(t *testing.T, s uint64) {
	rnd := rand.New(rand.NewPCG(s, 1))
	const sessions, inodes = 3, 2
	w := newWorld(t, sessions)
	m := &model{base: make(map[meta.Ino]map[owner]*[bytesMax]meta.LockMode), queue: make(map[meta.Ino][]*spot)}
	ids := []meta.SessionID{1, 2, 3}
	for step := range 300 {
		which := rnd.IntN(sessions)
		me := owner{ids[which], meta.LockKind(1 + rnd.IntN(2)), uint64(rnd.IntN(2))}
		ino := meta.Ino(1 + rnd.IntN(inodes))
		var did string
		switch p := rnd.IntN(100); {
		case p < 75:
			h := hold{Session: me.Session, Kind: me.Kind, Owner: me.Number, Mode: meta.LockMode(rnd.IntN(3)), Last: meta.LockEnd}
			if me.Kind == meta.Record {
				h.First = rnd.Int64N(bytesMax)
				if h.Last = h.First + rnd.Int64N(bytesMax); h.Last >= bytesMax-1 {
					h.Last = meta.LockEnd
				}
			}
			wait := rnd.IntN(3) > 0
			did = fmt.Sprintf("set %+v, wait %v", h, wait)
			before := len(m.queue[ino])
			want := m.set(ino, h, wait)
			out, err := w.set(me.Session, meta.Lock{Ino: ino, Kind: h.Kind, Mode: h.Mode, Owner: h.Owner, First: h.First, Last: h.Last}, wait)
			got := "done"
			switch {
			case errors.Is(err, meta.Deadlock):
				got = "deadlock"
			case err != nil:
				t.Fatal(err)
			case out.Busy:
				got = "busy"
			case out.Wait != 0:
				got = "waits"
			}
			if want == "deadlock" && got == want { // it changed nothing, nor did settling
				m.resettle(w, ino, before)
			}
			if want == "new" {
				want = "waits"
				m.queue[ino] = append(m.queue[ino], &spot{hold: h, number: out.Wait})
				if m.reach(h.owner(), true)[h.owner()] {
					for i := range meta.Ino(inodes) {
						m.grant(i + 1)
					}
				}
			}
			if got != "deadlock" { // which changes nothing
				m.grant(ino)
			}
			if got != want {
				t.Fatalf("step %d: %s: %s, want %s", step, did, got, want)
			}
		case p < 85 && len(m.queue[ino]) > 0:
			at := rnd.IntN(len(m.queue[ino]))
			spot := m.queue[ino][at]
			did = fmt.Sprintf("cancel %+v", spot)
			m.queue[ino] = slices.Delete(m.queue[ino], at, at+1)
			m.grant(ino)
			w.cancel(spot.Session, ino, spot.number, spot.Kind, spot.Owner)
		case p < 98:
			did = fmt.Sprintf("drop %+v", me)
			m.drop(ino, func(o owner) bool { return o == me })
			w.drop(me.Session, ino, me.Kind, me.Number)
		default:
			did = fmt.Sprintf("end %d", me.Session)
			for i := range meta.Ino(inodes) {
				m.drop(i+1, func(o owner) bool { return o.Session == me.Session })
			}
			w.end(me.Session)
			ids[which] = w.open()
		}
		for i := range meta.Ino(inodes) {
			m.compare(t, w, i+1)
		}
		w.check()
		if t.Failed() {
			t.Fatalf("step %d: inode %d: %s", step, ino, did)
		}
	}
}

// resettle takes back what a refused request settled in the model: a request
// that fails changes nothing.
func (m *model) resettle(w *world, ino meta.Ino, before int) {
	if len(m.queue[ino]) == before {
		return
	}
	f := load(w.store, ino)
	m.queue[ino] = nil
	for _, q := range f.Waits {
		m.queue[ino] = append(m.queue[ino], &spot{q.Hold, q.Number, q.Granted})
	}
	m.base[ino] = nil
	for _, h := range f.Locks {
		m.put(ino, h)
	}
}
