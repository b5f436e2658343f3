// Package lease is who has a file to himself. The session that holds the lease
// of an inode may keep its data and attributes in memory and change them there;
// for everybody else the inode is closed until the lease is given back, by the
// holder or with its session's end. Rooms that change an inode ask Check first.
//
// The room does not know what an inode is, nor how a holder is asked to give a
// lease back: whoever runs the machine recalls, waits and executes the request
// again, which is why a refusal for a lease says whose it is (Held).
//
// Keys, numbers big-endian:
//
//	"4i" ino(8)            the holder, session(8), and when it was granted, ns(8)
//	"4s" session(8) ino(8) empty
package lease

import (
	"encoding/binary"
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

// The operations of this room. Numbers are never reused.
const (
	OpTake state.Op = 0x0400 // Take → nothing
	OpGive state.Op = 0x0401 // Give → nothing

	OpHolder  state.Op = 0x0440 // Take → Held
	OpHolding state.Op = 0x0441 // Holding → Leases
	OpWanted  state.Op = 0x0442 // Want → Wanted
)

// ListMax bounds the inodes in one request and one answer.
const ListMax = 1024

// Take gives the session of the command the lease of an inode. Taking it again
// succeeds. While another session has it, it is meta.Leased.
type Take struct {
	Ino meta.Ino `cbor:"1,keyasint,omitempty"`
}

// Give gives leases back. What the session does not hold is left alone.
type Give struct {
	Inos []meta.Ino `cbor:"1,keyasint,omitempty"`
}

// Held says who holds a lease: session 0 if nobody does.
type Held struct {
	Ino     meta.Ino       `cbor:"1,keyasint,omitempty"`
	Session meta.SessionID `cbor:"2,keyasint,omitempty"`
	// Since is when the session got it. It tells a lease that was given back and
	// taken again from one that was kept.
	Since meta.Time `cbor:"3,keyasint,omitempty"`
}

// Holding asks for at most Limit leases of a session, after the inode given.
type Holding struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	After   meta.Ino       `cbor:"2,keyasint,omitempty"`
	Limit   int            `cbor:"3,keyasint,omitempty"`
}

// Leases answers Holding, in order.
type Leases struct {
	Inos []meta.Ino `cbor:"1,keyasint,omitempty"`
	More bool       `cbor:"2,keyasint,omitempty"`
}

// Want asks which leases of the session others have begun to wait for after
// the point named, which is zero or that of the last answer. Whoever runs the
// machine makes the answer, and waits with it a while if there is none: who
// waits is not in the state.
type Want struct {
	Term  uint64 `cbor:"1,keyasint,omitempty"`
	After uint64 `cbor:"2,keyasint,omitempty"`
}

// Wanted answers Want.
type Wanted struct {
	Term  uint64     `cbor:"1,keyasint,omitempty"`
	After uint64     `cbor:"2,keyasint,omitempty"`
	Inos  []meta.Ino `cbor:"3,keyasint,omitempty"` // at most ListMax
}

// Register adds the operations to m.
func Register(m *state.Machine) {
	state.Handle(m, OpTake, "lease.take", take)
	state.Handle(m, OpGive, "lease.give", give)
	state.Query(m, OpHolder, "lease.holder", func(r state.Reader, req Take) (Held, error) {
		return Of(r, req.Ino), nil
	})
	state.Query(m, OpHolding, "lease.holding", holding)
	state.Query(m, OpWanted, "lease.wanted", func(state.Reader, Want) (Wanted, error) { return Wanted{}, nil })
}

func inoKey(ino meta.Ino) []byte {
	return binary.BigEndian.AppendUint64([]byte("4i"), uint64(ino))
}

func sessionKey(s meta.SessionID, ino meta.Ino) []byte {
	k := binary.BigEndian.AppendUint64([]byte("4s"), uint64(s))
	return binary.BigEndian.AppendUint64(k, uint64(ino))
}

// all is the range of a session's rows from ino on.
func all(s meta.SessionID, ino meta.Ino) (from, to []byte) {
	return sessionKey(s, ino), state.After(binary.BigEndian.AppendUint64([]byte("4s"), uint64(s)))
}

