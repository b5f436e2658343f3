package state

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"dos/meta"
)

// A change here is a change of format: add a field, keep reading these.
func TestGolden(t *testing.T) {
	for _, tc := range []struct {
		v   any
		hex string
	}{
		{Command{}, "a0"},
		{Command{Op: 0x0102, Time: 3, Session: 4, Slot: 5, Seq: 6, Body: []byte{7}}, "a6011901020203030404050506064107"},
		{Reply{}, "a0"},
		{Reply{Kind: meta.Busy, Text: "t", Body: []byte{1}}, "a30105026174034101"},
		{kept{Seq: 2, Reply: Reply{Kind: meta.Busy}}, "a2010202a10105"},
		{kept{Seq: 1}, "a10101"},
	} {
		if got := hex.EncodeToString(Marshal(tc.v)); got != tc.hex {
			t.Errorf("%+v is %s, want %s", tc.v, got, tc.hex)
		}
		raw, err := hex.DecodeString(tc.hex)
		if err != nil {
			t.Fatal(err)
		}
		back := reflect.New(reflect.TypeOf(tc.v))
		if err := Unmarshal(raw, back.Interface()); err != nil || !reflect.DeepEqual(back.Elem().Interface(), tc.v) {
			t.Errorf("%s is %+v (%v), want %+v", tc.hex, back.Elem().Interface(), err, tc.v)
		}
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	newer := Marshal(map[int]any{1: 7, 99: "from the future"})
	var cmd Command
	if err := Unmarshal(newer, &cmd); err != nil || cmd.Op != 7 {
		t.Errorf("a newer command: %+v, %v", cmd, err)
	}
}

func TestMustUnmarshalPanics(t *testing.T) {
	defer func() {
		if got, ok := recover().(string); !ok || !strings.Contains(got, "corrupt row") {
			t.Errorf("panic %v", got)
		}
	}()
	MustUnmarshal([]byte{0xff}, new(Command))
}

// Whatever comes in, decoding does not panic, and what it yields encodes to
// bytes that decode to the same.
func FuzzCommand(f *testing.F) {
	f.Add(Marshal(Command{Op: 0x0102, Time: 3, Session: 4, Slot: 5, Seq: 6, Body: []byte{7}}))
	f.Add([]byte{0xa0})
	f.Add([]byte{0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) { roundTrip[Command](t, b) })
}

func FuzzReply(f *testing.F) {
	f.Add(Marshal(Reply{Kind: meta.Busy, Text: "text", Body: []byte{7}}))
	f.Add([]byte{0xa1, 0x02, 0x61, 0xff}) // not UTF-8
	f.Fuzz(func(t *testing.T, b []byte) { roundTrip[Reply](t, b) })
}

func roundTrip[T any](t *testing.T, b []byte) {
	var one, two T
	if Unmarshal(b, &one) != nil {
		return
	}
	if err := Unmarshal(Marshal(one), &two); err != nil || string(Marshal(one)) != string(Marshal(two)) {
		t.Errorf("%x: %+v, then %+v (%v)", b, one, two, err)
	}
}
