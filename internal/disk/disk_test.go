package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// Both file systems behave alike.
func TestBoth(t *testing.T) {
	for _, fsys := range []struct {
		name string
		fs   FS
		dir  string
	}{
		{"real", Real{}, t.TempDir()},
		{"memory", new(Mem), "/"},
		{"faulty without faults", &Faulty{FS: new(Mem)}, "/"},
	} {
		for _, test := range []struct {
			name string
			run  func(t *testing.T, f FS, dir string)
		}{
			{"names", names},
			{"contents", contents},
			{"holes", holes},
			{"locks", locks},
			{"closed", closed},
		} {
			t.Run(fsys.name+"/"+test.name, func(t *testing.T) {
				dir := filepath.Join(fsys.dir, test.name)
				must(t, fsys.fs.Mkdir(dir))
				test.run(t, fsys.fs, dir)
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, f FS, dir string) {
	in := func(name string) string { return filepath.Join(dir, name) }
	a, err := f.Create(in("a"))
	must(t, err)
	if _, err := f.Create(in("a")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create twice = %v, want ErrExist", err)
	}
	if err := f.Mkdir(in("a")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Mkdir over a file = %v, want ErrExist", err)
	}
	if _, err := f.Open(in("b")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of nothing = %v, want ErrNotExist", err)
	}
	if _, err := f.Create(in("no/b")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Create below nothing = %v, want ErrNotExist", err)
	}
	if err := f.Remove(in("b")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove of nothing = %v, want ErrNotExist", err)
	}
	if err := f.Remove(dir); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("Remove of a full directory = %v, want ENOTEMPTY", err)
	}
	b, err := f.Create(in("b"))
	must(t, err)
	must(t, f.Rename(in("a"), in("b")))
	if got, err := f.ReadDir(dir); err != nil || !slices.Equal(got, []string{"b"}) {
		t.Errorf("ReadDir = %q, %v, want b", got, err)
	}
	if st, err := b.Stat(); err != nil || st.Links != 0 {
		t.Errorf("Stat of the file renamed over = %+v, %v, want no links", st, err)
	}
	open, err := a.Stat()
	must(t, err)
	if st, err := f.Stat(in("b")); err != nil || !st.Same(open) || st.Links != 1 || st.Dir {
		t.Errorf("Stat by name = %+v, %v, want %+v", st, err, open)
	}
	if st, err := f.Stat(dir); err != nil || !st.Dir {
		t.Errorf("Stat of a directory = %+v, %v", st, err)
	}
	must(t, f.SyncDir(dir))
	if sp, err := f.Space(dir); err != nil || sp.Capacity <= 0 || sp.Free <= 0 || sp.Free > sp.Capacity {
		t.Errorf("Space = %+v, %v", sp, err)
	}
	must(t, errors.Join(a.Close(), b.Close(), f.Remove(in("b"))))
}

func contents(t *testing.T, f FS, dir string) {
	file, err := f.Create(filepath.Join(dir, "f"))
	must(t, err)
	must(t, file.WriteVec([][]byte{[]byte("hello"), nil, []byte(", "), []byte("world")}, 4090))
	if _, err := file.WriteAt([]byte("W"), 4097); err != nil {
		t.Fatal(err)
	}
	must(t, file.Sync())
	p := make([]byte, 20)
	if n, err := file.ReadAt(p, 4088); n != 14 || err != io.EOF || string(p[:n]) != "\x00\x00hello, World" {
		t.Errorf("ReadAt = %d, %v, %q", n, err, p[:n])
	}
	must(t, file.Truncate(4092))
	must(t, file.Truncate(4094))
	if n, err := file.ReadAt(p, 4090); n != 4 || err != io.EOF || string(p[:n]) != "he\x00\x00" {
		t.Errorf("ReadAt after Truncate = %d, %v, %q, want he and two zeros", n, err, p[:n])
	}
	must(t, file.Allocate(10_000))
	if st, err := file.Stat(); err != nil || st.Size != 10_000 {
		t.Errorf("size after Allocate = %d, %v, want 10000", st.Size, err)
	}
	must(t, file.Close())
}

func holes(t *testing.T, f FS, dir string) {
	file, err := f.Create(filepath.Join(dir, "f"))
	must(t, err)
	data := bytes.Repeat([]byte("x"), 64<<10)
	_, err = file.WriteAt(data, 0)
	must(t, err)
	must(t, file.Sync())
	must(t, file.Punch(0, 32<<10))
	must(t, file.Punch(60<<10, 100<<10))
	if st, err := file.Stat(); err != nil || st.Size != 64<<10 {
		t.Errorf("size after Punch = %d, %v, want 65536", st.Size, err)
	}
	p := make([]byte, 64<<10)
	_, err = file.ReadAt(p, 0)
	must(t, err)
	clear(data[:32<<10])
	clear(data[60<<10:])
	if !bytes.Equal(p, data) {
		t.Error("a punched range does not read as zeros, or more was punched")
	}
	if at, err := file.NextData(4096); err != nil || at < 4096 || at > 32<<10 {
		t.Errorf("NextData(4096) = %d, %v, want at most %d", at, err, 32<<10)
	}
	if at, err := file.NextData(64 << 10); err != io.EOF {
		t.Errorf("NextData at the end = %d, %v, want EOF", at, err)
	}
	file.Uncache(0, 64<<10)
	must(t, file.Close())
}

func locks(t *testing.T, f FS, dir string) {
	l, err := f.Lock(dir)
	must(t, err)
	if _, err := f.Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second Lock = %v, want ErrLocked", err)
	}
	must(t, l.Close())
	l, err = f.Lock(dir)
	must(t, err)
	must(t, l.Close())
	if _, err := f.Lock(filepath.Join(dir, "no")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lock of nothing = %v, want ErrNotExist", err)
	}
}

func closed(t *testing.T, f FS, dir string) {
	file, err := f.Create(filepath.Join(dir, "f"))
	must(t, err)
	must(t, file.Close())
	_, read := file.ReadAt(make([]byte, 1), 0)
	for name, err := range map[string]error{
		"ReadAt": read, "WriteVec": file.WriteVec([][]byte{{1}}, 0), "Sync": file.Sync(),
		"Punch": file.Punch(0, 1), "Close": file.Close(),
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close = %v, want ErrClosed", name, err)
		}
	}
}

func read(t *testing.T, m *Mem, name string) string {
	t.Helper()
	f, err := m.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "absent"
	}
	must(t, err)
	defer f.Close()
	st, err := f.Stat()
	must(t, err)
	b := make([]byte, st.Size)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	return string(b)
}

