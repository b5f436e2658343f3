package namespace

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"dos/chunk"
	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

func check(r state.Reader, _ none) (CheckReply, error) {
	var reply CheckReply
	reply.Counts = Check(r, func(problem string) {
		if len(reply.Problems) == ProblemsMax {
			reply.More++
			return
		}
		reply.Problems = append(reply.Problems, problem)
	})
	return reply, nil
}

// Check reads every row of the tree and reports what is not as it must be. It
// takes memory in proportion to the inodes and stripes, and believes nothing:
// damaged rows are problems and no panics.
func Check(r state.Reader, report func(problem string)) Counts {
	c := &checker{r: r, report: report,
		inodes:  make(map[meta.Ino]*checked),
		stripes: make(map[chunk.StripeID]*checkedStripe),
		purging: make(map[meta.Ino]bool),
	}
	c.purge()
	c.inode()
	c.dentries()
	c.stripe()
	c.extents()
	c.xattrs()
	c.dead()
	c.orphans()
	c.folds()
	c.totals()
	c.links()
	return c.counts
}

// A checker holds what the rows said so far.
type checker struct {
	r       state.Reader
	report  func(string)
	counts  Counts
	inodes  map[meta.Ino]*checked
	stripes map[chunk.StripeID]*checkedStripe
	purging map[meta.Ino]bool
	last    meta.Ino // the highest inode number seen
}

// checked is what the rows of an inode said.
type checked struct {
	inode
	names   int64 // dentries that lead to it
	subdirs int64 // of a directory
	entries int64
	kept    int64 // rows "o" and "q"
	extents int64
	bytes   int64
	inline  int64
	end     int64 // of its last extent
	xattrs  int64
	xbytes  int64
	above   above
}

// above is what is known of what is above a directory.
type above uint8

const (
	unknown above = iota
	rooted        // the root or a removed directory
	adrift        // neither
)

type checkedStripe struct {
	StripeInfo
	live int64 // bytes that extents name
	dead bool  // it is in the dead list
}

func (c *checker) problem(format string, args ...any) { c.report(fmt.Sprintf(format, args...)) }

// rows yields every row with the prefix whose key has size bytes, at least
// that many if open; the others are problems.
func (c *checker) rows(prefix byte, size int, open bool) state.Seq {
	return func(yield func(key, val []byte) bool) {
		for k, val := range c.r.Scan([]byte{prefix}, state.After([]byte{prefix})) {
			if len(k) != size && (!open || len(k) < size) {
				c.problem("row %x: key of %d bytes", k, len(k))
				continue
			}
			if !yield(k, val) {
				return
			}
		}
	}
}

// decode reads a row, or reports that it cannot be read.
func decode[T any](c *checker, key, val []byte) (row T, ok bool) {
	if err := state.Unmarshal(val, &row); err != nil {
		c.problem("row %x: %v", key, err)
		return row, false
	}
	return row, true
}

// first returns the number after the letter of a key.
func first(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:9]) }

func (c *checker) empty(what string, k, val []byte) {
	if len(val) != 0 {
		c.problem("%s row %x: value of %d bytes", what, k, len(val))
	}
}

func (c *checker) purge() {
	for k, val := range c.rows('p', 9, false) {
		c.empty("purge", k, val)
		c.purging[meta.Ino(first(k))] = true
		c.counts.Purging++
	}
}

