package posix_test

import (
	"flag"
	"os"
	"testing"

	"dos/test/cluster"
	"dos/test/posix"
)

// long asks for full sizes: all of Go's source tree, 100,000 entries.
var long = flag.Bool("long", false, "scenarios in full size (half an hour)")

func TestMain(m *testing.M) {
	posix.Child()
	os.Exit(cluster.Main(m))
}

// TestPlain runs the suite on the file system that temporary files are on: what
// it demands is what a plain file system does.
func TestPlain(t *testing.T) { posix.Run(t, cluster.Dir(t)) }

func TestMounted(t *testing.T) {
	cluster.NeedFuse(t)
	suite(t, cluster.Start(t, cluster.Dir(t)+"/data"))
}

// TestClusterMounted runs the suite on a mount of three machines.
func TestClusterMounted(t *testing.T) {
	if !*long {
		t.Skip("minutes, since each name that is made waits for three machines; run it with -long")
	}
	cluster.NeedFuse(t)
	suite(t, cluster.Three(t, cluster.FoundedLocal, "2+1").Mount(t))
}

func suite(t *testing.T, m *cluster.Mount) {
	dir := m.Path("suite")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	posix.Run(t, dir)
}