// A power cut takes what was not synced, and nothing else.
func TestCrash(t *testing.T) {
	m := new(Mem)
	for _, step := range []struct {
		name string
		do   func(f File) error
		want string
	}{
		{"written", func(f File) error { _, err := f.WriteAt([]byte("1"), 0); return err }, "absent"},
		{"synced, the name is not", func(f File) error {
			_, err := f.WriteAt([]byte("2"), 0)
			return errors.Join(err, f.Sync())
		}, "absent"},
		{"synced with the name", func(f File) error {
			_, err := f.WriteAt([]byte("3"), 0)
			return errors.Join(err, f.Sync(), m.SyncDir("/"))
		}, "3"},
		{"written again", func(f File) error { _, err := f.WriteAt([]byte("4 and more"), 0); return err }, "3"},
		{"truncated", func(f File) error { return f.Truncate(0) }, "3"},
		{"removed", func(f File) error { return m.Remove("/f") }, "3"},
		{"renamed over", func(f File) error {
			g, err := m.Create("/g")
			return errors.Join(err, g.Sync(), m.Rename("/g", "/f"))
		}, "3"},
		{"removed for good", func(f File) error { return errors.Join(m.Remove("/f"), m.SyncDir("/")) }, "absent"},
	} {
		f, err := m.Open("/f")
		if errors.Is(err, fs.ErrNotExist) {
			f, err = m.Create("/f")
		}
		must(t, err)
		must(t, step.do(f))
		m.Crash(nil)
		if got := read(t, m, "/f"); got != step.want {
			t.Errorf("%s: after a power cut the file is %q, want %q", step.name, got, step.want)
		}
		if err := f.Sync(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: Sync of a file open during the power cut = %v, want ErrClosed", step.name, err)
		}
	}
}

