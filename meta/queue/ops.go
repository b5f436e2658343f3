package queue

import (
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

// The operations of this room. Numbers are never reused.
const (
	OpMake        state.Op = 0x0700 // Make → nothing
	OpRemove      state.Op = 0x0701 // Named → nothing
	OpSet         state.Op = 0x0702 // Set → nothing
	OpPush        state.Op = 0x0703 // Push → Pushed
	OpTake        state.Op = 0x0704 // Take → Taken
	OpSettle      state.Op = 0x0705 // Settles → Settled
	OpLeave       state.Op = 0x0706 // Leave → nothing
	OpMakeGroup   state.Op = 0x0707 // Grouped → nothing
	OpRemoveGroup state.Op = 0x0708 // Grouped → nothing
	OpSeek        state.Op = 0x0709 // Seek → nothing
	OpPurge       state.Op = 0x070a // Named → nothing
	OpTick        state.Op = 0x070b // Bound → More
	OpSweep       state.Op = 0x070c // Bound → More
	OpBury        state.Op = 0x070d // Bury → nothing
	OpServe       state.Op = 0x070e // Serve → More
	OpMove        state.Op = 0x070f // Move → Home
	OpPass        state.Op = 0x0710 // Pass → Passed

	OpList    state.Op = 0x0740 // List → Names
	OpStatus  state.Op = 0x0741 // Named → Status
	OpAwait   state.Op = 0x0742 // Await → Waiting
	OpRoom    state.Op = 0x0743 // Fit → Space
	OpRead    state.Op = 0x0744 // Read → Log
	OpFlights state.Op = 0x0745 // Flights → Flying
	OpDead    state.Op = 0x0746 // Dead → Letters
	OpDue     state.Op = 0x0747 // Due → Work
	OpWhose   state.Op = 0x0748 // Whose → Home
	OpHomes   state.Op = 0x0749 // Homes → HomeList
)

// Limits of this room.
const (
	NameMax = 255      // bytes of a name of a queue or a group
	BodyMax = 64 << 10 // bytes of a message that is in the log itself
	// SizeMax and PartsMax bound a message that is in stripes.
	SizeMax  = 64 << 20
	PartsMax = SizeMax / chunk.MaxStripe
	TextMax  = 128 // bytes of a key, a deduplication id, or a consumer's name
	// PushMax and PushBytes bound one Push: what one command may make of rows.
	PushMax   = 1024
	PushBytes = 1 << 20
	// TakeMax and TakeBytes bound one claim, whose answer may be kept as one row. The
	// last message may go over the bytes. What is in stripes counts too: a reader has
	// few of those at once.
	TakeMax   = 256
	TakeBytes = 256 << 10
	// SettleMax bounds the claims in one command, or in each Take of a Pass.
	SettleMax = 8
	// PassMax bounds the Takes of a Pass.
	PassMax = 64
	// GroupsMax bounds the groups of a queue, and so the row that every command on it writes.
	GroupsMax = 64
	// WaitsMax bounds who waits in one group.
	WaitsMax = 4096
	// lookMax bounds the messages that one command passes over for nothing.
	lookMax = 1024
	// dropMax bounds the messages that a push makes room of.
	dropMax = 2 * PushMax
	// ListMax bounds the things in one answer, and listBytes the messages in it.
	ListMax   = 1024
	listBytes = 1 << 20
	// Priorities is the number of priorities; the highest goes first.
	Priorities = 10
	// DedupKeep is how long a deduplication id is remembered.
	DedupKeep = time.Hour
	// AckDefault and AttemptsDefault are what a new queue has.
	AckDefault      = 30 * time.Second
	AttemptsDefault = 5
	// timeMax bounds every duration.
	timeMax = 10 * 365 * 24 * time.Hour
)

// Full says what becomes of a message that a bounded queue has no room for.
type Full uint8

const (
	Block   Full = iota // it is for the sender to wait
	Reject              // it is refused
	DropOld             // the oldest that nobody has taken goes
)

// An Order is the order in which a group gets messages.
type Order uint8

const (
	FIFO  Order = iota // as they came
	ByPri              // by priority, then as they came
	ByKey              // as they came, and of those with one key only one is out at a time
)

// Settings are what a queue's owner says of it.
type Settings struct {
	Max       int           `cbor:"1,keyasint,omitempty"` // messages that some group has not settled; 0: no bound
	Full      Full          `cbor:"2,keyasint,omitempty"`
	Ack       time.Duration `cbor:"3,keyasint,omitempty"` // how long a claim lives
	Attempts  int           `cbor:"4,keyasint,omitempty"` // before a message is dead; 0: no bound
	Dead      string        `cbor:"5,keyasint,omitempty"` // the queue that dead messages go to
	Order     Order         `cbor:"6,keyasint,omitempty"`
	KeepFor   time.Duration `cbor:"7,keyasint,omitempty"` // how long settled messages stay
	KeepBytes int64         `cbor:"8,keyasint,omitempty"` // how many bytes of the log stay, settled or not
	Paused    bool          `cbor:"9,keyasint,omitempty"` // nothing is given out
	// Memory says that the messages are in the memory of two machines (Home), and what
	// is here of the queue is what it is: those execute what is asked of its messages.
	Memory bool `cbor:"10,keyasint,omitempty"`
}

// Keeps reports whether settled messages stay to be read.
func (s Settings) Keeps() bool { return s.KeepFor > 0 || s.KeepBytes > 0 }

// Make makes a queue. Exist if there is one.
type Make struct {
	Name string `cbor:"1,keyasint,omitempty"`
	UID  uint32 `cbor:"2,keyasint,omitempty"`
	GID  uint32 `cbor:"3,keyasint,omitempty"`
	Mode uint32 `cbor:"4,keyasint,omitempty"` // permissions
}

// Named names a queue. To Remove it, it must have no messages that a group has not
// settled, no dead ones and nobody who waits (Busy); Purge makes it so.
type Named struct {
	Name string `cbor:"1,keyasint,omitempty"`
}

// Set changes what is not nil. The order changes only while all is settled (Busy), and
// whether it is in memory only while it has no message at all and nobody waits.
type Set struct {
	Name      string         `cbor:"1,keyasint,omitempty"`
	Max       *int           `cbor:"2,keyasint,omitempty"`
	Full      *Full          `cbor:"3,keyasint,omitempty"`
	Ack       *time.Duration `cbor:"4,keyasint,omitempty"`
	Attempts  *int           `cbor:"5,keyasint,omitempty"`
	Dead      *string        `cbor:"6,keyasint,omitempty"`
	Order     *Order         `cbor:"7,keyasint,omitempty"`
	KeepFor   *time.Duration `cbor:"8,keyasint,omitempty"`
	KeepBytes *int64         `cbor:"9,keyasint,omitempty"`
	Paused    *bool          `cbor:"10,keyasint,omitempty"`
	UID       *uint32        `cbor:"11,keyasint,omitempty"`
	GID       *uint32        `cbor:"12,keyasint,omitempty"`
	Mode      *uint32        `cbor:"13,keyasint,omitempty"`
	Memory    *bool          `cbor:"14,keyasint,omitempty"`
}

// A Message is what is sent.
type Message struct {
	Body []byte `cbor:"1,keyasint,omitempty"`
	Key  string `cbor:"2,keyasint,omitempty"`
	// Priority is from 0 to 9, for a queue in that order.
	Priority uint8         `cbor:"3,keyasint,omitempty"`
	Delay    time.Duration `cbor:"4,keyasint,omitempty"` // it is in the log only then
	// Dedup makes a message that is sent again within DedupKeep one that is there.
	Dedup   string        `cbor:"5,keyasint,omitempty"`
	Expires time.Duration `cbor:"6,keyasint,omitempty"` // after which nobody gets it; from when it is in the log
	Whole   bool          `cbor:"7,keyasint,omitempty"` // it is not a line: shown as it is
	// Stripes have what is larger than BodyMax, in the place of Body. They are new, of
	// the session of the command, and synced on their stores.
	Stripes []chunk.Stripe `cbor:"8,keyasint,omitempty"`
}

// A Token says that what is asked for is conditional on a lock still being held as
// it was when it had that number.
type Token struct {
	Lock   string `cbor:"1,keyasint,omitempty"`
	Number uint64 `cbor:"2,keyasint,omitempty"`
}

// Push appends messages: all of them, or as many as there is room for if Part says
// so. When a queue is full and its senders are to wait, the answer has fewer IDs
// than there are messages; if they are to be refused it is Quota.
type Push struct {
	Name     string    `cbor:"1,keyasint,omitempty"`
	Messages []Message `cbor:"2,keyasint,omitempty"`
	Part     bool      `cbor:"3,keyasint,omitempty"`
	Token    *Token    `cbor:"4,keyasint,omitempty"`
}

// Pushed answers Push. A message's id is its number in the log; one that is delayed
// has one that is no number in the log, of which nobody knows another use.
type Pushed struct {
	IDs   []uint64 `cbor:"1,keyasint,omitempty"`
	Queue uint64   `cbor:"2,keyasint,omitempty"` // its number
	Ready int64    `cbor:"3,keyasint,omitempty"` // messages of the default group, before any was given to who waits
}

// Take first settles, then claims up to Max messages for the session of the command.
// If there are none, and Wait says so, it takes a place among the waiters.
type Take struct {
	Name     string   `cbor:"1,keyasint,omitempty"`
	Group    string   `cbor:"2,keyasint,omitempty"`
	Max      int      `cbor:"3,keyasint,omitempty"`
	Wait     bool     `cbor:"4,keyasint,omitempty"`
	Consumer string   `cbor:"5,keyasint,omitempty"` // who it is, for people
	Settle   []Settle `cbor:"6,keyasint,omitempty"`
	// Hold is how long the claim lives; 0: as long as the queue says.
	Hold  time.Duration `cbor:"7,keyasint,omitempty"`
	Token *Token        `cbor:"8,keyasint,omitempty"`
}

// Taken answers Take.
type Taken struct {
	Claim    uint64 `cbor:"1,keyasint,omitempty"` // its number in the queue; 0: there is none
	Messages []Got  `cbor:"2,keyasint,omitempty"`
	// Place is the number of the place among the waiters. The claim that comes of it
	// has the same number.
	Place uint64    `cbor:"3,keyasint,omitempty"`
	Until meta.Time `cbor:"4,keyasint,omitempty"` // the claim's end
	// Stale is how many of Settle were of claims that are no more. They changed nothing.
	Stale int    `cbor:"5,keyasint,omitempty"`
	Queue uint64 `cbor:"6,keyasint,omitempty"` // its number
	// Hold is how long the claim lives from when it was made.
	Hold time.Duration `cbor:"7,keyasint,omitempty"`
}

// Pass is what the senders and the takers of one client have for one queue: first all is
// settled, then Push is done, then the Takes are, one after the other, and they find what
// was sent just now. It is all or nothing, also where a token of one of them is refused;
// the names of the queue in Push and Takes do not count.
type Pass struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	Push  Push   `cbor:"2,keyasint,omitempty"` // there may be no messages
	Takes []Take `cbor:"3,keyasint,omitempty"`
}

