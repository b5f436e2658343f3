package erasure

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"

	"dos/chunk"
)

var codes = []chunk.Code{{K: 4, M: 2}, {K: 3, M: 2}, {K: 2, M: 2}, {K: 1, M: 2}, {K: 2, M: 1}, {K: 1, M: 1},
	{K: 1, M: 0}, {K: 3, M: 1}, {K: 8, M: 3}, {K: 10, M: 4}, {K: 4, M: 0}}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// join returns the data of a stripe of n bytes from its data shards.
func join(code chunk.Code, cells [][]byte, n int) []byte {
	if code.K == 1 {
		return cells[0]
	}
	var all []byte
	for _, c := range cells[:code.K] {
		all = append(all, c...)
	}
	return all[:n]
}

func TestEveryLoss(t *testing.T) {
	var c Coder
	sizes := []int{1, 2, 3, 511, 4095, 4096, 4097, 8191, 16384, 16385, 65536, 65537, 70001, 131072}
	for _, code := range codes {
		for _, n := range sizes {
			data := random(uint64(n), n)
			s, err := c.Encode(code, data)
			if err != nil {
				t.Fatalf("Encode(%v, %d bytes): %v", code, n, err)
			}
			if got := join(code, s.Cells, n); !bytes.Equal(got, data) {
				t.Fatalf("%v, %d bytes: data shards do not hold the data", code, n)
			}
			checkLosses(t, &c, code, s.Cells, n)
			s.Release()
		}
	}
}

// checkLosses loses every set of at most M shards and wants them back.
func checkLosses(t *testing.T, c *Coder, code chunk.Code, cells [][]byte, n int) {
	t.Helper()
	for _, cell := range cells {
		if want := code.Cell(n); len(cell) != want {
			t.Fatalf("%v, %d bytes: cell of %d bytes, want %d", code, n, len(cell), want)
		}
	}
	for lost := range uint(1) << code.Shards() {
		if bits.OnesCount(lost) > int(code.M) {
			continue
		}
		have, dst := make([][]byte, code.Shards()), make([][]byte, code.Shards())
		for i := range have {
			if lost>>i&1 == 0 {
				have[i] = cells[i]
			} else {
				dst[i] = random(1, len(cells[i])) // what was there must not matter
			}
		}
		if err := c.Reconstruct(code, have, dst); err != nil {
			t.Fatalf("Reconstruct(%v, %d bytes, lost %b): %v", code, n, lost, err)
		}
		for i := range dst {
			if dst[i] != nil && !bytes.Equal(dst[i], cells[i]) {
				t.Fatalf("Reconstruct(%v, %d bytes, lost %b): shard %d differs", code, n, lost, i)
			}
		}
	}
}

func TestRange(t *testing.T) {
	var c Coder
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		code := codes[r.IntN(len(codes))]
		n := 1 + r.IntN(200_000)
		s, err := c.Encode(code, random(7, n))
		if err != nil {
			t.Fatal(err)
		}
		cell := len(s.Cells[0])
		from := r.IntN(cell)
		to := from + 1 + r.IntN(cell-from)
		have, dst := make([][]byte, code.Shards()), make([][]byte, code.Shards())
		for _, i := range r.Perm(code.Shards())[:code.K] {
			have[i] = s.Cells[i][from:to]
		}
		want := r.IntN(code.Shards())
		dst[want] = make([]byte, to-from)
		if err := c.Reconstruct(code, have, dst); err != nil {
			t.Fatalf("Reconstruct(%v, [%d,%d) of %d): %v", code, from, to, cell, err)
		}
		if !bytes.Equal(dst[want], s.Cells[want][from:to]) {
			t.Fatalf("Reconstruct(%v, [%d,%d) of %d): shard %d differs", code, from, to, cell, want)
		}
		s.Release()
	}
}

func TestAliases(t *testing.T) {
	var c Coder
	code := chunk.Code{K: 4, M: 2}
	for _, test := range []struct{ n, alias int }{
		{4 << 20, 4}, {4<<20 - 1, 3}, {3 << 20, 4}, {3<<20 + 4096, 3}, {65537, 3}, {5, 0},
	} {
		data := random(3, test.n)
		s, err := c.Encode(code, data)
		if err != nil {
			t.Fatal(err)
		}
		cell := len(s.Cells[0])
		alias := 0
		for i, c := range s.Cells[:code.K] {
			if i*cell < len(data) && &c[0] == &data[i*cell] {
				alias++
			}
		}
		if alias != test.alias {
			t.Errorf("%d bytes: %d cells alias the data, want %d", test.n, alias, test.alias)
		}
		s.Release()
	}
}

func TestTooFew(t *testing.T) {
	var c Coder
	for _, code := range codes {
		s, err := c.Encode(code, random(9, 70_000))
		if err != nil {
			t.Fatal(err)
		}
		have, dst := make([][]byte, code.Shards()), make([][]byte, code.Shards())
		copy(have, s.Cells[:code.K-1])
		dst[code.K-1] = make([]byte, len(s.Cells[0]))
		if err := c.Reconstruct(code, have, dst); !errors.Is(err, chunk.ErrTooFew) {
			t.Errorf("Reconstruct(%v of %d shards) = %v, want ErrTooFew", code, code.K-1, err)
		}
		s.Release()
	}
}

