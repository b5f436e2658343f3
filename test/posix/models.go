package posix

import (
	"bytes"
	"dos/test/witness"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

var models = []test{
	{"random-file", randomFile},
}

var fileOps = flag.Int("file-ops", 3000, "operations of the random test of one file")

// modelMax bounds the file of the random test, in bytes: some stripes.
const modelMax = 9 << 20

// randomFile does what fsx does: random reads, writes, maps and truncations
// of one file, each compared with what an array in memory says.
func randomFile(t *testing.T, dir string) {
	s := witness.Seed(t)
	rnd := rand.New(rand.NewPCG(s, 0))
	path := filepath.Join(dir, "f")
	f := open(t, path, os.O_RDWR|os.O_CREATE)
	var want []byte
	size := func(limit int) int { // small as often as large
		return rnd.IntN(1 + rnd.IntN(1+limit>>(rnd.IntN(3)*4)))
	}
	grow := func(n int) {
		if n > len(want) {
			want = append(want, make([]byte, n-len(want))...)
		}
	}
	for i := range *fileOps {
		off := rnd.IntN(max(len(want), 1)*5/4 + 1)
		n := min(size(1<<20), modelMax-min(off, modelMax))
		var what string
		switch op := rnd.IntN(100); {
		case op < 35 && n > 0:
			what = fmt.Sprintf("write %d at %d", n, off)
			p := pattern(rnd.Uint64(), n)
			_, err := f.WriteAt(p, int64(off))
			ok(t, err)
			grow(off + n)
			copy(want[off:], p)
		case op < 65:
			what = fmt.Sprintf("read %d at %d", n, off)
			got := make([]byte, n)
			k, err := unix.Pread(int(f.Fd()), got, int64(off))
			ok(t, err)
			lo, hi := min(off, len(want)), min(off+n, len(want))
			same(t, fmt.Sprintf("operation %d: %s", i, what), got[:k], want[lo:hi])
		case op < 75:
			n := rnd.IntN(max(len(want), 1)*3/2 + 1)
			if n > modelMax {
				n = 0
			}
			what = fmt.Sprintf("truncate %d to %d", len(want), n)
			ok(t, f.Truncate(int64(n)))
			grow(n)
			want = want[:n:n]
		case op < 83 && len(want) > 0:
			what = fmt.Sprintf("map, write %d at %d", n, off)
			m, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			ok(t, err)
			lo, hi := min(off, len(want)), min(off+n, len(want))
			equal := bytes.Equal(m[lo:hi], want[lo:hi])
			p := pattern(rnd.Uint64(), hi-lo)
			copy(m[lo:], p)
			copy(want[lo:], p)
			ok(t, unix.Munmap(m))
			if !equal {
				t.Fatalf("operation %d: %s: the map differs from what was written", i, what)
			}
		case op < 88 && n > 0:
			what = fmt.Sprintf("punch %d at %d", n, off)
			err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
			ok(t, ignore(err, unix.EOPNOTSUPP))
			if err == nil && off < len(want) {
				clear(want[off:min(off+n, len(want))])
			}
		case op < 93:
			what = "fsync"
			ok(t, f.Sync())
		case op < 96:
			what = "reopen"
			ok(t, f.Close())
			f = open(t, path, os.O_RDWR)
		default:
			what = "check"
			contains(t, path, want)
		}
		if st := lstat(t, path); st.Size != int64(len(want)) {
			t.Fatalf("operation %d: %s: size %d, want %d", i, what, st.Size, len(want))
		}
	}
	ok(t, f.Close())
	contains(t, path, want)
}
