package replica

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"dos/meta"
	"dos/meta/state"
)

// A change here is a change of format: add a version, keep reading this one.
func TestGolden(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		got        []byte
	}{
		{"entry", "0182a2010103" + "07a101" + "02", encodeEntry([]state.Command{{Op: 1, Session: 7}, {Op: 2}})},
		{"acked", "4441434b01000000020000000000000003000000000000006159ac81", encodeAck(2, 3)},
		{"position", "02000000000000000500000000000000060000000000000007", encodeApplied(position{5, 6}, 7)},
		{"current", "4452455001000000", encodeCurrent(current{ID: "a", Generation: 2, Index: 3, Term: 4, Members: []byte{5}, MembersFrom: 6})[:8]},
	} {
		if got := hex.EncodeToString(tc.got); got != tc.want {
			t.Errorf("%s is %s, want %s", tc.name, got, tc.want)
		}
	}
	const cur = "445245500100000000000000a6016161020203030404054105" + "0606"
	c := current{ID: "a", Generation: 2, Index: 3, Term: 4, Members: []byte{5}, MembersFrom: 6}
	enc := encodeCurrent(c)
	if got := hex.EncodeToString(append(append(bytes.Clone(enc[:8]), 0, 0, 0, 0), enc[12:]...)); got != cur {
		t.Errorf("current is %s, want %s", got, cur)
	}
	if back, err := decodeCurrent(enc); err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("current reads back as %+v, %v", back, err)
	}
	old, _ := hex.DecodeString("0100000000000000050000000000000006")
	if at, latest, err := decodeApplied(old); err != nil || at != (position{5, 6}) || latest != 0 {
		t.Errorf("the first version of the position reads back as %v, %d, %v", at, latest, err)
	}
	const rows = "04000000e3f567ab" + "01016b76" + "000000007ac85c62" + "0100000000000000"
	const dumped = "44444d5002000000090000000000000002000000000000000700000000000000ab7fe451" + rows
	old, _ = hex.DecodeString("44444d5001000000090000000000000002000000000000003f13f07c" + rows)
	if n, err := readDump(old); n != 1 || err != nil {
		t.Errorf("the first version of a dump has %d rows, %v", n, err)
	}
	if got := hex.EncodeToString(goldenDump(t)); got != dumped {
		t.Errorf("dump is %s, want %s", got, dumped)
	}
}

// goldenDump is the dump of a store with one row, k = v, at index 9 and term 2.
func goldenDump(tb testing.TB) []byte {
	tb.Helper()
	s := testStore(tb, tb.TempDir())
	defer func() {
		if err := s.close(); err != nil {
			tb.Error(err)
		}
	}()
	o := state.NewOverlay(nil)
	o.Set([]byte("k"), []byte("v"))
	if err := s.commit(batch{changes: o.Changes(), count: 1, size: 2, to: position{9, 2}, latest: 7}); err != nil {
		tb.Fatal(err)
	}
	v, err := s.view()
	if err != nil {
		tb.Fatal(err)
	}
	defer v.close()
	var buf bytes.Buffer
	if err := dump(&buf, v); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func testStore(tb testing.TB, dir string) *store {
	tb.Helper()
	cfg := testConfig(tb, dir)
	cfg.limits.memtable = 2 << 20
	if err := cfg.defaults(); err != nil {
		tb.Fatal(err)
	}
	s, err := openStore(dir, 1, &cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestDecodeCurrentRefuses(t *testing.T) {
	good := encodeCurrent(current{ID: "a", Generation: 1})
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	for _, tc := range []struct {
		name string
		b    []byte
		want meta.Kind
	}{
		{"empty", nil, meta.Lost},
		{"short", good[:11], meta.Lost},
		{"magic", change(0, 'X'), meta.Lost},
		{"newer", change(4, 2), meta.Unsupported},
		{"version 0", change(4, 0), meta.Lost},
		{"checksum", change(len(good)-1, good[len(good)-1]^1), meta.Lost},
	} {
		if _, err := decodeCurrent(tc.b); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

func TestAckedSlots(t *testing.T) {
	path := filepath.Join(t.TempDir(), "acked")
	reopen := func() *acked {
		t.Helper()
		a, err := openAcked(path)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := reopen()
	for _, index := range []uint64{5, 9, 7} { // it may go back, when the log was cut
		if err := a.record(index); err != nil {
			t.Fatal(err)
		}
		if err := a.close(); err != nil {
			t.Fatal(err)
		}
		if a = reopen(); a.index != index {
			t.Errorf("recorded %d, reads %d", index, a.index)
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	// A torn write spoils the slot of the latest turn (3, slot 1): 9 counts again.
	spoil(t, path, ackSlot+10)
	if a = reopen(); a.index != 9 {
		t.Errorf("with a torn slot it reads %d, want 9", a.index)
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, path, 10)
	if a = reopen(); a.index != ^uint64(0) {
		t.Errorf("with both slots spoiled it reads %d, want no index at all", a.index)
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
}

// spoil flips a bit of a file.
func spoil(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readDump(b []byte) (rows int, err error) {
	d, err := newDumpReader(bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	for range d.all {
		rows++
	}
	return rows, d.check()
}

func TestDumpDamage(t *testing.T) {
	good := goldenDump(t)
	if rows, err := readDump(good); rows != 1 || err != nil {
		t.Fatalf("%d rows, %v", rows, err)
	}
	for n := range good { // cut anywhere
		if _, err := readDump(good[:n]); !errors.Is(err, meta.Lost) {
			t.Errorf("cut at %d: %v, want %v", n, err, meta.Lost)
		}
	}
	for n := range 8 * len(good) { // any bit flipped
		b := bytes.Clone(good)
		b[n/8] ^= 1 << (n % 8)
		if _, err := readDump(b); err == nil {
			t.Errorf("bit %d flipped: no error", n)
		}
	}
}

func FuzzDump(f *testing.F) {
	f.Add(goldenDump(f))
	f.Add([]byte(dumpMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if rows, err := readDump(b); err == nil && len(b) < dumpHeader+2*frameHeader-8+8*rows/8 {
			t.Errorf("%d rows from %d bytes", rows, len(b))
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add(encodeEntry([]state.Command{{Op: 1, Session: 7, Body: []byte{1}}}))
	f.Add([]byte{1, 0x9b, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		cmds, err := decodeEntry(b)
		if err != nil {
			return
		}
		if again, err := decodeEntry(encodeEntry(cmds)); err != nil || len(again) != len(cmds) {
			t.Errorf("%x: %d commands, then %d (%v)", b, len(cmds), len(again), err)
		}
	})
}

func FuzzCurrent(f *testing.F) {
	f.Add(encodeCurrent(current{ID: "a", Generation: 2, Index: 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeCurrent(b); err == nil {
			if again, err := decodeCurrent(encodeCurrent(c)); err != nil || !reflect.DeepEqual(again, c) {
				t.Errorf("%x: %+v, then %+v (%v)", b, c, again, err)
			}
		}
	})
}

func FuzzAcked(f *testing.F) {
	f.Add(encodeAck(1, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		if turn, index, err := decodeAck(b); err == nil {
			if again := encodeAck(turn, index); !bytes.Equal(again[8:24], b[8:24]) {
				t.Errorf("%x reads as %d, %d", b, turn, index)
			}
		}
	})
}
