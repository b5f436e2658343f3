package task

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"

	"dos/meta"
	"dos/meta/state"
)

// counters is the row "9c".
type counters struct {
	Job    uint64    `cbor:"1,keyasint,omitempty"` // the last one
	Token  uint64    `cbor:"2,keyasint,omitempty"` // the last one
	Dirty  bool      `cbor:"3,keyasint,omitempty"` // something may begin now
	Next   meta.Time `cbor:"4,keyasint,omitempty"` // no timer is earlier; 0: there is none
	Event  uint64    `cbor:"5,keyasint,omitempty"` // the last one
	Chore  uint64    `cbor:"6,keyasint,omitempty"` // the first that is not done
	Chores uint64    `cbor:"7,keyasint,omitempty"` // the number after the last
	Ended  uint64    `cbor:"8,keyasint,omitempty"` // the first that is not forgotten
	Ends   uint64    `cbor:"9,keyasint,omitempty"` // the number after the last
	Counts []int64   `cbor:"10,keyasint,omitempty"`
	Queue  uint32    `cbor:"11,keyasint,omitempty"` // the last partition
	Epoch  uint64    `cbor:"12,keyasint,omitempty"` // of what is said of machines, when the last pass was
	Nodes  int       `cbor:"13,keyasint,omitempty"` // machines that offer something
	Claims meta.Time `cbor:"15,keyasint,omitempty"` // when machines are looked at that do not claim; 0: never
	Queues int       `cbor:"14,keyasint,omitempty"` // partitions beside the default one
}

// A demand is what decides where and when a task can run. Tasks with the same one,
// of the same level, are in one lane.
type demand struct {
	Need   Resources     `cbor:"1,keyasint,omitempty"`
	Labels []string      `cbor:"2,keyasint,omitempty"`
	Node   string        `cbor:"3,keyasint,omitempty"`
	Limit  time.Duration `cbor:"4,keyasint,omitempty"`
	Prefer []string      `cbor:"5,keyasint,omitempty"`
}

// shapeSize is the size of a shape, which stands for a demand.
const shapeSize = 12

func (d demand) shape() string {
	sum := sha256.Sum256(state.Marshal(d))
	return string(sum[:shapeSize])
}

// A row is a task or an array.
type row struct {
	Version uint64 `cbor:"1,keyasint,omitempty"`
	State   State  `cbor:"2,keyasint,omitempty"` // as the indices have it
	Final   State  `cbor:"3,keyasint,omitempty"` // it has ended so; zero: it has not
	UID     uint32 `cbor:"4,keyasint,omitempty"`
	GID     uint32 `cbor:"5,keyasint,omitempty"`
	Name    string `cbor:"6,keyasint,omitempty"`
	Queue   uint32 `cbor:"7,keyasint,omitempty"` // the partition
	Prio    int    `cbor:"8,keyasint,omitempty"`
	Demand  demand `cbor:"9,keyasint,omitempty"`

	Held  bool      `cbor:"10,keyasint,omitempty"`
	Waits int       `cbor:"11,keyasint,omitempty"` // how many it comes after that have not ended
	Due   meta.Time `cbor:"12,keyasint,omitempty"` // it does not begin before
	Lane  bool      `cbor:"13,keyasint,omitempty"` // it stands in a lane, or its array is to start it

	Attempt  *attempt `cbor:"14,keyasint,omitempty"` // the one that is
	Attempts int      `cbor:"15,keyasint,omitempty"`
	Failures int      `cbor:"16,keyasint,omitempty"`
	Losses   int      `cbor:"17,keyasint,omitempty"`

	// Of the last attempt.
	Node    string    `cbor:"18,keyasint,omitempty"`
	Token   uint64    `cbor:"19,keyasint,omitempty"`
	Claimed meta.Time `cbor:"20,keyasint,omitempty"`
	Started meta.Time `cbor:"21,keyasint,omitempty"`
	Exit    *Exit     `cbor:"22,keyasint,omitempty"`
	Usage   Usage     `cbor:"23,keyasint,omitempty"`
	Past    []Past    `cbor:"24,keyasint,omitempty"` // the last first

	Submitted meta.Time     `cbor:"25,keyasint,omitempty"`
	Ended     meta.Time     `cbor:"26,keyasint,omitempty"`
	End       uint64        `cbor:"27,keyasint,omitempty"` // its number in the list of those that ended
	Reason    string        `cbor:"28,keyasint,omitempty"` // why it was held, cancelled or lost, or came back
	Followed  bool          `cbor:"29,keyasint,omitempty"` // others come after it
	Retries   int           `cbor:"30,keyasint,omitempty"`
	Every     time.Duration `cbor:"31,keyasint,omitempty"`
	Began     meta.Time     `cbor:"32,keyasint,omitempty"` // the first attempt of this repetition was claimed
	Array     *array        `cbor:"33,keyasint,omitempty"`
}

