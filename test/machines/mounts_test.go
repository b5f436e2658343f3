package machines

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/test/cluster"
	"dos/test/witness"
)

// leaseLimit bounds how long what a dead client held may stay held: the time to
// live of its session, and a look at it.
const leaseLimit = 40 * time.Second

// TestTwoMounts has two mounts of one cluster: what one did, the other sees at
// once, and what one locks, the other waits for, until the first one dies.
func TestTwoMounts(t *testing.T) {
	cluster.NeedFuse(t)
	c := cluster.Three(t, cluster.FoundedLocal, "2+1")
	a, b := c.Mount(t), c.Mount(t)
	t.Run("names and data", func(t *testing.T) { coherence(t, a, b) })
	t.Run("locks", func(t *testing.T) { locks(t, a, b) })
	t.Run("unlinked", func(t *testing.T) { unlinked(t, a, b) })
	t.Run("shared", func(t *testing.T) { shared(t, a, b) })
	t.Run("queues", func(t *testing.T) { messages(t, c, a, b) })
	t.Run("death", func(t *testing.T) { death(t, c, a, b) })
	fsck(t, c)
}

// coherence changes names, attributes and data on one mount and looks on the other.
func coherence(t *testing.T, a, b *cluster.Mount) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		dir := fmt.Sprint("dir", i)
		must(os.Mkdir(from.Path(dir), 0o755))
		data := witness.Bytes(uint64(i), 1<<(i%21)+i)
		must(os.WriteFile(from.Path(dir, "f"), data, 0o644)) // and no sync
		got, err := os.ReadFile(to.Path(dir, "f"))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d: the other mount reads %d bytes, %v, want %d as written", i, len(got), err, len(data))
		}
		// While both have it open.
		w, err := os.OpenFile(from.Path(dir, "f"), os.O_RDWR, 0)
		must(err)
		defer w.Close()
		r, err := os.Open(to.Path(dir, "f"))
		must(err)
		defer r.Close()
		for j := range 5 {
			patch := witness.Bytes(uint64(1000*i+j), 100)
			off := int64(j * len(data) / 5)
			_, err := w.WriteAt(patch, off)
			must(err)
			got := make([]byte, len(patch))
			if _, err := r.ReadAt(got, off); err != nil && err != io.EOF || !bytes.Equal(got, patch) {
				t.Fatalf("%d: the other mount reads %.8x (%v) at %d just after %.8x was written", i, got, err, off, patch)
			}
		}
		must(w.Truncate(7))
		info, err := os.Stat(to.Path(dir, "f"))
		if err != nil || info.Size() != 7 {
			t.Fatalf("%d: the other mount says %v, %v, want a size of 7", i, info, err)
		}
		must(os.Chmod(from.Path(dir, "f"), 0o600))
		if info, err := os.Stat(to.Path(dir, "f")); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%d: after chmod the other mount says %v, %v", i, info, err)
		}
		must(os.Rename(from.Path(dir, "f"), from.Path(dir, "g")))
		if _, err := os.Stat(to.Path(dir, "f")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%d: the old name is there on the other mount: %v", i, err)
		}
		if _, err := os.Stat(to.Path(dir, "g")); err != nil {
			t.Fatalf("%d: the new name is not there on the other mount: %v", i, err)
		}
		must(os.Remove(to.Path(dir, "g")))
		if list, err := os.ReadDir(from.Path(dir)); err != nil || len(list) != 0 {
			t.Fatalf("%d: the directory is not empty: %v, %v", i, list, err)
		}
		must(os.Remove(from.Path(dir)))
		if _, err := os.Stat(to.Path(dir)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%d: the removed directory is there on the other mount: %v", i, err)
		}
	}
}

// A lock is one of the two ways to lock a whole file.
type lock struct {
	name string
	try  func(f *os.File) error
	free func(f *os.File) error
}

var wholeFile = unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}

var lockings = []lock{
	{"flock",
		func(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) },
		func(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }},
	{"fcntl",
		func(f *os.File) error { l := wholeFile; return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l) },
		func(f *os.File) error {
			l := wholeFile
			l.Type = unix.F_UNLCK
			return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
		}},
}

