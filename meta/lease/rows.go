package lease

import (
	"encoding/binary"

	"dos/meta"
	"dos/meta/state"
)

func number(to []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(to, n) }

// last is the number at the end of a key or value.
func last(b []byte) uint64 { return binary.BigEndian.Uint64(b[len(b)-8:]) }

func inoKey(ino meta.Ino) []byte { return number([]byte("4i"), uint64(ino)) }

func readerKey(ino meta.Ino, s meta.SessionID) []byte {
	return number(number([]byte("4r"), uint64(ino)), uint64(s))
}

func sessionKey(s meta.SessionID, ino meta.Ino) []byte {
	return number(number([]byte("4s"), uint64(s)), uint64(ino))
}

// all is the range of a session's rows from ino on.
func all(s meta.SessionID, ino meta.Ino) (from, to []byte) {
	return sessionKey(s, ino), state.After(number([]byte("4s"), uint64(s)))
}

// readersOf is the range of the rows of S of an inode.
func readersOf(ino meta.Ino) (from, to []byte) {
	from = number([]byte("4r"), uint64(ino))
	return from, state.After(from)
}

// rowOf says who holds X of an inode, session 0 if nobody does, and how many
// hold S. One look at one row is all that a change costs where nobody does.
func rowOf(r state.Reader, ino meta.Ino) (x Held, readers uint64) {
	x.Ino = ino
	val, ok := r.Get(inoKey(ino))
	if !ok {
		return x, 0
	}
	if x.Session = meta.SessionID(binary.BigEndian.Uint64(val)); x.Session == 0 {
		return x, last(val)
	}
	x.Since = meta.Time(last(val))
	return x, 0
}

func setReaders(tx *state.Tx, ino meta.Ino, n uint64) {
	tx.Set(inoKey(ino), number(number(nil, 0), n))
}

// sharedSince is when a session was granted S of an inode.
func sharedSince(r state.Reader, ino meta.Ino, s meta.SessionID) (meta.Time, bool) {
	val, ok := r.Get(readerKey(ino, s))
	if !ok {
		return 0, false
	}
	return meta.Time(last(val)), true
}
