package disk

import (
	"errors"
	"io"
	"sync/atomic"
)

// ErrShort, returned by Faulty.Fail for a write, lets half of the bytes through
// before the write fails with io.ErrShortWrite.
var ErrShort = errors.New("disk: short write wanted")

// An Op is one operation that is about to happen.
type Op struct {
	N    int64  // counts from 0, over all operations
	Name string // create, open, lock, mkdir, rename, remove, syncdir, readdir, stat, space; read, write, sync, punch, allocate, truncate, seek, fstat
	Path string
}

// Changes reports whether the operation changes the disk.
func (o Op) Changes() bool {
	switch o.Name {
	case "open", "lock", "readdir", "stat", "space", "read", "seek", "fstat":
		return false
	}
	return true
}

// Faulty is an FS that fails when Fail says so.
type Faulty struct {
	FS FS
	// Fail returns the error of an operation, which then does not happen, or
	// nil to let it happen. It may be called concurrently.
	Fail func(Op) error

	ops  atomic.Int64
	dead atomic.Bool
}

var _ FS = (*Faulty)(nil)

// Ops returns the number of operations so far.
func (f *Faulty) Ops() int64 { return f.ops.Load() }

// Die makes all further operations fail, as those of a program without power do.
func (f *Faulty) Die() { f.dead.Store(true) }

var errDead = errors.New("disk: no power")

func (f *Faulty) fails(name, path string) error {
	n := f.ops.Add(1) - 1
	if f.dead.Load() {
		return fail(name, path, errDead)
	}
	if f.Fail != nil {
		if err := f.Fail(Op{n, name, path}); err != nil {
			return fail(name, path, err)
		}
	}
	if f.dead.Load() { // Fail cut the power
		return fail(name, path, errDead)
	}
	return nil
}

func (f *Faulty) wrap(op, name string, open func(string) (File, error)) (File, error) {
	if err := f.fails(op, name); err != nil {
		return nil, err
	}
	file, err := open(name)
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f, name}, nil
}

func (f *Faulty) Create(name string) (File, error) { return f.wrap("create", name, f.FS.Create) }
func (f *Faulty) Open(name string) (File, error)   { return f.wrap("open", name, f.FS.Open) }

func (f *Faulty) Lock(dir string) (io.Closer, error) {
	if err := f.fails("lock", dir); err != nil {
		return nil, err
	}
	return f.FS.Lock(dir)
}

func (f *Faulty) do(op, name string, run func() error) error {
	if err := f.fails(op, name); err != nil {
		return err
	}
	return run()
}

func (f *Faulty) Mkdir(name string) error {
	return f.do("mkdir", name, func() error { return f.FS.Mkdir(name) })
}

func (f *Faulty) Rename(from, to string) error {
	return f.do("rename", to, func() error { return f.FS.Rename(from, to) })
}

func (f *Faulty) Remove(name string) error {
	return f.do("remove", name, func() error { return f.FS.Remove(name) })
}

func (f *Faulty) SyncDir(name string) error {
	return f.do("syncdir", name, func() error { return f.FS.SyncDir(name) })
}

func (f *Faulty) ReadDir(name string) (names []string, err error) {
	err = f.do("readdir", name, func() (err error) { names, err = f.FS.ReadDir(name); return err })
	return names, err
}

func (f *Faulty) Stat(name string) (st Stat, err error) {
	err = f.do("stat", name, func() (err error) { st, err = f.FS.Stat(name); return err })
	return st, err
}

func (f *Faulty) Space(name string) (sp Space, err error) {
	err = f.do("space", name, func() (err error) { sp, err = f.FS.Space(name); return err })
	return sp, err
}

type faultyFile struct {
	File
	faults *Faulty
	name   string
}

func (f *faultyFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.faults.do("read", f.name, func() (err error) { n, err = f.File.ReadAt(p, off); return err })
	return n, err
}

func (f *faultyFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.faults.fails("write", f.name)
	if errors.Is(err, ErrShort) {
		n, err = f.File.WriteAt(p[:len(p)/2], off)
		return n, errors.Join(err, fail("write", f.name, io.ErrShortWrite))
	}
	if err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *faultyFile) WriteVec(parts [][]byte, off int64) error {
	err := f.faults.fails("write", f.name)
	if errors.Is(err, ErrShort) {
		return errors.Join(f.File.WriteVec(firstHalf(parts), off), fail("write", f.name, io.ErrShortWrite))
	}
	if err != nil {
		return err
	}
	return f.File.WriteVec(parts, off)
}

func firstHalf(parts [][]byte) [][]byte {
	left := 0
	for _, p := range parts {
		left += len(p)
	}
	left /= 2
	var half [][]byte
	for _, p := range parts {
		n := min(left, len(p))
		half = append(half, p[:n])
		left -= n
	}
	return half
}

func (f *faultyFile) Sync() error { return f.faults.do("sync", f.name, f.File.Sync) }

func (f *faultyFile) Punch(off, n int64) error {
	return f.faults.do("punch", f.name, func() error { return f.File.Punch(off, n) })
}

func (f *faultyFile) Allocate(n int64) error {
	return f.faults.do("allocate", f.name, func() error { return f.File.Allocate(n) })
}

func (f *faultyFile) Truncate(size int64) error {
	return f.faults.do("truncate", f.name, func() error { return f.File.Truncate(size) })
}

func (f *faultyFile) NextData(off int64) (next int64, err error) {
	err = f.faults.do("seek", f.name, func() (err error) { next, err = f.File.NextData(off); return err })
	return next, err
}

func (f *faultyFile) Stat() (st Stat, err error) {
	err = f.faults.do("fstat", f.name, func() (err error) { st, err = f.File.Stat(); return err })
	return st, err
}
