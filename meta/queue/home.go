package queue

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"

	"dos/meta"
	"dos/meta/state"
)

// HoldersMax bounds the machines that hold queues in memory.
const HoldersMax = 1024

// homesMax bounds the queues that one command finds another home for.
const homesMax = 256

// A Holder is a process that can hold queues in memory: it is known by its session,
// with which all that it has is gone.
type Holder struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Node    string         `cbor:"2,keyasint,omitempty"` // its machine
	Addr    string         `cbor:"3,keyasint,omitempty"` // HOST:PORT
}

// Serve says that the session of the command holds queues in memory, on which machine.
// What another session held there is gone. While the answer says More it is to be sent
// again.
type Serve struct {
	Node string `cbor:"1,keyasint,omitempty"`
	Addr string `cbor:"2,keyasint,omitempty"`
}

// Move changes who holds a queue, if its home is still of that epoch, else it is
// Conflict. The session of the command holds the queue: it is the primary from then
// on, and Backup, which has all that the primary has, follows it, or nobody does. With
// Resign the session gives the queue up: it has not what it should have.
type Move struct {
	Queue  uint64         `cbor:"1,keyasint,omitempty"` // its number
	Epoch  uint64         `cbor:"2,keyasint,omitempty"`
	Backup meta.SessionID `cbor:"3,keyasint,omitempty"`
	Resign bool           `cbor:"4,keyasint,omitempty"`
}

// Whose asks for the home of a queue, by its name or its number.
type Whose struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	Queue uint64 `cbor:"2,keyasint,omitempty"`
}

// A Home says who holds a queue that is in memory; of another one Epoch is 0.
type Home struct {
	Queue   uint64 `cbor:"1,keyasint,omitempty"`
	Name    string `cbor:"2,keyasint,omitempty"`
	Epoch   uint64 `cbor:"3,keyasint,omitempty"` // grows with each change of the next two
	Primary Holder `cbor:"4,keyasint,omitempty"` // answers; zero: nobody can
	Backup  Holder `cbor:"5,keyasint,omitempty"` // has all that the primary has; zero: nobody has
	// Begun is the epoch at which the queue began empty, on First and Second.
	Begun  uint64         `cbor:"6,keyasint,omitempty"`
	First  meta.SessionID `cbor:"7,keyasint,omitempty"`
	Second meta.SessionID `cbor:"8,keyasint,omitempty"`
	// Lost is how often all that it had was lost, and LostAt when that was last.
	Lost   uint64    `cbor:"9,keyasint,omitempty"`
	LostAt meta.Time `cbor:"10,keyasint,omitempty"`
	// What it is to be where it begins.
	UID      uint32    `cbor:"11,keyasint,omitempty"`
	GID      uint32    `cbor:"12,keyasint,omitempty"`
	Mode     uint32    `cbor:"13,keyasint,omitempty"`
	Made     meta.Time `cbor:"14,keyasint,omitempty"`
	Settings Settings  `cbor:"15,keyasint,omitempty"`
	Groups   []string  `cbor:"16,keyasint,omitempty"`
}

// Homes asks for the queues that a session holds, after one. Whoever runs the state
// may hold the answer back for a while as long as the version is Seen.
type Homes struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Seen    uint64         `cbor:"2,keyasint,omitempty"`
	After   uint64         `cbor:"3,keyasint,omitempty"`
	Limit   int            `cbor:"4,keyasint,omitempty"`
}

// HomeList answers Homes. Version grows with each change of a home or a holder.
type HomeList struct {
	Version uint64   `cbor:"1,keyasint,omitempty"`
	List    []Home   `cbor:"2,keyasint,omitempty"`
	More    bool     `cbor:"3,keyasint,omitempty"`
	Holders []Holder `cbor:"4,keyasint,omitempty"` // all there are
}

// home is the row of who holds a queue.
type home struct {
	Epoch   uint64         `cbor:"1,keyasint,omitempty"`
	Primary meta.SessionID `cbor:"2,keyasint,omitempty"`
	Backup  meta.SessionID `cbor:"3,keyasint,omitempty"`
	Begun   uint64         `cbor:"4,keyasint,omitempty"`
	First   meta.SessionID `cbor:"5,keyasint,omitempty"`
	Second  meta.SessionID `cbor:"6,keyasint,omitempty"`
	Lost    uint64         `cbor:"7,keyasint,omitempty"`
	LostAt  meta.Time      `cbor:"8,keyasint,omitempty"`
}

// HomesKey is the row that changes with each home.
func HomesKey() []byte { return []byte("8o") }

func holderKey(s meta.SessionID) []byte { return key('h', uint64(s)) }

func homeKey(queue uint64) []byte { return key('b', queue) }

// holdsKey is of each that holds a queue; of session 0 if nobody does.
func holdsKey(s meta.SessionID, queue uint64) []byte { return key('g', uint64(s), queue) }

