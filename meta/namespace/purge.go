package namespace

import (
	"fmt"

	"dos/chunk"
	"dos/meta"
	"dos/meta/lease"
	"dos/meta/session"
	"dos/meta/state"
)

const (
	// vanishNow is how many extents, and how many attributes, an inode may have
	// to be removed in the command that takes its last name.
	vanishNow = 64
	// vanishAll bounds them in one command; further inodes wait for Purge.
	vanishAll = 1024
)

// A burial removes inodes in one command. Its zero value is ready.
type burial struct {
	removed int64 // extents and attributes
}

// vanish removes an inode that nothing names or keeps any more.
func (b *burial) vanish(tx *state.Tx, in *inode) {
	ino := in.Attr.Ino
	tx.Delete(inodeKey(ino))
	remove(tx, foldKey(ino))
	if in.Attr.IsFile() {
		lease.Drop(tx, ino)
	}
	total(tx, func(t *totals) { t.Inodes-- })
	if in.Extents == 0 && in.Xattrs == 0 && len(in.Cuts) == 0 {
		return
	}
	tx.Set(purgeKey(ino), []byte{})
	if in.Extents > vanishNow || in.Xattrs > vanishNow || b.removed+in.Extents+in.Xattrs > vanishAll {
		return
	}
	b.removed += in.Extents + in.Xattrs
	purgeInode(tx, ino, int(in.Extents+in.Xattrs))
}

func purge(tx *state.Tx, req Purge) (Purged, error) {
	limit, err := clamp(req.Limit)
	if err != nil {
		return Purged{}, err
	}
	if !has(tx, purgeKey(req.Ino)) {
		return Purged{}, nil
	}
	if in, ok := load[inode](tx, inodeKey(req.Ino)); ok {
		return Purged{purgeCuts(tx, &in, limit)}, nil
	}
	return Purged{purgeInode(tx, req.Ino, limit)}, nil
}

// purgeInode removes rows of an inode that is gone, and reports whether some are left.
func purgeInode(tx *state.Tx, ino meta.Ino, limit int) (more bool) {
	ed := editOf(tx, &inode{Attr: meta.Attr{Ino: ino}})
	var old []extent
	for e := range extents(tx, ino, 0, forever) {
		if len(old) == limit {
			more = true
			break
		}
		old = append(old, e)
	}
	for _, e := range old {
		ed.remove(e)
	}
	if err := ed.done(); err != nil {
		panic(fmt.Sprintf("namespace: purging inode %d: %v", ino, err)) // removing names no stripe
	}
	limit -= len(old)
	var names [][]byte
	prefix := xattrKey(ino, "")
	for k := range tx.Scan(prefix, state.After(prefix)) {
		if len(names) == limit {
			more = true
			break
		}
		names = append(names, k)
	}
	for _, k := range names {
		tx.Delete(k)
	}
	if !more {
		tx.Delete(purgeKey(ino))
	}
	return more
}

// forever is behind every extent.
const forever = 1<<63 - 1

// purgeCuts removes dead extents, looking at no more than limit, and reports
// whether some may be left.
func purgeCuts(tx *state.Tx, in *inode, limit int) (more bool) {
	ed := editOf(tx, in)
	for limit > 0 && len(in.Cuts) > 0 {
		c := &in.Cuts[0]
		var old []extent
		reached := c.To
		for e := range extents(tx, ed.ino, c.From, c.To) {
			if limit == 0 {
				reached = e.Off
				break
			}
			limit--
			if in.dead(e) {
				old = append(old, e)
			}
		}
		for _, e := range old {
			ed.remove(e)
		}
		if c.From = reached; c.From >= c.To {
			in.Cuts = in.Cuts[1:]
		}
	}
	if err := ed.done(); err != nil {
		panic(fmt.Sprintf("namespace: purging inode %d: %v", ed.ino, err)) // removing names no stripe
	}
	ed.mark() // a stripe may be half dead now
	if more = len(in.Cuts) > 0; !more {
		in.Cuts = nil
		tx.Delete(purgeKey(ed.ino))
	}
	put(tx, in)
	return more
}

func purging(r state.Reader, req After) (PurgingReply, error) {
	limit, err := clamp(req.Limit)
	if err != nil {
		return PurgingReply{}, err
	}
	var reply PurgingReply
	for k := range r.Scan(append(purgeKey(req.After), 0), state.After([]byte("p"))) {
		if len(reply.Inos) == limit {
			reply.More = true
			break
		}
		reply.Inos = append(reply.Inos, meta.Ino(second(k)))
	}
	return reply, nil
}

