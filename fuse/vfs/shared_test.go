package vfs_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dos/fuse/vfs"
	"dos/fuse/vfs/vfstest"
	"dos/meta"
	"dos/meta/client"
)

// create makes a file of mode 0644 in the root and opens it.
func create(t testing.TB, m *vfstest.Mount, name string) *vfs.File {
	t.Helper()
	_, f, err := m.CreateOpen(t.Context(), meta.Root, name, meta.Node{Mode: meta.TypeFile | 0o644}, syscall.O_RDWR|syscall.O_CREAT)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func open(t testing.TB, m *vfstest.Mount, ino meta.Ino) *vfs.File {
	t.Helper()
	f, err := m.Open(t.Context(), ino, syscall.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func all(t testing.TB, f *vfs.File, size int64) []byte {
	t.Helper()
	p := make([]byte, size)
	n, err := f.ReadAt(t.Context(), p, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p[:n]
}

// Random operations, one after the other, each on any mount: all see what was
// done before, wherever.
func TestSharedModel(t *testing.T) {
	const files, maxSize = 3, 96 << 10
	const keepSize, punchHole = 1, 2 // of fallocate(2)
	rnd := vfs.Seed(t)
	c := vfstest.New(t, 3, 0o755)
	ctx := t.Context()
	inos := make([]meta.Ino, files)
	want := make([][]byte, files)
	opened := make([]map[int]*vfs.File, files) // by mount
	for i := range files {
		f := create(t, c.Mounts[i%len(c.Mounts)], fmt.Sprint(i))
		inos[i], opened[i] = f.Ino(), map[int]*vfs.File{i % len(c.Mounts): f}
	}
	steps := 1500
	if testing.Short() {
		steps = 300
	}
	for step := range steps {
		mi, i := rnd.IntN(len(c.Mounts)), rnd.IntN(files)
		if rnd.IntN(3) > 0 { // as programs do, stay with a file for a while
			mi = step / 20 % len(c.Mounts)
		}
		m := c.Mounts[mi]
		f := opened[i][mi]
		if f == nil {
			f = open(t, m, inos[i])
			opened[i][mi] = f
		}
		off := rnd.Int64N(maxSize)
		size := rnd.Int64N(1<<rnd.IntN(16)) + 1
		put := func(off int64, p []byte) {
			if grow := off + int64(len(p)) - int64(len(want[i])); grow > 0 {
				want[i] = append(want[i], make([]byte, grow)...)
			}
			copy(want[i][off:], p)
		}
		var what string
		var err error
		switch k := rnd.IntN(20); {
		case k < 6:
			p := bytes.Repeat([]byte{byte(step)}, int(size))
			put(off, p)
			what = "write"
			_, err = f.WriteAt(ctx, p, off, 0)
		case k < 8:
			if len(want[i]) > maxSize {
				continue
			}
			p := bytes.Repeat([]byte{byte(step)}, int(size))
			put(int64(len(want[i])), p)
			what = "append"
			_, err = f.WriteAt(ctx, p, 0, vfs.Append)
		case k < 9:
			what = "truncate"
			want[i] = append(want[i][:min(off, int64(len(want[i])))], make([]byte, max(0, off-int64(len(want[i]))))...)
			_, err = m.SetAttr(ctx, inos[i], meta.SetAttr{Size: &off})
		case k < 10:
			what = "fsync"
			err = f.Fsync(ctx, true)
		case k < 12:
			what = "close"
			err = f.Flush(ctx)
			f.Release()
			delete(opened[i], mi)
		case k < 13:
			what = "punch"
			if end := min(off+size, int64(len(want[i]))); end > off {
				clear(want[i][off:end])
			}
			err = f.Allocate(ctx, off, size, punchHole|keepSize)
		case k < 15:
			what = "lookup"
			var a meta.Attr
			if a, err = m.Lookup(ctx, meta.Root, fmt.Sprint(i)); err == nil && a.Size != int64(len(want[i])) {
				t.Fatalf("step %d: lookup of %d on %d: %d bytes, want %d", step, i, mi, a.Size, len(want[i]))
			}
		case k < 17:
			what = "stat"
			var a meta.Attr
			if a, err = m.Attr(ctx, inos[i]); err == nil && a.Size != int64(len(want[i])) {
				t.Fatalf("step %d: stat of %d on %d: %d bytes, want %d", step, i, mi, a.Size, len(want[i]))
			}
		default:
			what = "read"
			if got := all(t, f, 4*maxSize); !bytes.Equal(got, want[i]) {
				t.Fatalf("step %d: file %d on %d: %d bytes, want %d, or others", step, i, mi, len(got), len(want[i]))
			}
		}
		if err != nil {
			t.Fatalf("step %d: %s of file %d on mount %d: %v", step, what, i, mi, err)
		}
	}
	check, err := (client.Stripes{Caller: c.Meta}).Check(ctx)
	if err != nil || len(check.Problems) > 0 {
		t.Errorf("%v %v", err, check.Problems)
	}
}

// A read that starts after a write has returned sees it, while everybody works
// on the same files at once.
func TestSharedRegisters(t *testing.T) {
	const files = 2
	c := vfstest.New(t, 3, 0o755)
	var kernels []*kernel
	for _, m := range c.Mounts {
		vfs.Eager(m.FS)
		kernels = append(kernels, newKernel(m))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	type register struct {
		ino      meta.Ino
		writing  sync.Mutex // one writer at a time, on any mount
		begun    atomic.Uint64
		returned atomic.Uint64
	}
	var regs [files]*register
	for i := range regs {
		f := create(t, c.Mounts[0], fmt.Sprint(i))
		var zero [8]byte
		if _, err := f.WriteAt(t.Context(), zero[:], 0, 0); err != nil {
			t.Fatal(err)
		}
		regs[i] = &register{ino: f.Ino()}
		f.Release()
	}
	var wrote, read, cached atomic.Int64
	var wg sync.WaitGroup
	for mi, m := range c.Mounts {
		for worker := range 3 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(mi), uint64(worker)))
				for ctx.Err() == nil {
					r := regs[rnd.IntN(files)]
					f, err := m.Open(t.Context(), r.ino, syscall.O_RDWR)
					if err != nil {
						t.Error(err)
						return
					}
					for range rnd.IntN(40) {
						if worker == 0 {
							if rnd.IntN(4) > 0 {
								break
							}
							r.writing.Lock()
							v := r.begun.Add(1)
							_, err := f.WriteAt(t.Context(), binary.BigEndian.AppendUint64(nil, v), 0, 0)
							if err == nil {
								r.returned.Store(v)
							}
							r.writing.Unlock()
							if err != nil {
								t.Error(err)
							}
							wrote.Add(1)
							continue
						}
						least := r.returned.Load()
						v, hit, err := kernels[mi].read(t.Context(), f)
						if err != nil {
							t.Error(err)
						}
						if v < least || v > r.begun.Load() {
							t.Errorf("mount %d read %d, cached %v; at least %d was written", mi, v, hit, least)
						}
						if read.Add(1); hit {
							cached.Add(1)
							time.Sleep(50 * time.Microsecond) // reading memory takes the processor from all others
						}
					}
					if err := f.Flush(t.Context()); err != nil {
						t.Error(err)
					}
					f.Release()
				}
			})
		}
	}
	wg.Wait()
	t.Logf("%d writes, %d reads, %d of them without asking", wrote.Load(), read.Load(), cached.Load())
	if wrote.Load() < 20 || read.Load() < 20 || cached.Load() < 20 {
		t.Error("hardly anything happened")
	}
}

