package state

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/meta"
)

const (
	opPut  Op = 0x0001
	opFail Op = 0x0002
	opBig  Op = 0x0003
	opTime Op = 0x0004
	opGet  Op = 0x0005
	opWho  Op = 0x0006
)

type pair struct {
	Key string `cbor:"1,keyasint,omitempty"`
	Val string `cbor:"2,keyasint,omitempty"`
}

func testMachine() *Machine {
	m := new(Machine)
	Handle(m, opPut, "test.put", func(tx *Tx, p pair) (int, error) {
		old, _ := tx.Get([]byte(p.Key))
		tx.Set([]byte(p.Key), append(bytes.Clone(old), p.Val...))
		return len(old) + len(p.Val), nil
	})
	Handle(m, opFail, "test.fail", func(tx *Tx, p pair) (struct{}, error) {
		tx.Set([]byte(p.Key), []byte(p.Val))
		tx.Set([]byte("new"), []byte("x"))
		tx.Delete([]byte(p.Key))
		tx.Set([]byte(p.Key), []byte("again"))
		return struct{}{}, fmt.Errorf("key %s: %w", p.Key, meta.Busy)
	})
	Handle(m, opBig, "test.big", func(tx *Tx, size int) ([]byte, error) {
		tx.Set([]byte("before"), []byte("x"))
		tx.Set([]byte("big"), make([]byte, size))
		return make([]byte, size), nil
	})
	Handle(m, opTime, "test.time", func(tx *Tx, _ struct{}) (string, error) {
		return fmt.Sprint(tx.Now.UnixNano(), tx.Session), nil
	})
	Query(m, opGet, "test.get", func(r Reader, key string) (string, error) {
		val, ok := r.Get([]byte(key))
		if !ok {
			return "", meta.NotExist
		}
		return string(val), nil
	})
	QueryBy(m, opWho, "test.who", func(_ Reader, s meta.SessionID, _ struct{}) (meta.SessionID, error) { return s, nil })
	return m
}

func contents(r Reader) string {
	var b strings.Builder
	for k, v := range r.Scan(nil, nil) {
		fmt.Fprintf(&b, "%q=%q ", k, v)
	}
	return b.String()
}

func TestApply(t *testing.T) {
	for _, tc := range []struct {
		name string
		cmd  Command
		kind meta.Kind
		text string
		want string // the store afterwards
	}{
		{"success", Command{Op: opPut, Body: Marshal(pair{"a", "2"})}, 0, "", `"a"="12" `},
		{"undo", Command{Op: opFail, Body: Marshal(pair{"a", "2"})}, meta.Busy, "test.fail: key a: busy", `"a"="1" `},
		{"bad body", Command{Op: opPut, Body: []byte{0xff}}, meta.Invalid, "test.put: the request does not decode: invalid request", `"a"="1" `},
		{"no body", Command{Op: opPut}, meta.Invalid, "test.put: the request does not decode: invalid request", `"a"="1" `},
		{"row too large", Command{Op: opBig, Body: Marshal(MaxValue + 1)}, meta.TooLarge, "test.big: row with a key of 3 and a value of 524289 bytes: too large", `"a"="1" `},
		{"long text", Command{Op: opFail, Body: Marshal(pair{strings.Repeat("k", 2000), ""})}, meta.Busy,
			"test.fail: key " + strings.Repeat("k", maxText-len("test.fail: key ")), `"a"="1" `},
		{"key too long", Command{Op: opPut, Body: Marshal(pair{strings.Repeat("k", MaxKey+1), ""})}, meta.TooLarge,
			"test.put: row with a key of 4097 and a value of 0 bytes: too large", `"a"="1" `},
		{"empty key", Command{Op: opPut, Body: Marshal(pair{"", "x"})}, meta.TooLarge,
			"test.put: row with a key of 0 and a value of 1 bytes: too large", `"a"="1" `},
	} {
		s := NewOverlay(nil)
		s.Set([]byte("a"), []byte("1"))
		reply := testMachine().Apply(s, tc.cmd)
		if reply.Kind != tc.kind || reply.Text != tc.text {
			t.Errorf("%s: reply %d %q, want %d %q", tc.name, reply.Kind, reply.Text, tc.kind, tc.text)
		}
		if got := contents(s); got != tc.want {
			t.Errorf("%s: store %s, want %s", tc.name, got, tc.want)
		}
		if err := reply.Err(); (err == nil) != (tc.kind == 0) || err != nil && !errors.Is(err, tc.kind) {
			t.Errorf("%s: Err() = %v, want kind %v", tc.name, err, tc.kind)
		}
	}
}

