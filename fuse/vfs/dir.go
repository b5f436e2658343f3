package vfs

import (
	"context"
	"errors"
	"sync"

	"dos/meta"
)

// listBatch is how many entries one request asks for.
const listBatch = 1024

// A Dir is one open of a directory. It keeps the names that it listed, so that
// positions stay; attributes only those of the last batch.
type Dir struct {
	fs *FS
	n  *inode

	mu    sync.Mutex   // held across calls: the listing is one after the other
	list  []meta.Entry // guarded by mu; in order of positions
	fresh int          // guarded by mu: from here on entries have attributes
	asked uint64       // guarded by mu: FS.changes before those were asked for
	gen   uint64       // guarded by mu: n.gen before then
	ended bool         // guarded by mu
}

// OpenDir opens a directory for listing.
func (fs *FS) OpenDir(ctx context.Context, ino meta.Ino) (*Dir, error) {
	n := fs.get(ino)
	if err := fs.openDir(ctx, n); err != nil {
		fs.put(n)
		return nil, err
	}
	return &Dir{fs: fs, n: n}, nil
}

func (fs *FS) openDir(ctx context.Context, n *inode) error {
	if err := n.life.RLock(ctx); err != nil {
		return err
	}
	defer n.life.RUnlock()
	a, err := fs.look(ctx, n)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.gone:
		return meta.NotExist
	case !a.IsDir():
		return meta.NotDir
	}
	n.opens++
	return nil
}

// Ino returns the directory's inode number.
func (d *Dir) Ino() meta.Ino { return d.n.ino }

// Entry returns the entry at a position: 0 is ".", 1 is "..". A position means
// the same entry as long as the handle is open, until position 0 is asked for
// again, which lists afresh; so position+1 serves as the cookie of readdir. ok
// is false at the end. With plus the entry has its Attr, unless the directory
// has changed since it was listed, or may have because other mounts use it too:
// the name may not be there any more, or mean something else, and must be looked up.
func (d *Dir) Entry(ctx context.Context, pos int64, plus bool) (e meta.Entry, ok bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	plus = plus && !d.fs.Shared()
	if pos < 0 {
		return meta.Entry{}, false, meta.Invalid
	}
	if pos == 0 {
		if err := d.rewind(ctx); err != nil {
			return meta.Entry{}, false, err
		}
	}
	for pos >= int64(len(d.list)) {
		if d.ended {
			return meta.Entry{}, false, nil
		}
		if err := d.more(ctx, plus); err != nil {
			return meta.Entry{}, false, err
		}
	}
	e = d.list[pos]
	if !plus {
		e.Attr = nil
		return e, true, nil
	}
	if pos >= 2 && (pos < int64(d.fresh) || d.version() != d.gen) {
		e.Attr = nil
		return e, true, nil
	}
	e.Attr, err = d.attr(ctx, e)
	return e, err == nil, err
}

// rewind begins the listing, again. d.mu is held.
func (d *Dir) rewind(ctx context.Context) error {
	parent, err := d.fs.cfg.Meta.Parent(ctx, d.n.ino)
	if errors.Is(err, meta.NotExist) { // it was removed while it is open
		parent, err = d.n.ino, nil
	}
	if err != nil {
		return err
	}
	d.list = append(d.list[:0],
		meta.Entry{Name: ".", Ino: d.n.ino, Type: meta.TypeDir},
		meta.Entry{Name: "..", Ino: parent, Type: meta.TypeDir})
	d.fresh, d.gen, d.ended = len(d.list), d.version(), false
	return nil
}

// more asks for the next entries. d.mu is held.
func (d *Dir) more(ctx context.Context, plus bool) error {
	if len(d.list) == 0 { // a position of an earlier handle
		if err := d.rewind(ctx); err != nil {
			return err
		}
	}
	after := ""
	if len(d.list) > 2 {
		after = d.list[len(d.list)-1].Name
	}
	asked, gen := d.fs.changes.Load(), d.version()
	list, more, err := d.fs.cfg.Meta.Entries(ctx, d.n.ino, after, listBatch, plus)
	if errors.Is(err, meta.NotExist) {
		list, more, err = nil, false, nil
	}
	if err != nil {
		return err
	}
	for i := d.fresh; i < len(d.list); i++ {
		d.list[i].Attr = nil
	}
	d.fresh, d.asked, d.gen = len(d.list), asked, gen
	d.list = append(d.list, list...)
	d.ended = !more
	if more && len(list) == 0 {
		return meta.Lost // an answer that says nothing: it would be asked for for ever
	}
	return nil
}

// version changes with each change of the directory.
func (d *Dir) version() uint64 { return d.n.begin() }

// attr returns the attributes of an entry as they are now, or nil if there is
// no such inode any more. d.mu is held.
func (d *Dir) attr(ctx context.Context, e meta.Entry) (*meta.Attr, error) {
	if n := d.fs.peek(e.Ino); n != nil {
		defer d.fs.put(n)
		n.mu.Lock()
		if n.fresh {
			a := n.shown()
			n.mu.Unlock()
			return &a, nil
		}
		n.mu.Unlock()
	} else if e.Attr != nil && d.fs.unchangedSince(d.asked) {
		return e.Attr, nil
	}
	a, err := d.fs.Attr(ctx, e.Ino)
	if errors.Is(err, meta.NotExist) {
		return nil, nil
	}
	return &a, err
}

// unchangedSince says that no inode that is not in the cache any more was
// changed after changes was at asked.
func (fs *FS) unchangedSince(asked uint64) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.forgotten <= asked
}

// Release ends the handle.
func (d *Dir) Release() { d.fs.release(d.n) }
