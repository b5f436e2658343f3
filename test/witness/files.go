// Package witness remembers what a file system acknowledged, and compares it
// with what is there later: files of known contents, and a writer that works
// until something fails.
//
// It knows nothing of how the file system is run or broken.
package witness

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Bytes is n bytes that depend on the seed and have no short period.
func Bytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	// Reading a ChaCha8 never fails.
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// Files are files whose contents are known, of the sizes where storage changes
// its ways: inline, whole copies, one stripe, several.
type Files map[string][]byte

// sampleSizes are in bytes.
var sampleSizes = []int{0, 1, 4096, 4097, 30_000, 64 << 10, 64<<10 + 1, 300_000, 1 << 20, 4 << 20, 4<<20 + 1, 11 << 20}

// Add writes a synced file of each size below dir.
func (s Files) Add(tb testing.TB, dir string, seed uint64) {
	tb.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	for i, n := range sampleSizes {
		path := filepath.Join(dir, fmt.Sprintf("f%d", n))
		data := Bytes(seed+uint64(i), n)
		if err := WriteSynced(path, data); err != nil {
			tb.Fatalf("writing %d bytes: %v", n, err)
		}
		s[path] = data
	}
}

// Check reads everything.
func (s Files) Check(tb testing.TB, when string) {
	tb.Helper()
	for path, want := range s {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			tb.Errorf("%s: %s: got %d bytes, %v, want %d as written", when, path, len(got), err, len(want))
		}
	}
	if tb.Failed() {
		tb.FailNow()
	}
}

// WriteSynced makes a file, new or in place of an old one, that will be there.
func WriteSynced(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