// putHome writes a home in the place of the one that was, or removes it.
func (w *work) putHome(queue uint64, was, now *home) {
	if was != nil {
		w.tx.Delete(holdsKey(was.Primary, queue))
		w.tx.Delete(holdsKey(was.Backup, queue))
	}
	if now != nil {
		w.tx.Set(holdsKey(now.Primary, queue), []byte{})
		if now.Backup != 0 {
			w.tx.Set(holdsKey(now.Backup, queue), []byte{})
		}
		w.tx.Set(homeKey(queue), state.Marshal(now))
	} else {
		w.tx.Delete(homeKey(queue))
	}
	w.noteHomes()
}

// noteHomes tells those who wait for it that a home is another.
func (w *work) noteHomes() {
	var version uint64
	read(w.tx, HomesKey(), &version)
	w.tx.Set(HomesKey(), state.Marshal(version+1))
}

// begin begins a queue that has nothing on the machines that are to hold it.
func (h *home) begin(w *work, queue uint64) {
	h.Epoch++
	h.Begun = h.Epoch
	h.Primary, h.Backup = choose(w.tx, queue)
	h.First, h.Second = h.Primary, h.Backup
}

// leave takes the queue from one that holds it. What only he had is lost.
func (h *home) leave(w *work, queue uint64, s meta.SessionID) {
	switch {
	case h.Backup == s:
		h.Backup = 0
		h.Epoch++
	case h.Primary == s && h.Backup != 0:
		h.Primary, h.Backup = h.Backup, 0
		h.Epoch++
	case h.Primary == s:
		h.Lost++
		h.LostAt = w.now()
		h.begin(w, queue)
	}
}

// choose returns the two that are to hold a queue: by rendezvous hashing, so that
// queues are spread and one that goes moves only its own.
func choose(r state.Reader, queue uint64) (first, second meta.SessionID) {
	list := Spread(holders(r), queue)
	if len(list) > 0 {
		first = list[0].Session
	}
	if len(list) > 1 {
		second = list[1].Session
	}
	return first, second
}

// Spread returns the holders in the order in which they are to hold a queue.
func Spread(list []Holder, queue uint64) []Holder {
	weight := func(h Holder) uint64 {
		sum := fnv.New64a()
		_ = binary.Write(sum, binary.BigEndian, queue)
		sum.Write([]byte(h.Node))
		x := sum.Sum64() // of texts that end alike only the low bits differ: mix them (splitmix64)
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return x ^ x>>31
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Holder) int { return cmp.Compare(weight(b), weight(a)) })
	return list
}

func holders(r state.Reader) (list []Holder) {
	for _, val := range r.Scan(key('h'), state.After(key('h'))) {
		var h Holder
		state.MustUnmarshal(val, &h)
		list = append(list, h)
	}
	return list
}

func serveHomes(tx *state.Tx, req Serve) (More, error) {
	if tx.Session == 0 || req.Node == "" || len(req.Node) > TextMax*2 || len(req.Addr) > TextMax*2 {
		return More{}, fmt.Errorf("holding queues on machine %.40q at %.40q: %w", req.Node, req.Addr, meta.Invalid)
	}
	w := begin(tx)
	known := holders(tx)
	left := homesMax
	for _, h := range known {
		if h.Node != req.Node || h.Session == tx.Session {
			continue
		}
		n, _ := w.leaveHomes(h.Session, left) // what is left goes with the session
		left -= n
	}
	if !slices.ContainsFunc(known, func(h Holder) bool { return h.Session == tx.Session }) {
		if len(known) >= HoldersMax {
			return More{}, fmt.Errorf("%d machines hold queues in memory: %w", len(known), meta.Quota)
		}
		tx.Set(holderKey(tx.Session), state.Marshal(Holder{tx.Session, req.Node, req.Addr}))
		w.noteHomes()
	}
	// Those that nobody held can begin now.
	for _, queue := range heldBy(tx, 0, left) {
		var h home
		read(tx, homeKey(queue), &h)
		was := h
		h.begin(w, queue)
		w.putHome(queue, &was, &h)
		left--
	}
	return More{left <= 0}, nil
}

// heldBy lists at most limit queues that a session holds.
func heldBy(r state.Reader, s meta.SessionID, limit int) (list []uint64) {
	prefix := key('g', uint64(s))
	for k := range r.Scan(prefix, state.After(prefix)) {
		if len(list) == limit {
			break
		}
		list = append(list, number(k, 0))
	}
	return list
}

// leaveHomes takes from a session at most limit queues that it holds.
func (w *work) leaveHomes(s meta.SessionID, limit int) (n int, more bool) {
	if _, holds := w.tx.Get(holderKey(s)); holds {
		w.tx.Delete(holderKey(s)) // first, so that it is not chosen again
		w.noteHomes()
	}
	list := heldBy(w.tx, s, limit+1)
	if more = len(list) > limit; more {
		list = list[:limit]
	}
	for _, queue := range list {
		var h home
		read(w.tx, homeKey(queue), &h)
		was := h
		h.leave(w, queue, s)
		w.putHome(queue, &was, &h)
	}
	return len(list), more
}

