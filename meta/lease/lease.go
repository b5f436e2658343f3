// Package lease is who may believe that a file does not change. There are two kinds
// of leases. Who holds X of an inode has it to himself: it may keep the file's data
// and attributes in memory and change them there, and for everybody else the inode
// is closed until the lease is given back. Any number of sessions may hold S
// together: each may keep what it has read, and nobody else changes the inode
// before they have given S back. A lease goes back by its holder or with its
// session's end. Rooms ask MayRead before they show an inode to a session, and
// MayChange before they change it for one.
//
// Both kinds are rows: a new leader knows as much as the old one did, and has
// nothing to wait for.
//
// The room does not know what an inode is, nor how a holder is asked to give a
// lease back: whoever runs the machine recalls, waits and executes the request
// again, which is why a refusal for a lease says whose it is (Blocked).
//
// Keys, numbers big-endian:
//
//	"4i" ino(8)            X: the holder, session(8), and when it was granted, ns(8).
//	                       S: zero(8), and how many sessions hold it(8)
//	"4r" ino(8) session(8) S: when it was granted, ns(8)
//	"4s" session(8) ino(8) empty: the session holds X or S
package lease

import (
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

// ListMax bounds the inodes and holders in one request and one answer.
const ListMax = 1024

// Take gives the session of the command a lease of an inode. Taking it again
// succeeds; taking the other kind turns the one into the other. While other
// sessions' leases are in the way, it is meta.Leased.
type Take struct {
	Ino meta.Ino `cbor:"1,keyasint,omitempty"`
	// Shared asks for S, not X.
	Shared bool `cbor:"2,keyasint,omitempty"`
}

// Give gives leases back. What the session does not hold is left alone.
type Give struct {
	Inos []meta.Ino `cbor:"1,keyasint,omitempty"`
}

// Held is a lease that a session holds.
type Held struct {
	Ino     meta.Ino       `cbor:"1,keyasint,omitempty"`
	Session meta.SessionID `cbor:"2,keyasint,omitempty"`
	// Since is when the session got it. It tells a lease that was given back and
	// taken again from one that was kept.
	Since  meta.Time `cbor:"3,keyasint,omitempty"`
	Shared bool      `cbor:"4,keyasint,omitempty"`
}

// Blocked is the detail of a refusal: leases that are in the way, ListMax of them
// at most.
type Blocked struct {
	By []Held `cbor:"1,keyasint,omitempty"`
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
		held, _ := rowOf(r, req.Ino)
		return held, nil
	})
	state.Query(m, OpHolding, "lease.holding", holding)
	state.Query(m, OpWanted, "lease.wanted", func(state.Reader, Want) (Wanted, error) { return Wanted{}, nil })
}

// Holder returns the session that holds X of an inode, or zero.
func Holder(r state.Reader, ino meta.Ino) meta.SessionID {
	held, _ := rowOf(r, ino)
	return held.Session
}

// Holds reports whether a lease is held, and has been all the time.
func Holds(r state.Reader, held Held) bool {
	if held.Shared {
		since, ok := sharedSince(r, held.Ino, held.Session)
		return ok && since == held.Since
	}
	now, _ := rowOf(r, held.Ino)
	return held == now
}

// A heldError refuses what leases are in the way of.
type heldError struct{ Blocked }

func (e heldError) Error() string {
	return fmt.Sprintf("inode %d is leased to session %d and %d others", e.By[0].Ino, e.By[0].Session, len(e.By)-1)
}
func (e heldError) Unwrap() error  { return meta.Leased }
func (e heldError) Detail() []byte { return state.Marshal(e.Blocked) }

// MayRead refuses, with meta.Leased and Blocked as its detail, to show an inode
// to a session while another one holds X.
func MayRead(r state.Reader, me meta.SessionID, ino meta.Ino) error {
	held, _ := rowOf(r, ino)
	return notOf(me, held)
}