func (c *checker) inode() {
	for k, val := range c.rows('i', 9, false) {
		ino := meta.Ino(first(k))
		c.last = max(c.last, ino)
		in, ok := decode[inode](c, k, val)
		if !ok {
			continue
		}
		c.inodes[ino] = &checked{inode: in}
		a := in.Attr
		if a.Ino != ino {
			c.problem("inode %d: its row says %d", ino, a.Ino)
		}
		switch a.Type() {
		case meta.TypeFile:
			c.counts.Files++
		case meta.TypeDir:
			c.counts.Dirs++
		case meta.TypeSymlink:
			c.counts.Symlinks++
			if in.Target == "" || a.Size != int64(len(in.Target)) {
				c.problem("inode %d: symlink of size %d to %q", ino, a.Size, in.Target)
			}
		case meta.TypeFIFO, meta.TypeSocket, meta.TypeChar, meta.TypeBlock:
			c.counts.Special++
		default:
			c.problem("inode %d: mode %o", ino, a.Mode)
		}
		if a.Size < 0 || a.Size > meta.SizeMax {
			c.problem("inode %d: size %d", ino, a.Size)
		}
		if c.purging[ino] != (len(in.Cuts) > 0) {
			c.problem("inode %d: %d cuts, in the purge queue: %t", ino, len(in.Cuts), c.purging[ino])
		}
		for _, cut := range in.Cuts {
			if cut.From < 0 || cut.From >= cut.To || cut.Gen == 0 || cut.Gen > in.Gen {
				c.problem("inode %d: cut %+v in generation %d", ino, cut, in.Gen)
			}
		}
	}
	if root := c.inodes[meta.Root]; root == nil {
		c.problem("there is no root directory")
	} else if !root.Attr.IsDir() || root.Parent != meta.Root {
		c.problem("the root has mode %o and parent %d", root.Attr.Mode, root.Parent)
	}
}

func (c *checker) dentries() {
	for k, val := range c.rows('d', 10, true) {
		c.counts.Entries++
		dir, name := meta.Ino(first(k)), string(k[9:])
		d, ok := decode[dentry](c, k, val)
		if err := nameable(dir, name); err != nil && !(dir == meta.Root && name == hidden && d.Type == meta.TypeDir) {
			c.problem("entry %q of %d: %v", name, dir, err)
		}
		parent := c.inodes[dir]
		switch {
		case parent == nil:
			c.problem("entry %q of %d: there is no such directory", name, dir)
		case !parent.Attr.IsDir():
			c.problem("entry %q of %d: that is no directory", name, dir)
		default:
			parent.entries++
		}
		if !ok {
			continue
		}
		in := c.inodes[d.Ino]
		if in == nil {
			c.problem("entry %q of %d leads to inode %d, which does not exist", name, dir, d.Ino)
			continue
		}
		in.names++
		if in.Attr.Type() != d.Type {
			c.problem("entry %q of %d says type %o, inode %d is %o", name, dir, d.Type, d.Ino, in.Attr.Type())
		}
		if in.Attr.IsDir() {
			if parent != nil {
				parent.subdirs++
			}
			if in.Parent != dir {
				c.problem("directory %d is in %d and says its parent is %d", d.Ino, dir, in.Parent)
			}
		}
	}
}

func (c *checker) stripe() {
	for k, val := range c.rows('s', 9, false) {
		c.counts.Stripes++
		s, ok := decode[StripeInfo](c, k, val)
		if !ok {
			continue
		}
		id := chunk.StripeID(first(k))
		c.stripes[id] = &checkedStripe{StripeInfo: s}
		if s.Stripe.ID != id {
			c.problem("stripe %d: its row says %d", id, s.Stripe.ID)
		} else if err := checkStripe(s.Stripe); err != nil {
			c.problem("stripe %d: %v", id, err)
		}
		if (s.Live == 0) != (s.Died != 0) {
			c.problem("stripe %d: %d live bytes, died %d", id, s.Live, s.Died)
		}
		if s.Owner == 0 { // kept
			c.counts.Bytes += s.Live
			c.stripes[id].live = s.Live
			if s.Live%int64(max(s.Stripe.Len, 1)) != 0 {
				c.problem("stripe %d is kept, and %d of its %d bytes live", id, s.Live, s.Stripe.Len)
			}
		} else if s.Live > 0 && c.inodes[s.Owner] == nil && !c.purging[s.Owner] {
			c.problem("stripe %d lives and belongs to inode %d, which does not exist", id, s.Owner)
		}
		c.last = max(c.last, s.Owner)
	}
}

