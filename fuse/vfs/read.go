package vfs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/meta"
)

// parallelReads is how many stripes one read asks for at once.
const parallelReads = 8

// A fetch is a part of a read that one stripe has.
type fetch struct {
	p      []byte
	off    int64 // in the file
	stripe chunk.Stripe
	at     int64
}

// read fills p from off, and returns how many bytes the file has there.
func (fs *FS) read(ctx context.Context, n *inode, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, meta.Invalid
	}
	var one [1]gap // a read of stored data allocates nothing here
	gaps := one[:0]
	now, err := fs.now(ctx, n, off)
	if err != nil {
		return 0, err
	}
	n.mu.Lock()
	size := n.sizeAt(now)
	if off >= size || len(p) == 0 {
		n.mu.Unlock()
		return 0, nil
	}
	p = p[:min(int64(len(p)), size-off)]
	gaps = append(gaps, gap{p, off})
	if !n.blank() {
		gaps = n.active.overlay(gaps)
		for i := len(n.queue) - 1; i >= 0; i-- {
			gaps = overlay(gaps, n.queue[i].pieces)
		}
	}
	n.mu.Unlock()
	for _, g := range gaps {
		began := time.Now()
		err := fs.fill(ctx, n, g, now)
		if err != nil && !errors.Is(err, meta.NotExist) && ctx.Err() == nil && time.Since(began) < fs.cfg.Wait/2 {
			// The bytes may have been moved since the extents were cached. (What
			// took longer was waited for, and is not to be waited for twice.)
			n.mu.Lock()
			fs.moved(n, g.off, g.end())
			n.mu.Unlock()
			err = fs.fill(ctx, n, g, now)
		}
		if err != nil {
			return 0, fs.readError(n, g, err)
		}
	}
	return len(p), nil
}

// now returns nil if what is known here of the file's size and data is true, and
// else the attributes that are. off is where they are asked for.
func (fs *FS) now(ctx context.Context, n *inode, off int64) (*meta.Attr, error) {
	if !fs.Shared() {
		return nil, nil
	}
	n.mu.Lock()
	mine, err := fs.sure(ctx, n)
	if !mine && err == nil {
		fs.wish(n)
	}
	n.mu.Unlock()
	if mine || err != nil {
		return nil, err
	}
	a, err := fs.confirm(ctx, n, off)
	return &a, err
}

// sizeAt is the file's length when its attributes are now, or as they are known.
// mu is held.
func (n *inode) sizeAt(now *meta.Attr) int64 {
	switch {
	case now == nil:
		return n.size()
	case n.blank():
		return now.Size
	}
	return max(now.Size, n.dirtyEnd)
}

// fill reads stored data. What was written since the caller looked at the dirty
// data may or may not be in it.
func (fs *FS) fill(ctx context.Context, n *inode, g gap, now *meta.Attr) error {
	var few [4]fetch
	list := few[:0]
	for len(g.p) > 0 {
		l, err := fs.layoutAt(ctx, n, g.off, now)
		if err != nil {
			return err
		}
		part := gap{g.p[:min(int64(len(g.p)), l.end-g.off)], g.off}
		g = gap{g.p[len(part.p):], part.end()}
		if list, err = l.plan(part, list); err != nil {
			return err
		}
	}
	if len(list) == 1 {
		return fs.fetchStripe(ctx, list[0])
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelReads)
	for _, f := range list {
		group.Go(func() error { return fs.fetchStripe(ctx, f) })
	}
	return group.Wait()
}

func (fs *FS) fetchStripe(ctx context.Context, f fetch) error {
	if err := fs.cfg.Data.Read(ctx, f.stripe, f.p, f.at); err != nil {
		return fmt.Errorf("stripe %016x: %w", uint64(f.stripe.ID), err)
	}
	return nil
}

// plan fills what is inline or a hole of a gap that the layout covers, and
// appends to list what has to be fetched.
func (l *layout) plan(g gap, list []fetch) ([]fetch, error) {
	for i := l.after(g.off); len(g.p) > 0; i++ {
		if i == len(l.extents) || l.extents[i].Off >= g.end() {
			clear(g.p)
			break
		}
		e := &l.extents[i]
		if hole := e.Off - g.off; hole > 0 {
			clear(g.p[:hole])
			g = gap{g.p[hole:], e.Off}
		}
		in := g.off - e.Off
		have := int(min(int64(len(g.p)), e.Len-in))
		if e.Stripe == 0 {
			if copy(g.p[:have], e.Inline[min(in, int64(len(e.Inline))):]) < have {
				return nil, meta.Lost
			}
		} else {
			s, ok := l.stripes[e.Stripe]
			if !ok {
				return nil, fmt.Errorf("stripe %016x is not in the table: %w", uint64(e.Stripe), meta.Lost)
			}
			list = append(list, fetch{g.p[:have:have], g.off, s, int64(e.At) + in})
		}
		g = gap{g.p[have:], g.off + int64(have)}
	}
	return list, nil
}

// readError turns what the data path says into a kind, and adds which bytes of
// which file are affected.
func (fs *FS) readError(n *inode, g gap, err error) error {
	switch {
	case errors.Is(err, chunk.ErrTooFew), errors.Is(err, chunk.ErrCorrupt),
		errors.Is(err, chunk.ErrNotExist), errors.Is(err, chunk.ErrLost), errors.Is(err, meta.Lost):
		return fmt.Errorf("inode %d, %d bytes at %d: %w: %w", n.ino, len(g.p), g.off, meta.Lost, err)
	}
	return err
}