// MayChange refuses, as MayRead does, to change an inode for a session while
// another one holds X or S.
func MayChange(r state.Reader, me meta.SessionID, ino meta.Ino) error {
	held, readers := rowOf(r, ino)
	if readers == 0 {
		return notOf(me, held)
	}
	var others []Held
	for k, val := range r.Scan(readersOf(ino)) {
		if s := meta.SessionID(last(k)); s != me && len(others) < ListMax {
			others = append(others, Held{Ino: ino, Session: s, Since: meta.Time(last(val)), Shared: true})
		}
	}
	if len(others) > 0 {
		return heldError{Blocked{others}}
	}
	return nil
}

func notOf(me meta.SessionID, held Held) error {
	if held.Session != 0 && held.Session != me {
		return heldError{Blocked{[]Held{held}}}
	}
	return nil
}

// Drop ends all leases of an inode that is no more.
func Drop(tx *state.Tx, ino meta.Ino) {
	held, readers := rowOf(tx, ino)
	if held.Session != 0 {
		drop(tx, held.Session, ino)
	}
	if readers == 0 {
		return
	}
	var all []meta.SessionID
	for k := range tx.Scan(readersOf(ino)) {
		all = append(all, meta.SessionID(last(k)))
	}
	for _, s := range all {
		drop(tx, s, ino)
	}
}

// drop ends the lease that a session has of an inode, if it has one.
func drop(tx *state.Tx, s meta.SessionID, ino meta.Ino) {
	held, readers := rowOf(tx, ino)
	switch _, reads := sharedSince(tx, ino, s); {
	case s == 0:
		return
	case held.Session == s:
		tx.Delete(inoKey(ino))
	case !reads:
		return
	case readers == 1:
		tx.Delete(inoKey(ino))
		tx.Delete(readerKey(ino, s))
	default:
		setReaders(tx, ino, readers-1)
		tx.Delete(readerKey(ino, s))
	}
	tx.Delete(sessionKey(s, ino))
}

func take(tx *state.Tx, req Take) (struct{}, error) {
	me, ino := tx.Session, req.Ino
	if me == 0 || ino == 0 {
		return struct{}{}, fmt.Errorf("inode %d by session %d: %w", ino, me, meta.Invalid)
	}
	may := MayChange
	if req.Shared {
		may = MayRead
	}
	if err := may(tx, me, ino); err != nil {
		return struct{}{}, err
	}
	held, readers := rowOf(tx, ino)
	_, reads := sharedSince(tx, ino, me)
	switch {
	case req.Shared && reads, !req.Shared && held.Session == me: // it has it
	case req.Shared:
		if held.Session == me {
			drop(tx, me, ino)
		}
		setReaders(tx, ino, readers+1)
		tx.Set(readerKey(ino, me), number(nil, uint64(tx.Now.UnixNano())))
		tx.Set(sessionKey(me, ino), []byte{})
	default:
		drop(tx, me, ino)
		Grant(tx, ino)
	}
	return struct{}{}, nil
}

// Grant gives the session of tx, which is one, X of an inode that nobody holds.
func Grant(tx *state.Tx, ino meta.Ino) {
	tx.Set(inoKey(ino), number(number(nil, uint64(tx.Session)), uint64(tx.Now.UnixNano())))
	tx.Set(sessionKey(tx.Session, ino), []byte{})
}

func give(tx *state.Tx, req Give) (struct{}, error) {
	if len(req.Inos) > ListMax {
		return struct{}{}, fmt.Errorf("%d leases of at most %d: %w", len(req.Inos), ListMax, meta.TooLarge)
	}
	for _, ino := range req.Inos {
		drop(tx, tx.Session, ino)
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
		reply.Inos = append(reply.Inos, meta.Ino(last(k)))
	}
	return reply, nil
}

// Release gives back at most limit leases of a session that has ended; it is a
// session.Release.
func Release(tx *state.Tx, s meta.SessionID, limit int) (n int, more bool) {
	var inos []meta.Ino
	for k := range tx.Scan(all(s, 0)) {
		if len(inos) == limit {
			more = true
			break
		}
		inos = append(inos, meta.Ino(last(k)))
	}
	for _, ino := range inos {
		drop(tx, s, ino)
	}
	return len(inos), more
}