// Passed answers Pass. All Takes together get no more than one does: who is left out for
// that has no claim and, though it wanted to wait, no place, and may ask again.
type Passed struct {
	Pushed Pushed  `cbor:"1,keyasint,omitempty"`
	Taken  []Taken `cbor:"2,keyasint,omitempty"`
}

// Got is a message as a consumer gets it.
type Got struct {
	Number   uint64    `cbor:"1,keyasint,omitempty"`
	Body     []byte    `cbor:"2,keyasint,omitempty"`
	Key      string    `cbor:"3,keyasint,omitempty"`
	Priority uint8     `cbor:"4,keyasint,omitempty"`
	Sent     meta.Time `cbor:"5,keyasint,omitempty"`
	Attempt  int       `cbor:"6,keyasint,omitempty"` // 1: it was not given out before
	ID       uint64    `cbor:"7,keyasint,omitempty"` // if it is another than Number: it was delayed
	Whole    bool      `cbor:"8,keyasint,omitempty"`
	// Parts are the stripes that have the body, and Size is what they hold, if it is
	// larger than BodyMax. They live as long as the message does.
	Parts []chunk.StripeID `cbor:"9,keyasint,omitempty"`
	Size  int64            `cbor:"10,keyasint,omitempty"`
}

// What is to become of claimed messages.
type What uint8

