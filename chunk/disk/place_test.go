package disk

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"dos/chunk"
	"dos/internal/disk"
)

// TestPlace: what is where Place says are the bytes, with their sums.
func TestPlace(t *testing.T) {
	s := create(t, t.TempDir(), testConfig(disk.Real{}))
	id := chunk.ID{Stripe: 3, Index: 1}
	data := make([]byte, 300<<10+700)
	rand.Read(data) //nolint:errcheck // it never fails
	for i := range 3 {
		if err := s.Put(t.Context(), chunk.ID{Stripe: chunk.StripeID(2 + i), Index: 1}, data); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ off, n int }{{0, 300 << 10}, {64 << 10, 128 << 10}, {8192, 4096}, {0, 0}} {
		x, err := s.Place(t.Context(), id, c.n, int64(c.off))
		if err != nil || x.Len != c.n {
			t.Fatalf("%d bytes at %d: %+v, %v", c.n, c.off, x, err)
		}
		got := make([]byte, c.n)
		if _, err := x.File.(io.ReaderAt).ReadAt(got, x.Off); err != nil || !bytes.Equal(got, data[c.off:c.off+c.n]) {
			t.Errorf("%d bytes at %d: other bytes, %v", c.n, c.off, err)
		}
		var sums []byte
		for ; len(got) > 0; got = got[chunk.Block:] {
			sums = binary.LittleEndian.AppendUint32(sums, crc32.Checksum(got[:chunk.Block], castagnoli))
		}
		if !bytes.Equal(x.Sums, sums) {
			t.Errorf("%d bytes at %d: other sums", c.n, c.off)
		}
	}
	for _, c := range []struct{ off, n int }{{100, 4096}, {0, 700}, {300 << 10, 4096}, {0, 304 << 10}, {-4096, 4096}, {0, -4096}} {
		if x, err := s.Place(t.Context(), id, c.n, int64(c.off)); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%d bytes at %d: %+v, %v", c.n, c.off, x, err)
		}
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Place(t.Context(), id, 4096, 0); !errors.Is(err, chunk.ErrNotExist) {
		t.Errorf("a shard that was deleted: %v", err)
	}
	s = create(t, testDir, testConfig(new(disk.Mem)))
	if err := s.Put(t.Context(), id, data); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Place(t.Context(), id, 4096, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no file of this machine: %v", err)
	}
}
