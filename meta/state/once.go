package state

import (
	"encoding/binary"
	"fmt"

	"dos/meta"
)

// A row of the reply cache: key "1" session(8) slot(2), big-endian; value kept.
// It holds the last reply of each slot, so that a request which is sent again
// because its reply was lost is answered and not executed again.
type kept struct {
	Seq   uint64 `cbor:"1,keyasint,omitempty"`
	Reply Reply  `cbor:"2,keyasint,omitempty"`
}

// Slots is the number of requests a session may have under way at once.
const Slots = 256

// keptOverhead is more than a kept row needs beside the reply's body.
const keptOverhead = 64

func slotKey(s meta.SessionID, slot uint16) []byte {
	k := binary.BigEndian.AppendUint64([]byte("1"), uint64(s))
	return binary.BigEndian.AppendUint16(k, slot)
}

// ForgetSlots removes every kept reply of a session that has ended.
func ForgetSlots(tx *Tx, s meta.SessionID) {
	for slot := range uint16(Slots) {
		if key := slotKey(s, slot); has(tx, key) {
			tx.Delete(key)
		}
	}
}

func has(tx *Tx, key []byte) bool { _, ok := tx.Get(key); return ok }

// recall returns the reply that cmd got before, or the refusal of one that is
// out of sequence.
func recall(r Reader, cmd Command) (Reply, bool) {
	if cmd.Slot >= Slots {
		return Reply{Kind: meta.Invalid, Text: fmt.Sprintf("slot %d of %d", cmd.Slot, Slots)}, true
	}
	var last kept
	if val, ok := r.Get(slotKey(cmd.Session, cmd.Slot)); ok {
		MustUnmarshal(val, &last)
	}
	switch {
	case cmd.Seq == last.Seq+1:
		return Reply{}, false
	case cmd.Seq == last.Seq:
		return last.Reply, true
	}
	return Reply{Kind: meta.Gap, Text: fmt.Sprintf("request %d follows %d in slot %d", cmd.Seq, last.Seq, cmd.Slot)}, true
}

func keep(s Store, cmd Command, reply Reply) {
	s.Set(slotKey(cmd.Session, cmd.Slot), Marshal(kept{cmd.Seq, reply}))
}

// SlotSessions returns the sessions of which replies are kept, in order.
func SlotSessions(r Reader) (list []meta.SessionID) {
	for from := []byte("1"); ; {
		found := false
		for k := range r.Scan(from, After([]byte("1"))) {
			s := meta.SessionID(binary.BigEndian.Uint64(k[1:]))
			list, found = append(list, s), true
			from = After(k[:9])
			break
		}
		if !found || from == nil {
			return list
		}
	}
}
