package session

import (
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

// The operations of this room. Numbers are never reused.
const (
	OpOpen    state.Op = 0x0001 // Open → Info
	OpEnd     state.Op = 0x0002 // End → Ended
	OpReserve state.Op = 0x0003 // Reserve → Range
	OpAdvance state.Op = 0x0004 // Advance → nothing

	OpSession  state.Op = 0x0040 // Ask → Info
	OpSessions state.Op = 0x0041 // List → Listed
	OpSettled  state.Op = 0x0042 // IDs → Settlement
	OpRenew    state.Op = 0x0043 // Ask → nothing
)

// Limits of this room.
const (
	// ReserveMax bounds one range of stripe IDs: at 4 MiB a stripe it is 4 TiB
	// of data, and the IDs are 64 bits wide.
	ReserveMax = 1 << 20
	// RangesMax bounds the ranges that one session has not used up, and so the
	// size of its row. Adjacent ranges count as one.
	RangesMax = 256
	// TextMax bounds the name and the node of a session, in bytes.
	TextMax = 255
	// ListMax bounds the sessions in one answer.
	ListMax = 1024
	// EndMax is how many held things one End gives up at most.
	EndMax = 128
	// TTLMin and TTLMax bound the time to live of a session that has one. The
	// least leaves a client room for a lost request and a new leader.
	TTLMin = 5 * time.Second
	TTLMax = 5 * time.Minute
	// IDsMax bounds the stripe IDs in one question.
	IDsMax = 4096
)

// Runner is the name of a session in which a machine runs tasks. Until it ends these are not
// run elsewhere, so by time it ends only after those that open files for the same Peer and
// were not heard of for as long: nothing that the tasks did through them happens then any more.
const Runner = "runner"

// Open begins a session. The command itself carries session 0.
type Open struct {
	Name string `cbor:"1,keyasint,omitempty"` // what it is, for people: "mount /dos"
	Node string `cbor:"2,keyasint,omitempty"` // the machine it is on
	// TTL is how long the session lives after it was renewed. Zero: until it is
	// ended, for a client that cannot outlive the service or be outlived by it.
	TTL time.Duration `cbor:"3,keyasint,omitempty"`
	// Files says that the session opens files: one that loses its last name stays
	// until the session has said that it does not use it.
	Files bool `cbor:"4,keyasint,omitempty"`
	// Peer is whose session it is. Where a request comes over a connection it is
	// filled in by who knows that: what the request says is not looked at.
	Peer string `cbor:"5,keyasint,omitempty"`
}

// Info describes a session.
type Info struct {
	ID     meta.SessionID `cbor:"1,keyasint,omitempty"`
	Name   string         `cbor:"2,keyasint,omitempty"`
	Node   string         `cbor:"3,keyasint,omitempty"`
	Opened meta.Time      `cbor:"4,keyasint,omitempty"`
	// Low is the low-water mark: every stripe that the session began with a
	// lower ID is named by a command that was applied, or never will be.
	Low chunk.StripeID `cbor:"5,keyasint,omitempty"`
	// Ranges are the stripe IDs that are reserved and not wholly below Low, in order.
	Ranges []Range `cbor:"6,keyasint,omitempty"`
	// Ending says that the session is over and that what it held is being given up.
	Ending bool `cbor:"7,keyasint,omitempty"`
	// TTL is as in Open. Time is not the state's to measure: whoever runs the
	// machine renews and ends.
	TTL time.Duration `cbor:"8,keyasint,omitempty"`
	// Files is as in Open.
	Files bool `cbor:"9,keyasint,omitempty"`
	// Peer is as in Open, and stays.
	Peer string `cbor:"10,keyasint,omitempty"`
}

// A Range is the stripe IDs from First to before End.
type Range struct {
	First chunk.StripeID `cbor:"1,keyasint,omitempty"`
	End   chunk.StripeID `cbor:"2,keyasint,omitempty"`
}

// End ends a session: from then on nothing of it is executed. It gives up at
// most EndMax things that the session held; while the answer says More, it is
// to be sent again. Ending what has ended succeeds. The command carries
// session 0, or the session's own: then only the first is executed.
type End struct {
	ID meta.SessionID `cbor:"1,keyasint,omitempty"`
}

// Ended answers End.
type Ended struct {
	More bool `cbor:"1,keyasint,omitempty"`
}

// Reserve gives the session of the command the next N stripe IDs, which nobody
// ever had. Busy when it has RangesMax ranges that it has not used up.
type Reserve struct {
	N uint32 `cbor:"1,keyasint,omitempty"`
}

// Advance raises the low-water mark of the session of the command. A lower
// mark than the one it has changes nothing.
type Advance struct {
	Low chunk.StripeID `cbor:"1,keyasint,omitempty"`
}

// Ask asks for one session: NotExist if there is none or it has wholly ended.
// As a renewal it is Expired when nothing of the session is executed any more.
type Ask struct {
	ID meta.SessionID `cbor:"1,keyasint,omitempty"`
}

// List asks for at most Limit sessions after the one given, in order.
type List struct {
	After meta.SessionID `cbor:"1,keyasint,omitempty"`
	Limit int            `cbor:"2,keyasint,omitempty"`
}

// Listed answers List.
type Listed struct {
	Sessions []Info `cbor:"1,keyasint,omitempty"`
	More     bool   `cbor:"2,keyasint,omitempty"`
}

// IDs asks which stripe IDs are settled: whoever reserved them has named them
// by now or never will.
type IDs struct {
	IDs []chunk.StripeID `cbor:"1,keyasint,omitempty"`
}

// Settlement answers IDs, one for one.
type Settlement struct {
	Settled []bool `cbor:"1,keyasint,omitempty"`
}
