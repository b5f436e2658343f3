package vfs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dos/chunk"
	"dos/meta"
)

// inlineBody bounds the inline data in bytes of one command.
const inlineBody = meta.InlineMax

// A load is a part of a file's dirty data on its way: what goes into one stripe,
// or inline into the command. Its pieces do not change any more.
type load struct {
	seq    uint64
	pieces []*segment // in file order
	bytes  int64
	inline bool
	since  time.Time // when the oldest byte was written
	mtime  meta.Time
	kill   bool

	// Guarded by the inode's mu:
	storing bool
	ready   bool // stored, or inline
	err     error
	id      chunk.StripeID // that was begun for it and not ended; zero: none
	stripe  chunk.Stripe
}

func (l *load) off() int64 { return l.pieces[0].off }
func (l *load) end() int64 { return l.pieces[len(l.pieces)-1].end() }

// pack cuts dirty pieces, in file order, into loads. A whole span is a load of
// its own; what is scattered shares stripes.
func pack(pieces []*segment) []*load {
	var loads []*load
	var cur *load
	for i := 0; i < len(pieces); {
		// A run is what is contiguous within a span: it stays together.
		j, size := i, int64(0)
		for ; j < len(pieces); j++ {
			p := pieces[j]
			if j > i && (p.off != pieces[j-1].end() || p.off/span != pieces[i].off/span) {
				break
			}
			size += int64(len(p.data))
		}
		if cur == nil || cur.bytes+size > chunk.MaxStripe || len(cur.pieces)+j-i > meta.BatchMax && len(cur.pieces) > 0 {
			cur = &load{}
			loads = append(loads, cur)
		}
		// A run of more than BatchMax pieces is one extent all the same.
		cur.pieces = append(cur.pieces, pieces[i:j]...)
		cur.bytes += size
		i = j
	}
	return loads
}

// extents describes the load to the metadata service.
func (l *load) extents() []meta.Extent {
	var list []meta.Extent
	at := uint32(0)
	for _, p := range l.pieces {
		if n := len(list); n > 0 && list[n-1].End() == p.off {
			e := &list[n-1]
			e.Len += int64(len(p.data))
			if l.inline {
				e.Inline = append(e.Inline, p.data...)
			}
		} else {
			e := meta.Extent{Off: p.off, Len: int64(len(p.data))}
			if l.inline {
				e.Inline = append([]byte(nil), p.data...)
			} else {
				e.Stripe, e.At = l.stripe.ID, at
			}
			list = append(list, e)
		}
		at += uint32(len(p.data))
	}
	return list
}

// A slot is the right to store a stripe, and the buffer to put its pieces
// together in.
type slot struct{ mem []byte }

// store puts the load's bytes into a stripe.
func (fs *FS) store(ctx context.Context, l *load, s *slot) (chunk.StripeID, chunk.Stripe, error) {
	data := l.pieces[0].data
	if len(l.pieces) > 1 {
		if s.mem == nil {
			s.mem = make([]byte, 0, chunk.MaxStripe)
		}
		data = s.mem[:0]
		for _, p := range l.pieces {
			data = append(data, p.data...)
		}
	}
	id, err := fs.cfg.Data.Begin(ctx)
	if err != nil {
		return 0, chunk.Stripe{}, err
	}
	stripe, err := fs.cfg.Data.Write(ctx, id, data)
	if err != nil {
		fs.cfg.Data.End(id) // no command will name it
		return 0, chunk.Stripe{}, writeError(err)
	}
	fs.tookRoom(l.bytes)
	return id, stripe, nil
}

// command is the one command that commits the loads, which are in file order.
func (fs *FS) command(n *inode, loads []*load) meta.Write {
	last := loads[len(loads)-1]
	w := meta.Write{Ino: n.ino, Size: last.end(), Low: fs.cfg.Data.Low()}
	for _, l := range loads {
		w.Extents = append(w.Extents, l.extents()...)
		if !l.inline {
			w.Stripes = append(w.Stripes, l.stripe)
		}
		w.Mtime = max(w.Mtime, l.mtime)
		w.KillPriv = w.KillPriv || l.kill
	}
	return w
}

// writeError turns what the data path says of a write into a kind.
func writeError(err error) error {
	switch {
	case errors.Is(err, chunk.ErrFull):
		return fmt.Errorf("%w: %w", meta.NoSpace, err)
	case errors.Is(err, chunk.ErrTooFew), errors.Is(err, chunk.ErrLost):
		return fmt.Errorf("%w: %w", meta.Unavailable, err)
	}
	return err
}

// full says that there is no room for the data, which does not pass by itself.
func full(err error) bool { return errors.Is(err, meta.NoSpace) || errors.Is(err, meta.Quota) }

// refused says that a command was executed and its answer was no. Of any other
// error nobody knows whether the command was, or still will be, executed.
func refused(err error) bool {
	var kind meta.Kind
	return errors.As(err, &kind) && kind != meta.Unavailable && kind != meta.TimedOut
}

// hopeless says that trying again will not help: the file or the session is no
// more. Whatever else was refused is stored anew and tried again: it stays
// dirty, and fsync says so, rather than be lost.
func hopeless(err error) bool {
	return errors.Is(err, meta.NotExist) || errors.Is(err, meta.Expired)
}
