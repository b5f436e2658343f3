package vfs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"dos/chunk"
	"dos/meta"
)

// fakeMeta is a metadata service in memory, simple enough to be right.
type fakeMeta struct {
	// fault is asked before and after each operation; an error before means that
	// it is not executed, an error after that its answer is lost.
	fault func(op string, after bool) error
	check func(w meta.Write) error
	// replaceMax, if not zero, bounds the extents that one write may replace.
	replaceMax int

	mu      sync.Mutex
	nodes   map[meta.Ino]*fakeNode
	stripes map[chunk.StripeID]chunk.Stripe
	last    meta.Ino
	writes  []meta.Write
	calls   map[string]int
}

type fakeNode struct {
	attr    meta.Attr
	extents []meta.Extent
	names   map[string]meta.Ino
	parent  meta.Ino
	target  string
	xattrs  map[string][]byte
	kept    bool
}

func newFakeMeta() *fakeMeta {
	m := &fakeMeta{nodes: make(map[meta.Ino]*fakeNode), stripes: make(map[chunk.StripeID]chunk.Stripe), last: meta.Root, calls: make(map[string]int)}
	m.nodes[meta.Root] = &fakeNode{attr: meta.Attr{Ino: meta.Root, Mode: meta.TypeDir | 0o755, Nlink: 2}, names: make(map[string]meta.Ino), parent: meta.Root}
	return m
}

// clone is what a crash of the client leaves: what was committed.
func (m *fakeMeta) clone() *fakeMeta {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newFakeMeta()
	c.last, c.stripes = m.last, maps.Clone(m.stripes)
	for ino, n := range m.nodes {
		copied := *n
		copied.extents, copied.names, copied.xattrs = slices.Clone(n.extents), maps.Clone(n.names), maps.Clone(n.xattrs)
		if copied.attr.Nlink > 0 {
			c.nodes[ino] = &copied
		}
	}
	return c
}

func (m *fakeMeta) do(op string, fn func() error) error {
	m.mu.Lock()
	fault := m.fault
	m.calls[op]++
	m.mu.Unlock()
	if fault != nil {
		if err := fault(op, false); err != nil {
			return err
		}
	}
	m.mu.Lock()
	err := fn()
	m.mu.Unlock()
	if fault != nil && err == nil {
		err = fault(op, true)
	}
	return err
}

func (m *fakeMeta) count(op string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[op]
}

// has reports whether the inode exists, with a name or without.
func (m *fakeMeta) has(ino meta.Ino) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes[ino] != nil
}

func (m *fakeMeta) node(ino meta.Ino) (*fakeNode, error) {
	if n := m.nodes[ino]; n != nil {
		return n, nil
	}
	return nil, meta.NotExist
}

func (m *fakeMeta) find(parent meta.Ino, name string) (*fakeNode, error) {
	d, err := m.node(parent)
	if err != nil {
		return nil, err
	}
	if d.names == nil {
		return nil, meta.NotDir
	}
	ino, ok := d.names[name]
	if !ok {
		return nil, meta.NotExist
	}
	return m.node(ino)
}

func (m *fakeMeta) Lookup(_ context.Context, parent meta.Ino, name string) (a meta.Attr, err error) {
	err = m.do("lookup", func() error {
		n, err := m.find(parent, name)
		if err == nil {
			a = n.attr
		}
		return err
	})
	return a, err
}

func (m *fakeMeta) Attr(_ context.Context, ino meta.Ino) (a meta.Attr, err error) {
	err = m.do("attr", func() error {
		n, err := m.node(ino)
		if err == nil {
			a = n.attr
		}
		return err
	})
	return a, err
}