func TestApplyTime(t *testing.T) {
	now := time.Unix(7, 9).UnixNano()
	reply := testMachine().Apply(NewOverlay(nil), Command{Op: opTime, Time: now, Session: 3, Body: Marshal(struct{}{})})
	var got string
	MustUnmarshal(reply.Body, &got)
	if want := "7000000009 3"; got != want {
		t.Errorf("handler saw %q, want %q", got, want)
	}
}

// The result must not depend on whether rows lie in the overlay or below it.
func TestApplyLayers(t *testing.T) {
	m := testMachine()
	flat := NewOverlay(nil)
	var layered Store = NewOverlay(nil)
	for i, p := range []pair{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"", "bad"}, {"b", "4"}} {
		op := opPut
		if i%3 == 2 {
			op = opFail
		}
		cmd := Command{Op: op, Session: 1, Slot: 2, Seq: uint64(i + 1), Body: Marshal(p)}
		one, two := m.Apply(flat, cmd), m.Apply(layered, cmd)
		if !bytes.Equal(Marshal(one), Marshal(two)) {
			t.Errorf("command %d: replies %+v and %+v", i, one, two)
		}
		layered = NewOverlay(layered)
	}
	if a, b := contents(flat), contents(layered); a != b {
		t.Errorf("flat %s, layered %s", a, b)
	}
}

func TestUnknownCommandPanics(t *testing.T) {
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "unknown command 0x7777") {
			t.Errorf("panic %q, want one that names the op", got)
		}
	}()
	testMachine().Apply(NewOverlay(nil), Command{Op: 0x7777})
}

func TestKindlessErrorPanics(t *testing.T) {
	m := new(Machine)
	Handle(m, 1, "test.bad", func(*Tx, struct{}) (struct{}, error) { return struct{}{}, errors.New("plain") })
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "test.bad failed without a kind: plain") {
			t.Errorf("panic %q", got)
		}
	}()
	m.Apply(NewOverlay(nil), Command{Op: 1, Body: Marshal(struct{}{})})
}

func TestDuplicateOpPanics(t *testing.T) {
	m := testMachine()
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "op 0x0001 is both test.put and test.other") {
			t.Errorf("panic %q", got)
		}
	}()
	Query(m, opPut, "test.other", func(Reader, struct{}) (struct{}, error) { return struct{}{}, nil })
}

func TestAnswer(t *testing.T) {
	m := testMachine()
	s := NewOverlay(nil)
	s.Set([]byte("a"), []byte("1"))
	who := m.Answer(s, Command{Op: opWho, Session: 7, Body: Marshal(struct{}{})})
	if !bytes.Equal(who.Body, Marshal(meta.SessionID(7))) {
		t.Errorf("a query of session 7 is answered as %+v", who)
	}
	for _, tc := range []struct {
		op   Op
		key  string
		want Reply
	}{
		{opGet, "a", Reply{Body: Marshal("1")}},
		{opGet, "b", Reply{Kind: meta.NotExist}},
		{opPut, "a", Reply{Kind: meta.Unsupported, Text: "unknown operation 0x0001"}},
		{0x99, "a", Reply{Kind: meta.Unsupported, Text: "unknown operation 0x0099"}},
	} {
		if got := m.Answer(s, Command{Op: tc.op, Body: Marshal(tc.key)}); !bytes.Equal(Marshal(got), Marshal(tc.want)) {
			t.Errorf("Answer(%#04x, %q) = %+v, want %+v", tc.op, tc.key, got, tc.want)
		}
	}
}

func TestOps(t *testing.T) {
	want := []string{"0x0001 command test.put", "0x0002 command test.fail", "0x0003 command test.big", "0x0004 command test.time", "0x0005 query test.get", "0x0006 query test.who"}
	m := testMachine()
	if got := m.Ops(); !slices.Equal(got, want) {
		t.Errorf("Ops() = %q, want %q", got, want)
	}
	if !m.IsCommand(opPut) || m.IsCommand(opGet) || !m.IsQuery(opGet) || m.IsQuery(opPut) || m.IsCommand(0x99) {
		t.Error("IsCommand and IsQuery disagree with the table")
	}
}

func TestAdds(t *testing.T) {
	m := testMachine()
	Adds(m, opPut, func(p pair) bool { return p.Val != "" })
	for _, tc := range []struct {
		cmd  Command
		want bool
	}{
		{Command{Op: opPut, Body: Marshal(pair{"k", "v"})}, true},
		{Command{Op: opPut, Body: Marshal(pair{"k", ""})}, false},
		{Command{Op: opPut, Body: []byte{0xff}}, false},
		{Command{Op: opFail, Body: Marshal(pair{"k", "v"})}, false},
	} {
		if got := m.Adds(tc.cmd); got != tc.want {
			t.Errorf("Adds(%#x %x) = %v, want %v", tc.cmd.Op, tc.cmd.Body, got, tc.want)
		}
	}
}
