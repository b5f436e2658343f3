package vfs

import (
	"context"
	"time"

	"dos/meta"
)

// The mode bits of fallocate(2) that mean something here.
const (
	allocKeepSize  = 0x01
	allocPunchHole = 0x02
	allocZeroRange = 0x10
)

// SetAttr changes attributes; a Size truncates.
func (fs *FS) SetAttr(ctx context.Context, ino meta.Ino, set meta.SetAttr) (meta.Attr, error) {
	n := fs.get(ino)
	defer fs.put(n)
	return fs.setAttr(ctx, n, set)
}

func (fs *FS) setAttr(ctx context.Context, n *inode, set meta.SetAttr) (meta.Attr, error) {
	if set.Size != nil && (*set.Size < 0 || *set.Size > meta.SizeMax) {
		return meta.Attr{}, meta.TooLarge
	}
	if err := n.op.Lock(ctx); err != nil {
		return meta.Attr{}, err
	}
	defer n.op.Unlock()
	if err := fs.alter(ctx, n); err != nil {
		return meta.Attr{}, err
	}
	defer fs.altered(n)
	below := int64(1<<63 - 1)
	if set.Size != nil {
		below = *set.Size
	}
	if err := fs.freeze(ctx, n, below); err != nil {
		return meta.Attr{}, err
	}
	defer fs.thaw(n)
	began := n.begin()
	a, err := fs.cfg.Meta.SetAttr(ctx, n.ino, set)
	n.mu.Lock()
	defer n.mu.Unlock()
	fs.end(n, began, a, err, true)
	if err != nil {
		return meta.Attr{}, err
	}
	if set.Size != nil {
		n.active.cut(below)
		n.run = 0
		fs.moved(n, 0, 1<<63-1)
		fs.tidy(n)
	}
	return a, nil
}

// freeze stores what is dirty below an offset and sees to it that nothing else
// is on its way, until thaw: no command of write-back can come after the
// caller's. The caller holds op.
func (fs *FS) freeze(ctx context.Context, n *inode, below int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen = true
	// What is on its way already may fail and come back to active: then the part
	// of it that counts is sent again.
	err := fs.await(ctx, n)
	if len(n.queue) == 0 && ctx.Err() == nil {
		fs.send(n, 0, below, true)
		err = fs.await(ctx, n)
	}
	if err != nil {
		n.frozen = false
		n.tell()
		return err
	}
	return nil
}

func (fs *FS) thaw(n *inode) {
	n.mu.Lock()
	n.frozen = false
	n.tell()
	n.mu.Unlock()
}

// Allocate is fallocate(2), with its mode bits. Nothing is reserved beyond the
// check that there is room now.
func (f *File) Allocate(ctx context.Context, off, size int64, mode uint32) error {
	switch {
	case !f.writes:
		return meta.Permission
	case off < 0 || size <= 0:
		return meta.Invalid
	case off > meta.SizeMax-size:
		return meta.TooLarge
	}
	fs, n, end := f.fs, f.n, off+size
	w := meta.Write{Ino: n.ino}
	switch mode {
	case 0:
		w.Size = end
	case allocKeepSize:
	case allocPunchHole | allocKeepSize, allocZeroRange | allocKeepSize:
		w.Punch = []meta.Range{{Off: off, Len: size}}
	case allocZeroRange:
		w.Punch, w.Size = []meta.Range{{Off: off, Len: size}}, end
	default:
		return meta.Unsupported
	}
	if mode&allocPunchHole == 0 {
		if err := fs.checkRoom(ctx, size); err != nil {
			return err
		}
	}
	if mode == allocKeepSize {
		return nil
	}
	if err := n.op.Lock(ctx); err != nil {
		return err
	}
	defer n.op.Unlock()
	if err := fs.own(ctx, n); err != nil {
		return err
	}
	n.mu.Lock()
	longer := w.Size > n.size()
	n.mu.Unlock()
	if w.Punch == nil && !longer {
		return nil
	}
	if err := fs.freeze(ctx, n, 1<<63-1); err != nil {
		return err
	}
	defer fs.thaw(n)
	w.Mtime, w.Low, w.Held = meta.At(time.Now()), fs.cfg.Data.Low(), fs.Shared()
	began := n.begin()
	a, err := fs.cfg.Meta.Write(ctx, w)
	n.mu.Lock()
	defer n.mu.Unlock()
	fs.end(n, began, a, err, true)
	if err == nil {
		fs.moved(n, off, end)
	}
	return err
}