func (c *checker) extents() {
	var ino meta.Ino
	var end int64 // of the extent before
	for k, val := range c.rows('x', 17, false) {
		c.counts.Extents++
		if at := meta.Ino(first(k)); at != ino {
			ino, end = at, 0
			c.last = max(c.last, ino)
		}
		row, ok := decode[extentRow](c, k, val)
		if !ok {
			continue
		}
		e := extentOf(k, val)
		if e.Len <= 0 || e.Off < 0 || e.End() < 0 || row.Stripe == 0 && (row.Len != 0 || row.At != 0) || row.Stripe != 0 && len(row.Inline) > 0 {
			c.problem("inode %d: extent of %d bytes at %d: %d inline, stripe %d from %d", ino, e.Len, e.Off, len(e.Inline), e.Stripe, e.At)
			continue
		}
		if e.Off < end {
			c.problem("inode %d: extent at %d overlaps the one up to %d", ino, e.Off, end)
		}
		end = e.End()
		c.counts.Bytes += e.Len
		if e.Stripe == 0 {
			c.counts.Inline++
		} else if s := c.stripes[e.Stripe]; s == nil {
			c.problem("inode %d: extent at %d names stripe %d, which has no row", ino, e.Off, e.Stripe)
		} else {
			s.live += e.Len
			if s.Owner != ino {
				c.problem("inode %d: extent at %d names stripe %d of inode %d", ino, e.Off, e.Stripe, s.Owner)
			}
			if int64(e.At)+e.Len > int64(s.Stripe.Len) {
				c.problem("inode %d: extent at %d names stripe %d up to byte %d of %d", ino, e.Off, e.Stripe, int64(e.At)+e.Len, s.Stripe.Len)
			}
		}
		in := c.inodes[ino]
		if in == nil {
			if !c.purging[ino] {
				c.problem("extent of inode %d at %d: the inode does not exist", ino, e.Off)
			}
			continue
		}
		in.extents++
		in.bytes += e.Len
		in.inline += int64(len(e.Inline))
		if !in.dead(e) {
			in.end = e.End()
		}
		if e.gen > in.Gen {
			c.problem("inode %d: extent at %d of generation %d, the file is at %d", ino, e.Off, e.gen, in.Gen)
		}
	}
}

func (c *checker) xattrs() {
	for k := range c.rows('a', 10, true) {
		c.counts.Xattrs++
		ino, name := meta.Ino(first(k)), string(k[9:])
		if err := checkXattr(name); err != nil {
			c.problem("inode %d: %v", ino, err)
		}
		if in := c.inodes[ino]; in != nil {
			in.xattrs++
			in.xbytes += int64(len(name)) + 1
		} else if !c.purging[ino] {
			c.problem("attribute %q of inode %d, which does not exist", name, ino)
		}
	}
}

func (c *checker) dead() {
	for k, val := range c.rows('g', 17, false) {
		c.counts.Dead++
		c.empty("dead", k, val)
		died, id := meta.Time(first(k)), chunk.StripeID(second(k))
		s := c.stripes[id]
		if s == nil || s.Died != died {
			c.problem("stripe %d is in the dead list at %d; its row is missing or says otherwise", id, died)
			continue
		}
		s.dead = true
	}
}

func (c *checker) orphans() {
	for _, prefix := range []byte{'o', 'q'} {
		for k, val := range c.rows(prefix, 17, false) {
			c.empty("orphan", k, val)
			s, ino := meta.SessionID(first(k)), meta.Ino(second(k))
			in := c.inodes[ino]
			if in == nil || in.Attr.Nlink != 0 {
				c.problem("session %d keeps inode %d, which does not exist or has a name", s, ino)
				continue
			}
			if in.kept++; in.kept == 1 {
				c.counts.Orphans++
			}
			if !session.Known(c.r, s) {
				c.problem("session %d, which has ended, keeps inode %d", s, ino)
			}
		}
	}
}

func (c *checker) folds() {
	for k, val := range c.rows('f', 9, false) {
		c.counts.Folds++
		ino := meta.Ino(first(k))
		row, ok := decode[foldRow](c, k, val)
		if ok && (row.Reason == 0 || row.Reason&^(Inlined|Small|HalfDead) != 0) {
			c.problem("fold candidate %d: reason %#x", ino, row.Reason)
		}
		if in := c.inodes[ino]; in == nil || !in.Attr.IsFile() {
			c.problem("fold candidate %d is no file", ino)
		}
	}
}

