package rpc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
)

// wireOf returns the bytes of a frame.
func wireOf(t testing.TB, f Frame) []byte {
	t.Helper()
	s, err := f.marshal()
	if err != nil {
		t.Fatal(err)
	}
	return s.Materialize()
}

// cutUp returns data in buffers of n bytes.
func cutUp(data []byte, n int) mem.BufferSlice {
	var s mem.BufferSlice
	for len(data) > 0 {
		m := min(n, len(data))
		s = append(s, mem.SliceBuffer(data[:m]))
		data = data[m:]
	}
	return s
}

// A change here is a change of format: add a version, keep reading this one.
func TestGolden(t *testing.T) {
	got := hex.EncodeToString(wireOf(t, Frame{Header: []byte("head"), Payload: Own([]byte("payload"))}))
	const want = "444f5366" + "01000000" + "00000004" + "00000007" + "3b2ebf9f" + "68656164" + "7061796c6f6164"
	if got != want {
		t.Errorf("frame is\n%s, want\n%s", got, want)
	}
}

func TestFrame(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, in := range []struct{ header, payload []byte }{
		{nil, nil},
		{[]byte("h"), nil},
		{nil, []byte("p")},
		{[]byte("header"), []byte("payload")},
		{big[:MaxHeader], big},
		{nil, append(bytes.Clone(big), big...)},
	} {
		wire := wireOf(t, Frame{Header: in.header, Payload: Own(in.payload)})
		for _, piece := range []int{1, 7, prefix, prefix + len(in.header), 16 << 10, len(wire)} {
			if piece < 1<<10 && len(wire) > 1<<20 {
				continue
			}
			var out Frame
			if err := out.unmarshal(cutUp(wire, piece)); err != nil {
				t.Errorf("%d + %d bytes in pieces of %d: %v", len(in.header), len(in.payload), piece, err)
				continue
			}
			if !bytes.Equal(out.Header, in.header) || !bytes.Equal(out.Bytes(), in.payload) {
				t.Errorf("%d + %d bytes in pieces of %d arrived as %d + %d", len(in.header), len(in.payload), piece, len(out.Header), out.Payload.Len())
			}
			out.Free()
		}
	}
}

func TestTooLarge(t *testing.T) {
	for _, f := range []Frame{
		{Header: make([]byte, MaxHeader+1)},
		{Payload: Own(make([]byte, MaxPayload+1))},
	} {
		if _, err := f.marshal(); err == nil || !strings.Contains(err.Error(), "at most") {
			t.Errorf("frame of %d + %d bytes: %v, want a refusal", len(f.Header), f.Payload.Len(), err)
		}
	}
}

func TestRefused(t *testing.T) {
	good := wireOf(t, Frame{Header: []byte("head"), Payload: Own([]byte("payload"))})
	edit := func(fn func(b []byte)) []byte {
		b := bytes.Clone(good)
		fn(b)
		// The checksum is right: what is tested is refused for itself.
		sum := crc32.Checksum(b[:16], castagnoli)
		binary.BigEndian.PutUint32(b[16:], crc32.Update(sum, castagnoli, b[prefix:]))
		return b
	}
	for _, test := range []struct {
		name, want string
		wire       []byte
	}{
		{"empty", "shorter", nil},
		{"cut prefix", "shorter", good[:prefix-1]},
		{"cut", "says it has", good[:len(good)-1]},
		{"longer", "says it has", append(bytes.Clone(good), 0)},
		{"magic", "not a frame", edit(func(b []byte) { b[0] = 'd' })},
		{"version", "version", edit(func(b []byte) { b[4] = 2 })},
		{"reserved", "version", edit(func(b []byte) { b[7] = 1 })},
		{"huge header", "at most", edit(func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1<<31) })},
		{"huge payload", "at most", edit(func(b []byte) { binary.BigEndian.PutUint32(b[12:], 1<<32-1) })},
	} {
		var f Frame
		if err := f.unmarshal(cutUp(test.wire, 5)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			var f Frame
			if err := f.unmarshal(cutUp(b, 9)); err == nil {
				t.Errorf("bit %d of byte %d flipped: accepted", bit, i)
			}
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(wireOf(f, Frame{}), 1)
	f.Add(wireOf(f, Frame{Header: []byte("head"), Payload: Own([]byte("payload"))}), 3)
	f.Add([]byte("DOSf\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff0000"), 20)
	f.Fuzz(func(t *testing.T, wire []byte, piece int) {
		if piece < 1 || len(wire)/piece > 1<<16 {
			return
		}
		var frame Frame
		if err := frame.unmarshal(cutUp(wire, piece)); err != nil {
			return
		}
		header, payload := frame.Header, bytes.Clone(frame.Bytes())
		frame.Free()
		if again := wireOf(t, Frame{Header: header, Payload: Own(payload)}); !bytes.Equal(again, wire) {
			t.Errorf("%x was read as %x + %x, which is %x", wire, header, payload, again)
		}
	})
}

// Memory is handed out again only after the last user has freed it.
func TestPool(t *testing.T) {
	for _, n := range []int{1, 4 << 10, 4<<10 + 1, 1 << 20, MaxPayload, MaxPayload + 1} {
		s, b := Alloc(n)
		if len(b) != n || s.Len() != n {
			t.Fatalf("Alloc(%d) = %d bytes in a payload of %d", n, len(b), s.Len())
		}
		b[0] = 1
		s.Ref()
		s.Free()
		other, o := Alloc(n)
		if o[0] = 2; b[0] != 1 {
			t.Errorf("%d bytes are in use twice", n)
		}
		other.Free()
		s.Free()
	}
}
