package session

import (
	"encoding/binary"
	"fmt"

	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

// A Release gives up at most limit things that a session held, and says how
// many it gave up and whether it left any.
type Release func(tx *state.Tx, id meta.SessionID, limit int) (n int, more bool)

// Register adds the operations on sessions to m, and the guard that keeps
// ended ones out. The releases are called in order when a session ends.
func Register(m *state.Machine, releases ...Release) {
	m.Guard(Check)
	state.Handle(m, OpOpen, "session.open", open)
	state.Handle(m, OpEnd, "session.end", func(tx *state.Tx, req End) (Ended, error) { return end(tx, req, releases) })
	state.Handle(m, OpReserve, "session.reserve", reserve)
	state.Handle(m, OpAdvance, "session.advance", func(tx *state.Tx, req Advance) (struct{}, error) {
		return struct{}{}, Raise(tx, req.Low)
	})
	state.Query(m, OpSession, "session.session", ask)
	state.Query(m, OpSessions, "session.sessions", list)
	state.Query(m, OpSettled, "session.settled", settled)
	state.Query(m, OpRenew, "session.renew", func(r state.Reader, req Ask) (struct{}, error) {
		return struct{}{}, Check(r, req.ID)
	})
}

// counters is the row "2c".
type counters struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"` // the last that was opened
	Stripe  chunk.StripeID `cbor:"2,keyasint,omitempty"` // the next to be reserved
	Files   int            `cbor:"3,keyasint,omitempty"` // sessions that open files and have not ended
}

var counterKey = []byte("2c")

func count(r state.Reader) counters {
	c := counters{Stripe: 1}
	if val, ok := r.Get(counterKey); ok {
		state.MustUnmarshal(val, &c)
	}
	return c
}

func rowKey(id meta.SessionID) []byte {
	return binary.BigEndian.AppendUint64([]byte("2s"), uint64(id))
}

// row returns the session's row, also while it is ending.
func row(r state.Reader, id meta.SessionID) (Info, bool) {
	val, ok := r.Get(rowKey(id))
	if !ok {
		return Info{}, false
	}
	var info Info
	state.MustUnmarshal(val, &info)
	return info, true
}

// Known reports whether the session is open or ending.
func Known(r state.Reader, id meta.SessionID) bool {
	_, ok := row(r, id)
	return ok
}

// Others returns the sessions that open files and are open, but one.
func Others(r state.Reader, but meta.SessionID) []meta.SessionID {
	if count(r).Files == 0 {
		return nil // the common case costs one row
	}
	var list []meta.SessionID
	for _, val := range r.Scan([]byte("2s"), state.After([]byte("2s"))) {
		var info Info
		state.MustUnmarshal(val, &info)
		if info.Files && !info.Ending && info.ID != but {
			list = append(list, info.ID)
		}
	}
	return list
}

func put(tx *state.Tx, info Info) { tx.Set(rowKey(info.ID), state.Marshal(info)) }

// Check refuses, with meta.Expired, a session that is not open.
func Check(r state.Reader, id meta.SessionID) error {
	_, err := live(r, id)
	return err
}

func live(r state.Reader, id meta.SessionID) (Info, error) {
	info, ok := row(r, id)
	if !ok || info.Ending {
		return Info{}, fmt.Errorf("session %d: %w", id, meta.Expired)
	}
	return info, nil
}

// own returns the row of the session that the command is of.
func own(tx *state.Tx) (Info, error) {
	if tx.Session == 0 {
		return Info{}, fmt.Errorf("without a session: %w", meta.Invalid)
	}
	return live(tx, tx.Session)
}

func open(tx *state.Tx, req Open) (Info, error) {
	if len(req.Name) > TextMax || len(req.Node) > TextMax || len(req.Peer) > TextMax {
		return Info{}, fmt.Errorf("name of %d bytes, node of %d, peer of %d: %w", len(req.Name), len(req.Node), len(req.Peer), meta.TooLarge)
	}
	if req.TTL != 0 && (req.TTL < TTLMin || req.TTL > TTLMax) {
		return Info{}, fmt.Errorf("a time to live of %v, not %v to %v: %w", req.TTL, TTLMin, TTLMax, meta.Invalid)
	}
	c := count(tx)
	c.Session++
	if req.Files {
		c.Files++
	}
	tx.Set(counterKey, state.Marshal(c))
	// Nothing is below the first ID that the session can get.
	info := Info{ID: c.Session, Name: req.Name, Node: req.Node, Opened: meta.At(tx.Now), Low: c.Stripe, TTL: req.TTL, Files: req.Files, Peer: req.Peer}
	put(tx, info)
	return info, nil
}

func end(tx *state.Tx, req End, releases []Release) (Ended, error) {
	info, ok := row(tx, req.ID)
	if !ok {
		return Ended{}, nil
	}
	if !info.Ending {
		state.ForgetSlots(tx, info.ID)
		info.Ending = true
		if info.Files {
			c := count(tx)
			c.Files--
			tx.Set(counterKey, state.Marshal(c))
		}
	}
	left := EndMax
	for _, release := range releases {
		n, more := release(tx, info.ID, left)
		if left -= n; more || left <= 0 {
			put(tx, info)
			return Ended{More: true}, nil
		}
	}
	tx.Delete(rowKey(info.ID))
	return Ended{}, nil
}

func ask(r state.Reader, req Ask) (Info, error) {
	info, ok := row(r, req.ID)
	if !ok {
		return Info{}, meta.NotExist
	}
	return info, nil
}

func list(r state.Reader, req List) (Listed, error) {
	if req.Limit < 1 || req.After == ^meta.SessionID(0) {
		return Listed{}, meta.Invalid
	}
	limit := min(req.Limit, ListMax)
	var reply Listed
	for _, val := range r.Scan(rowKey(req.After+1), state.After([]byte("2s"))) {
		if len(reply.Sessions) == limit {
			reply.More = true
			break
		}
		var info Info
		state.MustUnmarshal(val, &info)
		reply.Sessions = append(reply.Sessions, info)
	}
	return reply, nil
}