// What one mount unlinks, the others that have it open go on using.
func TestSharedUnlink(t *testing.T) {
	c := vfstest.New(t, 3, 0o755)
	ctx := t.Context()
	a, b, other := c.Mounts[0], c.Mounts[1], c.Mounts[2]
	f := create(t, a, "f")
	if _, err := f.WriteAt(ctx, []byte("before"), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Unlink(ctx, meta.Root, "f"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Lookup(ctx, meta.Root, "f"); !errors.Is(err, meta.NotExist) {
		t.Errorf("lookup of what was removed: %v", err)
	}
	files := client.Files{Caller: c.Meta}
	// Until all who do not use it have said so.
	waitFor(t, func() bool {
		kept, err := (client.Files{Caller: client.Direct(c.Meta, b.Presence.Session())}).Asked(ctx, 10)
		also, err2 := (client.Files{Caller: client.Direct(c.Meta, other.Presence.Session())}).Asked(ctx, 10)
		mine, err3 := (client.Files{Caller: client.Direct(c.Meta, a.Presence.Session())}).Asked(ctx, 10)
		if err := errors.Join(err, err2, err3); err != nil {
			t.Fatal(err)
		}
		return len(kept)+len(also)+len(mine) == 0
	})
	if _, err := f.WriteAt(ctx, []byte("after!"), 6, 0); err != nil {
		t.Errorf("writing what was removed elsewhere: %v", err)
	}
	if got := all(t, f, 100); string(got) != "beforeafter!" {
		t.Errorf("it holds %q", got)
	}
	if attr, err := a.Attr(ctx, f.Ino()); err != nil || attr.Nlink != 0 || attr.Size != 12 {
		t.Errorf("%+v, %v", attr, err)
	}
	if _, err := other.Open(ctx, f.Ino(), 0); !errors.Is(err, meta.NotExist) {
		t.Errorf("opening what was removed: %v", err)
	}
	if err := f.Flush(ctx); err != nil {
		t.Error(err)
	}
	f.Release()
	waitFor(t, func() bool {
		_, err := files.Attr(ctx, f.Ino())
		return errors.Is(err, meta.NotExist)
	})
}

// waitFor waits for what happens without anyone asking.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it does not happen")
		}
	}
}

