package fold

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dos/chunk"
)

const (
	// askSize is how much of a file one layout is asked for.
	askSize = 16 * Window
	// askMax bounds how many answers one window may take: a window of single
	// bytes, 4096 in an answer, is more than anybody folds.
	askMax = 64
	// piecesMax is how many pieces are made one at a time: as many as one command
	// may replace. A window of more takes several rounds.
	piecesMax = 4096
)

// file folds one file, and reports whether it needs no more folding.
func (f *Folder) file(ctx context.Context, file uint64) (done bool, err error) {
	for range 2 { // once to fold, once to see that nobody changed it meanwhile
		if done, err = f.walk(ctx, file); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// walk goes through the windows of a file and folds them. When it has found
// nothing to do in any, and nobody changed the file meanwhile, it says that the
// file is done. Windows that cannot be folded now are left, and with them the file.
func (f *Folder) walk(ctx context.Context, file uint64) (done bool, err error) {
	var version uint64 // of the file at the first window; our swaps change it
	var failed error
	changed := false
	for off, first := int64(0), true; ; first = false {
		l, err := f.layout(ctx, file, off, askSize)
		if err != nil {
			return false, err
		}
		if first {
			version = l.Version
		}
		changed = changed || l.Version != version
		if off >= l.Size {
			if failed != nil || changed {
				return false, failed
			}
			err := f.swap(ctx, file, version, nil, nil, true)
			return err == nil, err
		}
		end := off + askSize
		if l.End < min(end, l.Size) { // the last window that is whole
			end = l.End / Window * Window
		}
		if end <= off { // not even one
			if l, err = f.gather(ctx, file, off, l); err != nil {
				return false, err
			}
			end = off + Window
		}
		for ; off < end && off < l.Size; off += Window {
			pieces := plan(l, off, l.Size, f.config.Data.Best)
			if pieces == nil {
				continue
			}
			pieces = pieces[:min(len(pieces), piecesMax)]
			err := f.rewrite(ctx, file, l, pieces)
			if err == nil {
				changed = true
				off += Window
				break // the version is another one now
			}
			if errors.Is(err, ErrConflict) || errors.Is(err, ErrGone) || ctx.Err() != nil {
				return false, err
			}
			failed = err
		}
	}
}

// gather completes the layout of a window that is too long for one answer.
func (f *Folder) gather(ctx context.Context, file uint64, off int64, l Layout) (Layout, error) {
	to := min(off+Window, l.Size)
	for range askMax {
		if l.End >= to {
			return l, nil
		}
		next, err := f.layout(ctx, file, l.End, to-l.End)
		switch {
		case err != nil:
			return l, err
		case next.Version != l.Version:
			return l, ErrConflict
		case next.End <= l.End:
			return l, fmt.Errorf("layout from %d ends at %d", l.End, next.End)
		}
		// An extent across the border is in both answers.
		l.Extents = append(clip(l.Extents, 0, l.End), clip(next.Extents, l.End, next.End)...)
		for _, s := range next.Stripes {
			if !slices.ContainsFunc(l.Stripes, func(o chunk.Stripe) bool { return o.ID == s.ID }) {
				l.Stripes = append(l.Stripes, s)
			}
		}
		l.End = next.End
	}
	return l, fmt.Errorf("window at %d has too many extents", off)
}

// rewrite puts pieces of a file into one new stripe and swings the file to it.
func (f *Folder) rewrite(ctx context.Context, file uint64, l Layout, pieces []Extent) error {
	data, err := f.read(ctx, l, pieces)
	if err != nil {
		return err
	}
	if err := f.pause(ctx, len(data)); err != nil {
		return err
	}
	id, err := f.config.Data.Begin(ctx)
	if err != nil {
		return err
	}
	defer f.config.Data.End(id)
	s, err := f.config.Data.Write(ctx, id, data)
	if err != nil {
		return err
	}
	err = f.swap(ctx, file, l.Version, pack(s.ID, pieces), []chunk.Stripe{s}, false)
	switch {
	case errors.Is(err, ErrConflict), errors.Is(err, ErrGone):
		f.config.Data.Discard(ctx, s) // certainly not named; after other errors it may be
		return err
	case err != nil:
		return err
	}
	f.note(func(s *Status) { s.Windows, s.Bytes = s.Windows+1, s.Bytes+int64(len(data)) })
	return nil
}

// read returns the bytes of pieces, one after another.
func (f *Folder) read(ctx context.Context, l Layout, pieces []Extent) ([]byte, error) {
	if f.buf == nil {
		f.buf = make([]byte, Window)
	}
	stripes := make(map[chunk.StripeID]chunk.Stripe, len(l.Stripes))
	for _, s := range l.Stripes {
		stripes[s.ID] = s
	}
	data := f.buf[:0]
	for _, e := range pieces {
		if e.Stripe == 0 {
			if int64(len(e.Inline)) != e.Len {
				return nil, fmt.Errorf("inline extent at %d has %d bytes of %d", e.Off, len(e.Inline), e.Len)
			}
			data = append(data, e.Inline...)
			continue
		}
		s, ok := stripes[e.Stripe]
		if !ok {
			return nil, fmt.Errorf("layout names stripe %016x without saying where it is", uint64(e.Stripe))
		}
		n := len(data)
		if e.Len > int64(cap(data)-n) {
			return nil, fmt.Errorf("extents overlap at %d", e.Off)
		}
		data = data[:n+int(e.Len)]
		if err := f.config.Data.Read(ctx, s, data[n:], int64(e.At)); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// pause keeps the rate.
func (f *Folder) pause(ctx context.Context, n int) error {
	now := time.Now()
	at := f.next
	if at.Before(now) {
		at = now
	}
	f.next = at.Add(time.Duration(float64(n) / float64(f.config.Rate) * float64(time.Second)))
	timer := time.NewTimer(at.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
