package fuse

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"dos/chunk"
	"dos/meta"
)

// memMeta is the metadata service in memory: maps under a lock. It is the twin
// of the real one for the tests of this package.
type memMeta struct {
	mu     sync.Mutex
	inodes map[meta.Ino]*memInode
	last   meta.Ino
	fault  error // if set, what every call returns
	calls  map[string]int
}

type memInode struct {
	meta.Attr
	target  string
	names   map[string]meta.Ino // of a directory
	order   []string            // its names in order
	parent  meta.Ino            // of a directory
	extents []meta.Extent
	stripes map[chunk.StripeID]chunk.Stripe
	xattrs  map[string][]byte
	kept    bool
}

func newMemMeta() *memMeta {
	now := meta.At(time.Now())
	root := &memInode{parent: meta.Root, names: make(map[string]meta.Ino)}
	root.Attr = meta.Attr{Ino: meta.Root, Mode: meta.TypeDir | 0o755, Nlink: 2, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Atime: now, Mtime: now, Ctime: now, Btime: now}
	return &memMeta{inodes: map[meta.Ino]*memInode{meta.Root: root}, last: meta.Root, calls: make(map[string]int)}
}

func (n *memInode) name(name string, ino meta.Ino) {
	if _, has := n.names[name]; !has {
		at, _ := slices.BinarySearch(n.order, name)
		n.order = slices.Insert(n.order, at, name)
	}
	n.names[name] = ino
}

func (n *memInode) unname(name string) {
	delete(n.names, name)
	at, _ := slices.BinarySearch(n.order, name)
	n.order = slices.Delete(n.order, at, at+1)
}

// enter locks, counts the call and returns the fault that is set.
func (m *memMeta) enter(call string) (leave func(), err error) {
	m.mu.Lock()
	m.calls[call]++
	return m.mu.Unlock, m.fault
}

func (m *memMeta) setFault(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = err
}

func (m *memMeta) inode(ino meta.Ino) (*memInode, error) {
	if n, ok := m.inodes[ino]; ok {
		return n, nil
	}
	return nil, meta.NotExist
}

func (m *memMeta) dir(ino meta.Ino) (*memInode, error) {
	n, err := m.inode(ino)
	if err == nil && !n.IsDir() {
		err = meta.NotDir
	}
	return n, err
}

func (m *memMeta) child(parent meta.Ino, name string) (d, n *memInode, err error) {
	if d, err = m.dir(parent); err != nil {
		return nil, nil, err
	}
	ino, ok := d.names[name]
	if !ok {
		return d, nil, meta.NotExist
	}
	return d, m.inodes[ino], nil
}

func (m *memMeta) Lookup(_ context.Context, parent meta.Ino, name string) (meta.Attr, error) {
	leave, err := m.enter("Lookup")
	defer leave()
	if err != nil {
		return meta.Attr{}, err
	}
	_, n, err := m.child(parent, name)
	if err != nil {
		return meta.Attr{}, err
	}
	return n.Attr, nil
}

func (m *memMeta) Attr(_ context.Context, ino meta.Ino) (meta.Attr, error) {
	leave, err := m.enter("Attr")
	defer leave()
	if err != nil {
		return meta.Attr{}, err
	}
	n, err := m.inode(ino)
	if err != nil {
		return meta.Attr{}, err
	}
	return n.Attr, nil
}

func (m *memMeta) SetAttr(_ context.Context, ino meta.Ino, set meta.SetAttr) (meta.Attr, error) {
	leave, err := m.enter("SetAttr")
	defer leave()
	if err != nil {
		return meta.Attr{}, err
	}
	n, err := m.inode(ino)
	if err != nil {
		return meta.Attr{}, err
	}
	n.Ctime = meta.At(time.Now())
	if set.Mode != nil {
		n.Mode = n.Type() | *set.Mode&^meta.TypeMask
	}
	if set.UID != nil {
		n.UID = *set.UID
	}
	if set.GID != nil {
		n.GID = *set.GID
	}
	if set.KillPriv {
		n.kill()
	}
	if set.Size != nil {
		n.punch(meta.Range{Off: *set.Size, Len: meta.SizeMax - *set.Size})
		n.Size, n.Mtime = *set.Size, n.Ctime
		n.Data++
		n.count()
	}
	if set.Atime != nil {
		n.Atime = *set.Atime
	}
	if set.Mtime != nil {
		n.Mtime = *set.Mtime
	}
	return n.Attr, nil
}

func (n *memInode) kill() {
	if n.IsFile() {
		n.Mode &^= meta.SetUID
		if n.Mode&0o010 != 0 {
			n.Mode &^= meta.SetGID
		}
	}
}

