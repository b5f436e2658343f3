package fuse

import (
	"sync"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/fuse/vfs"
	"dos/meta"
)

// A dir is one open of a directory, stored or special.
type dir struct {
	nodeid uint64
	stored *vfs.Dir // nil for a special directory

	mu   sync.Mutex
	list []raw.DirEntry // of a special directory, or those of the root; listed afresh at the beginning; guarded by mu
}

func (d *dir) release() {
	if d.stored != nil {
		d.stored.Release()
	}
}

// beyond is where the positions of the special directories in the root begin,
// after all that is stored there.
const beyond = int64(1) << 62

func (f *files) OpenDir(_ <-chan struct{}, in *raw.OpenIn, out *raw.OpenOut) raw.Status {
	d := &dir{nodeid: in.NodeId}
	if !isSpecial(in.NodeId) {
		stored, err := f.fs.OpenDir(f.ctx, f.ino(in.NodeId))
		if err != nil {
			return f.nodeStatus("opendir", err)
		}
		d.stored = stored
	}
	out.Fh = f.dirs.add(d)
	return raw.OK
}

func (f *files) ReadDir(_ <-chan struct{}, in *raw.ReadIn, out *raw.DirEntryList) raw.Status {
	return f.readDir(in, out, false)
}

func (f *files) ReadDirPlus(_ <-chan struct{}, in *raw.ReadIn, out *raw.DirEntryList) raw.Status {
	return f.readDir(in, out, true)
}

func (f *files) readDir(in *raw.ReadIn, out *raw.DirEntryList, plus bool) raw.Status {
	d, ok := f.dirs.get(in.Fh)
	if !ok {
		return raw.EBADF
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	pos := int64(in.Offset)
	if d.stored != nil && pos < beyond {
		full, s := f.readStored(d, pos, out, plus)
		if full || s != raw.OK || d.nodeid != raw.FUSE_ROOT_ID || f.mux == nil {
			return s
		}
		pos = beyond
	}
	return f.readSpecial(d, pos, out, plus)
}

// readStored adds entries from pos on, as many as fit. full is true if one
// did not, or if something went wrong after the first: then the next call meets it.
func (f *files) readStored(d *dir, pos int64, out *raw.DirEntryList, plus bool) (full bool, s raw.Status) {
	for first := true; ; first, pos = false, pos+1 {
		e, ok, err := d.stored.Entry(f.ctx, pos, plus)
		if err != nil {
			if !first {
				return true, raw.OK
			}
			return true, f.status("readdir", err)
		}
		if !ok {
			return false, raw.OK
		}
		if f.reserved(d.nodeid, e.Name) {
			continue // the special directory of that name is shown, and what lies behind it is not
		}
		if !f.addEntry(out, raw.DirEntry{Name: e.Name, Ino: uint64(e.Ino), Mode: e.Type, Off: uint64(pos + 1)}, e.Attr, plus) {
			return true, raw.OK
		}
	}
}

// addEntry adds one entry, with attributes if they are known and asked for.
func (f *files) addEntry(out *raw.DirEntryList, e raw.DirEntry, a *meta.Attr, plus bool) (fits bool) {
	if !plus {
		return out.AddDirEntry(e)
	}
	entry := out.AddDirLookupEntry(e)
	if entry == nil {
		return false
	}
	// Node 0 means that there is nothing to remember; "." and ".." are not
	// names to remember.
	if a != nil && e.Name != "." && e.Name != ".." {
		f.fillEntry(entry, *a)
	}
	return true
}

// readSpecial adds the entries of a special directory, or the special
// directories of the root. Their attributes the kernel asks for itself: it may
// not remember them.
func (f *files) readSpecial(d *dir, pos int64, out *raw.DirEntryList, plus bool) raw.Status {
	start := int64(0)
	if d.stored != nil {
		start = beyond
	}
	if pos == start || d.list == nil {
		list, err := f.specialList(d.nodeid)
		if err != nil {
			return f.status("readdir", err)
		}
		d.list = list
	}
	for i := pos - start; i >= 0 && i < int64(len(d.list)); i++ {
		e := d.list[i]
		e.Off = uint64(start + i + 1)
		if !f.addEntry(out, e, nil, plus) {
			break
		}
	}
	return raw.OK
}

func (f *files) ReleaseDir(in *raw.ReleaseIn) {
	if d, ok := f.dirs.take(in.Fh); ok {
		d.release()
	}
}

// FsyncDir has nothing to wait for: names are committed and synced before the
// call that changed them returned.
func (f *files) FsyncDir(<-chan struct{}, *raw.FsyncIn) raw.Status { return raw.OK }
