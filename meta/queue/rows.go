package queue

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

// counters is the row "8c".
type counters struct {
	Last   uint64 `cbor:"1,keyasint,omitempty"` // the number given last
	Ticked int64  `cbor:"2,keyasint,omitempty"` // no timer is earlier; ns since 1970
}

// config is what changes rarely of a queue.
type config struct {
	ID       uint64    `cbor:"1,keyasint,omitempty"`
	UID      uint32    `cbor:"2,keyasint,omitempty"`
	GID      uint32    `cbor:"3,keyasint,omitempty"`
	Mode     uint32    `cbor:"4,keyasint,omitempty"`
	Made     meta.Time `cbor:"5,keyasint,omitempty"`
	Changed  meta.Time `cbor:"6,keyasint,omitempty"`
	Settings Settings  `cbor:"7,keyasint,omitempty"`
}

// position is what every command changes of a queue.
type position struct {
	Log     uint64  `cbor:"1,keyasint,omitempty"` // the log's number
	Next    uint64  `cbor:"2,keyasint,omitempty"` // of messages
	First   uint64  `cbor:"3,keyasint,omitempty"` // there is none before it
	End     int64   `cbor:"4,keyasint,omitempty"` // bytes of all lines that ever were
	Count   int64   `cbor:"5,keyasint,omitempty"` // messages in the log
	Bytes   int64   `cbor:"6,keyasint,omitempty"` // of their bodies
	Claims  uint64  `cbor:"7,keyasint,omitempty"` // the last number of a claim, place, or delayed message
	Delayed int64   `cbor:"8,keyasint,omitempty"`
	Dead    int64   `cbor:"9,keyasint,omitempty"`
	Pushed  uint64  `cbor:"10,keyasint,omitempty"`
	Expired uint64  `cbor:"11,keyasint,omitempty"`
	Dropped uint64  `cbor:"12,keyasint,omitempty"`
	Groups  []group `cbor:"13,keyasint,omitempty"`
	Rates   rates   `cbor:"14,keyasint,omitempty"`
	Trim    bool    `cbor:"15,keyasint,omitempty"` // there is a timer for trimming
}

// rates counts in windows of RateWindow.
type rates struct {
	Window   int64 `cbor:"1,keyasint,omitempty"` // its number since 1970
	Pushed   int64 `cbor:"2,keyasint,omitempty"`
	Acked    int64 `cbor:"3,keyasint,omitempty"`
	LastPush int64 `cbor:"4,keyasint,omitempty"` // in the window before
	LastAck  int64 `cbor:"5,keyasint,omitempty"`
}

// group is a group's part of the position.
type group struct {
	ID      uint64  `cbor:"1,keyasint,omitempty"`
	Run     uint64  `cbor:"2,keyasint,omitempty"`
	Name    string  `cbor:"3,keyasint,omitempty"`
	Cursor  uint64  `cbor:"4,keyasint,omitempty"` // the next message that has no entry
	Fresh   int64   `cbor:"5,keyasint,omitempty"` // messages from the cursor on
	Ready   []class `cbor:"6,keyasint,omitempty"` // that have a row, by class
	Out     int64   `cbor:"7,keyasint,omitempty"`
	Later   int64   `cbor:"8,keyasint,omitempty"`
	Parked  int64   `cbor:"9,keyasint,omitempty"`
	Waiters int64   `cbor:"10,keyasint,omitempty"`
	Front   uint64  `cbor:"11,keyasint,omitempty"` // no place is before it
	Done    uint64  `cbor:"12,keyasint,omitempty"`
}

// A class is messages of one priority that are ready.
type class struct {
	Count int64  `cbor:"1,keyasint,omitempty"`
	Low   uint64 `cbor:"2,keyasint,omitempty"` // none of them is before it
}

func (g *group) ready() (n int64) {
	for _, c := range g.Ready {
		n += c.Count
	}
	return n + g.Fresh
}

func (g *group) depth() int64 { return g.ready() + g.Out + g.Later + g.Parked }

// message is a row of the log.
type message struct {
	Body     []byte    `cbor:"1,keyasint,omitempty"`
	Key      string    `cbor:"2,keyasint,omitempty"`
	Priority uint8     `cbor:"3,keyasint,omitempty"`
	Sent     meta.Time `cbor:"4,keyasint,omitempty"`
	Expires  meta.Time `cbor:"5,keyasint,omitempty"`
	Byte     int64     `cbor:"6,keyasint,omitempty"` // where its line begins
	ID       uint64    `cbor:"7,keyasint,omitempty"` // if it is another than its number
	Whole    bool      `cbor:"8,keyasint,omitempty"`
	// Parts has each row of a message name its stripes once, with namespace.Keep and Share.
	Parts []chunk.StripeID `cbor:"9,keyasint,omitempty"`
	Size  int64            `cbor:"10,keyasint,omitempty"` // of what they hold
}

func (m *message) got(n uint64, attempt int) Got {
	return Got{Number: n, Body: m.Body, Key: m.Key, Priority: m.Priority, Sent: m.Sent, Attempt: attempt, ID: m.ID, Whole: m.Whole, Parts: m.Parts, Size: m.Size}
}