func TestBadInput(t *testing.T) {
	var c Coder
	for _, test := range []struct {
		code chunk.Code
		n    int
	}{
		{chunk.Code{}, 1}, {chunk.Code{K: 0, M: 2}, 1}, {chunk.Code{K: 31, M: 2}, 1}, {chunk.Code{K: 255, M: 255}, 1},
		{chunk.Code{K: 4, M: 2}, 0}, {chunk.Code{K: 4, M: 2}, chunk.MaxStripe + 1},
	} {
		if _, err := c.Encode(test.code, make([]byte, test.n)); err == nil {
			t.Errorf("Encode(%v, %d bytes) succeeded", test.code, test.n)
		}
	}
	code := chunk.Code{K: 2, M: 1}
	b := func(n int) []byte { return make([]byte, n) }
	for _, test := range []struct{ have, dst [][]byte }{
		{[][]byte{b(3), b(3)}, [][]byte{nil, nil, b(3)}},
		{[][]byte{b(3), b(3), nil}, [][]byte{nil, b(3)}},
		{[][]byte{b(3), b(4), nil}, [][]byte{nil, nil, b(3)}},
		{[][]byte{b(3), b(3), nil}, [][]byte{nil, nil, b(4)}},
	} {
		if err := c.Reconstruct(code, test.have, test.dst); err == nil {
			t.Errorf("Reconstruct(%v, %v) succeeded", test.have, test.dst)
		}
	}
}

// A change here is a change of format: shards that lie on disks were made
// with the matrix of this version and must be read with it.
func TestGolden(t *testing.T) {
	var c Coder
	data := make([]byte, 100_000)
	for i := range data {
		data[i] = byte(i*i>>8 ^ i)
	}
	for _, test := range []struct {
		code chunk.Code
		want string
	}{
		{chunk.Code{K: 4, M: 2}, "934ccd6698cbbd15"},
		{chunk.Code{K: 3, M: 2}, "72b279247ad107b3"},
		{chunk.Code{K: 2, M: 2}, "ea1068d36b292ec8"},
		{chunk.Code{K: 2, M: 1}, "8c92e9cbdfeb4d29"},
		{chunk.Code{K: 8, M: 3}, "da6c651f73edcf5e"},
	} {
		s, err := c.Encode(test.code, data)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		for _, cell := range s.Cells {
			fmt.Fprintln(h, len(cell))
			h.Write(cell)
		}
		if got := hex.EncodeToString(h.Sum(nil)[:8]); got != test.want {
			t.Errorf("shards of %v: got %s, want %s", test.code, got, test.want)
		}
		s.Release()
	}
}

func TestBuffersAreBounded(t *testing.T) {
	var p Buffers
	var all [][]byte
	for range 100 {
		all = append(all, p.Buffer(1<<20-1), p.Buffer(1), p.Buffer(4097))
	}
	for _, b := range all {
		p.Free(b)
	}
	if p.kept > KeepMax {
		t.Errorf("%d bytes kept, want at most %d", p.kept, KeepMax)
	}
	for n := 1; n <= 1<<21; n = n*2 + 1 {
		b := p.Buffer(n)
		if len(b) != n {
			t.Errorf("Buffer(%d) has %d bytes", n, len(b))
		}
		p.Free(b)
	}
	p.Free(make([]byte, 5000)) // not one of ours: left to the collector
}

func FuzzLoss(f *testing.F) {
	f.Add([]byte("hello"), uint8(4), uint8(2), uint64(3))
	f.Add(random(1, 70_000), uint8(8), uint8(3), uint64(0x700))
	f.Add([]byte{0}, uint8(1), uint8(2), uint64(1))
	f.Add(random(2, 4097), uint8(2), uint8(1), uint64(7))
	var c Coder
	f.Fuzz(func(t *testing.T, data []byte, k, m uint8, lost uint64) {
		code := chunk.Code{K: k, M: m}
		if len(data) > 1<<18 {
			t.Skip()
		}
		s, err := c.Encode(code, data)
		if err != nil {
			if Check(code) == nil && len(data) > 0 {
				t.Fatalf("Encode(%v, %d bytes): %v", code, len(data), err)
			}
			return
		}
		defer s.Release()
		have, dst := make([][]byte, code.Shards()), make([][]byte, code.Shards())
		left := 0
		for i := range have {
			if lost>>i&1 == 0 {
				have[i] = s.Cells[i]
				left++
			} else {
				dst[i] = make([]byte, len(s.Cells[i]))
			}
		}
		err = c.Reconstruct(code, have, dst)
		if left < int(k) {
			if !errors.Is(err, chunk.ErrTooFew) {
				t.Fatalf("Reconstruct(%v with %d shards) = %v, want ErrTooFew", code, left, err)
			}
			return
		}
		if err != nil {
			t.Fatalf("Reconstruct(%v, lost %b): %v", code, lost, err)
		}
		for i := range dst {
			if dst[i] != nil && !bytes.Equal(dst[i], s.Cells[i]) {
				t.Fatalf("Reconstruct(%v, lost %b): shard %d differs", code, lost, i)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	var c Coder
	data := random(1, chunk.MaxStripe)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		s, err := c.Encode(chunk.Code{K: 4, M: 2}, data)
		if err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
}

func BenchmarkReconstruct(b *testing.B) {
	var c Coder
	code := chunk.Code{K: 4, M: 2}
	s, err := c.Encode(code, random(1, chunk.MaxStripe))
	if err != nil {
		b.Fatal(err)
	}
	have, dst := make([][]byte, 6), make([][]byte, 6)
	copy(have, s.Cells)
	have[0] = nil
	dst[0] = make([]byte, len(s.Cells[0]))
	b.SetBytes(int64(len(dst[0])))
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Reconstruct(code, have, dst); err != nil {
			b.Fatal(err)
		}
	}
}