// punch takes a range out of the extents.
func (n *memInode) punch(r meta.Range) {
	var out []meta.Extent
	for _, e := range n.extents {
		if e.Off < r.Off {
			left := e
			left.Len = min(e.Len, r.Off-e.Off)
			if left.Inline != nil {
				left.Inline = e.Inline[:left.Len]
			}
			out = append(out, left)
		}
		if end := r.Off + r.Len; e.End() > end {
			right := e
			cut := max(0, end-e.Off)
			right.Off, right.Len, right.At = e.Off+cut, e.Len-cut, e.At+uint32(cut)
			if right.Inline != nil {
				right.At, right.Inline = 0, e.Inline[cut:]
			}
			out = append(out, right)
		}
	}
	n.extents = slices.DeleteFunc(out, func(e meta.Extent) bool { return e.Len <= 0 })
}

func (n *memInode) count() {
	n.Bytes = 0
	for _, e := range n.extents {
		n.Bytes += e.Len
	}
}

func (m *memMeta) Create(_ context.Context, parent meta.Ino, name string, node meta.Node) (meta.Attr, error) {
	leave, err := m.enter("Create")
	defer leave()
	if err != nil {
		return meta.Attr{}, err
	}
	if err := meta.CheckName(name); err != nil {
		return meta.Attr{}, err
	}
	d, _, err := m.child(parent, name)
	if err == nil {
		return meta.Attr{}, meta.Exist
	}
	if err != error(meta.NotExist) || d == nil {
		return meta.Attr{}, err
	}
	m.last++
	now := meta.At(time.Now())
	n := &memInode{target: node.Target, stripes: make(map[chunk.StripeID]chunk.Stripe), xattrs: make(map[string][]byte)}
	n.Attr = meta.Attr{Ino: m.last, Mode: node.Mode, Nlink: 1, UID: node.UID, GID: node.GID, Rdev: node.Rdev, Size: int64(len(node.Target)), Atime: now, Mtime: now, Ctime: now, Btime: now}
	if d.Mode&meta.SetGID != 0 {
		n.GID = d.GID
		if n.IsDir() {
			n.Mode |= meta.SetGID
		}
	}
	if n.IsDir() {
		n.Nlink, n.names, n.parent = 2, make(map[string]meta.Ino), parent
		d.Nlink++
	}
	m.inodes[n.Ino] = n
	d.name(name, n.Ino)
	d.Mtime, d.Ctime = now, now
	return n.Attr, nil
}

func (m *memMeta) Link(_ context.Context, ino, parent meta.Ino, name string) (meta.Attr, error) {
	leave, err := m.enter("Link")
	defer leave()
	if err != nil {
		return meta.Attr{}, err
	}
	n, err := m.inode(ino)
	if err != nil {
		return meta.Attr{}, err
	}
	d, _, err := m.child(parent, name)
	if err == nil {
		return meta.Attr{}, meta.Exist
	}
	if d == nil {
		return meta.Attr{}, err
	}
	d.name(name, ino)
	n.Nlink++
	n.Ctime = meta.At(time.Now())
	d.Mtime, d.Ctime = n.Ctime, n.Ctime
	return n.Attr, nil
}

func (m *memMeta) Unlink(_ context.Context, parent meta.Ino, name string, keep meta.Ino) (meta.Attr, error) {
	leave, err := m.enter("Unlink")
	defer leave()
	if err != nil {
		return meta.Attr{}, err
	}
	d, n, err := m.child(parent, name)
	if err != nil {
		return meta.Attr{}, err
	}
	if n.IsDir() {
		return meta.Attr{}, meta.IsDir
	}
	d.unname(name)
	n.Nlink--
	return m.cut(d, n, keep), nil
}

// cut notes that n lost a name in d.
func (m *memMeta) cut(d, n *memInode, keep meta.Ino) meta.Attr {
	n.Ctime = meta.At(time.Now())
	d.Mtime, d.Ctime = n.Ctime, n.Ctime
	if n.Nlink == 0 {
		if n.kept = keep == n.Ino; !n.kept {
			delete(m.inodes, n.Ino)
		}
	}
	return n.Attr
}

func (m *memMeta) Rmdir(_ context.Context, parent meta.Ino, name string, keep meta.Ino) (meta.Attr, error) {
	leave, err := m.enter("Rmdir")
	defer leave()
	if err != nil {
		return meta.Attr{}, err
	}
	d, n, err := m.child(parent, name)
	switch {
	case err != nil:
		return meta.Attr{}, err
	case !n.IsDir():
		return meta.Attr{}, meta.NotDir
	case len(n.names) > 0:
		return meta.Attr{}, meta.NotEmpty
	}
	d.unname(name)
	d.Nlink--
	n.Nlink = 0
	return m.cut(d, n, keep), nil
}