const (
	Ack     What = iota // done with
	Nack                // back, after Time
	Return              // back at the head, as if never given out
	Extend              // the claim lives for Time from now
	Discard             // dead at once
)

// Settle says what becomes of messages of a claim, or of all of them. Those that
// are not of the claim are left alone.
type Settle struct {
	Name    string        `cbor:"1,keyasint,omitempty"`
	Claim   uint64        `cbor:"2,keyasint,omitempty"`
	Numbers []uint64      `cbor:"3,keyasint,omitempty"`
	What    What          `cbor:"4,keyasint,omitempty"`
	Time    time.Duration `cbor:"5,keyasint,omitempty"`
}

// Settles settles. A claim that is no more changes nothing and is counted.
type Settles struct {
	List []Settle `cbor:"1,keyasint,omitempty"`
}

// Settled answers Settles.
type Settled struct {
	Stale int `cbor:"1,keyasint,omitempty"`
}

// Leave gives up a place, and if it was made a claim meanwhile, that, as if it had
// not been. What is not there any more is no error.
type Leave struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	Place uint64 `cbor:"2,keyasint,omitempty"`
}

// Grouped names a group. A new one begins at the end of the log. Removing the
// default group means that it does not take part, until it is made again.
type Grouped struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	Group string `cbor:"2,keyasint,omitempty"`
}

