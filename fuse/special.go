package fuse

import (
	"errors"
	"slices"
	"syscall"
	"time"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/meta"
	"dos/procfs"
)

// A specialOpen is one open of a special file.
type specialOpen struct {
	procfs.Handle
	node     *specialNode
	pid      uint32
	writable bool
	use      *usage // of a Flusher; else nil
}

// size is what there is to read, if the handle knows.
func (o *specialOpen) size() (int64, bool) {
	s, ok := o.Handle.(procfs.Sizer)
	if !ok {
		return 0, false
	}
	return s.Size(), true
}

// node finds the special node of a request.
func (f *files) node(id uint64) (*specialNode, error) {
	n, ok := f.special.get(id)
	if !ok {
		return nil, nodeError(id)
	}
	return n, nil
}

// muxLookup answers for a reserved name in the root.
func (f *files) muxLookup(name string, out *raw.EntryOut) raw.Status {
	n, err := f.mux.Lookup(f.ctx, name)
	if err != nil {
		return f.status("lookup", err)
	}
	out.SetEntryTimeout(procfs.Always)
	return f.enter("lookup", raw.FUSE_ROOT_ID, name, n, out)
}

func (f *files) specialLookup(parent uint64, name string, out *raw.EntryOut) raw.Status {
	n, err := f.node(parent)
	if err != nil {
		return f.status("lookup", err)
	}
	d, ok := n.Node.(procfs.Dir)
	if !ok {
		return raw.ENOTDIR
	}
	if finder, ok := d.(procfs.Finder); ok {
		found, is, dir, err := finder.Find(f.ctx, name)
		if e := f.doubt(n, dir); e != nil {
			err = e
		}
		if err != nil {
			return f.status("lookup", err)
		}
		f.fillSpecial(f.special.add(parent, name, found), is, out)
		return raw.OK
	}
	found, err := d.Lookup(f.ctx, name)
	if err != nil {
		return f.status("lookup", err)
	}
	return f.enter("lookup", parent, name, found, out)
}

// doubt returns ESTALE if the kernel was told to believe something of a directory that is
// not so any more, and so may have let somebody in who must not be: it looks again, from
// the beginning of the path.
func (f *files) doubt(n *specialNode, is procfs.Info) error {
	told := n.told.Load()
	if told == nil || is.Mode == 0 || told.Mode == is.Mode && told.UID == is.UID && told.GID == is.GID {
		return nil
	}
	n.told.Store(nil)
	f.dropAttr(n.id)
	return syscall.ESTALE
}

// believe notes what the kernel is told of a node, and returns how long it is good: not
// at all while a handle may be asked for another size.
func (t *table) believe(n *specialNode, is procfs.Info) time.Duration {
	if is.Good > 0 && !slices.ContainsFunc(t.handles(n), func(o *specialOpen) bool {
		size, knows := o.size()
		return o.writable || knows && size != is.Size
	}) {
		n.told.Store(&is)
		return is.Good
	}
	n.told.Store(nil)
	return 0
}

// enter tells the kernel of a special node that was found as name in parent. Of the name
// it must ask again each time, and of the rest unless that is said to be good for longer.
func (f *files) enter(op string, parent uint64, name string, n procfs.Node, out *raw.EntryOut) raw.Status {
	info, err := n.Stat(f.ctx)
	if err != nil {
		return f.status(op, err)
	}
	f.fillSpecial(f.special.add(parent, name, n), info, out)
	return raw.OK
}

func (f *files) fillSpecial(n *specialNode, info procfs.Info, out *raw.EntryOut) {
	out.NodeId = n.id
	out.Generation = 1
	out.SetAttrTimeout(f.special.believe(n, info))
	fillAttr(&out.Attr, infoAttr(n.ino, info, f.started))
}

// specialInfo is what a node says of itself or, if it does not exist yet or any
// more, what a handle of it says that is open.
func (f *files) specialInfo(n *specialNode) (procfs.Info, error) {
	info, err := n.Stat(f.ctx)
	if !errors.Is(err, meta.NotExist) {
		return info, err
	}
	for _, o := range slices.Backward(f.special.handles(n)) {
		if known, ok := o.Handle.(procfs.Node); ok {
			return known.Stat(f.ctx)
		}
	}
	return info, err
}

// specialAttr is what stat tells of a special node. If pid has it open, or
// else anybody, the size is what that handle has to read: a program that asks
// for the size of what it opened must be able to rely on it.
func (f *files) specialAttr(id uint64, pid uint32) (a meta.Attr, good time.Duration, err error) {
	n, err := f.node(id)
	if err != nil {
		return a, 0, err
	}
	info, err := f.specialInfo(n)
	if err != nil {
		return a, 0, err
	}
	if size, ok := f.special.size(n, pid); ok {
		info.Size = size
	}
	return infoAttr(n.ino, info, f.started), f.special.believe(n, info), nil
}

