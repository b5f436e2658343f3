package fault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/test/cluster"
	"dos/test/witness"
)

const (
	// diskSize is the size in bytes of the disk that is filled.
	diskSize = 1 << 30
	// tooSmall is that of a disk that is refused.
	tooSmall = 512 << 20
	// freeLimit bounds how long space may take to be usable after files on a
	// full disk were removed: the grace period for readers, and a collection.
	freeLimit = 3 * time.Minute
	// fillSize is the size in bytes of the files that fill the disk.
	fillSize = 8 << 20
)

// TestFull fills the disk below dos through dos. df has said how much goes in,
// the writer hears of the end, what was acknowledged stays, removing works, and
// then there is room again, for dos and on the disk.
func TestFull(t *testing.T) {
	disk := cluster.SmallDisk(t, diskSize)
	m := cluster.Start(t, filepath.Join(disk, "data"))
	files := make(witness.Files)
	files.Add(t, m.Path("kept"), 5)

	settle(t, m)
	promised := available(t, m.Point)
	fillers := fill(t, m, files)
	wrote := int64(len(fillers) * fillSize)
	t.Logf("full after %d MiB, df promised %d MiB", wrote>>20, promised>>20)
	// Whole files of fillSize go in, and what stripes need besides is not counted.
	if wrote > promised+fillSize || wrote < promised*9/10-fillSize {
		t.Errorf("df promised %d MiB, %d MiB went in", promised>>20, wrote>>20)
	}
	cluster.Await(t, 3*capacityAge, func() error {
		if left := available(t, m.Point); left > 2*fillSize {
			return fmt.Errorf("df says that %d MiB are free when the disk is full", left>>20)
		}
		return nil
	})
	files.Check(t, "full")
	m.Cold(t) // a full disk mounts, too
	files.Check(t, "full and mounted again")
	m.Kill(t)
	m.Again(t)
	files.Check(t, "full, killed and mounted again")

	before := free(t, disk)
	half := fillers[:len(fillers)/2]
	for _, path := range half {
		if err := os.Remove(path); err != nil {
			t.Fatalf("removing on a full disk: %v", err)
		}
		delete(files, path)
	}
	gone := int64(len(half) * fillSize)
	cluster.Await(t, freeLimit, func() error {
		if got := available(t, m.Point); got < gone*9/10 {
			return fmt.Errorf("%d MiB were removed and df says that %d MiB are free", gone>>20, got>>20)
		}
		return nil
	})
	// With 4+2, less the reserves that are made again.
	if got := free(t, disk) - before; got < gone {
		t.Errorf("%d MiB were removed and the disk has %d MiB more", gone>>20, got>>20)
	}
	again := m.Path("again")
	data := witness.Bytes(77, 40<<20)
	if err := witness.WriteSynced(again, data); err != nil {
		t.Fatalf("writing after half of what filled the disk was removed: %v", err)
	}
	files[again] = data
	files.Check(t, "after freeing")
	m.AwaitHealth(t, "ok", repairLimit)
	m.Cold(t)
	files.Check(t, "at the end")
	m.Stop(t)
	fsck(t, m.Data)
}