// Seek puts a group at a message: that number, or the first sent at or after a time,
// or the first there is, or behind the last. What the group had out or waiting is forgotten.
type Seek struct {
	Name   string    `cbor:"1,keyasint,omitempty"`
	Group  string    `cbor:"2,keyasint,omitempty"`
	Number uint64    `cbor:"3,keyasint,omitempty"`
	Time   meta.Time `cbor:"4,keyasint,omitempty"`
	First  bool      `cbor:"5,keyasint,omitempty"`
	Last   bool      `cbor:"6,keyasint,omitempty"`
}

// Bury removes a dead message.
type Bury struct {
	Name   string `cbor:"1,keyasint,omitempty"`
	Number uint64 `cbor:"2,keyasint,omitempty"`
}

// Bound bounds how many rows a command looks at.
type Bound struct {
	Limit int `cbor:"1,keyasint,omitempty"`
}

// More says whether some is left.
type More struct {
	More bool `cbor:"1,keyasint,omitempty"`
}

// List asks for at most Limit queues after a name, in order.
type List struct {
	After string `cbor:"1,keyasint,omitempty"`
	Limit int    `cbor:"2,keyasint,omitempty"`
}

// Names answers List.
type Names struct {
	Names []string `cbor:"1,keyasint,omitempty"`
	More  bool     `cbor:"2,keyasint,omitempty"`
}

// Status describes a queue.
type Status struct {
	Name     string        `cbor:"1,keyasint,omitempty"`
	ID       uint64        `cbor:"2,keyasint,omitempty"` // not another's after it was removed and made again
	UID      uint32        `cbor:"3,keyasint,omitempty"`
	GID      uint32        `cbor:"4,keyasint,omitempty"`
	Mode     uint32        `cbor:"5,keyasint,omitempty"`
	Made     meta.Time     `cbor:"6,keyasint,omitempty"`
	Changed  meta.Time     `cbor:"7,keyasint,omitempty"`
	Settings Settings      `cbor:"8,keyasint,omitempty"`
	Messages int64         `cbor:"9,keyasint,omitempty"`  // in the log
	Bytes    int64         `cbor:"10,keyasint,omitempty"` // of their bodies
	First    uint64        `cbor:"11,keyasint,omitempty"` // the first in the log is this or a later one
	Next     uint64        `cbor:"12,keyasint,omitempty"` // the number of the next message
	End      int64         `cbor:"13,keyasint,omitempty"` // bytes of all that ever were, a line each
	Begin    int64         `cbor:"14,keyasint,omitempty"` // where of those the first begins
	Oldest   meta.Time     `cbor:"15,keyasint,omitempty"` // when the first in the log was sent
	Delayed  int64         `cbor:"16,keyasint,omitempty"` // not in the log yet
	Dead     int64         `cbor:"17,keyasint,omitempty"`
	Pushed   uint64        `cbor:"18,keyasint,omitempty"` // since it was made, as the next two
	Expired  uint64        `cbor:"19,keyasint,omitempty"`
	Dropped  uint64        `cbor:"20,keyasint,omitempty"`
	Groups   []GroupStatus `cbor:"21,keyasint,omitempty"`
	// PushRate and AckRate are messages in the latest full RateWindow.
	PushRate int64 `cbor:"22,keyasint,omitempty"`
	AckRate  int64 `cbor:"23,keyasint,omitempty"`
	// Home is of a queue in memory.
	Home *Home `cbor:"24,keyasint,omitempty"`
}

// RateWindow is the time over which rates are counted.
const RateWindow = 10 * time.Second

// Depth is the number of messages that some group has not settled.
func (s Status) Depth() (n int64) {
	for _, g := range s.Groups {
		n = max(n, g.Depth())
	}
	return n
}

// Group returns a group's part.
func (s Status) Group(name string) (GroupStatus, bool) {
	for _, g := range s.Groups {
		if g.Name == name {
			return g, true
		}
	}
	return GroupStatus{}, false
}

