package vfs

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
)

// What the caller knows by its number can be opened although its name has gone
// to another file, or its only name is removed, and goes when it is forgotten.
func TestHold(t *testing.T) {
	for _, how := range []string{"unlink", "rename over"} {
		synctest.Test(t, func(t *testing.T) {
			m, d := newFakeMeta(), newFakeData()
			fs, _ := mount(t, Config{Meta: m, Data: d})
			f := create(t, fs, "f")
			write(t, f, []byte("hello"), 0)
			if err := f.Flush(bg); err != nil {
				t.Fatal(err)
			}
			ino := f.Ino()
			f.Release()
			fs.Hold(ino)
			fs.Hold(ino)
			var err error
			if how == "unlink" {
				err = fs.Unlink(bg, meta.Root, "f")
			} else {
				create(t, fs, "g").Release()
				err = fs.Rename(bg, meta.Root, "g", meta.Root, "f", 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range cachedInodes + 10 { // push what nobody holds out of the cache
				fs.put(fs.get(meta.Ino(1000000 + i)))
			}
			fs.Forget(ino, 1)
			time.Sleep(time.Minute)
			late, err := fs.Open(bg, ino, 0)
			if err != nil {
				t.Fatalf("%s: open by number: %v", how, err)
			}
			if got := contents(t, late); string(got) != "hello" {
				t.Errorf("%s: it has %q", how, got)
			}
			fs.Forget(ino, 1)
			time.Sleep(time.Minute)
			if !m.has(ino) {
				t.Errorf("%s: an open file is gone", how)
			}
			late.Release()
			time.Sleep(time.Minute)
			if m.has(ino) {
				t.Errorf("%s: the file is still there after it was closed and forgotten", how)
			}
			if len(fs.known) > 0 {
				t.Errorf("%s: known are %v", how, fs.known)
			}
		})
	}
}

// A file that is held and loses one of two names stays, and goes with the
// other one.
func TestHoldTwoNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		ino := f.Ino()
		f.Release()
		fs.Hold(ino)
		if _, err := fs.Link(bg, ino, meta.Root, "g"); err != nil {
			t.Fatal(err)
		}
		if err := fs.Unlink(bg, meta.Root, "f"); err != nil {
			t.Fatal(err)
		}
		fs.Forget(ino, 1)
		time.Sleep(time.Minute)
		if a, err := fs.Lookup(bg, meta.Root, "g"); err != nil || a.Nlink != 1 {
			t.Fatalf("%+v, %v", a, err)
		}
		if err := fs.Unlink(bg, meta.Root, "g"); err != nil {
			t.Fatal(err)
		}
		if _, err := fs.Attr(bg, ino); !errors.Is(err, meta.NotExist) || m.has(ino) {
			t.Errorf("the inode is there without a name: %v", err)
		}
	})
}

// Removing many files that are forgotten one by one does not drop them one by one.
func TestDropsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const files = 3*dropBatch + 10
		m, d := newFakeMeta(), newFakeData()
		fs, _ := mount(t, Config{Meta: m, Data: d})
		for i := range files {
			name := fmt.Sprint(i)
			a, err := fs.Create(bg, meta.Root, name, meta.Node{Mode: meta.TypeFile | 0o644})
			if err != nil {
				t.Fatal(err)
			}
			fs.Hold(a.Ino)
			if err := fs.Unlink(bg, meta.Root, name); err != nil {
				t.Fatal(err)
			}
			fs.Forget(a.Ino, 1)
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		if n := m.count("drop"); n > 5 {
			t.Errorf("%d drops", n)
		}
		synctest.Wait()
		if len(m.nodes) != 1 {
			t.Errorf("%d inodes are left", len(m.nodes)-1)
		}
	})
}
