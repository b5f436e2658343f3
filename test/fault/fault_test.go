// Package fault breaks a running dos in the ways that machines break, and
// checks that what was acknowledged is there afterwards: processes that are
// killed, folders that vanish, bits that flip, disks that fill up, and users
// who ask for the impossible.
package fault

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"dos/test/cluster"
)

// long asks for ten crashes and all pairs of folders.
var long = flag.Bool("long", false, "all rounds (a quarter of an hour)")

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

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
