package vfs_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"dos/fuse/vfs"
	"dos/fuse/vfs/vfstest"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/lease"
)

// A kernel believes what a mount says of files as the real one does: for as long as
// it was told, unless it was told otherwise, though before the answer came.
type kernel struct {
	m *vfstest.Mount

	mu     sync.Mutex
	doubts map[meta.Ino]int // how often each inode was doubted; guarded by mu
	pages  map[meta.Ino]page
}

// A page is the first bytes of a file, guarded by kernel.mu.
type page struct {
	val   uint64
	until time.Time
}

func newKernel(m *vfstest.Mount) *kernel {
	k := &kernel{m: m, doubts: make(map[meta.Ino]int), pages: make(map[meta.Ino]page)}
	m.OnDoubt(func(ino meta.Ino) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.doubts[ino]++
		delete(k.pages, ino)
	})
	return k
}

func (k *kernel) doubted(ino meta.Ino) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.doubts[ino]
}

// read returns the number that a file begins with, and whether it had it.
func (k *kernel) read(ctx context.Context, f *vfs.File) (v uint64, hit bool, err error) {
	ino := f.Ino()
	k.mu.Lock()
	p, ok := k.pages[ino]
	before := k.doubts[ino]
	k.mu.Unlock()
	if ok && time.Now().Before(p.until) {
		return p.val, true, nil
	}
	_, good, err := k.m.AttrFor(ctx, ino)
	if err != nil {
		return 0, false, err
	}
	var b [8]byte
	if n, err := f.ReadAt(ctx, b[:], 0); err != nil || n != len(b) {
		return 0, false, fmt.Errorf("read of %d bytes: %w", n, err)
	}
	v = binary.BigEndian.Uint64(b[:])
	k.mu.Lock()
	defer k.mu.Unlock()
	if good > 0 && k.doubts[ino] == before {
		k.pages[ino] = page{v, time.Now().Add(good)}
	}
	return v, false, nil
}

// stare asks for a file's attributes until they may be believed.
func stare(t *testing.T, m *vfstest.Mount, ino meta.Ino) meta.Attr {
	t.Helper()
	var a meta.Attr
	waitFor(t, func() bool {
		var good time.Duration
		var err error
		if a, good, err = m.AttrFor(t.Context(), ino); err != nil {
			t.Fatal(err)
		}
		if good > client.SessionTTL {
			t.Fatalf("believed for %v", good)
		}
		return good > 0
	})
	return a
}

// holding lists what a mount holds leases of.
func holding(t *testing.T, m *vfstest.Mount) []meta.Ino {
	t.Helper()
	var got lease.Leases
	if err := m.Presence.Call(t.Context(), lease.OpHolding, lease.Holding{Session: m.Presence.Session(), Limit: lease.ListMax}, &got); err != nil {
		t.Fatal(err)
	}
	return got.Inos
}

