package disk

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sync"
	"syscall"
)

const (
	pageSize   = 4096
	sectorSize = 512 // what a disk writes whole or not at all
)

// Mem is a file system in memory. What was not synced is gone after Crash. Its
// zero value has a root directory "/" and no limit.
type Mem struct {
	// Capacity in bytes, 0 for 1 TiB. Set it before use or with Resize.
	Capacity int64

	mu    sync.Mutex
	names map[string]*inode // what programs see; guarded by mu
	kept  map[string]*inode // what would survive a power cut; guarded by mu
	locks map[*inode]*memLock
	ino   uint64
	pages int64 // in use
	boot  int   // handles of an earlier boot are dead
}

type page = [pageSize]byte

// An inode's pages are never modified: a write puts a new one in place.
type inode struct {
	ino      uint64
	dir      bool
	links    int
	open     int
	size     int64
	pages    map[int64]*page
	keptSize int64
	kept     map[int64]*page
	dirty    map[int64]struct{} // pages that differ from kept
}

var _ FS = (*Mem)(nil)

// Resize changes the capacity, in bytes.
func (m *Mem) Resize(capacity int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Capacity = capacity
}

func (m *Mem) init() {
	if m.names == nil {
		root := &inode{ino: 1, dir: true, links: 1}
		m.ino = 1
		m.names = map[string]*inode{"/": root}
		m.kept = map[string]*inode{"/": root}
		m.locks = map[*inode]*memLock{}
	}
}

func fail(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

// look finds a name. mu is held.
func (m *Mem) look(op, name string) (*inode, error) {
	m.init()
	if n, ok := m.names[clean(name)]; ok {
		return n, nil
	}
	return nil, fail(op, name, syscall.ENOENT)
}

func clean(name string) string { return path.Clean("/" + name) }

func (m *Mem) add(op, name string, dir bool) (*inode, error) {
	m.init()
	p := clean(name)
	if parent := m.names[path.Dir(p)]; parent == nil || !parent.dir {
		return nil, fail(op, name, syscall.ENOENT)
	}
	if m.names[p] != nil {
		return nil, fail(op, name, syscall.EEXIST)
	}
	m.ino++
	n := &inode{ino: m.ino, dir: dir, links: 1, pages: map[int64]*page{}, kept: map[int64]*page{}, dirty: map[int64]struct{}{}}
	m.names[p] = n
	return n, nil
}

func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.add("create", name, false)
	if err != nil {
		return nil, err
	}
	return m.handle(name, n), nil
}

func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.look("open", name)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return nil, fail("open", name, syscall.EISDIR)
	}
	return m.handle(name, n), nil
}

func (m *Mem) handle(name string, n *inode) *memFile {
	n.open++
	return &memFile{fs: m, name: name, node: n, boot: m.boot}
}

type memLock struct {
	fs   *Mem
	node *inode
}

func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.fs.locks[l.node] == l {
		delete(l.fs.locks, l.node)
	}
	return nil
}

func (m *Mem) Lock(dir string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.look("lock", dir)
	switch {
	case err != nil:
		return nil, err
	case m.locks[n] != nil:
		return nil, fmt.Errorf("%s: %w", dir, ErrLocked)
	}
	l := &memLock{m, n}
	m.locks[n] = l
	return l, nil
}

func (m *Mem) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.add("mkdir", name, true)
	return err
}

func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.look("rename", from)
	if err != nil {
		return err
	}
	if parent := m.names[path.Dir(clean(to))]; parent == nil || !parent.dir {
		return fail("rename", to, syscall.ENOENT)
	}
	if clean(from) == clean(to) {
		return nil
	}
	if old := m.names[clean(to)]; old != nil {
		if old.dir || n.dir {
			return fail("rename", to, syscall.EEXIST)
		}
		m.unlink(clean(to))
	}
	below := clean(from) + "/"
	for _, p := range slices.Collect(maps.Keys(m.names)) {
		if rest, ok := cut(p, below); ok {
			m.names[clean(to)+"/"+rest] = m.names[p]
			delete(m.names, p)
		}
	}
	delete(m.names, clean(from))
	m.names[clean(to)] = n
	return nil
}

func cut(p, prefix string) (string, bool) {
	if len(p) > len(prefix) && p[:len(prefix)] == prefix {
		return p[len(prefix):], true
	}
	return "", false
}

func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.look("remove", name)
	if err != nil {
		return err
	}
	if n.dir {
		for p := range m.names {
			if _, ok := cut(p, clean(name)+"/"); ok {
				return fail("remove", name, syscall.ENOTEMPTY)
			}
		}
	}
	m.unlink(clean(name))
	return nil
}

// RemoveAll removes a name and everything below it, as rm -rf does.
func (m *Mem) RemoveAll(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	for _, p := range slices.Collect(maps.Keys(m.names)) {
		if _, ok := cut(p, clean(name)+"/"); ok || p == clean(name) {
			m.unlink(p)
		}
	}
}

func (m *Mem) unlink(p string) {
	n := m.names[p]
	delete(m.names, p)
	n.links--
	m.free(n)
}

// free gives the pages of a file back that nobody can reach.
func (m *Mem) free(n *inode) {
	if n.links == 0 && n.open == 0 {
		m.pages -= int64(len(n.pages))
		n.pages = map[int64]*page{}
	}
}

func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.look("sync", name)
	if err != nil {
		return err
	}
	if !n.dir {
		return fail("sync", name, syscall.ENOTDIR)
	}
	for p := range m.kept {
		if path.Dir(p) == clean(name) && p != "/" && m.names[p] == nil {
			delete(m.kept, p)
		}
	}
	for p, n := range m.names {
		if path.Dir(p) == clean(name) {
			m.kept[p] = n
		}
	}
	return nil
}

func (m *Mem) ReadDir(name string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.look("readdir", name)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, fail("readdir", name, syscall.ENOTDIR)
	}
	var names []string
	for p := range m.names {
		if path.Dir(p) == clean(name) && p != "/" {
			names = append(names, path.Base(p))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *Mem) Stat(name string) (Stat, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.look("stat", name)
	if err != nil {
		return Stat{}, err
	}
	return n.stat(), nil
}

func (n *inode) stat() Stat {
	return Stat{Dev: 1, Ino: n.ino, Links: uint64(n.links), Size: n.size, Dir: n.dir}
}

func (m *Mem) Space(name string) (Space, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.look("statfs", name); err != nil {
		return Space{}, err
	}
	return Space{Capacity: m.capacity(), Free: max(0, m.capacity()-m.pages*pageSize)}, nil
}

func (m *Mem) capacity() int64 {
	if m.Capacity == 0 {
		return 1 << 40
	}
	return m.Capacity
}
