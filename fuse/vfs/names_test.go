package vfs

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
)

func TestUnlinkOpen(t *testing.T) {
	for _, how := range []string{"unlink", "rename over"} {
		synctest.Test(t, func(t *testing.T) {
			m, d := newFakeMeta(), newFakeData()
			fs, _ := mount(t, Config{Meta: m, Data: d})
			f := create(t, fs, "f")
			write(t, f, []byte("hello"), 0)
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
			a, err := fs.Attr(bg, f.Ino())
			if err != nil || a.Nlink != 0 || a.Size != 5 {
				t.Errorf("%s: stat of the open file: %+v, %v", how, a, err)
			}
			write(t, f, []byte("!"), 5)
			if got := contents(t, f); string(got) != "hello!" {
				t.Errorf("%s: the open file has %q", how, got)
			}
			writes := m.count("write")
			if err := f.Flush(bg); err != nil {
				t.Error(err)
			}
			f.Release()
			time.Sleep(time.Second)
			synctest.Wait()
			if m.has(f.Ino()) {
				t.Errorf("%s: the file is still there after its last close", how)
			}
			if n := m.count("write"); n != writes {
				t.Errorf("%s: the data of a file without a name was stored", how)
			}
			if used, _ := fs.mem.taken(); used != 0 {
				t.Errorf("%s: its data still takes %d bytes", how, used)
			}
			if _, err := fs.Open(bg, f.Ino(), 0); !errors.Is(err, meta.NotExist) {
				t.Errorf("%s: open: %v", how, err)
			}
		})
	}
}

func TestUnlinkClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		m.fault = func(op string, _ bool) error {
			if op == "write" {
				return meta.Unavailable
			}
			return nil
		}
		fs, stop := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		write(t, f, []byte("hello"), 0)
		if err := f.Flush(bg); !errors.Is(err, meta.Unavailable) {
			t.Fatal(err)
		}
		f.Release()
		if err := fs.Unlink(bg, meta.Root, "f"); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Errorf("the data of a file that is gone is in the way: %v", err)
		}
		if m.count("drop") != 0 {
			t.Error("a file that was not open was kept")
		}
	})
}

// An inode that is not open keeps its other names; one that is, too.
func TestUnlinkOneOfTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		if _, err := fs.Link(bg, f.Ino(), meta.Root, "g"); err != nil {
			t.Fatal(err)
		}
		write(t, f, []byte("x"), 0)
		if err := fs.Unlink(bg, meta.Root, "f"); err != nil {
			t.Fatal(err)
		}
		if err := f.Flush(bg); err != nil {
			t.Fatal(err)
		}
		f.Release()
		time.Sleep(time.Second)
		a, err := fs.Lookup(bg, meta.Root, "g")
		if err != nil || a.Nlink != 1 || a.Size != 1 || m.count("drop") != 0 {
			t.Errorf("%+v, %v, %d drops", a, err, m.count("drop"))
		}
	})
}

func TestDropIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		left := 3
		m.fault = func(op string, after bool) error {
			if op == "drop" && !after && left > 0 {
				left--
				return meta.Unavailable
			}
			return nil
		}
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		if err := fs.Unlink(bg, meta.Root, "f"); err != nil {
			t.Fatal(err)
		}
		f.Release()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if m.has(f.Ino()) {
			t.Error("the inode was not dropped")
		}
	})
}

// Write, rename over: a crash shows the old file or the new one.
func TestRenameStoresFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "new")
		defer f.Release()
		write(t, f, []byte("hello"), 0)
		if err := fs.Rename(bg, meta.Root, "new", meta.Root, "f", 0); err != nil {
			t.Fatal(err)
		}
		c := m.clone()
		if a := c.nodes[c.nodes[meta.Root].names["f"]].attr; a.Size != 5 {
			t.Errorf("after a crash the file has %d bytes", a.Size)
		}
	})
}