// TestFullByOthers has others take the last block of the disk while dos runs.
// What is stored is read, removed and outlives stops and crashes.
func TestFullByOthers(t *testing.T) {
	disk := cluster.SmallDisk(t, diskSize)
	m := cluster.Start(t, filepath.Join(disk, "data"))
	files := make(witness.Files)
	files.Add(t, m.Path("kept"), 5)
	var extra []string
	for i := range 4 {
		path := m.Path(fmt.Sprintf("extra%d", i))
		if err := witness.WriteSynced(path, witness.Bytes(uint64(i), 4<<20)); err != nil {
			t.Fatal(err)
		}
		extra = append(extra, path)
	}
	settle(t, m)
	remove := func(when string) {
		t.Helper()
		if err := os.Remove(extra[0]); err != nil {
			t.Fatalf("%s: removing: %v", when, err)
		}
		if _, err := os.Stat(extra[0]); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: what was removed is there: %v", when, err)
		}
		extra = extra[1:]
	}
	refused := func(when string) {
		t.Helper()
		if err := witness.WriteSynced(m.Path("new"), witness.Bytes(9, 1<<20)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: the writer was told %v, want ENOSPC", when, err)
		}
		// It may have been made before the disk was full.
		if err := os.Remove(m.Path("new")); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", when, err)
		}
		cluster.Await(t, 3*capacityAge, func() error {
			if left := available(t, m.Point); left != 0 {
				return fmt.Errorf("%s: df says that %d MiB are free", when, left>>20)
			}
			return nil
		})
	}

	// Once: dos has its reserve.
	others := filepath.Join(disk, "others")
	takeAllAtOnce(t, m, others)
	refused("full")
	files.Check(t, "full")
	remove("full")
	m.Cold(t)
	files.Check(t, "full, stopped and started")
	remove("full, stopped and started")
	m.Kill(t)
	m.Again(t)
	files.Check(t, "full, killed and started")
	remove("full, killed and started")
	refused("still full")

	// Twice: they took what the reserve gave, too.
	cluster.TakeAll(t, others+"2")
	refused("really full")
	files.Check(t, "really full")
	m.Stop(t)
	r := cluster.Run(t, cluster.Bin("dosmount"), "--data", m.Data, m.Point)
	refusal(t, "start on a disk that is really full", r, 1, "to start")

	for _, path := range []string{others, others + "2"} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	m.Again(t)
	files.Check(t, "room again")
	cluster.Await(t, freeLimit, func() error { return witness.WriteSynced(m.Path("new"), witness.Bytes(9, 1<<20)) })
	files[m.Path("new")] = witness.Bytes(9, 1<<20)
	cluster.Await(t, freeLimit, func() error { // what is kept to remove files with
		_, err := os.Stat(filepath.Join(m.Data, "meta", "reserve"))
		return err
	})
	takeAllAtOnce(t, m, others)
	remove("full again")
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	m.AwaitHealth(t, "ok", repairLimit)
	m.Cold(t)
	files.Check(t, "at the end")
	m.Stop(t)
	fsck(t, m.Data)
}

// TestTooSmall is refused with a line that says what is needed.
func TestTooSmall(t *testing.T) {
	disk := cluster.SmallDisk(t, tooSmall)
	data, point := filepath.Join(disk, "data"), filepath.Join(cluster.Dir(t), "m")
	r := cluster.Run(t, cluster.Bin("dosmount"), "--data", data, point)
	refusal(t, "a small disk", r, 1, "640 MiB")
	for _, path := range []string{data, point} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was made (%v)", path, err)
		}
	}
}

// fill writes files until it is told that the disk is full, and returns those
// that were acknowledged.
func fill(t *testing.T, m *cluster.Mount, files witness.Files) []string {
	t.Helper()
	var fillers []string
	for i := 0; ; i++ {
		path := m.Path(fmt.Sprintf("fill%03d", i))
		data := witness.Bytes(uint64(1000+i), fillSize)
		err := witness.WriteSynced(path, data)
		switch {
		case err == nil:
			files[path] = data
			fillers = append(fillers, path)
		case errors.Is(err, syscall.ENOSPC):
			return fillers
		default:
			t.Fatalf("the writer was told %v, want ENOSPC", err)
		}
		if int64(i)*fillSize > diskSize {
			t.Fatalf("a disk of %d bytes took more than it holds", diskSize)
		}
	}
}

// settle waits until what is made in the background when there is room has
// been made.
func settle(t *testing.T, m *cluster.Mount) {
	t.Helper()
	want := []string{filepath.Join(m.Data, "meta", "reserve")}
	for i := range 6 {
		want = append(want, filepath.Join(m.Data, "chunk", fmt.Sprint(i), "reserve"))
	}
	cluster.Await(t, repairLimit, func() error {
		for _, path := range want {
			if _, err := os.Stat(path); err != nil {
				return err
			}
		}
		return nil
	})
	time.Sleep(2 * capacityAge)
}

// capacityAge is how old the answer of statfs may be.
const capacityAge = time.Second

// available is what df shows as available at path, in bytes.
func available(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// free is what the disk has, for root too.
func free(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

// takeAllAtOnce takes all before dos can give up its reserve, which would be
// taken as well.
func takeAllAtOnce(t *testing.T, m *cluster.Mount, path string) {
	t.Helper()
	m.Pause(t)
	defer m.Resume(t)
	cluster.TakeAll(t, path)
}