func (m *memMeta) Rename(_ context.Context, parent meta.Ino, name string, newParent meta.Ino, newName string, flags meta.RenameFlags, keep meta.Ino) error {
	leave, err := m.enter("Rename")
	defer leave()
	if err != nil {
		return err
	}
	from, n, err := m.child(parent, name)
	if err != nil {
		return err
	}
	to, old, err := m.child(newParent, newName)
	if to == nil {
		return err
	}
	move := func(n *memInode, from, to *memInode) {
		if n.IsDir() {
			n.parent = to.Ino
			from.Nlink--
			to.Nlink++
		}
		n.Ctime = meta.At(time.Now())
		from.Mtime, from.Ctime, to.Mtime, to.Ctime = n.Ctime, n.Ctime, n.Ctime, n.Ctime
	}
	switch {
	case flags == meta.RenameExchange && old == nil:
		return meta.NotExist
	case flags == meta.RenameExchange:
		move(n, from, to)
		move(old, to, from)
		from.names[name], to.names[newName] = old.Ino, n.Ino
		return nil
	case old != nil && flags == meta.RenameNoReplace:
		return meta.Exist
	case old == n:
		return nil
	case old != nil && old.IsDir() && !n.IsDir():
		return meta.IsDir
	case old != nil && !old.IsDir() && n.IsDir():
		return meta.NotDir
	case old != nil && len(old.names) > 0:
		return meta.NotEmpty
	}
	for up := to; n.IsDir(); up = m.inodes[up.parent] {
		if up == n {
			return meta.Invalid
		}
		if up.Ino == meta.Root {
			break
		}
	}
	if old != nil {
		if old.Nlink--; old.IsDir() {
			old.Nlink = 0
			to.Nlink--
		}
		m.cut(to, old, keep)
	}
	from.unname(name)
	to.name(newName, n.Ino)
	move(n, from, to)
	return nil
}

func (m *memMeta) Drop(_ context.Context, inos ...meta.Ino) error {
	leave, err := m.enter("Drop")
	defer leave()
	for _, ino := range inos {
		if n := m.inodes[ino]; n != nil && n.kept {
			delete(m.inodes, ino)
		}
	}
	return err
}

func (m *memMeta) Entries(_ context.Context, dir meta.Ino, after string, limit int, attrs bool) (list []meta.Entry, more bool, err error) {
	leave, err := m.enter("Entries")
	defer leave()
	if err != nil {
		return nil, false, err
	}
	d, err := m.dir(dir)
	if err != nil {
		return nil, false, err
	}
	at, found := slices.BinarySearch(d.order, after)
	if found {
		at++
	}
	for _, name := range d.order[at:] {
		if len(list) == limit {
			return list, true, nil
		}
		n := m.inodes[d.names[name]]
		e := meta.Entry{Name: name, Ino: n.Ino, Type: n.Type()}
		if attrs {
			a := n.Attr
			e.Attr = &a
		}
		list = append(list, e)
	}
	return list, false, nil
}

func (m *memMeta) Parent(_ context.Context, dir meta.Ino) (meta.Ino, error) {
	leave, err := m.enter("Parent")
	defer leave()
	if err != nil {
		return 0, err
	}
	d, err := m.dir(dir)
	if err != nil {
		return 0, err
	}
	return d.parent, nil
}

func (m *memMeta) Readlink(_ context.Context, ino meta.Ino) (string, error) {
	leave, err := m.enter("Readlink")
	defer leave()
	if err != nil {
		return "", err
	}
	n, err := m.inode(ino)
	if err != nil {
		return "", err
	}
	return n.target, nil
}

func (m *memMeta) Layout(_ context.Context, ino meta.Ino, off, size int64) (meta.Layout, error) {
	leave, err := m.enter("Layout")
	defer leave()
	if err != nil {
		return meta.Layout{}, err
	}
	n, err := m.inode(ino)
	if err != nil {
		return meta.Layout{}, err
	}
	l := meta.Layout{Attr: n.Attr, End: off + size}
	seen := make(map[chunk.StripeID]bool)
	for _, e := range n.extents {
		if e.End() <= off || e.Off >= off+size {
			continue
		}
		l.Extents = append(l.Extents, e)
		if e.Stripe != 0 && !seen[e.Stripe] {
			seen[e.Stripe] = true
			l.Stripes = append(l.Stripes, n.stripes[e.Stripe])
		}
	}
	return l, nil
}

