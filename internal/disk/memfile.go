package disk

import (
	"io"
	"io/fs"
	"syscall"
)

type memFile struct {
	fs     *Mem
	name   string
	node   *inode
	boot   int
	closed bool // guarded by fs.mu
}

// use reports why the handle is of no use. fs.mu is held.
func (f *memFile) use(op string) error {
	if f.closed || f.boot != f.fs.boot {
		return fail(op, f.name, fs.ErrClosed)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("read"); err != nil {
		return 0, err
	}
	n := 0
	for n < len(p) && off+int64(n) < f.node.size {
		at := off + int64(n)
		want := min(pageSize-at%pageSize, f.node.size-at, int64(len(p)-n))
		if pg := f.node.pages[at/pageSize]; pg != nil {
			copy(p[n:n+int(want)], pg[at%pageSize:])
		} else {
			clear(p[n : n+int(want)])
		}
		n += int(want)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.write(p, off)
}

func (f *memFile) WriteVec(parts [][]byte, off int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	for _, p := range parts {
		n, err := f.write(p, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

func (f *memFile) write(p []byte, off int64) (int, error) {
	if err := f.use("write"); err != nil {
		return 0, err
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		index := at / pageSize
		old := f.node.pages[index]
		if old == nil && (f.fs.pages+1)*pageSize > f.fs.capacity() {
			return n, fail("write", f.name, syscall.ENOSPC)
		}
		pg := new(page)
		if old != nil {
			*pg = *old
		} else {
			f.fs.pages++
		}
		n += copy(pg[at%pageSize:], p[n:])
		f.node.pages[index] = pg
		f.node.dirty[index] = struct{}{}
		f.node.size = max(f.node.size, off+int64(n))
	}
	return n, nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("sync"); err != nil {
		return err
	}
	for index := range f.node.dirty {
		f.node.keep(index, f.node.pages[index])
	}
	clear(f.node.dirty)
	f.node.keptSize = f.node.size
	return nil
}

func (n *inode) keep(index int64, pg *page) {
	if pg == nil {
		delete(n.kept, index)
	} else {
		n.kept[index] = pg
	}
}

func (f *memFile) Punch(off, n int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("punch"); err != nil {
		return err
	}
	f.zero(off, min(off+n, f.node.size))
	return nil
}

// zero makes the bytes from one offset to another zero.
func (f *memFile) zero(from, to int64) {
	for at := from; at < to; {
		index, begin := at/pageSize, at%pageSize
		end := min(pageSize, begin+to-at)
		at += end - begin
		old := f.node.pages[index]
		switch {
		case old == nil:
			continue
		case begin == 0 && end == pageSize:
			delete(f.node.pages, index)
			f.fs.pages--
		default:
			pg := *old
			clear(pg[begin:end])
			f.node.pages[index] = &pg
		}
		f.node.dirty[index] = struct{}{}
	}
}

func (f *memFile) Allocate(n int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("fallocate"); err != nil {
		return err
	}
	for index := range (n + pageSize - 1) / pageSize {
		if f.node.pages[index] != nil {
			continue
		}
		if (f.fs.pages+1)*pageSize > f.fs.capacity() {
			return fail("fallocate", f.name, syscall.ENOSPC)
		}
		f.fs.pages++
		f.node.pages[index] = new(page)
		f.node.dirty[index] = struct{}{}
	}
	f.node.size = max(f.node.size, n)
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("truncate"); err != nil {
		return err
	}
	if size < f.node.size {
		end := (f.node.size + pageSize - 1) / pageSize * pageSize
		f.zero(size, end)
	}
	f.node.size = size
	return nil
}

func (f *memFile) NextData(off int64) (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("seek"); err != nil {
		return 0, err
	}
	for at := off; at < f.node.size; at = (at/pageSize + 1) * pageSize {
		if f.node.pages[at/pageSize] != nil {
			return at, nil
		}
	}
	return 0, io.EOF
}

func (f *memFile) Uncache(int64, int64) {}

func (f *memFile) Stat() (Stat, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("stat"); err != nil {
		return Stat{}, err
	}
	return f.node.stat(), nil
}

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("close"); err != nil {
		return err
	}
	f.closed = true
	f.node.open--
	f.fs.free(f.node)
	return nil
}