// An attempt is one that a machine has, or is to have.
type attempt struct {
	Token    uint64         `cbor:"1,keyasint,omitempty"`
	Node     string         `cbor:"2,keyasint,omitempty"`
	Session  meta.SessionID `cbor:"3,keyasint,omitempty"`
	Version  uint64         `cbor:"4,keyasint,omitempty"` // of the session's orders, when it changed last
	Assigned meta.Time      `cbor:"5,keyasint,omitempty"`
	Claimed  bool           `cbor:"6,keyasint,omitempty"`
	Frozen   bool           `cbor:"7,keyasint,omitempty"` // it is to stand still
	Stands   bool           `cbor:"8,keyasint,omitempty"` // it does
	Stop     stop           `cbor:"9,keyasint,omitempty"`
	Orders   []Order        `cbor:"10,keyasint,omitempty"`
	Order    uint64         `cbor:"11,keyasint,omitempty"` // the last
}

// A stop is what becomes of a task when the attempt that was ordered to end has.
type stop uint8

const (
	goOn      stop = iota // what its exit says
	toCancel              // it is cancelled
	toRequeue             // it waits again
)

// An array is what a row has beside when it is one. Its elements have rows from when
// something becomes of them; those without are bare.
type array struct {
	Indices  []Range `cbor:"1,keyasint,omitempty"`
	Throttle int     `cbor:"2,keyasint,omitempty"`
	Ready    []Range `cbor:"3,keyasint,omitempty"` // to be started, bare or not
	Bare     int     `cbor:"4,keyasint,omitempty"`
	BareEnd  State   `cbor:"5,keyasint,omitempty"` // the bare ones have ended so
	Active   int     `cbor:"6,keyasint,omitempty"` // have an attempt
	Counts   []int   `cbor:"7,keyasint,omitempty"` // elements by State
}

// A stored is a job as it was submitted.
type stored struct {
	Owner Owner `cbor:"1,keyasint,omitempty"`
	Spec  Spec  `cbor:"2,keyasint,omitempty"`
}

// A level is the lanes of one priority, partition and user.
type level struct {
	Lanes []*lane `cbor:"1,keyasint,omitempty"`
	Over  int64   `cbor:"2,keyasint,omitempty"` // tasks that have no lane yet
	Low   ID      `cbor:"3,keyasint,omitempty"` // none of these is before it
}

// A lane is tasks with the same demand, the oldest at its head.
type lane struct {
	Demand demand `cbor:"1,keyasint,omitempty"`
	Head   ID     `cbor:"2,keyasint,omitempty"`
	Count  int64  `cbor:"3,keyasint,omitempty"`

	form string // the demand's shape
	next []ID   // that follow the head, as far as they were read
}

func (l *lane) shape() string {
	if l.form == "" {
		l.form = l.Demand.shape()
	}
	return l.form
}

// nodeRow is a machine's offer.
type nodeRow struct {
	Offer   Offer          `cbor:"1,keyasint,omitempty"`
	Session meta.SessionID `cbor:"2,keyasint,omitempty"`
	// Deaf says that it did not claim what was assigned to it, and until when nothing
	// more is.
	Deaf meta.Time `cbor:"3,keyasint,omitempty"`
}

// used is what runs on a machine.
type used struct {
	Sum  Resources `cbor:"1,keyasint,omitempty"`
	Runs []run     `cbor:"2,keyasint,omitempty"` // by token
}

// A run is a task that has room on a machine.
type run struct {
	ID      ID             `cbor:"1,keyasint,omitempty"`
	Token   uint64         `cbor:"2,keyasint,omitempty"`
	Session meta.SessionID `cbor:"3,keyasint,omitempty"`
	Need    Resources      `cbor:"4,keyasint,omitempty"`
	Until   meta.Time      `cbor:"5,keyasint,omitempty"` // it has ended by then; 0: nobody knows
	Prio    int            `cbor:"6,keyasint,omitempty"`
	Queue   uint32         `cbor:"7,keyasint,omitempty"`
	UID     uint32         `cbor:"8,keyasint,omitempty"`
	Stops   bool           `cbor:"9,keyasint,omitempty"` // it was told to end
	Since   meta.Time      `cbor:"10,keyasint,omitempty"`
	Claimed bool           `cbor:"11,keyasint,omitempty"`
}

// account is a user in a partition.
type account struct {
	Share share     `cbor:"1,keyasint,omitempty"`
	Used  Resources `cbor:"2,keyasint,omitempty"` // by what runs
	Tasks int       `cbor:"3,keyasint,omitempty"`
}

// queueRow is a partition.
type queueRow struct {
	ID    uint32    `cbor:"1,keyasint,omitempty"`
	UID   uint32    `cbor:"2,keyasint,omitempty"`
	GID   uint32    `cbor:"3,keyasint,omitempty"`
	Mode  uint32    `cbor:"4,keyasint,omitempty"`
	Made  meta.Time `cbor:"5,keyasint,omitempty"`
	Rules Rules     `cbor:"6,keyasint,omitempty"`
}

// running is what a partition runs.
type running struct {
	Used  Resources `cbor:"1,keyasint,omitempty"`
	Tasks int       `cbor:"2,keyasint,omitempty"`
	Waits int       `cbor:"3,keyasint,omitempty"` // jobs that have not ended
}

