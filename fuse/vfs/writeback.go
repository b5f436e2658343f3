package vfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dos/chunk"
	"dos/meta"
)

const (
	// retryFirst and retryLast bound the pause before an attempt to store what
	// could not be stored is made again without anyone asking.
	retryFirst = 100 * time.Millisecond
	retryLast  = 5 * time.Second
)

// send moves the dirty data in [from, to) from active to the queue and sees to
// it that there is a driver. small says that little data may ride inline in the
// command, which is faster now and costs a fold later. n.mu is held.
func (fs *FS) send(n *inode, from, to int64, small bool) {
	size := n.size()
	pieces, since := n.active.take(from, to)
	if len(pieces) > 0 {
		bytes := int64(0)
		for _, p := range pieces {
			bytes += int64(len(p.data))
		}
		inline := size <= meta.InlineFile && len(pieces) <= meta.BatchMax ||
			small && bytes <= meta.InlineMax && len(pieces) <= meta.BatchMax
		var loads []*load
		if inline {
			loads = []*load{{pieces: pieces, bytes: bytes, inline: true, ready: true}}
		} else {
			loads = pack(pieces)
		}
		for _, l := range loads {
			n.seq++
			l.seq, l.since, l.mtime, l.kill = n.seq, since, n.wtime, n.kill
		}
		fs.flying.Add(bytes)
		n.queue = append(n.queue, loads...)
	}
	fs.kick(n)
}

// kick starts a driver if there is something to drive and none. n.mu is held.
func (fs *FS) kick(n *inode) {
	if len(n.queue) > 0 && !n.driving {
		n.driving = fs.start(n)
	}
}