// GroupStatus describes a group. After a seek, messages that are not there any more
// are counted as ready until the group has come past them.
type GroupStatus struct {
	Name    string `cbor:"1,keyasint,omitempty"`
	ID      uint64 `cbor:"2,keyasint,omitempty"`
	Cursor  uint64 `cbor:"3,keyasint,omitempty"`
	Ready   int64  `cbor:"4,keyasint,omitempty"`
	Out     int64  `cbor:"5,keyasint,omitempty"` // claimed
	Later   int64  `cbor:"6,keyasint,omitempty"` // came back, not ready before their time
	Parked  int64  `cbor:"7,keyasint,omitempty"` // wait for an earlier one with their key
	Waiters int64  `cbor:"8,keyasint,omitempty"`
	Done    uint64 `cbor:"9,keyasint,omitempty"` // settled since it was made
}

// Depth is the number of messages that the group has not settled.
func (g GroupStatus) Depth() int64 { return g.Ready + g.Out + g.Later + g.Parked }

// Await asks what became of a place of a session. The state answers at once.
// Whoever runs it may hold the answer back for a while as long as it says Still.
// Expired if the session is over, NotExist if the place is no more.
type Await struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Queue   uint64         `cbor:"2,keyasint,omitempty"` // its number
	Place   uint64         `cbor:"3,keyasint,omitempty"`
}

// Waiting answers Await.
type Waiting struct {
	Still bool  `cbor:"1,keyasint,omitempty"`
	Taken Taken `cbor:"2,keyasint,omitempty"`
}

// Fit asks whether N messages fit. Whoever runs the state may hold the answer back
// for a while as long as they do not.
type Fit struct {
	Queue uint64 `cbor:"1,keyasint,omitempty"` // its number
	N     int    `cbor:"2,keyasint,omitempty"`
}

// Space answers Fit.
type Space struct {
	Fits bool `cbor:"1,keyasint,omitempty"`
}

// Read asks for messages in the log: from a number, or from the one in which a byte
// of the log is, each message being a line.
type Read struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	From  uint64 `cbor:"2,keyasint,omitempty"`
	Byte  int64  `cbor:"3,keyasint,omitempty"` // 0: not by bytes
	Limit int    `cbor:"4,keyasint,omitempty"`
	// Undone leaves out what the group has settled.
	Undone bool   `cbor:"5,keyasint,omitempty"`
	Group  string `cbor:"6,keyasint,omitempty"`
}

// Log answers Read, in order.
type Log struct {
	Messages []Logged `cbor:"1,keyasint,omitempty"`
	More     bool     `cbor:"2,keyasint,omitempty"`
}

// Logged is a message in the log.
type Logged struct {
	Got  Got   `cbor:"1,keyasint,omitempty"`
	Byte int64 `cbor:"2,keyasint,omitempty"` // where it begins
}

// Flights asks for what is claimed of a group, from a number on.
type Flights struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	Group string `cbor:"2,keyasint,omitempty"`
	From  uint64 `cbor:"3,keyasint,omitempty"`
	Limit int    `cbor:"4,keyasint,omitempty"`
}

// Flying answers Flights, in order.
type Flying struct {
	List []Flight `cbor:"1,keyasint,omitempty"`
	More bool     `cbor:"2,keyasint,omitempty"`
}

// A Flight is a message that is claimed.
type Flight struct {
	Number   uint64         `cbor:"1,keyasint,omitempty"`
	Claim    uint64         `cbor:"2,keyasint,omitempty"`
	Session  meta.SessionID `cbor:"3,keyasint,omitempty"`
	Consumer string         `cbor:"4,keyasint,omitempty"`
	Until    meta.Time      `cbor:"5,keyasint,omitempty"`
	Attempt  int            `cbor:"6,keyasint,omitempty"`
}

// Dead asks for dead messages, from a number on.
type Dead struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	From  uint64 `cbor:"2,keyasint,omitempty"`
	Limit int    `cbor:"3,keyasint,omitempty"`
}

// Letters answers Dead, in order.
type Letters struct {
	List []Letter `cbor:"1,keyasint,omitempty"`
	More bool     `cbor:"2,keyasint,omitempty"`
}

// A Letter is a dead message. One that several groups gave up is there once.
type Letter struct {
	Got   Got       `cbor:"1,keyasint,omitempty"`
	Group string    `cbor:"2,keyasint,omitempty"`
	Died  meta.Time `cbor:"3,keyasint,omitempty"`
}

// Due asks whether there is something to Tick or to Sweep. Nothing was due before
// From, which makes it cheap to ask often.
type Due struct {
	From meta.Time `cbor:"1,keyasint,omitempty"`
	Now  meta.Time `cbor:"2,keyasint,omitempty"`
}

// Work answers Due.
type Work struct {
	Tick  bool `cbor:"1,keyasint,omitempty"`
	Sweep bool `cbor:"2,keyasint,omitempty"`
}
