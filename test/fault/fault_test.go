// Package fault breaks a running dos in the ways that machines break, and
// checks that what was acknowledged is there afterwards: processes that are
// killed, folders that vanish, bits that flip, disks that fill up, and users
// who ask for the impossible.
package fault

import (
	"flag"
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
