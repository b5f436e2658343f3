package named

import (
	"time"

	"dos/meta"
	"dos/meta/state"
)

// The operations of this room, in the lock service's range. Numbers are never reused.
const (
	OpAsk     state.Op = 0x0510 // Ask → Outcome
	OpRelease state.Op = 0x0511 // Release → nothing
	OpReturn  state.Op = 0x0512 // Return → nothing
	OpByID    state.Op = 0x0513 // ByID → Outcome
	OpSet     state.Op = 0x0514 // Set → Outcome
	OpBreak   state.Op = 0x0515 // Named → Outcome
	OpRecall  state.Op = 0x0516 // Names → Names
	OpWatch   state.Op = 0x0517 // Watch → Outcome
	OpMkdir   state.Op = 0x0518 // Mkdir → nothing
	OpRmdir   state.Op = 0x0519 // Named → nothing
	OpRemove  state.Op = 0x051a // Named → Outcome
	OpExpire  state.Op = 0x051b // nothing → nothing

	OpStatus state.Op = 0x0550 // Follow → Info
	OpList   state.Op = 0x0551 // List → Listed
	OpAwait  state.Op = 0x0552 // Await → Arrived
	OpFollow state.Op = 0x0553 // Follow → Info
	OpDue    state.Op = 0x0554 // nothing → Due
)

// Limits of this room. What is over one is meta.Quota, or meta.TooLarge.
const (
	PathMax  = 1024 // bytes of a name with its directories
	ValueMax = 4096 // bytes of a value
	TextMax  = 255  // bytes of an ID, a node or a command
	// ClaimsMax bounds who has a lock and who waits for it, and so its row.
	ClaimsMax = 1024
	LimitMax  = 512
	DelayMax  = time.Hour
	TTLMin    = time.Second
	TTLMax    = 7 * 24 * time.Hour
	// LoanTokens is how many tokens go with a loan. When they are used up the
	// lock is returned.
	LoanTokens = 1 << 20
	// ListMax bounds one answer, and the locks in one request.
	ListMax = 256
	// keepTime is how long the row of a lock outlives its last use. What it
	// knows, that is the last token and who had it, is lost with it.
	keepTime = time.Minute
	// dueMax bounds the locks that one Expire looks at.
	dueMax = 256
)

// Named names a lock or a directory.
type Named struct {
	Name string `cbor:"1,keyasint,omitempty"`
}

// Names are at most ListMax locks. As a request, locks that are to be returned
// by whom they are lent to; as the answer those of them that are lent.
type Names struct {
	Names []string `cbor:"1,keyasint,omitempty"`
}

// Ask claims a lock for the session of the command.
type Ask struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	Claim Claim  `cbor:"2,keyasint,omitempty"`
	Wait  bool   `cbor:"3,keyasint,omitempty"`
	// Borrow says that the lock may be lent to the session.
	Borrow bool `cbor:"4,keyasint,omitempty"`
}

// Outcome answers what a lock decides. All zero: it was not granted, or it is done.
type Outcome struct {
	Token uint64 `cbor:"1,keyasint,omitempty"` // of the grant
	Wait  bool   `cbor:"2,keyasint,omitempty"` // it is in the queue; Await tells when it is granted
	// Away is the session that the lock is lent to: nothing was done, but it was
	// told to return it. Ask again when it has.
	Away meta.SessionID `cbor:"3,keyasint,omitempty"`
	// Loan is the lock itself, with the claim granted, lent to the session.
	Loan *Loan `cbor:"4,keyasint,omitempty"`
}

// A Loan is a lock that is lent, and the last token that may be given.
type Loan struct {
	Lock Lock   `cbor:"1,keyasint,omitempty"`
	Last uint64 `cbor:"2,keyasint,omitempty"`
}

// Release gives up a claim of the session of the command. One that is not there
// is no error.
type Release struct {
	Name   string `cbor:"1,keyasint,omitempty"`
	Number uint64 `cbor:"2,keyasint,omitempty"`
}

// Return gives back locks that are lent to the session of the command.
type Return struct {
	Locks []Returned `cbor:"1,keyasint,omitempty"`
}

// A Returned is a lock as the session has it. Without Known the session knows
// nothing of it.
type Returned struct {
	Name  string `cbor:"1,keyasint,omitempty"`
	Known bool   `cbor:"2,keyasint,omitempty"`
	Lock  Lock   `cbor:"3,keyasint,omitempty"`
}