// both opens the file name, which is made, on both mounts.
func both(t *testing.T, a, b *cluster.Mount, name string) (fa, fb *os.File) {
	t.Helper()
	fa, err := os.OpenFile(a.Path(name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fa.Close() }) //nolint:errcheck // its mount may be dead
	if fb, err = os.OpenFile(b.Path(name), os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fb.Close() }) //nolint:errcheck // nothing was written
	return fa, fb
}

// locks has each mount take a file's lock while the other has it, and after.
func locks(t *testing.T, a, b *cluster.Mount) {
	for _, l := range lockings {
		fa, fb := both(t, a, b, "locked by "+l.name)
		for i := range 5 {
			if err := l.try(fa); err != nil {
				t.Fatalf("%s %d: %v", l.name, i, err)
			}
			if err := l.try(fb); !errors.Is(err, unix.EAGAIN) {
				t.Fatalf("%s %d: the other mount got the lock too (%v)", l.name, i, err)
			}
			if err := l.free(fa); err != nil {
				t.Fatal(err)
			}
			if err := l.try(fb); err != nil {
				t.Fatalf("%s %d: the lock was let go and the other mount gets %v", l.name, i, err)
			}
			if err := l.free(fb); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// unlinked removes on one mount what the other has open.
func unlinked(t *testing.T, a, b *cluster.Mount) {
	data := witness.Bytes(3, 300_000)
	if err := os.WriteFile(a.Path("open"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	fa, _ := both(t, a, b, "open")
	if err := os.Remove(b.Path("open")); err != nil {
		t.Fatal(err)
	}
	cluster.DropCaches(t)
	if got, err := io.ReadAll(io.NewSectionReader(fa, 0, 1<<30)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("reading a file that was removed elsewhere: %d bytes, %v", len(got), err)
	}
	if _, err := fa.WriteAt([]byte("more"), int64(len(data))); err != nil {
		t.Errorf("writing a file that was removed elsewhere: %v", err)
	}
}

// death kills a mount that holds locks and has an unlinked file open.
func death(t *testing.T, c *cluster.Cluster, a, b *cluster.Mount) {
	type held struct {
		lock
		fb *os.File
	}
	var all []held
	for _, l := range lockings {
		fa, fb := both(t, a, b, "held by "+l.name)
		if err := l.try(fa); err != nil {
			t.Fatal(err)
		}
		all = append(all, held{l, fb})
	}
	const size = 1 << 20
	orphan, err := os.Create(a.Path("orphan"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { orphan.Close() }) //nolint:errcheck // its mount is dead
	if _, err = orphan.Write(witness.Bytes(4, size)); err == nil {
		err = errors.Join(orphan.Sync(), os.Remove(a.Path("orphan")))
	}
	if err != nil {
		t.Fatal(err)
	}
	with := used(t, c)
	if with < size {
		t.Errorf("with an open file of %d bytes that was removed, files hold %d bytes", size, with)
	}
	if err := os.WriteFile(a.Path("left"), []byte("dirty"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.Kill(t)
	began := time.Now()
	for _, h := range all {
		cluster.Await(t, leaseLimit, func() error {
			if err := h.try(h.fb); err != nil {
				return fmt.Errorf("%s: the holder is dead: %w", h.name, err)
			}
			return nil
		})
		t.Logf("%s: a dead holder's lock was free after %.1f s", h.name, time.Since(began).Seconds())
	}
	cluster.Await(t, leaseLimit, func() error {
		if got := used(t, c); got > with-size+int64(len("dirty")) { // of the file above
			return fmt.Errorf("a dead mount had a removed file of %d bytes open: files hold %d bytes, and %d before it died", size, got, with)
		}
		return nil
	})
	t.Logf("what it had open was gone after %.1f s", time.Since(began).Seconds())
	if err := os.WriteFile(b.Path("left"), []byte("mine now"), 0o644); err != nil {
		t.Errorf("writing what the dead mount wrote: %v", err)
	}
}

// used is how many bytes all files hold, those without a name among them.
func used(tb testing.TB, c *cluster.Cluster) int64 {
	tb.Helper()
	s, err := c.Status(tb)
	if err != nil {
		tb.Fatal(err)
	}
	text, _, _ := strings.Cut(s["used"], " ")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		tb.Fatalf("dosctl status: used %s", s["used"])
	}
	return n
}