// Of says who holds the lease of an inode.
func Of(r state.Reader, ino meta.Ino) Held {
	held := Held{Ino: ino}
	if val, ok := r.Get(inoKey(ino)); ok {
		held.Session = meta.SessionID(binary.BigEndian.Uint64(val))
		held.Since = meta.Time(binary.BigEndian.Uint64(val[8:]))
	}
	return held
}

// Holder returns the session that holds the lease of an inode, or zero.
func Holder(r state.Reader, ino meta.Ino) meta.SessionID { return Of(r, ino).Session }

// A heldError refuses what a lease is in the way of.
type heldError struct{ held Held }

func (e heldError) Error() string {
	return fmt.Sprintf("inode %d is leased to session %d", e.held.Ino, e.held.Session)
}
func (e heldError) Unwrap() error  { return meta.Leased }
func (e heldError) Detail() []byte { return state.Marshal(e.held) }

// Check refuses, with meta.Leased and Held as its detail, what the session may
// not do because another one holds the lease of the inode.
func Check(r state.Reader, me meta.SessionID, ino meta.Ino) error {
	if held := Of(r, ino); held.Session != 0 && held.Session != me {
		return heldError{held}
	}
	return nil
}

// Drop ends the lease of an inode that is no more, whoever holds it.
func Drop(tx *state.Tx, ino meta.Ino) {
	if s := Holder(tx, ino); s != 0 {
		tx.Delete(inoKey(ino))
		tx.Delete(sessionKey(s, ino))
	}
}

func take(tx *state.Tx, req Take) (struct{}, error) {
	if tx.Session == 0 || req.Ino == 0 {
		return struct{}{}, fmt.Errorf("inode %d by session %d: %w", req.Ino, tx.Session, meta.Invalid)
	}
	if err := Check(tx, tx.Session, req.Ino); err != nil {
		return struct{}{}, err
	}
	if Holder(tx, req.Ino) == 0 {
		Grant(tx, req.Ino)
	}
	return struct{}{}, nil
}

// Grant gives the session of tx, which is one, the lease of an inode that nobody
// holds.
func Grant(tx *state.Tx, ino meta.Ino) {
	val := binary.BigEndian.AppendUint64(nil, uint64(tx.Session))
	tx.Set(inoKey(ino), binary.BigEndian.AppendUint64(val, uint64(tx.Now.UnixNano())))
	tx.Set(sessionKey(tx.Session, ino), []byte{})
}

func give(tx *state.Tx, req Give) (struct{}, error) {
	if len(req.Inos) > ListMax {
		return struct{}{}, fmt.Errorf("%d leases of at most %d: %w", len(req.Inos), ListMax, meta.TooLarge)
	}
	for _, ino := range req.Inos {
		if tx.Session != 0 && Holder(tx, ino) == tx.Session {
			Drop(tx, ino)
		}
	}
	return struct{}{}, nil
}

func holding(r state.Reader, req Holding) (Leases, error) {
	if req.Limit < 1 || req.After == ^meta.Ino(0) {
		return Leases{}, meta.Invalid
	}
	var reply Leases
	for k := range r.Scan(all(req.Session, req.After+1)) {
		if len(reply.Inos) == min(req.Limit, ListMax) {
			reply.More = true
			break
		}
		reply.Inos = append(reply.Inos, inoOf(k))
	}
	return reply, nil
}

func inoOf(key []byte) meta.Ino { return meta.Ino(binary.BigEndian.Uint64(key[len(key)-8:])) }

// Release gives back at most limit leases of a session that has ended; it is a
// session.Release.
func Release(tx *state.Tx, s meta.SessionID, limit int) (n int, more bool) {
	var inos []meta.Ino
	for k := range tx.Scan(all(s, 0)) {
		if len(inos) == limit {
			more = true
			break
		}
		inos = append(inos, inoOf(k))
	}
	for _, ino := range inos {
		Drop(tx, ino)
	}
	return len(inos), more
}
