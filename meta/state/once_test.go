package state

import (
	"bytes"
	"testing"

	"dos/meta"
)

func TestOnce(t *testing.T) {
	m, s := testMachine(), NewOverlay(nil)
	for _, step := range []struct {
		say     string
		session meta.SessionID
		slot    uint16
		seq     uint64
		op      Op
		val     string
		kind    meta.Kind
		want    string // of row "k" afterwards
	}{
		{"the first of a slot is 1", 1, 0, 1, opPut, "a", 0, "a"},
		{"again: answered, not executed", 1, 0, 1, opPut, "a", 0, "a"},
		{"a gap", 1, 0, 3, opPut, "c", meta.Gap, "a"},
		{"the gap left no trace", 1, 0, 2, opPut, "b", 0, "ab"},
		{"too old", 1, 0, 1, opPut, "a", meta.Gap, "ab"},
		{"another slot has its own count", 1, 255, 1, opPut, "x", 0, "abx"},
		{"another session too", 2, 0, 1, opPut, "y", 0, "abxy"},
		{"no such slot", 1, 256, 1, opPut, "z", meta.Invalid, "abxy"},
		{"a failure is kept", 1, 0, 3, opFail, "f", meta.Busy, "abxy"},
		{"and answered again, even to another body", 1, 0, 3, opPut, "!", meta.Busy, "abxy"},
		{"and the next goes on", 1, 0, 4, opPut, "d", 0, "abxyd"},
		{"without a number it is executed each time", 1, 0, 0, opPut, "e", 0, "abxyde"},
		{"each time", 1, 0, 0, opPut, "e", 0, "abxydee"},
	} {
		reply := m.Apply(s, Command{Op: step.op, Session: step.session, Slot: step.slot, Seq: step.seq, Body: Marshal(pair{"k", step.val})})
		got, _ := s.Get([]byte("k"))
		if reply.Kind != step.kind || string(got) != step.want {
			t.Errorf("%s: kind %v and %q, want %v and %q", step.say, reply.Kind, got, step.kind, step.want)
		}
	}
}

func TestOnceSameReply(t *testing.T) {
	m, s := testMachine(), NewOverlay(nil)
	cmd := Command{Op: opPut, Session: 1, Slot: 9, Seq: 1, Body: Marshal(pair{"k", "abc"})}
	first := m.Apply(s, cmd)
	m.Apply(s, Command{Op: opPut, Body: Marshal(pair{"k", "more"})})
	if second := m.Apply(s, cmd); !bytes.Equal(Marshal(first), Marshal(second)) {
		t.Errorf("reply %+v, and when asked again %+v", first, second)
	}
}

func TestOnceLargeReply(t *testing.T) {
	m, s := testMachine(), NewOverlay(nil)
	cmd := Command{Op: opBig, Session: 1, Seq: 1, Body: Marshal(MaxValue)}
	for range 2 {
		reply := m.Apply(s, cmd)
		if reply.Kind != meta.TooLarge {
			t.Errorf("a reply of %d bytes: kind %v, want %v", MaxValue, reply.Kind, meta.TooLarge)
		}
		if _, ok := s.Get([]byte("big")); ok {
			t.Error("the command failed and its row is there")
		}
	}
	for k, v := range s.Scan(nil, nil) {
		if len(v) > MaxValue {
			t.Errorf("row %q has %d bytes", k, len(v))
		}
	}
	cmd.Seq, cmd.Body = 2, Marshal(MaxValue-keptOverhead-16)
	if reply := m.Apply(s, cmd); reply.Kind != 0 {
		t.Errorf("the largest reply: %+v", reply.Err())
	}
	if row, _ := s.Get(slotKey(1, 0)); len(row) > MaxValue {
		t.Errorf("kept row of %d bytes", len(row))
	}
}

func TestForgetSlots(t *testing.T) {
	m, s := testMachine(), NewOverlay(nil)
	for session := range meta.SessionID(3) {
		for _, slot := range []uint16{0, 7, Slots - 1} {
			m.Apply(s, Command{Op: opPut, Session: session, Slot: slot, Seq: 1, Body: Marshal(pair{"k", "v"})})
		}
	}
	ForgetSlots(&Tx{store: s}, 1)
	left := 0
	for k := range s.Scan([]byte("1"), []byte("2")) {
		if bytes.HasPrefix(k, slotKey(1, 0)[:9]) {
			t.Errorf("row %x is left", k)
		}
		left++
	}
	if left != 6 {
		t.Errorf("%d rows of other sessions, want 6", left)
	}
}