func moveHome(tx *state.Tx, req Move) (Home, error) {
	w := begin(tx)
	q := w.byID(req.Queue)
	var h home
	if q == nil || !read(tx, homeKey(req.Queue), &h) {
		return Home{}, fmt.Errorf("queue %d in memory: %w", req.Queue, meta.NotExist)
	}
	was := h
	s := tx.Session
	_, known := tx.Get(holderKey(req.Backup))
	switch {
	case h.Epoch != req.Epoch || s == 0 || s != h.Primary && s != h.Backup:
		return Home{}, fmt.Errorf("queue %q is at epoch %d, held by %d and %d: %w", q.name, h.Epoch, h.Primary, h.Backup, meta.Conflict)
	case req.Resign:
		h.leave(w, req.Queue, s)
	case req.Backup != 0 && (!known || req.Backup == s):
		return Home{}, fmt.Errorf("session %d holds no queues in memory: %w", req.Backup, meta.Conflict)
	default:
		h.Primary, h.Backup = s, req.Backup
		h.Epoch++
	}
	w.putHome(req.Queue, &was, &h)
	return q.home(tx, h), nil
}

// home is what a home says to others.
func (q *queue) home(r state.Reader, h home) Home {
	who := func(s meta.SessionID) (out Holder) {
		read(r, holderKey(s), &out)
		return out
	}
	out := Home{
		Queue: q.ID, Name: q.name, Epoch: h.Epoch, Primary: who(h.Primary), Backup: who(h.Backup),
		Begun: h.Begun, First: h.First, Second: h.Second, Lost: h.Lost, LostAt: h.LostAt,
		UID: q.UID, GID: q.GID, Mode: q.Mode, Made: q.Made, Settings: q.Settings,
	}
	for _, g := range q.Groups {
		out.Groups = append(out.Groups, g.Name)
	}
	return out
}

func whose(r state.Reader, req Whose) (Home, error) {
	q, err := find(r, req.Name)
	if req.Name == "" {
		q, err = findID(r, req.Queue)
	}
	if err != nil {
		return Home{}, err
	}
	var h home
	if !read(r, homeKey(q.ID), &h) {
		return Home{Queue: q.ID, Name: q.name}, nil
	}
	return q.home(r, h), nil
}

func homes(r state.Reader, req Homes) (HomeList, error) {
	limit, err := limited(req.Limit)
	if err != nil {
		return HomeList{}, err
	}
	out := HomeList{Holders: holders(r)}
	read(r, HomesKey(), &out.Version)
	for k := range r.Scan(holdsKey(req.Session, req.After+1), state.After(key('g', uint64(req.Session)))) {
		if len(out.List) == limit {
			out.More = true
			break
		}
		queue := number(k, 0)
		q, err := findID(r, queue)
		var h home
		if err != nil || !read(r, homeKey(queue), &h) {
			panic(fmt.Sprintf("queue: session %d holds queue %d, which has no home: %v", req.Session, queue, err))
		}
		out.List = append(out.List, q.home(r, h))
	}
	return out, nil
}

// Seed writes a queue that begins empty, as its home says, into an empty state. Claims
// have other numbers whenever it begins: nothing that was taken of it before can be
// settled.
func Seed(s state.Store, h Home) {
	next := h.Lost<<32 + 1
	settings := h.Settings
	settings.Memory = false // it is here
	c := config{ID: h.Queue, UID: h.UID, GID: h.GID, Mode: h.Mode, Made: h.Made, Changed: h.Made, Settings: settings}
	last := h.Queue
	fresh := func() uint64 { last++; return last }
	p := position{Log: fresh(), Next: next, First: next, Claims: h.Begun << 32}
	for _, name := range h.Groups {
		p.Groups = append(p.Groups, group{ID: fresh(), Run: fresh(), Name: name, Cursor: next})
	}
	s.Set(nameKey(h.Name), state.Marshal(c))
	s.Set(key('i', h.Queue), []byte(h.Name))
	s.Set(key('s', h.Queue), state.Marshal(p))
	s.Set(counterKey, state.Marshal(counters{Last: last}))
}

// Sessions returns those that have something of the queues in a state.
func Sessions(r state.Reader) []meta.SessionID {
	var list []meta.SessionID
	for _, table := range []byte{'l', 'v'} {
		for from := key(table); ; {
			k, _, ok := first(r, from, state.After(key(table)))
			if !ok {
				break
			}
			s := binary.BigEndian.Uint64(k[2:])
			list = append(list, meta.SessionID(s))
			from = state.After(key(table, s))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