// size is how many bytes the body has.
func (m *message) size() int { return len(m.Body) + int(m.Size) }

// A status is what has become of a message in a run.
type status uint8

const (
	isReady  status = iota + 1 // it has a row "8r"
	isOut                      // it is claimed
	isLater                    // a timer will make it ready
	isParked                   // it has a row "8k"
)

// entry says what has become of a message in a run. Without one, and before the
// cursor, it is settled.
type entry struct {
	Status   status         `cbor:"1,keyasint,omitempty"`
	Attempts int            `cbor:"2,keyasint,omitempty"`
	Session  meta.SessionID `cbor:"3,keyasint,omitempty"` // whose claim
	Claim    uint64         `cbor:"4,keyasint,omitempty"`
	Priority uint8          `cbor:"5,keyasint,omitempty"`
	Key      uint64         `cbor:"6,keyasint,omitempty"` // the hash of the key, if keys matter
	Size     int            `cbor:"7,keyasint,omitempty"` // of the body
	Due      meta.Time      `cbor:"8,keyasint,omitempty"` // when it is ready
	Expires  meta.Time      `cbor:"9,keyasint,omitempty"` // the message's
}

// old reports whether nobody is to get the message any more.
func (e *entry) old(now meta.Time) bool { return e.Expires != 0 && e.Expires <= now }

// claim is a claim.
type claim struct {
	Group    uint64        `cbor:"1,keyasint,omitempty"`
	Run      uint64        `cbor:"2,keyasint,omitempty"`
	Consumer string        `cbor:"3,keyasint,omitempty"`
	Until    meta.Time     `cbor:"4,keyasint,omitempty"`
	Numbers  []uint64      `cbor:"5,keyasint,omitempty"` // not settled
	Hold     time.Duration `cbor:"6,keyasint,omitempty"` // how long it lives
}

// place is a waiter.
type place struct {
	Session  meta.SessionID `cbor:"1,keyasint,omitempty"`
	Max      int            `cbor:"2,keyasint,omitempty"`
	Consumer string         `cbor:"3,keyasint,omitempty"`
	Hold     time.Duration  `cbor:"4,keyasint,omitempty"`
}

// dead is a dead message.
type dead struct {
	Message  message   `cbor:"1,keyasint,omitempty"`
	Group    string    `cbor:"2,keyasint,omitempty"`
	Died     meta.Time `cbor:"3,keyasint,omitempty"`
	Attempts int       `cbor:"4,keyasint,omitempty"`
}

// The kinds of timers, and what their numbers are.
const (
	timerClaim  = 1 // queue, session, claim: its time is over
	timerLater  = 2 // queue, run, number: it is ready again
	timerBorn   = 3 // queue, log, id: the message in the value enters the log
	timerExpire = 4 // queue, log, number
	timerForget = 5 // queue, the hash of an id: the id in the value is forgotten
	timerServe  = 6 // queue, group: there is more to pass over
	timerTrim   = 7 // queue: the front of the log may go
)

// timer is the value of a timer's row.
type timer struct {
	Message *message      `cbor:"1,keyasint,omitempty"`
	Expires time.Duration `cbor:"2,keyasint,omitempty"` // from when it is in the log
	ID      string        `cbor:"3,keyasint,omitempty"`
}

var counterKey = []byte("8c")

func key(table byte, numbers ...uint64) []byte {
	k := make([]byte, 2, 2+8*len(numbers)+8)
	k[0], k[1] = '8', table
	for _, n := range numbers {
		k = binary.BigEndian.AppendUint64(k, n)
	}
	return k
}

func nameKey(name string) []byte { return append([]byte("8n"), name...) }

func readyKey(run uint64, class uint8, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(key('r', run), class), n)
}

func claimKey(s meta.SessionID, queue, n uint64) []byte { return key('l', uint64(s), queue, n) }

func placeOfKey(s meta.SessionID, queue, n uint64) []byte { return key('v', uint64(s), queue, n) }

func dedupKey(queue uint64, id string) []byte { return append(key('u', queue), id...) }

func timerKey(at meta.Time, kind byte, a, b, c uint64) []byte {
	k := append(key('t', uint64(at)), kind)
	for _, n := range []uint64{a, b, c} {
		k = binary.BigEndian.AppendUint64(k, n)
	}
	return k
}

// number returns the i-th number of a key of such a table, counted from the end.
func number(key []byte, i int) uint64 { return binary.BigEndian.Uint64(key[len(key)-8*(i+1):]) }

// hash is what messages with a key are known by. Two keys with one hash are taken for
// one key, which only makes them wait for each other.
func hash(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64() | 1 // 0 is no key
}

func read(r state.Reader, key []byte, row any) bool {
	val, ok := r.Get(key)
	if ok {
		state.MustUnmarshal(val, row)
	}
	return ok
}

// first returns the first row with a key ≥ from and < to.
func first(r state.Reader, from, to []byte) (key, val []byte, ok bool) {
	for k, v := range r.Scan(from, to) {
		return k, v, true
	}
	return nil, nil, false
}