// When its session ends, a mount loses what it had not stored, says so once and
// goes on.
func TestSharedFenced(t *testing.T) {
	c := vfstest.New(t, 2, 0o755)
	ctx := t.Context()
	a, b := c.Mounts[0], c.Mounts[1]
	f := create(t, a, "f")
	big := bytes.Repeat([]byte("x"), 100<<10)
	if _, err := f.WriteAt(ctx, big, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Fsync(ctx, true); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, bytes.Repeat([]byte("y"), 100<<10), 0, 0); err != nil {
		t.Fatal(err)
	}
	old := a.Presence.Session()
	if err := (client.Session{Caller: c.Meta}).End(ctx, old); err != nil {
		t.Fatal(err)
	}
	// Who comes next sees what was stored.
	g := open(t, b, f.Ino())
	if got := all(t, g, 200<<10); !bytes.Equal(got, big) {
		t.Errorf("%d bytes, or others than were stored", len(got))
	}
	if err := f.Fsync(ctx, true); err == nil {
		t.Error("fsync of what was lost succeeds")
	}
	waitFor(t, func() bool { return a.Presence.Session() != old })
	// It may have been told already; from now on all is well.
	_ = f.Flush(ctx)
	if err := f.Fsync(ctx, true); err != nil {
		t.Errorf("told again: %v", err)
	}
	if got := all(t, f, 200<<10); !bytes.Equal(got, big) {
		t.Errorf("%d bytes, or others than were stored", len(got))
	}
	if _, err := f.WriteAt(ctx, bytes.Repeat([]byte("z"), 100<<10), 0, 0); err != nil {
		t.Errorf("writing under the next session: %v", err)
	}
	if err := f.Fsync(ctx, true); err != nil {
		t.Errorf("storing under the next session: %v", err)
	}
	if got := all(t, g, 200<<10); !bytes.Equal(got, bytes.Repeat([]byte("z"), 100<<10)) {
		t.Errorf("%d bytes, or others than were written since", len(got))
	}
}

// A mount that is cut off is not believed in: when the others have waited for
// its session to end, it serves nothing from memory, and what it had not stored
// is lost.
func TestSharedCut(t *testing.T) {
	t.Parallel() // it takes a session's time to live
	c := vfstest.New(t, 2, 0o755)
	ctx := t.Context()
	a, b := c.Mounts[0], c.Mounts[1]
	f := create(t, a, "f")
	write := func(f *vfs.File, text string) error {
		_, err := f.WriteAt(ctx, []byte(text), 0, 0)
		return err
	}
	if err := errors.Join(write(f, "stored"), f.Fsync(ctx, true), write(f, "buried")); err != nil {
		t.Fatal(err)
	}
	a.Cut(true)
	if got := all(t, f, 10); string(got) != "buried" {
		t.Errorf("it does not trust its session at all: %q", got)
	}
	g := open(t, b, f.Ino())
	if got := all(t, g, 10); string(got) != "stored" {
		t.Errorf("the other reads %q", got)
	}
	if err := errors.Join(write(g, "others"), g.Fsync(ctx, true)); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	var p [10]byte
	if n, err := f.ReadAt(short, p[:], 0); err == nil {
		t.Errorf("read %q, cut off and without a session", p[:n])
	}
	if _, err := f.WriteAt(short, []byte("more"), 0, 0); err == nil {
		t.Error("wrote, cut off and without a session")
	}
	if _, err := a.Attr(short, f.Ino()); err == nil {
		t.Error("attributes, cut off and without a session")
	}
	old := a.Presence.Session()
	a.Cut(false)
	waitFor(t, func() bool { return a.Presence.Session() != old })
	if got := all(t, f, 10); string(got) != "others" {
		t.Errorf("after it is back it reads %q", got)
	}
	if err := f.Fsync(ctx, true); !errors.Is(err, meta.Lost) && !errors.Is(err, meta.Expired) {
		t.Errorf("what it says of the data that was lost: %v", err)
	}
	if err := errors.Join(write(f, "better"), f.Fsync(ctx, true)); err != nil {
		t.Error(err)
	}
	if got := all(t, g, 10); string(got) != "better" {
		t.Errorf("the other reads %q", got)
	}
}
