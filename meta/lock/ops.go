package lock

import (
	"dos/meta"
	"dos/meta/state"
)

// The operations of this room. Numbers are never reused.
const (
	OpSet    state.Op = 0x0500 // Set → Outcome
	OpCancel state.Op = 0x0501 // Cancel → nothing
	OpDrop   state.Op = 0x0502 // Drop → nothing

	OpTest  state.Op = 0x0540 // Test → meta.LockHolder
	OpAwait state.Op = 0x0541 // Await → Waiting
)

// Limits of this room. What is over one is meta.Quota.
const (
	// LocksMax bounds the locks, and WaitsMax those that wait, on one inode, and
	// so the size of its row: some 200 KiB.
	LocksMax = 1024
	WaitsMax = 1024
	// SessionFiles bounds the inodes that one session has locks on.
	SessionFiles = 1 << 16
	// SessionWaits bounds what one session waits for, and so the answer to Await.
	SessionWaits = 1024
	// searchMax bounds the owners that one command looks at to find a circle of
	// waiters. A longer circle is not found, as in Linux, which follows ten.
	searchMax = 256
)

// Set takes, changes or gives up a lock of the session of the command. If
// another owner is in the way, and Wait says so, it takes a place in the queue
// instead. Asking for what one has, or waits for, changes nothing.
type Set struct {
	Lock meta.Lock `cbor:"1,keyasint,omitempty"`
	Wait bool      `cbor:"2,keyasint,omitempty"`
}

// Outcome answers Set: done if all is zero.
type Outcome struct {
	Wait uint64 `cbor:"1,keyasint,omitempty"` // the number, in the session, of the place in the queue
	Busy bool   `cbor:"2,keyasint,omitempty"` // another owner is in the way, and Wait did not say so
}

// Cancel gives up an owner's place in the queue of an inode. If the lock was granted
// meanwhile, and its owner did nothing since, then it is as if it had not been.
// A place that is not there any more is no error.
type Cancel struct {
	Ino   meta.Ino      `cbor:"1,keyasint,omitempty"`
	Wait  uint64        `cbor:"2,keyasint,omitempty"`
	Kind  meta.LockKind `cbor:"3,keyasint,omitempty"`
	Owner uint64        `cbor:"4,keyasint,omitempty"`
}

// Drop gives up all that one owner of the session of the command has and waits
// for on an inode.
type Drop struct {
	Ino   meta.Ino      `cbor:"1,keyasint,omitempty"`
	Kind  meta.LockKind `cbor:"2,keyasint,omitempty"`
	Owner uint64        `cbor:"3,keyasint,omitempty"`
}

// Test asks who is in the way of a lock of a session.
type Test struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Lock    meta.Lock      `cbor:"2,keyasint,omitempty"`
}

// Await asks what a session still waits for. The state answers at once. Whoever
// runs it may hold the answer back for a while as long as Grants is Seen. Expired
// if the session is over.
type Await struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	Seen    uint64         `cbor:"2,keyasint,omitempty"`
}

// Waiting answers Await.
type Waiting struct {
	Grants uint64   `cbor:"1,keyasint,omitempty"` // how often something was granted to a waiter of the session
	Last   uint64   `cbor:"2,keyasint,omitempty"` // the last number of a place; there are none of later ones yet
	Waits  []uint64 `cbor:"3,keyasint,omitempty"` // the places that are still in a queue; the session left the others or has the lock
}