func (m *fakeMeta) SetAttr(_ context.Context, ino meta.Ino, set meta.SetAttr) (a meta.Attr, err error) {
	err = m.do("setattr", func() error {
		n, err := m.node(ino)
		if err != nil {
			return err
		}
		now := meta.At(time.Now())
		if set.Mode != nil {
			n.attr.Mode = n.attr.Type() | *set.Mode&^meta.TypeMask
		}
		if set.Size != nil {
			n.cut(*set.Size, 1<<62)
			n.attr.Size, n.attr.Mtime = *set.Size, now
		}
		if set.Mtime != nil {
			n.attr.Mtime = *set.Mtime
		}
		if set.Atime != nil {
			n.attr.Atime = *set.Atime
		}
		n.attr.Ctime = now
		a = n.attr
		return nil
	})
	return a, err
}

// cut makes [from, to) a hole.
func (n *fakeNode) cut(from, to int64) {
	var list []meta.Extent
	for _, e := range n.extents {
		if e.End() <= from || e.Off >= to {
			list = append(list, e)
			continue
		}
		if e.Off < from {
			list = append(list, part(e, e.Off, from))
		}
		if e.End() > to {
			list = append(list, part(e, to, e.End()))
		}
	}
	n.extents = list
	n.attr.Data++
}

// replace puts new extents, which are in order, over the old ones.
func (n *fakeNode) replace(list []meta.Extent) {
	var out []meta.Extent
	i := 0
	for _, e := range n.extents {
		pos := e.Off
		for i < len(list) && list[i].End() <= pos {
			i++
		}
		for k := i; k < len(list) && list[k].Off < e.End(); k++ {
			if pos < list[k].Off {
				out = append(out, part(e, pos, list[k].Off))
			}
			pos = list[k].End()
		}
		if pos < e.End() {
			out = append(out, part(e, pos, e.End()))
		}
	}
	n.extents = append(out, list...)
	slices.SortFunc(n.extents, func(a, b meta.Extent) int { return int(a.Off - b.Off) })
	n.attr.Data++
}

func part(e meta.Extent, from, to int64) meta.Extent {
	p := meta.Extent{Off: from, Len: to - from, Stripe: e.Stripe, At: e.At + uint32(from-e.Off)}
	if e.Stripe == 0 {
		p.At, p.Inline = 0, e.Inline[from-e.Off:to-e.Off]
	}
	return p
}

func (m *fakeMeta) Write(_ context.Context, w meta.Write) (a meta.Attr, err error) {
	err = m.do("write", func() error {
		n, err := m.node(w.Ino)
		if err != nil {
			return err
		}
		if m.check != nil {
			if err := m.check(w); err != nil {
				panic(err)
			}
		}
		replaced := 0
		for i := 0; m.replaceMax > 0 && i < len(w.Extents); i++ {
			for _, old := range n.extents {
				if old.Off < w.Extents[i].End() && w.Extents[i].Off < old.End() {
					replaced++
				}
			}
		}
		if replaced > m.replaceMax {
			return meta.TooLarge
		}
		for _, s := range w.Stripes {
			m.stripes[s.ID] = s
		}
		for _, r := range w.Punch {
			n.cut(r.Off, r.Off+r.Len)
		}
		last, inline := int64(-1), 0
		for _, e := range w.Extents {
			if e.Off < last || e.Len <= 0 {
				panic(fmt.Sprintf("extents out of order: %+v", w.Extents))
			}
			if _, ok := m.stripes[e.Stripe]; e.Stripe != 0 && !ok {
				panic(fmt.Sprintf("stripe %d is not in the table", e.Stripe))
			}
			if e.Stripe == 0 && int64(len(e.Inline)) != e.Len {
				panic("inline length")
			}
			inline += len(e.Inline)
			last = e.End()
		}
		n.replace(w.Extents)
		if len(w.Extents) > meta.BatchMax || inline > inlineBody {
			panic(fmt.Sprintf("%d extents, %d inline", len(w.Extents), inline))
		}
		n.attr.Size = max(n.attr.Size, w.Size)
		n.attr.Bytes = 0
		for _, e := range n.extents {
			n.attr.Bytes += e.Len
		}
		if w.Mtime != 0 {
			n.attr.Mtime = w.Mtime
		}
		if w.KillPriv {
			n.attr.Mode = withoutSetID(n.attr.Mode)
		}
		n.attr.Ctime = meta.At(time.Now())
		m.writes = append(m.writes, w)
		a = n.attr
		return nil
	})
	return a, err
}