func TestCreateOpen(t *testing.T) {
	m, d := newFakeMeta(), newFakeData()
	fs, _ := mount(t, Config{Meta: m, Data: d})
	node := meta.Node{Mode: meta.TypeFile | 0o600}
	a, f, err := fs.CreateOpen(bg, meta.Root, "f", node, syscall.O_RDWR|syscall.O_EXCL)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	write(t, f, []byte("hello"), 0)
	if _, _, err := fs.CreateOpen(bg, meta.Root, "f", node, syscall.O_RDWR|syscall.O_EXCL); !errors.Is(err, meta.Exist) {
		t.Errorf("with O_EXCL: %v", err)
	}
	b, g, err := fs.CreateOpen(bg, meta.Root, "f", node, syscall.O_RDWR)
	if err != nil || b.Ino != a.Ino || b.Size != 5 {
		t.Fatalf("without: %+v, %v", b, err)
	}
	g.Release()
	b, g, err = fs.CreateOpen(bg, meta.Root, "f", node, syscall.O_RDWR|syscall.O_TRUNC)
	if err != nil || b.Size != 0 {
		t.Fatalf("with O_TRUNC: %+v, %v", b, err)
	}
	g.Release()
	if _, err := fs.Create(bg, meta.Root, "d", meta.Node{Mode: meta.TypeDir | 0o700}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := fs.CreateOpen(bg, meta.Root, "d", node, syscall.O_RDWR); !errors.Is(err, meta.IsDir) {
		t.Errorf("of a directory: %v", err)
	}
}

func TestDir(t *testing.T) {
	m, d := newFakeMeta(), newFakeData()
	fs, _ := mount(t, Config{Meta: m, Data: d})
	for i := range 3000 {
		if _, err := fs.Create(bg, meta.Root, fmt.Sprintf("%05d", i), meta.Node{Mode: meta.TypeFile | 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := fs.OpenDir(bg, meta.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Release()
	list := func(from int64, plus bool, each func(pos int64)) (names []string) {
		for pos := from; ; pos++ {
			e, ok, err := dir.Entry(bg, pos, plus)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return names
			}
			if plus && (e.Attr == nil || e.Attr.Ino != e.Ino) {
				t.Fatalf("entry %+v has attributes %+v", e, e.Attr)
			}
			names = append(names, e.Name)
			if each != nil {
				each(pos)
			}
		}
	}
	all := list(0, true, nil)
	if len(all) != 3002 || !slices.IsSorted(all[2:]) {
		t.Fatalf("%d entries", len(all))
	}
	// Entries are removed while they are listed; what was there and stays is
	// listed once, and positions stay.
	if again := list(0, false, func(pos int64) {
		if pos >= 2 && pos%3 == 0 {
			if err := fs.Unlink(bg, meta.Root, all[pos]); err != nil {
				t.Fatal(err)
			}
		}
	}); !slices.Equal(again, all) {
		t.Errorf("%d entries while they are removed, want %d", len(again), len(all))
	}
	if from := list(1500, false, nil); !slices.Equal(from, all[1500:]) {
		t.Errorf("going back to 1500 gives %d entries, the first %q", len(from), from[0])
	}
	if fresh := list(0, true, nil); len(fresh) != 2002 {
		t.Errorf("listed afresh: %d entries, want 2002", len(fresh))
	}
	if _, _, err := dir.Entry(bg, -1, false); !errors.Is(err, meta.Invalid) {
		t.Errorf("position -1: %v", err)
	}
}

// Attributes in a listing are those of now, not of when the batch was asked for.
func TestDirAttrs(t *testing.T) {
	m, d := newFakeMeta(), newFakeData()
	fs, _ := mount(t, Config{Meta: m, Data: d})
	f := create(t, fs, "f")
	f.Release()
	dir, err := fs.OpenDir(bg, meta.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Release()
	if _, _, err := dir.Entry(bg, 0, true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := dir.Entry(bg, 2, true); err != nil {
		t.Fatal(err)
	}
	mode := uint32(0o600)
	if _, err := fs.SetAttr(bg, f.Ino(), meta.SetAttr{Mode: &mode}); err != nil {
		t.Fatal(err)
	}
	for i := range cachedInodes + 10 { // push it out of the cache
		fs.put(fs.get(meta.Ino(1000000 + i)))
	}
	if n := fs.peek(f.Ino()); n != nil {
		t.Fatal("it is still cached")
	}
	e, ok, err := dir.Entry(bg, 2, true)
	if err != nil || !ok || e.Attr == nil || e.Attr.Mode&0o777 != 0o600 {
		t.Errorf("%+v, %v, %v: attributes %+v", e, ok, err, e.Attr)
	}
}

// A name that was listed, and then removed or moved, is not told again as one
// that is there: whoever remembers it would find it for as long as he believes.
func TestDirStale(t *testing.T) {
	m, d := newFakeMeta(), newFakeData()
	fs, _ := mount(t, Config{Meta: m, Data: d})
	for _, name := range []string{"a", "b", "c"} {
		create(t, fs, name).Release()
	}
	dir, err := fs.OpenDir(bg, meta.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Release()
	at := func(pos int64) meta.Entry {
		e, ok, err := dir.Entry(bg, pos, true)
		if err != nil || !ok {
			t.Fatalf("entry %d: %v, %v", pos, ok, err)
		}
		return e
	}
	at(0)
	if e := at(2); e.Attr == nil {
		t.Fatalf("%q has no attributes", e.Name)
	}
	if err := fs.Rename(bg, meta.Root, "b", meta.Root, "z", 0); err != nil {
		t.Fatal(err)
	}
	if e := at(3); e.Name != "b" || e.Attr != nil {
		t.Errorf("%q has attributes: %+v", e.Name, e.Attr)
	}
	at(0)
	if e := at(4); e.Name != "z" || e.Attr == nil {
		t.Errorf("listed afresh: %q, %+v", e.Name, e.Attr)
	}
}

func TestRmdirOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		fs, _ := mount(t, Config{Meta: m, Data: d})
		a, err := fs.Create(bg, meta.Root, "d", meta.Node{Mode: meta.TypeDir | 0o755})
		if err != nil {
			t.Fatal(err)
		}
		dir, err := fs.OpenDir(bg, a.Ino)
		if err != nil {
			t.Fatal(err)
		}
		if err := fs.Rmdir(bg, meta.Root, "d"); err != nil {
			t.Fatal(err)
		}
		if a, err := fs.Attr(bg, a.Ino); err != nil || a.Nlink != 0 {
			t.Errorf("%+v, %v", a, err)
		}
		if _, ok, err := dir.Entry(bg, 2, false); ok || err != nil {
			t.Errorf("an entry in a removed directory: %v, %v", ok, err)
		}
		dir.Release()
		time.Sleep(time.Second)
		synctest.Wait()
		if m.has(a.Ino) {
			t.Error("it was not dropped")
		}
	})
}

func TestXattr(t *testing.T) {
	m, d := newFakeMeta(), newFakeData()
	fs, _ := mount(t, Config{Meta: m, Data: d})
	f := create(t, fs, "f")
	defer f.Release()
	for range 10 {
		if _, err := fs.Xattr(bg, f.Ino(), "security.capability"); !errors.Is(err, meta.NoAttr) {
			t.Fatal(err)
		}
	}
	if n := m.count("xattr"); n != 1 {
		t.Errorf("an absent attribute was asked for %d times, want once", n)
	}
	if err := fs.SetXattr(bg, f.Ino(), "user.a", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if v, err := fs.Xattr(bg, f.Ino(), "user.a"); err != nil || string(v) != "1" {
		t.Errorf("%q, %v", v, err)
	}
	if list, err := fs.Xattrs(bg, f.Ino()); err != nil || !slices.Equal(list, []string{"user.a"}) {
		t.Errorf("%q, %v", list, err)
	}
	if err := fs.RemoveXattr(bg, f.Ino(), "user.a"); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Xattr(bg, f.Ino(), "user.a"); !errors.Is(err, meta.NoAttr) {
		t.Errorf("after it was removed: %v", err)
	}
}