// file makes a file with some bytes that nobody has a lease of.
func file(t *testing.T, m *vfstest.Mount, name string) meta.Ino {
	t.Helper()
	f := create(t, m, name)
	defer f.Release()
	if _, err := f.WriteAt(t.Context(), []byte("12345678"), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Flush(t.Context()); err != nil { // gives X back
		t.Fatal(err)
	}
	return f.Ino()
}

// A file that is asked for often may be believed, by several mounts at once; every
// change, on a mount that believes or on another, is seen at once by all, and who
// believed was told first.
func TestShare(t *testing.T) {
	size, mode := int64(3), uint32(0o600)
	for _, tc := range []struct {
		what   string
		change func(ctx context.Context, m *vfstest.Mount, ino meta.Ino, name string) error
		seen   func(a meta.Attr) bool
	}{
		{"write", func(ctx context.Context, m *vfstest.Mount, ino meta.Ino, _ string) error {
			f, err := m.Open(ctx, ino, syscall.O_RDWR)
			if err != nil {
				return err
			}
			defer f.Release()
			_, err = f.WriteAt(ctx, []byte("more than that"), 0, 0)
			return err
		}, func(a meta.Attr) bool { return a.Size == 14 }},
		{"truncate", func(ctx context.Context, m *vfstest.Mount, ino meta.Ino, _ string) error {
			_, err := m.SetAttr(ctx, ino, meta.SetAttr{Size: &size})
			return err
		}, func(a meta.Attr) bool { return a.Size == size }},
		{"chmod", func(ctx context.Context, m *vfstest.Mount, ino meta.Ino, _ string) error {
			_, err := m.SetAttr(ctx, ino, meta.SetAttr{Mode: &mode})
			return err
		}, func(a meta.Attr) bool { return a.Mode&0o777 == mode }},
		{"setxattr", func(ctx context.Context, m *vfstest.Mount, ino meta.Ino, _ string) error {
			return m.SetXattr(ctx, ino, "user.a", []byte("b"), 0)
		}, func(a meta.Attr) bool { return a.Ctime > a.Mtime }},
		{"link", func(ctx context.Context, m *vfstest.Mount, ino meta.Ino, name string) error {
			_, err := m.Link(ctx, ino, meta.Root, name+" too")
			return err
		}, func(a meta.Attr) bool { return a.Nlink == 2 }},
		{"unlink", func(ctx context.Context, m *vfstest.Mount, _ meta.Ino, name string) error {
			return m.Unlink(ctx, meta.Root, name)
		}, func(a meta.Attr) bool { return a.Nlink == 0 }},
		{"rename over", func(ctx context.Context, m *vfstest.Mount, _ meta.Ino, name string) error {
			if _, err := m.Create(ctx, meta.Root, name+" other", meta.Node{Mode: meta.TypeFile}); err != nil {
				return err
			}
			return m.Rename(ctx, meta.Root, name+" other", meta.Root, name, 0)
		}, func(a meta.Attr) bool { return a.Nlink == 0 }},
	} {
		t.Run(tc.what, func(t *testing.T) {
			c := vfstest.New(t, 3, 0o755)
			var kernels []*kernel
			for _, m := range c.Mounts {
				kernels = append(kernels, newKernel(m))
			}
			for i, by := range []*vfstest.Mount{c.Mounts[2], c.Mounts[0]} { // who does not read, and who does
				name := fmt.Sprint("f", i)
				ino := file(t, c.Mounts[2], name)
				for _, m := range c.Mounts[:2] {
					f := open(t, m, ino)
					defer f.Release()
					if a := stare(t, m, ino); tc.seen(a) {
						t.Fatalf("seen already: %+v", a)
					}
				}
				began := time.Now()
				if err := tc.change(t.Context(), by, ino, name); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %v", took)
				}
				for j, m := range c.Mounts[:2] {
					if n := kernels[j].doubted(ino); n != 1 {
						t.Errorf("change %d: mount %d was told %d times not to believe", i, j, n)
					}
					if a, _, err := m.AttrFor(t.Context(), ino); err != nil || !tc.seen(a) {
						t.Errorf("change %d: mount %d says %+v, %v", i, j, a, err)
					}
				}
			}
		})
	}
}

// S is not taken of what is looked at a few times, not at once of what was just
// recalled, and not kept of what nobody has open.
func TestShareSparingly(t *testing.T) {
	c := vfstest.New(t, 2, 0o755)
	a, b := c.Mounts[0], c.Mounts[1]
	ino := file(t, a, "f")
	ask := func(times int) (good time.Duration) {
		t.Helper()
		for range times {
			var err error
			if _, good, err = b.AttrFor(t.Context(), ino); err != nil {
				t.Fatal(err)
			}
		}
		return good
	}
	ask(3 * vfs.ShareAfter)
	f := open(t, b, ino)
	ask(vfs.ShareAfter - 2)
	all(t, f, 8)
	if got := holding(t, b); len(got) > 0 {
		t.Errorf("a lease after %d answers: %v", vfs.ShareAfter-1, got)
	}
	stare(t, b, ino)
	if got := holding(t, b); !slices.Equal(got, []meta.Ino{ino}) {
		t.Errorf("held are %v, want %d", got, ino)
	}
	if _, err := a.SetAttr(t.Context(), ino, meta.SetAttr{Mode: new(uint32)}); err != nil {
		t.Fatal(err)
	}
	if good := ask(3 * vfs.ShareAfter); good > 0 || len(holding(t, b)) > 0 {
		t.Errorf("taken again at once, believed for %v", good)
	}
	vfs.Eager(b.FS) // nothing changes for the one that was recalled
	ino = file(t, a, "g")
	g := open(t, b, ino)
	stare(t, b, ino)
	k := newKernel(b)
	f.Release()
	g.Release()
	waitFor(t, func() bool { return len(holding(t, b)) == 0 })
	if n := k.doubted(ino); n != 1 {
		t.Errorf("told %d times not to believe what was given back", n)
	}
}