func caller(in *raw.InHeader) procfs.Caller {
	return procfs.Caller{UID: in.Uid, GID: in.Gid, PID: in.Pid}
}

func (f *files) specialOpen(cancel <-chan struct{}, in *raw.InHeader, flags uint32, out *raw.OpenOut) raw.Status {
	n, err := f.node(in.NodeId)
	if err != nil {
		return f.status("open", err)
	}
	return f.openNode(cancel, in, n, flags, out)
}

func (f *files) openNode(cancel <-chan struct{}, in *raw.InHeader, n *specialNode, flags uint32, out *raw.OpenOut) raw.Status {
	openable, ok := n.Node.(procfs.File)
	if !ok {
		return raw.Status(syscall.ENXIO)
	}
	h, err := openable.Open(waiting{cancel, in.Pid}, opening(in, flags))
	if err != nil {
		return f.status("open", err)
	}
	f.openHandle(n, in.Pid, h, flags, out)
	return raw.OK
}

// opening reads the flags of open(2).
func opening(in *raw.InHeader, flags uint32) procfs.Open {
	mode := flags & syscall.O_ACCMODE
	by := caller(in)
	by.PID = threadOf(in.Pid).process // what one thread opened another one may name
	return procfs.Open{
		Read:     mode != syscall.O_WRONLY,
		Write:    mode != syscall.O_RDONLY,
		Nonblock: flags&syscall.O_NONBLOCK != 0,
		Append:   flags&syscall.O_APPEND != 0,
		Truncate: flags&syscall.O_TRUNC != 0,
		Caller:   by,
	}
}

// openHandle gives the kernel a handle for h.
func (f *files) openHandle(n *specialNode, pid uint32, h procfs.Handle, flags uint32, out *raw.OpenOut) {
	o := &specialOpen{Handle: h, node: n, pid: pid, writable: flags&syscall.O_ACCMODE != syscall.O_RDONLY}
	if _, ok := h.(procfs.Flusher); ok {
		o.use = &usage{opener: threadOf(pid).process}
	} else {
		out.OpenFlags |= raw.FOPEN_NOFLUSH
	}
	out.OpenFlags |= raw.FOPEN_DIRECT_IO
	if _, ok := h.(procfs.Streamer); ok {
		// Otherwise two readers of one open file lock each other out beyond the
		// reach of kill -9.
		out.OpenFlags |= raw.FOPEN_STREAM | raw.FOPEN_NONSEEKABLE
	}
	if told := n.told.Load(); told != nil { // it asks the handle
		if size, ok := o.size(); o.writable || ok && size != told.Size {
			n.told.Store(nil)
			f.dropAttr(n.id)
		}
	}
	f.special.opened(n, o)
	out.Fh = f.open.add(&file{special: o})
}

// specialList lists what readdir shows of the special directory id, or of the
// special directories in the root.
func (f *files) specialList(id uint64) ([]raw.DirEntry, error) {
	var d procfs.Dir = f.mux
	list := []raw.DirEntry{}
	if id != raw.FUSE_ROOT_ID {
		n, err := f.node(id)
		if err != nil {
			return nil, err
		}
		var ok bool
		if d, ok = n.Node.(procfs.Dir); !ok {
			return nil, meta.NotDir
		}
		list = append(list,
			raw.DirEntry{Name: ".", Ino: id, Mode: meta.TypeDir},
			raw.DirEntry{Name: "..", Ino: n.parent, Mode: meta.TypeDir})
	}
	for info, err := range d.Entries(f.ctx) {
		if err != nil {
			return nil, err
		}
		list = append(list, raw.DirEntry{Name: info.Name, Ino: f.special.number(id, info.Name), Mode: info.Mode})
	}
	return list, nil
}

func (f *files) specialTarget(id uint64) (string, error) {
	n, err := f.node(id)
	if err != nil {
		return "", err
	}
	l, ok := n.Node.(procfs.Link)
	if !ok {
		return "", meta.Invalid
	}
	return l.Target(f.ctx)
}

// opened and closed note which handles of a node are open.
func (t *table) opened(n *specialNode, o *specialOpen) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.open = append(n.open, o)
}

func (t *table) closed(n *specialNode, o *specialOpen) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.open = slices.DeleteFunc(n.open, func(each *specialOpen) bool { return each == o })
}

// handles lists the handles of a node that are open, the youngest last.
func (t *table) handles(n *specialNode) []*specialOpen {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(n.open)
}

// size returns what the youngest handle of pid has to read, or else the youngest of
// anybody who only reads. (fstat does not say which handle it means; what others
// have written and not stored is nobody else's.)
func (t *table) size(n *specialNode, pid uint32) (size int64, ok bool) {
	for _, o := range slices.Backward(t.handles(n)) {
		has, knows := o.size()
		switch {
		case !knows:
		case o.pid == pid:
			return has, true
		case !ok && !o.writable:
			size, ok = has, true
		}
	}
	return size, ok
}