func (c *checker) totals() {
	for range c.rows('u', 1, false) { // further keys are problems
	}
	val, _ := c.r.Get(totalsKey)
	t, ok := decode[totals](c, totalsKey, val)
	if !ok {
		return
	}
	for ino := range c.purging {
		c.last = max(c.last, ino)
	}
	if t.Next <= c.last {
		c.problem("the next inode is %d, and there is a %d", t.Next, c.last)
	}
	if n := int64(len(c.inodes)); t.Inodes != n {
		c.problem("%d inodes counted, there are %d", t.Inodes, n)
	}
	if t.Bytes != c.counts.Bytes {
		c.problem("%d bytes counted, extents hold %d", t.Bytes, c.counts.Bytes)
	}
}

// links checks what the inodes say of themselves against what was found.
func (c *checker) links() {
	alive := make(map[meta.Ino]int64) // stripes with live bytes
	for _, s := range c.stripes {
		if s.Live > 0 {
			alive[s.Owner]++
		}
	}
	for _, ino := range slices.Sorted(maps.Keys(c.inodes)) {
		in := c.inodes[ino]
		want := in.names
		if in.Attr.IsDir() {
			switch {
			case ino == meta.Root && in.names == 0, ino != meta.Root && in.names == 1:
				want = 2 + in.subdirs
			case in.names == 0:
				want = 0
			default:
				c.problem("directory %d has %d names", ino, in.names)
				continue
			}
		}
		if int64(in.Attr.Nlink) != want {
			c.problem("inode %d: %d links, found %d", ino, in.Attr.Nlink, want)
		}
		if in.names == 0 && in.kept == 0 && ino != meta.Root {
			c.problem("inode %d has no name", ino)
		}
		for _, n := range []struct {
			what      string
			says, has int64
		}{
			{"further keepers", in.Keepers, max(in.kept-1, 0)},
			{"entries", in.Entries, in.entries},
			{"extents", in.Extents, in.extents},
			{"bytes", in.Attr.Bytes, in.bytes},
			{"inline bytes", in.Inline, in.inline},
			{"stripes", in.Stripes, alive[ino]},
			{"attributes", in.Xattrs, in.xattrs},
			{"bytes of attribute names", in.XattrBytes, in.xbytes},
		} {
			if n.says != n.has {
				c.problem("inode %d: %d %s, found %d", ino, n.says, n.what, n.has)
			}
		}
		if in.end > in.Attr.Size {
			c.problem("inode %d: an extent reaches %d, the size is %d", ino, in.end, in.Attr.Size)
		}
		if (in.extents > 0 || len(in.Cuts) > 0) && !in.Attr.IsFile() {
			c.problem("inode %d has extents and mode %o", ino, in.Attr.Mode)
		}
		if in.Target != "" && in.Attr.Type() != meta.TypeSymlink {
			c.problem("inode %d has a target and mode %o", ino, in.Attr.Mode)
		}
		if in.Attr.IsDir() && !c.rooted(ino) {
			c.problem("directory %d is not below the root", ino)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.stripes)) {
		s := c.stripes[id]
		if s.Live != s.live {
			c.problem("stripe %d: %d live bytes, extents name %d", id, s.Live, s.live)
		}
		if s.Died != 0 && !s.dead {
			c.problem("stripe %d is dead and not in the dead list", id)
		}
	}
}

// rooted walks up until it is at the root, at a removed directory, or where a
// walk was before, which may have been this one.
func (c *checker) rooted(ino meta.Ino) bool {
	var path []*checked
	end := adrift
	for in := c.inodes[ino]; in != nil; in = c.inodes[in.Parent] {
		if in.Attr.Ino == meta.Root || in.Attr.Nlink == 0 {
			end = rooted
			break
		}
		if in.above != unknown {
			end = in.above
			break
		}
		in.above = adrift
		path = append(path, in)
	}
	for _, in := range path {
		in.above = end
	}
	return end == rooted
}