func (m *fakeMeta) Layout(_ context.Context, ino meta.Ino, off, size int64) (l meta.Layout, err error) {
	err = m.do("layout", func() error {
		n, err := m.node(ino)
		if err != nil {
			return err
		}
		l = meta.Layout{Attr: n.attr, End: off + size}
		seen := make(map[chunk.StripeID]bool)
		for _, e := range n.extents {
			if e.End() <= off || e.Off >= off+size {
				continue
			}
			if len(l.Extents) == 1000 {
				l.End = e.Off
				break
			}
			l.Extents = append(l.Extents, e)
			if e.Stripe != 0 && !seen[e.Stripe] {
				seen[e.Stripe] = true
				l.Stripes = append(l.Stripes, m.stripes[e.Stripe])
			}
		}
		return nil
	})
	return l, err
}

func (m *fakeMeta) Create(_ context.Context, parent meta.Ino, name string, node meta.Node) (a meta.Attr, err error) {
	err = m.do("create", func() error {
		d, err := m.node(parent)
		if err != nil {
			return err
		}
		if _, ok := d.names[name]; ok {
			return meta.Exist
		}
		m.last++
		now := meta.At(time.Now())
		n := &fakeNode{attr: meta.Attr{Ino: m.last, Mode: node.Mode, UID: node.UID, GID: node.GID, Nlink: 1, Mtime: now, Ctime: now, Btime: now}, target: node.Target, parent: parent}
		if n.attr.IsDir() {
			n.names, n.attr.Nlink = make(map[string]meta.Ino), 2
			d.attr.Nlink++
		}
		d.names[name], m.nodes[m.last] = m.last, n
		d.attr.Mtime = now
		a = n.attr
		return nil
	})
	return a, err
}

func (m *fakeMeta) Link(_ context.Context, ino, parent meta.Ino, name string) (a meta.Attr, err error) {
	err = m.do("link", func() error {
		n, err := m.node(ino)
		if err != nil {
			return err
		}
		d := m.nodes[parent]
		if _, ok := d.names[name]; ok {
			return meta.Exist
		}
		d.names[name] = ino
		n.attr.Nlink++
		a = n.attr
		return nil
	})
	return a, err
}

func (m *fakeMeta) unname(parent meta.Ino, name string, keep meta.Ino) (meta.Attr, error) {
	n, err := m.find(parent, name)
	if err != nil {
		return meta.Attr{}, err
	}
	if len(n.names) > 0 {
		return meta.Attr{}, meta.NotEmpty
	}
	delete(m.nodes[parent].names, name)
	n.attr.Nlink--
	if n.attr.IsDir() {
		n.attr.Nlink = 0
		m.nodes[parent].attr.Nlink--
	}
	if n.attr.Nlink == 0 {
		if n.kept = keep == n.attr.Ino; !n.kept {
			delete(m.nodes, n.attr.Ino)
		}
	}
	return n.attr, nil
}

func (m *fakeMeta) Unlink(_ context.Context, parent meta.Ino, name string, keep meta.Ino) (a meta.Attr, err error) {
	err = m.do("unlink", func() (err error) { a, err = m.unname(parent, name, keep); return })
	return a, err
}

func (m *fakeMeta) Rmdir(_ context.Context, parent meta.Ino, name string, keep meta.Ino) (a meta.Attr, err error) {
	err = m.do("rmdir", func() (err error) { a, err = m.unname(parent, name, keep); return })
	return a, err
}