func (m *memMeta) Write(_ context.Context, w meta.Write) (meta.Attr, error) {
	leave, err := m.enter("Write")
	defer leave()
	if err != nil {
		return meta.Attr{}, err
	}
	n, err := m.inode(w.Ino)
	if err != nil {
		return meta.Attr{}, err
	}
	for _, r := range w.Punch {
		n.punch(r)
	}
	for _, s := range w.Stripes {
		n.stripes[s.ID] = s
	}
	for _, e := range w.Extents {
		n.punch(meta.Range{Off: e.Off, Len: e.Len})
		e.Inline = slices.Clone(e.Inline)
		n.extents = append(n.extents, e)
		n.Size = max(n.Size, e.End())
	}
	slices.SortFunc(n.extents, func(a, b meta.Extent) int { return int(min(max(a.Off-b.Off, -1), 1)) })
	n.Size = max(n.Size, w.Size)
	n.Data++
	n.Ctime = meta.At(time.Now())
	if w.Mtime != 0 {
		n.Mtime = w.Mtime
	}
	if w.KillPriv {
		n.kill()
	}
	n.count()
	return n.Attr, nil
}

func (m *memMeta) Xattr(_ context.Context, ino meta.Ino, name string) ([]byte, error) {
	leave, err := m.enter("Xattr")
	defer leave()
	if err != nil {
		return nil, err
	}
	n, err := m.inode(ino)
	if err != nil {
		return nil, err
	}
	if val, ok := n.xattrs[name]; ok {
		return val, nil
	}
	return nil, meta.NoAttr
}

func (m *memMeta) Xattrs(_ context.Context, ino meta.Ino) ([]string, error) {
	leave, err := m.enter("Xattrs")
	defer leave()
	if err != nil {
		return nil, err
	}
	n, err := m.inode(ino)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(n.xattrs)), nil
}

func (m *memMeta) SetXattr(_ context.Context, ino meta.Ino, name string, val []byte, flags uint32) error {
	leave, err := m.enter("SetXattr")
	defer leave()
	if err != nil {
		return err
	}
	n, err := m.inode(ino)
	if err != nil {
		return err
	}
	_, has := n.xattrs[name]
	switch {
	case flags == 1 && has:
		return meta.Exist
	case flags == 2 && !has:
		return meta.NoAttr
	}
	if n.xattrs == nil {
		n.xattrs = make(map[string][]byte)
	}
	n.xattrs[name] = slices.Clone(val)
	n.Ctime = meta.At(time.Now())
	return nil
}

func (m *memMeta) RemoveXattr(_ context.Context, ino meta.Ino, name string) error {
	leave, err := m.enter("RemoveXattr")
	defer leave()
	if err != nil {
		return err
	}
	n, err := m.inode(ino)
	if err != nil {
		return err
	}
	if _, has := n.xattrs[name]; !has {
		return meta.NoAttr
	}
	delete(n.xattrs, name)
	n.Ctime = meta.At(time.Now())
	return nil
}

func (m *memMeta) Usage(context.Context) (meta.Usage, error) {
	leave, err := m.enter("Usage")
	defer leave()
	u := meta.Usage{Inodes: int64(len(m.inodes))}
	for _, n := range m.inodes {
		u.Bytes += n.Bytes
	}
	return u, err
}

// memData is the data path in memory.
type memData struct {
	mu      sync.Mutex
	last    chunk.StripeID
	pending map[chunk.StripeID]bool
	stripes map[chunk.StripeID][]byte
}

func newMemData() *memData {
	return &memData{pending: make(map[chunk.StripeID]bool), stripes: make(map[chunk.StripeID][]byte)}
}

func (d *memData) Begin(context.Context) (chunk.StripeID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	d.pending[d.last] = true
	return d.last, nil
}

func (d *memData) End(id chunk.StripeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.pending, id)
}

func (d *memData) Low() chunk.StripeID {
	d.mu.Lock()
	defer d.mu.Unlock()
	low := d.last + 1
	for id := range d.pending {
		low = min(low, id)
	}
	return low
}

func (d *memData) Write(_ context.Context, id chunk.StripeID, data []byte) (chunk.Stripe, error) {
	data = slices.Clone(data)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stripes[id] = data
	return chunk.Stripe{ID: id, Len: uint32(len(data)), Code: chunk.Code{K: 1, M: 0}, Stores: []chunk.StoreID{1}}, nil
}

func (d *memData) Read(_ context.Context, s chunk.Stripe, p []byte, off int64) error {
	d.mu.Lock()
	data, ok := d.stripes[s.ID]
	d.mu.Unlock()
	if !ok {
		return chunk.ErrNotExist
	}
	copy(p, data[off:])
	return nil
}

const memCapacity = 64 << 30

func (d *memData) Capacity(context.Context) (total, free int64, err error) {
	return memCapacity, memCapacity / 2, nil
}