// ByID renews what an ID has, for its time to live or TTL if that is not zero,
// or releases it. Conflict if the ID does not have the lock (any more).
type ByID struct {
	Name    string        `cbor:"1,keyasint,omitempty"`
	ID      string        `cbor:"2,keyasint,omitempty"`
	Release bool          `cbor:"3,keyasint,omitempty"`
	TTL     time.Duration `cbor:"4,keyasint,omitempty"`
	// UID is who asks. A user does not give up what another's ID has; 0 may.
	UID uint32 `cbor:"5,keyasint,omitempty"`
}

// Set changes settings of a lock: those that are not nil.
type Set struct {
	Name   string         `cbor:"1,keyasint,omitempty"`
	Limit  *int           `cbor:"2,keyasint,omitempty"`
	Delay  *time.Duration `cbor:"3,keyasint,omitempty"`
	Value  *string        `cbor:"4,keyasint,omitempty"`
	Fenced *bool          `cbor:"5,keyasint,omitempty"`
}

// Watch says that the session of the command watches a lock, which then is not
// lent, or watches it no more.
type Watch struct {
	Name string `cbor:"1,keyasint,omitempty"`
	Off  bool   `cbor:"2,keyasint,omitempty"`
}

// Mkdir makes a directory.
type Mkdir struct {
	Name string `cbor:"1,keyasint,omitempty"`
	Dir  Dir    `cbor:"2,keyasint,omitempty"`
}

// A Dir is a directory: whose it is, and its permissions. One that was not made, but is
// there because locks are in it, is everybody's.
type Dir struct {
	UID  uint32    `cbor:"1,keyasint,omitempty"`
	GID  uint32    `cbor:"2,keyasint,omitempty"`
	Mode uint32    `cbor:"3,keyasint,omitempty"`
	Made meta.Time `cbor:"4,keyasint,omitempty"`
}

// Follow asks for a lock. As OpFollow, whoever runs the machine may hold the
// answer back as long as the lock's version is Seen.
type Follow struct {
	Name string `cbor:"1,keyasint,omitempty"`
	Seen uint64 `cbor:"2,keyasint,omitempty"`
}

// Info describes a lock. While it is lent, what Lock says is of before.
type Info struct {
	Name    string         `cbor:"1,keyasint,omitempty"`
	There   bool           `cbor:"2,keyasint,omitempty"` // it is held, waited for, or has settings
	Lock    Lock           `cbor:"3,keyasint,omitempty"`
	Lent    meta.SessionID `cbor:"4,keyasint,omitempty"`
	Version uint64         `cbor:"5,keyasint,omitempty"` // grows with each change while there is a row
	Lost    uint64         `cbor:"6,keyasint,omitempty"` // how often a holder was lost
	Changed meta.Time      `cbor:"7,keyasint,omitempty"`
	Dir     *Dir           `cbor:"8,keyasint,omitempty"` // it is a directory
}

// List asks for at most Limit names in a directory, "" for the first one, from
// a point on that is zero or that of the last answer.
type List struct {
	Dir   string `cbor:"1,keyasint,omitempty"`
	From  string `cbor:"2,keyasint,omitempty"`
	Limit int    `cbor:"3,keyasint,omitempty"`
}

// Listed answers List, in order. From is zero if there are no more.
type Listed struct {
	Entries []Entry `cbor:"1,keyasint,omitempty"`
	From    string  `cbor:"2,keyasint,omitempty"`
}

// An Entry is a name in a directory.
type Entry struct {
	Name string         `cbor:"1,keyasint,omitempty"`
	Dir  *Dir           `cbor:"2,keyasint,omitempty"` // set for a directory
	Lent meta.SessionID `cbor:"3,keyasint,omitempty"` // whether a lock is there, this session knows
}

// Await asks for a session's news after one. Expired if the session is over.
type Await struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Seen    uint64         `cbor:"2,keyasint,omitempty"`
}

// Arrived answers Await with at most ListMax news, in order.
type Arrived struct {
	News []News `cbor:"1,keyasint,omitempty"`
}

// News is something that a session must know.
type News struct {
	Seq    uint64 `cbor:"1,keyasint,omitempty"`
	Name   string `cbor:"2,keyasint,omitempty"`
	Number uint64 `cbor:"3,keyasint,omitempty"` // the claim; 0: the lock is to be returned
	Token  uint64 `cbor:"4,keyasint,omitempty"` // it was granted
	Lost   bool   `cbor:"5,keyasint,omitempty"` // it is no more
}

// Due says when Expire has something to do; 0 if never.
type Due struct {
	At meta.Time `cbor:"1,keyasint,omitempty"`
}