func (m *fakeMeta) Rename(_ context.Context, parent meta.Ino, name string, newParent meta.Ino, newName string, flags meta.RenameFlags, keep meta.Ino) error {
	return m.do("rename", func() error {
		n, err := m.find(parent, name)
		if err != nil {
			return err
		}
		over, err := m.find(newParent, newName)
		switch {
		case err == nil && flags&meta.RenameNoReplace != 0:
			return meta.Exist
		case err == nil && flags&meta.RenameExchange != 0:
			m.nodes[parent].names[name] = over.attr.Ino
		case err == nil && over == n:
			return nil
		case err == nil:
			if _, err := m.unname(newParent, newName, keep); err != nil {
				return err
			}
			fallthrough
		default:
			delete(m.nodes[parent].names, name)
		}
		m.nodes[newParent].names[newName] = n.attr.Ino
		return nil
	})
}

func (m *fakeMeta) Drop(_ context.Context, inos ...meta.Ino) error {
	return m.do("drop", func() error {
		for _, ino := range inos {
			if n := m.nodes[ino]; n != nil && n.kept && n.attr.Nlink == 0 {
				delete(m.nodes, ino)
			}
		}
		return nil
	})
}

func (m *fakeMeta) Entries(_ context.Context, dir meta.Ino, after string, limit int, attrs bool) (list []meta.Entry, more bool, err error) {
	err = m.do("entries", func() error {
		d, err := m.node(dir)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(d.names)) {
			if name <= after {
				continue
			}
			if len(list) == limit {
				more = true
				break
			}
			n := m.nodes[d.names[name]]
			e := meta.Entry{Name: name, Ino: n.attr.Ino, Type: n.attr.Type()}
			if attrs {
				a := n.attr
				e.Attr = &a
			}
			list = append(list, e)
		}
		return nil
	})
	return list, more, err
}

func (m *fakeMeta) Parent(_ context.Context, dir meta.Ino) (p meta.Ino, err error) {
	err = m.do("parent", func() error {
		n, err := m.node(dir)
		if err == nil {
			p = n.parent
		}
		return err
	})
	return p, err
}

func (m *fakeMeta) Readlink(_ context.Context, ino meta.Ino) (s string, err error) {
	err = m.do("readlink", func() error {
		n, err := m.node(ino)
		if err == nil {
			s = n.target
		}
		return err
	})
	return s, err
}

func (m *fakeMeta) Xattr(_ context.Context, ino meta.Ino, name string) (val []byte, err error) {
	err = m.do("xattr", func() error {
		n, err := m.node(ino)
		if err != nil {
			return err
		}
		v, ok := n.xattrs[name]
		if !ok {
			return meta.NoAttr
		}
		val = v
		return nil
	})
	return val, err
}

func (m *fakeMeta) Xattrs(_ context.Context, ino meta.Ino) (list []string, err error) {
	err = m.do("xattrs", func() error {
		n, err := m.node(ino)
		if err == nil {
			list = slices.Sorted(maps.Keys(n.xattrs))
		}
		return err
	})
	return list, err
}

func (m *fakeMeta) SetXattr(_ context.Context, ino meta.Ino, name string, val []byte, flags uint32) error {
	return m.do("setxattr", func() error {
		n, err := m.node(ino)
		if err != nil {
			return err
		}
		if n.xattrs == nil {
			n.xattrs = make(map[string][]byte)
		}
		n.xattrs[name] = val
		n.attr.Ctime = meta.At(time.Now())
		return nil
	})
}

func (m *fakeMeta) RemoveXattr(_ context.Context, ino meta.Ino, name string) error {
	return m.do("removexattr", func() error {
		n, err := m.node(ino)
		if err != nil {
			return err
		}
		if _, ok := n.xattrs[name]; !ok {
			return meta.NoAttr
		}
		delete(n.xattrs, name)
		return nil
	})
}

func (m *fakeMeta) Usage(context.Context) (meta.Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return meta.Usage{Inodes: int64(len(m.nodes))}, nil
}

