package meta

import "math"

// A LockKind is one of the two kinds of locks that files have. They do not get
// in each other's way.
type LockKind uint8

const (
	Flock  LockKind = 1 + iota // flock(2): of an open file, on the whole of it
	Record                     // fcntl(2): of a process, or of an open file (F_OFD_SETLK), on a range of bytes
)

// A LockMode says what others may still have beside a lock.
type LockMode uint8

const (
	Unlocked  LockMode = iota // everything: there is no lock
	Shared                    // shared locks
	Exclusive                 // none
)

// LockEnd is the last byte of a lock that goes to the end of the file, however
// long it will become.
const LockEnd = math.MaxInt64

// A Lock is a lock of a file, or one that is wanted.
type Lock struct {
	Ino  Ino      `cbor:"1,keyasint,omitempty"`
	Kind LockKind `cbor:"2,keyasint,omitempty"`
	Mode LockMode `cbor:"3,keyasint,omitempty"`
	// Owner is the number of the process or open file that has it. No two owners
	// of one kind in one session have the same number at the same time.
	Owner uint64 `cbor:"4,keyasint,omitempty"`
	// First and Last are the first and the last byte; 0 and LockEnd for Flock.
	First int64 `cbor:"5,keyasint,omitempty"`
	Last  int64 `cbor:"6,keyasint,omitempty"`
	// PID is the process that took it, where its session is, for people.
	PID uint32 `cbor:"7,keyasint,omitempty"`
}

// A LockHolder is a lock and the session that has it; session 0 means that
// there is none.
type LockHolder struct {
	Session SessionID `cbor:"1,keyasint,omitempty"`
	Lock    Lock      `cbor:"2,keyasint,omitempty"`
}