// drive stores and commits what is in the queue until it is empty or something
// fails. It is the only one to change queue except at its end.
func (fs *FS) drive(ctx context.Context, n *inode) {
	ended := make(chan struct{}, maxSlots)
	running := 0
	var failure error
	for {
		n.mu.Lock()
		ready, next, err := n.plan()
		if failure == nil {
			failure = err
		}
		done := running == 0 && (failure != nil || len(n.queue) == 0)
		if done {
			fs.finish(n, failure)
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		switch {
		case failure != nil:
			<-ended
			running--
		case len(ready) > 0:
			failure = fs.commit(ctx, n, ready)
		case next != nil:
			select {
			case s := <-fs.slots:
				running++
				n.mu.Lock()
				next.storing = true
				n.mu.Unlock()
				fs.work.Go(func() {
					fs.storeOne(ctx, n, next, s)
					ended <- struct{}{}
				})
			case <-ended:
				running--
			}
		default:
			<-ended
			running--
		}
	}
}

func (fs *FS) storeOne(ctx context.Context, n *inode, l *load, s *slot) {
	ctx, cancel := context.WithTimeout(ctx, fs.cfg.Wait)
	defer cancel()
	id, stripe, err := fs.store(ctx, l, s)
	fs.slots <- s
	n.mu.Lock()
	l.storing, l.ready, l.err, l.id, l.stripe = false, err == nil, err, id, stripe
	n.mu.Unlock()
}

// plan says what can be committed in one command now, which load is to be
// stored next, and whether one has failed. mu is held.
func (n *inode) plan() (ready []*load, next *load, failed error) {
	if n.doomed && len(n.queue) > 0 {
		return nil, nil, errFenced
	}
	pieces, inline := 0, int64(0)
	prefix := true
	for _, l := range n.queue {
		if l.err != nil {
			if len(ready) > 0 {
				return ready, nil, nil // what came before it is good
			}
			return nil, nil, l.err
		}
		if !l.ready {
			prefix = false
			if !l.storing {
				return ready, l, nil
			}
			continue
		}
		if !prefix {
			continue
		}
		pieces += len(l.pieces)
		if l.inline {
			inline += l.bytes
		}
		if len(ready) > 0 && (pieces > meta.BatchMax || inline > inlineBody || l.off() < ready[len(ready)-1].end()) {
			prefix = false
			continue
		}
		ready = append(ready, l)
	}
	return ready, nil, nil
}

// commit sends the command that makes the loads, the first of the queue, true.
func (fs *FS) commit(ctx context.Context, n *inode, loads []*load) error {
	select {
	case fs.commits <- struct{}{}:
		defer func() { <-fs.commits }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, fs.cfg.Wait)
	defer cancel()
	w := fs.command(n, loads)
	gave, epoch := false, fs.epoch.Load()
	if fs.Shared() {
		w.Held = true
		n.mu.Lock()
		w.Give = n.giving && len(loads) == len(n.queue) && n.active.empty()
		if gave = w.Give && n.held; gave {
			// Somebody else may have it before we hear so: from now on nothing is
			// shown or written here, until the answer comes.
			fs.unhold(n)
		}
		n.mu.Unlock()
	}
	began := n.begin()
	a, err := fs.write(ctx, w)
	n.mu.Lock()
	fs.end(n, began, a, err, true)
	fs.moved(n, w.Extents[0].Off, w.Size) // perhaps in part, if there is an error
	if err == nil {
		n.queue = n.queue[len(loads):]
		n.stored = loads[len(loads)-1].seq
		for _, l := range loads {
			fs.drop(n, l)
		}
		n.backoff, n.retry = 0, time.Time{}
		n.settle()
		n.tell()
	}
	if w.Give {
		n.fresh = false
	}
	if gave && refused(err) && !errors.Is(err, meta.Expired) && fs.epoch.Load() == epoch {
		fs.keepHolding(n) // nothing of it was executed
	}
	n.mu.Unlock()
	if err == nil {
		for _, l := range loads {
			fs.endStripe(l)
		}
	}
	return err
}

// write sends a command, in halves when it is refused because it would do too
// much at once: there is a limit to the extents that one may replace.
func (fs *FS) write(ctx context.Context, w meta.Write) (meta.Attr, error) {
	a, err := fs.cfg.Meta.Write(ctx, w)
	if !errors.Is(err, meta.TooLarge) {
		return a, err
	}
	first, second, ok := halve(w)
	if !ok {
		return a, err
	}
	if a, err = fs.write(ctx, first); err != nil {
		return a, err
	}
	return fs.write(ctx, second)
}

// halve makes two commands of one that has extents and nothing to punch.
func halve(w meta.Write) (first, second meta.Write, ok bool) {
	first, second = w, w
	first.Give = false
	if n := len(w.Extents); n > 1 {
		first.Extents, second.Extents = w.Extents[:n/2], w.Extents[n/2:]
	} else {
		e := w.Extents[0]
		half := e.Len / 2
		if half > chunk.Block {
			half = half / chunk.Block * chunk.Block
		}
		if half == 0 {
			return w, w, false
		}
		l, r := e, e
		l.Len, r.Off, r.Len = half, e.Off+half, e.Len-half
		if e.Stripe == 0 {
			l.Inline, r.Inline = e.Inline[:half], e.Inline[half:]
		} else {
			r.At += uint32(half)
		}
		first.Extents, second.Extents = []meta.Extent{l}, []meta.Extent{r}
	}
	first.Size = first.Extents[len(first.Extents)-1].End()
	for _, half := range []*meta.Write{&first, &second} {
		half.Stripes = nil
		for _, s := range w.Stripes {
			if slices.ContainsFunc(half.Extents, func(e meta.Extent) bool { return e.Stripe == s.ID }) {
				half.Stripes = append(half.Stripes, s)
			}
		}
	}
	return first, second, true
}

func (fs *FS) endStripe(l *load) {
	if l.id != 0 {
		fs.cfg.Data.End(l.id)
		l.id = 0
	}
}

// drop gives back the memory of a load that is not in the queue any more.
func (fs *FS) drop(n *inode, l *load) {
	for _, p := range l.pieces {
		n.active.release(p)
	}
	fs.flying.Add(-l.bytes)
}

// settle forgets what only matters while something is dirty. mu is held.
func (n *inode) settle() {
	if n.clean() {
		n.dirtyEnd, n.wtime, n.kill = 0, 0, false
		return
	}
	n.dirtyEnd = n.active.end()
	for _, l := range n.queue {
		n.dirtyEnd = max(n.dirtyEnd, l.end())
	}
}

// finish ends a driver. Without an error the queue is empty. With one:
//   - if the answer to a command is unknown, the loads stay as they are, and the
//     same command, with the same stripes, is sent again later;
//   - if trying again may help, the data goes back to active;
//   - else, also if a fence forbids it, it is dropped, and whoever has the file
//     open is told.
//
// mu is held and nothing is being stored.
func (fs *FS) finish(n *inode, err error) {
	n.driving = false
	defer n.tell()
	if n.doomed {
		fs.fail(n)
		return
	}
	if err == nil {
		fs.tidy(n)
		return
	}
	n.fails++
	n.err = fmt.Errorf("inode %d: data not stored: %w", n.ino, err)
	n.backoff = min(max(2*n.backoff, retryFirst), retryLast)
	n.retry = time.Now().Add(n.backoff)
	if full(err) {
		fs.noRoom()
	}
	unknown := !refused(err) && n.queue[0].ready
	if n.orphan() || hopeless(err) || n.attr.Fenced && errors.Is(err, meta.Conflict) {
		fs.lose(n, n.err)
		if errors.Is(err, meta.Expired) {
			fs.unhold(n)
		}
		return
	}
	if !n.orphan() {
		fs.cfg.Log.Warn("vfs: data cannot be stored", "inode", uint64(n.ino), "err", err, "retry", n.backoff)
	}
	if unknown {
		for _, l := range n.queue {
			l.err = nil
		}
		return
	}
	fs.giveBack(n)
	if full(err) && n.opens == 0 {
		fs.lose(n, n.err) // nobody is left to be told, and it would be in the way for ever
	}
}

// giveBack returns the queue to active, below what was written since. mu is held.
func (fs *FS) giveBack(n *inode) {
	for i := len(n.queue) - 1; i >= 0; i-- {
		l := n.queue[i]
		fs.endStripe(l)
		for _, p := range l.pieces {
			n.active.under(p, l.since)
		}
		fs.flying.Add(-l.bytes)
	}
	n.queue = nil
}

// lose drops all dirty data of the inode, which no driver has. mu is held.
func (fs *FS) lose(n *inode, err error) {
	fs.giveBack(n)
	bytes := n.active.bytes
	n.active.cut(0)
	n.settle()
	if bytes > 0 && !n.orphan() && !errors.Is(err, meta.NotExist) {
		n.lost++
		n.lostErr, n.lostNew = err, true
		fs.cfg.Log.Warn("vfs: written data is dropped", "inode", uint64(n.ino), "bytes", bytes, "err", err)
	}
	n.run = 0
	fs.tidy(n)
}

// tidy takes the inode off the list of the dirty ones if it is none. mu is held.
func (fs *FS) tidy(n *inode) {
	if n.clean() {
		n.settle()
		fs.setDirty(n, false)
	}
}

// sync returns when what was written before is committed.
func (fs *FS) sync(ctx context.Context, n *inode, small bool) error {
	n.mu.Lock()
	for n.frozen {
		if err := fs.pause(ctx, n); err != nil {
			n.mu.Unlock()
			return err
		}
	}
	if n.clean() || n.orphan() {
		n.mu.Unlock()
		return nil
	}
	fs.send(n, 0, 1<<63-1, small)
	err := fs.await(ctx, n)
	n.mu.Unlock()
	return err
}

// await returns when all that is in the queue is committed, or an attempt to do
// so has failed. n.mu is held, before and after.
func (fs *FS) await(ctx context.Context, n *inode) error {
	target, fails := n.seq, n.fails
	for len(n.queue) > 0 && n.stored < target && n.fails == fails {
		fs.kick(n)
		if err := fs.pause(ctx, n); err != nil {
			return err
		}
	}
	if n.fails != fails {
		return n.err
	}
	return nil
}

// pause waits for news of the inode. n.mu is held, before and after.
func (fs *FS) pause(ctx context.Context, n *inode) error {
	news := n.wait()
	n.mu.Unlock()
	defer n.mu.Lock()
	select {
	case <-news:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-fs.done:
		return meta.Unavailable
	}
}