// fakeData keeps stripes in memory. Stripes are never changed, so several
// mounts, one after a crash of the other, can share it.
type fakeData struct {
	fault func(op string) error
	delay func() time.Duration

	mu      sync.Mutex
	stripes map[chunk.StripeID][]byte
	last    chunk.StripeID
	open    map[chunk.StripeID]bool
	free    int64
	writes  int // under way
	most    int
	reads   int
}

func newFakeData() *fakeData {
	return &fakeData{stripes: make(map[chunk.StripeID][]byte), open: make(map[chunk.StripeID]bool), free: 1 << 40}
}

func (d *fakeData) Begin(context.Context) (chunk.StripeID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	d.open[d.last] = true
	return d.last, nil
}

func (d *fakeData) End(id chunk.StripeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open[id] {
		panic(fmt.Sprintf("stripe %d ended, but is not open", id))
	}
	delete(d.open, id)
}

func (d *fakeData) Low() chunk.StripeID {
	d.mu.Lock()
	defer d.mu.Unlock()
	low := d.last + 1
	for id := range d.open {
		low = min(low, id)
	}
	return low
}

func (d *fakeData) Write(ctx context.Context, id chunk.StripeID, data []byte) (chunk.Stripe, error) {
	d.mu.Lock()
	if !d.open[id] {
		panic("write of a stripe that was not begun")
	}
	d.writes++
	d.most = max(d.most, d.writes)
	fault := d.fault
	d.mu.Unlock()
	defer func() { d.mu.Lock(); d.writes--; d.mu.Unlock() }()
	first := slices.Clone(data)
	if d.delay != nil {
		select {
		case <-time.After(d.delay()):
		case <-ctx.Done():
			return chunk.Stripe{}, ctx.Err()
		}
	}
	if !bytes.Equal(first, data) {
		panic("the data changed while it was being stored")
	}
	if fault != nil {
		if err := fault("write"); err != nil {
			return chunk.Stripe{}, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if int64(len(data)) > d.free {
		return chunk.Stripe{}, chunk.ErrFull
	}
	if len(data) == 0 || len(data) > chunk.MaxStripe {
		panic(fmt.Sprintf("stripe of %d bytes", len(data)))
	}
	d.free -= int64(len(data))
	d.stripes[id] = first
	return chunk.Stripe{ID: id, Len: uint32(len(data)), Code: chunk.Code{K: 4, M: 2}}, nil
}

func (d *fakeData) Read(_ context.Context, s chunk.Stripe, p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	if d.fault != nil {
		if err := d.fault("read"); err != nil {
			return err
		}
	}
	data, ok := d.stripes[s.ID]
	if !ok {
		return chunk.ErrNotExist
	}
	if off+int64(len(p)) > int64(len(data)) {
		panic(fmt.Sprintf("read of %d bytes at %d of a stripe of %d", len(p), off, len(data)))
	}
	copy(p, data[off:])
	return nil
}

func (d *fakeData) Capacity(context.Context) (total, free int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return 1 << 40, d.free, nil
}

func (d *fakeData) set(fn func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn()
}

// mount runs an FS until the test ends or stop is called, which returns what
// Run said.
func mount(t *testing.T, cfg Config) (fs *FS, stop func() error) {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	fs = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- fs.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return fs, stop
}

func create(t *testing.T, fs *FS, name string) *File {
	t.Helper()
	_, f, err := fs.CreateOpen(context.Background(), meta.Root, name, meta.Node{Mode: meta.TypeFile | 0o644}, 2)
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	return f
}

func write(t *testing.T, f *File, p []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(context.Background(), p, off, 0); n != len(p) || err != nil {
		t.Fatalf("write of %d bytes at %d: %d, %v", len(p), off, n, err)
	}
}

func contents(t *testing.T, f *File) []byte {
	t.Helper()
	a, err := f.fs.Attr(context.Background(), f.Ino())
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, a.Size+10)
	n, err := f.ReadAt(context.Background(), p, 0)
	if err != nil || int64(n) != a.Size {
		t.Fatalf("read of a file of %d bytes: %d, %v", a.Size, n, err)
	}
	return p[:n]
}
