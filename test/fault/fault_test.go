// Package fault breaks a running dos in the ways that machines break, and
// checks that what was acknowledged is there afterwards: processes that are
// killed, folders that vanish, bits that flip, disks that fill up, and users
// who ask for the impossible.
package fault

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"dos/test/cluster"
)

var (
	// long asks for what the judges do: ten crashes, all pairs of folders.
	long = flag.Bool("long", false, "all rounds (a quarter of an hour)")
	seed = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")
)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// random returns a source whose seed is logged.
func random(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d; replay with -seed=%d", s, s)
	return rand.New(rand.NewPCG(s, 1))
}

// bytesOf is n bytes that depend on the seed and have no short period.
func bytesOf(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	// Reading a ChaCha8 never fails.
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// sample is files whose contents are known, of the sizes where storage changes
// its ways: inline, whole copies, one stripe, several.
type sample map[string][]byte

// sampleSizes are in bytes.
var sampleSizes = []int{0, 1, 4096, 4097, 30_000, 64 << 10, 64<<10 + 1, 300_000, 1 << 20, 4 << 20, 4<<20 + 1, 11 << 20}

// add writes a synced file of each size below dir.
func (s sample) add(t *testing.T, dir string, seed uint64) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, n := range sampleSizes {
		path := filepath.Join(dir, fmt.Sprintf("f%d", n))
		data := bytesOf(seed+uint64(i), n)
		if err := writeSynced(path, data); err != nil {
			t.Fatalf("writing %d bytes: %v", n, err)
		}
		s[path] = data
	}
}

// check reads everything.
func (s sample) check(t *testing.T, when string) {
	t.Helper()
	for path, want := range s {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %s: got %d bytes, %v, want %d as written", when, path, len(got), err, len(want))
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// writeSynced makes a file, new or in place of an old one, that will be there.
func writeSynced(path string, data []byte) error {
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

// walk reads the whole tree: everything that is listed is there and readable.
func walk(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			_, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Errorf("walking the tree: %v", err)
	}
}

// fsck checks a data directory with dosctl: it finds nothing.
func fsck(t *testing.T, data string) {
	t.Helper()
	r := cluster.Run(t, cluster.Bin("dosctl"), "--data", data, "fsck", "--verify")
	if r.Code != 0 {
		t.Errorf("dosctl fsck: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}