// A torn page is a mixture of sectors, each old or new; both happen.
func TestCrashTears(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(50) {
		m := new(Mem)
		f, err := m.Create("/f")
		must(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte("a"), pageSize), 0)
		must(t, err)
		must(t, errors.Join(f.Sync(), m.SyncDir("/")))
		_, err = f.WriteAt(bytes.Repeat([]byte("b"), pageSize), 0)
		must(t, err)
		m.Crash(rand.New(rand.NewPCG(seed, 0)))
		got := read(t, m, "/f")
		for at := 0; at < pageSize; at += sectorSize {
			sector := got[at : at+sectorSize]
			if sector != string(bytes.Repeat([]byte{sector[0]}, sectorSize)) || sector[0] != 'a' && sector[0] != 'b' {
				t.Fatalf("seed %d: torn within a sector", seed)
			}
		}
		olds := bytes.Count([]byte(got), []byte("a"))
		seen[map[bool]string{true: "old"}[olds == pageSize]+map[bool]string{true: "new"}[olds == 0]] = true
	}
	if len(seen) != 3 {
		t.Errorf("50 power cuts left %v, want old, new and mixed pages", seen)
	}
}

func TestCapacity(t *testing.T) {
	m := &Mem{Capacity: 10 * pageSize}
	f, err := m.Create("/f")
	must(t, err)
	n, err := f.WriteAt(make([]byte, 11*pageSize), 0)
	if n != 10*pageSize || !errors.Is(err, syscall.ENOSPC) || !IsFull(err) {
		t.Errorf("WriteAt = %d, %v, want 10 pages and ENOSPC", n, err)
	}
	must(t, f.Punch(0, 3*pageSize))
	if sp, err := m.Space("/"); err != nil || sp.Free != 3*pageSize {
		t.Errorf("Space = %+v, %v, want 3 pages free", sp, err)
	}
	if err := f.Allocate(11 * pageSize); !IsFull(err) {
		t.Errorf("Allocate of 11 pages = %v, want ENOSPC", err)
	}
	must(t, m.Remove("/f"))
	must(t, f.Close())
	if sp, err := m.Space("/"); err != nil || sp.Free != 10*pageSize {
		t.Errorf("Space after the file is gone = %+v, %v, want 10 pages", sp, err)
	}
}

func TestFaulty(t *testing.T) {
	var ops []string
	f := &Faulty{FS: new(Mem)}
	f.Fail = func(op Op) error {
		ops = append(ops, op.Name)
		switch op.N {
		case 2:
			return ErrShort
		case 3:
			return syscall.EIO
		}
		return nil
	}
	must(t, f.Mkdir("/d"))
	file, err := f.Create("/d/f")
	must(t, err)
	if err := file.WriteVec([][]byte{[]byte("abc"), []byte("def")}, 0); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("WriteVec = %v, want ErrShortWrite", err)
	}
	if err := file.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Sync = %v, want EIO", err)
	}
	p := make([]byte, 6)
	if n, err := file.ReadAt(p, 0); n != 3 || err != io.EOF || string(p[:n]) != "abc" {
		t.Errorf("after a short write ReadAt = %d, %v, %q, want half", n, err, p[:n])
	}
	f.Die()
	if err := f.Remove("/d/f"); err == nil {
		t.Error("Remove without power succeeded")
	}
	if want := []string{"mkdir", "create", "write", "sync", "read"}; !slices.Equal(ops, want) || f.Ops() != 6 {
		t.Errorf("operations %q and %d in all, want %q and 6", ops, f.Ops(), want)
	}
}