// What a mount has to itself and only reads becomes S.
func TestShareOwn(t *testing.T) {
	c := vfstest.New(t, 2, 0o755)
	a, b := c.Mounts[0], c.Mounts[1]
	f := create(t, a, "f")
	if _, err := f.WriteAt(t.Context(), []byte("text"), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Fsync(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	for range 3 * vfs.ShareAfter {
		if _, good, err := a.AttrFor(t.Context(), f.Ino()); good > 0 || err != nil {
			t.Fatalf("believed for %v while it is open for writing, %v", good, err)
		}
	}
	g, err := a.Open(t.Context(), f.Ino(), syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Release()
	f.Release()
	stare(t, a, g.Ino())
	if got := all(t, g, 9); string(got) != "text" {
		t.Errorf("read %q", got)
	}
	h := open(t, b, g.Ino())
	defer h.Release()
	stare(t, b, g.Ino()) // both
	if got := append(holding(t, a), holding(t, b)...); !slices.Equal(got, []meta.Ino{g.Ino(), g.Ino()}) {
		t.Errorf("held are %v", got)
	}
}

// Mounts that share a file and change it at once do not wait for each other's lease
// while each keeps its own.
func TestShareClash(t *testing.T) {
	c := vfstest.New(t, 3, 0o755)
	for round := range 8 {
		ino := file(t, c.Mounts[0], fmt.Sprint(round))
		var files []*vfs.File
		for _, m := range c.Mounts {
			files = append(files, open(t, m, ino))
			stare(t, m, ino)
		}
		began := time.Now()
		var wg sync.WaitGroup
		for i, m := range c.Mounts {
			wg.Go(func() {
				var err error
				if (round+i)%2 == 0 {
					_, err = files[i].WriteAt(t.Context(), []byte("x"), int64(10+i), 0)
				} else {
					_, err = m.SetAttr(t.Context(), ino, meta.SetAttr{Mode: new(uint32)})
				}
				if err != nil {
					t.Errorf("round %d: mount %d: %v", round, i, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("round %d took %v", round, took)
		}
		for _, f := range files {
			f.Release()
		}
	}
}

// When the session ends, what was believed under it is not any more.
func TestShareFenced(t *testing.T) {
	c := vfstest.New(t, 2, 0o755)
	a, b := c.Mounts[0], c.Mounts[1]
	k := newKernel(b)
	ino := file(t, a, "f")
	f := open(t, b, ino)
	defer f.Release()
	stare(t, b, ino)
	if err := (client.Session{Caller: c.Meta}).End(t.Context(), b.Presence.Session()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return k.doubted(ino) > 0 })
	stare(t, b, ino) // under the next session
}

// A mount that is cut off believes for as long as it may, and no longer.
func TestShareCut(t *testing.T) {
	t.Parallel() // it takes a session's time to live
	c := vfstest.New(t, 2, 0o755)
	a, b := c.Mounts[0], c.Mounts[1]
	ino := file(t, a, "f")
	f := open(t, b, ino)
	defer f.Release()
	stare(t, b, ino)
	all(t, f, 9) // so that it is known where the bytes lie
	b.Cut(true)
	if got := all(t, f, 9); string(got) != "12345678" {
		t.Errorf("cut off it reads %q", got)
	}
	_, good, err := b.AttrFor(t.Context(), ino)
	if err != nil || good <= 0 {
		t.Fatalf("believed for %v, %v", good, err)
	}
	until := time.Now().Add(good)
	if _, err := a.SetAttr(t.Context(), ino, meta.SetAttr{Mode: new(uint32)}); err != nil {
		t.Fatal(err)
	}
	if early := time.Until(until); early > 0 {
		t.Errorf("it was changed %v before it stopped being believed", early)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, good, err := b.AttrFor(short, ino); err == nil {
		t.Errorf("attributes, believed for %v, cut off and without a session", good)
	}
	var p [9]byte
	if n, err := f.ReadAt(short, p[:], 0); err == nil {
		t.Errorf("read %q, cut off and without a session", p[:n])
	}
}