func drop(tx *state.Tx, req Drop) (none, error) {
	if n := len(req.Inos) + len(req.Keep); n > ListMax {
		return none{}, fmt.Errorf("%d inodes of at most %d: %w", n, ListMax, meta.TooLarge)
	}
	for _, ino := range req.Keep {
		// What it was not asked about, or has dropped since, it does not keep.
		if k := askedKey(tx.Session, ino); has(tx, k) {
			tx.Delete(k)
			tx.Set(orphanKey(tx.Session, ino), []byte{})
		}
	}
	var b burial
	for _, ino := range req.Inos {
		b.release(tx, tx.Session, ino)
	}
	return none{}, nil
}

// asked lists what the session is asked about.
func asked(r state.Reader, me meta.SessionID, req Asked) (AskedReply, error) {
	limit, err := clamp(req.Limit)
	if err != nil {
		return AskedReply{}, err
	}
	var reply AskedReply
	for k := range r.Scan(askedKey(me, 0), state.After(key('q', uint64(me)))) {
		if len(reply.Inos) == limit {
			break
		}
		reply.Inos = append(reply.Inos, meta.Ino(second(k)))
	}
	return reply, nil
}

// release ends a session's hold on an inode without a name, which goes with the
// last hold. What the session does not hold is left alone.
func (b *burial) release(tx *state.Tx, s meta.SessionID, ino meta.Ino) {
	k := orphanKey(s, ino)
	if !has(tx, k) {
		if k = askedKey(s, ino); !has(tx, k) {
			return
		}
	}
	tx.Delete(k)
	in, err := inodeAt(tx, ino)
	if err != nil {
		panic(fmt.Sprintf("namespace: session %d keeps what is not there: %v", s, err))
	}
	if in.Keepers > 0 {
		in.Keepers--
		put(tx, in)
		return
	}
	b.vanish(tx, in)
}

// Release gives up at most limit inodes that were kept for an ended session; it is a
// session.Release.
func Release(tx *state.Tx, s meta.SessionID, limit int) (n int, more bool) {
	var inos []meta.Ino
	for _, prefix := range []byte{'o', 'q'} {
		for k := range tx.Scan(key(prefix, uint64(s)), state.After(key(prefix, uint64(s)))) {
			if len(inos) == limit {
				more = true
				break
			}
			inos = append(inos, meta.Ino(second(k)))
		}
	}
	var b burial
	for _, ino := range inos {
		b.release(tx, s, ino)
	}
	return len(inos), more
}

func bury(tx *state.Tx, req StripeIDs) (none, error) {
	if len(req.IDs) > ListMax {
		return none{}, fmt.Errorf("%d stripes of at most %d: %w", len(req.IDs), ListMax, meta.TooLarge)
	}
	settled := session.Settler(tx)
	for _, id := range req.IDs {
		s, ok := load[StripeInfo](tx, stripeKey(id))
		if !ok {
			continue // buried before
		}
		if s.Live > 0 {
			return none{}, fmt.Errorf("stripe %d lives: %w", id, meta.Conflict)
		}
		if !settled(id) {
			continue // dead does not list it yet
		}
		tx.Delete(deadKey(s.Died, id))
		tx.Delete(stripeKey(id))
	}
	return none{}, nil
}

func dead(r state.Reader, req Dead) (DeadReply, error) {
	limit, err := clamp(req.Limit)
	if err != nil {
		return DeadReply{}, err
	}
	var reply DeadReply
	settled := session.Settler(r)
	for k := range r.Scan([]byte("g"), deadKey(req.Before, 0)) {
		if len(reply.Stripes) == limit {
			reply.More = true
			break
		}
		id := chunk.StripeID(second(k))
		if !settled(id) {
			// Its write may be sent once more by a client that got no answer. The row
			// is what refuses it: without it the stripe would be made again, of
			// shards that are gone.
			continue
		}
		s, ok := load[StripeInfo](r, stripeKey(id))
		if !ok {
			panic(fmt.Sprintf("namespace: dead stripe %d has no row", id))
		}
		reply.Stripes = append(reply.Stripes, s)
	}
	return reply, nil
}