// ended is a job that ended.
type ended struct {
	Job  uint64    `cbor:"1,keyasint,omitempty"`
	Time meta.Time `cbor:"2,keyasint,omitempty"`
}

// kept is a machine that is reserved for a task; an array for whichever element.
type kept struct {
	ID    ID        `cbor:"1,keyasint,omitempty"`
	Node  string    `cbor:"2,keyasint,omitempty"`
	Start meta.Time `cbor:"3,keyasint,omitempty"` // at the latest; 0: nobody knows
}

// levelKey is a level: priority(4) partition(4) user(4).
type levelKey string

func levelOf(prio int, queue, uid uint32) levelKey {
	k := binary.BigEndian.AppendUint32(nil, uint32(math.MaxInt32-prio))
	return levelKey(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(k, queue), uid))
}

func (k levelKey) prio() int     { return math.MaxInt32 - int(binary.BigEndian.Uint32([]byte(k[0:4]))) }
func (k levelKey) queue() uint32 { return binary.BigEndian.Uint32([]byte(k[4:8])) }
func (k levelKey) uid() uint32   { return binary.BigEndian.Uint32([]byte(k[8:12])) }

var (
	counterKey = []byte("9c")
	levelsKey  = []byte("9Q")
	eventsKey  = []byte("9v")
	keptKey    = []byte("9r")
)

func key(table byte, numbers ...uint64) []byte {
	k := make([]byte, 2, 2+8*len(numbers)+12)
	k[0], k[1] = '9', table
	for _, n := range numbers {
		k = binary.BigEndian.AppendUint64(k, n)
	}
	return k
}

const idSize = 12

func withID(k []byte, id ID) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(k, id.Job), id.Place)
}

// idAt is the id at the end of a key.
func idAt(key []byte) ID {
	b := key[len(key)-idSize:]
	return ID{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])}
}

func numberAt(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

func taskKey(id ID) []byte { return withID(key('t'), id) }

func levelRowKey(k levelKey) []byte { return append(key('q'), k...) }

func memberKey(k levelKey, shape string, id ID) []byte {
	return withID(append(append(key('m'), k...), shape...), id)
}

func overKey(k levelKey, id ID) []byte { return withID(append(key('o'), k...), id) }

func nodeKey(name string) []byte { return append(key('n'), name...) }

func usedKey(name string) []byte { return append(key('u'), name...) }

func ofSessionKey(s meta.SessionID, name string) []byte { return append(key('x', uint64(s)), name...) }

func orderKey(s meta.SessionID, version uint64) []byte { return key('e', uint64(s), version) }

func short(table byte, numbers ...uint32) []byte {
	k := key(table)
	for _, n := range numbers {
		k = binary.BigEndian.AppendUint32(k, n)
	}
	return k
}

func accountKey(queue, uid uint32) []byte { return short('a', queue, uid) }

func queueKey(name string) []byte { return append(key('g'), name...) }

func afterKey(dep ID, job uint64) []byte {
	return binary.BigEndian.AppendUint64(withID(key('d'), dep), job)
}

func timerKey(at meta.Time, id ID) []byte { return withID(key('T', uint64(at)), id) }

func stateKey(s State, id ID) []byte { return withID(append(key('y'), byte(s)), id) }

func userKey(uid uint32, id ID) []byte { return withID(short('U', uid), id) }

func nameKey(name string, id ID) []byte { return withID(append(append(key('N'), name...), 0), id) }

func read(r state.Reader, key []byte, row any) bool {
	val, ok := r.Get(key)
	if ok {
		state.MustUnmarshal(val, row)
	}
	return ok
}

func has(r state.Reader, key []byte) bool { _, ok := r.Get(key); return ok }

// find returns a task's row. That of a bare element is made up from its array's.
func find(r state.Reader, id ID) (one *row, bare, ok bool) {
	one = new(row)
	if read(r, taskKey(id), one) {
		return one, false, id.Place == 0 || has(r, taskKey(id.Array()))
	}
	i, element := id.Index()
	if !element {
		return nil, false, false
	}
	all := new(row)
	if !read(r, taskKey(id.Array()), all) || all.Array == nil || !contains(all.Array.Indices, uint32(i)) {
		return nil, false, false
	}
	return all.element(), true, true
}

// element is a bare element of the array.
func (r *row) element() *row {
	e := &row{
		UID: r.UID, GID: r.GID, Name: r.Name, Queue: r.Queue, Prio: r.Prio, Demand: r.Demand, Retries: r.Retries, Submitted: r.Submitted,
		State: r.Array.bare(r.Held), Final: r.Array.BareEnd,
	}
	if e.Final != 0 {
		e.Ended, e.Reason = r.Ended, r.Reason
	}
	return e
}

// bare is the state of bare elements.
func (a *array) bare(held bool) State {
	switch {
	case a.BareEnd != 0:
		return a.BareEnd
	case held:
		return Held
	}
	return Pending
}

func later(t meta.Time, d time.Duration) meta.Time { return t + meta.Time(d) }

func span(from, to meta.Time) time.Duration { return time.Duration(to - from) }
