package namespace_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/namespace"
	"dos/meta/session"
)

var seed = flag.Uint64("seed", 0, "of the random test; 0: the time")

// TestModel does random operations to the machine and to a dumb tree of files
// in memory, and compares what they say, every byte included.
func TestModel(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", s)
	for round := range uint64(2) {
		g := newTwin(t, rand.New(rand.NewPCG(s, round)))
		for step := range 250 {
			g.step()
			if step%5 == 0 {
				g.check()
				g.compare()
			}
			if t.Failed() {
				t.Fatalf("-seed=%d, round %d, step %d", s, round, step)
			}
		}
		g.replay()
	}
}

// A node is an inode of the dumb tree.
type node struct {
	ino     meta.Ino
	typ     uint32
	nlink   int
	data    []byte
	there   []bool // which bytes are no hole
	entries map[string]*node
	parent  *node
	kept    bool
}

// A twin is a world and the dumb tree that it must be like.
type twin struct {
	*world
	rnd     *rand.Rand
	root    *node
	nodes   map[meta.Ino]*node
	stripes map[chunk.StripeID][]byte // what the stores would hold
	free    []chunk.StripeID
	low     chunk.StripeID
}

func newTwin(t *testing.T, rnd *rand.Rand) *twin {
	w := newWorld(t)
	root := &node{ino: meta.Root, typ: meta.TypeDir, nlink: 2, entries: map[string]*node{}}
	root.parent = root
	return &twin{world: w, rnd: rnd, root: root, nodes: map[meta.Ino]*node{meta.Root: root}, stripes: map[chunk.StripeID][]byte{}}
}

// pick returns one of the nodes for which ok holds.
func (g *twin) pick(ok func(*node) bool) *node {
	var list []*node
	for _, ino := range slices.Sorted(maps.Keys(g.nodes)) {
		if ok(g.nodes[ino]) {
			list = append(list, g.nodes[ino])
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[g.rnd.IntN(len(list))]
}

func isDir(n *node) bool  { return n.typ == meta.TypeDir }
func isFile(n *node) bool { return n.typ == meta.TypeFile }

func (g *twin) name() string { return string(rune('a' + g.rnd.IntN(5))) }

// expect compares the error of an operation with the kind that the dumb tree gives.
func (g *twin) expect(what string, err error, want meta.Kind) bool {
	g.t.Helper()
	if kindOf(err) != want {
		g.t.Errorf("%s: got %v, want %v", what, err, want)
	}
	return err == nil && want == 0
}

func (g *twin) step() {
	dir, name := g.pick(isDir), g.name()
	switch n := g.rnd.IntN(100); {
	case n < 12:
		g.create(dir, name)
	case n < 17:
		g.link(dir, name)
	case n < 26:
		g.remove(dir, name)
	case n < 40:
		g.rename(dir, name)
	case n < 44:
		if n := g.pick(func(n *node) bool { return n.kept }); n != nil {
			_, err := try[struct{}](g.world, namespace.OpDrop, namespace.Drop{Inos: []meta.Ino{n.ino}})
			g.expect("drop", err, 0)
			delete(g.nodes, n.ino)
		}
	case n < 48:
		g.purge(1 + g.rnd.IntN(400))
	case n < 50:
		g.purgeOnce()
	case n < 52:
		g.bury()
	case n < 53:
		g.newSession()
	default:
		if f := g.pick(isFile); f == nil {
			g.create(dir, name)
		} else if n < 65 {
			g.truncate(f)
		} else if n < 75 {
			g.fold(f)
		} else {
			g.change(f)
		}
	}
}

func (g *twin) create(dir *node, name string) {
	types := []uint32{meta.TypeFile, meta.TypeFile, meta.TypeDir, meta.TypeSymlink, meta.TypeFIFO}
	typ := types[g.rnd.IntN(len(types))]
	req := namespace.Create{Parent: dir.ino, Name: name, Node: meta.Node{Mode: typ | 0o644}}
	if typ == meta.TypeSymlink {
		req.Node.Target = "to"
	}
	want := meta.Kind(0)
	if dir.entries[name] != nil {
		want = meta.Exist
	} else if dir.nlink == 0 {
		want = meta.NotExist
	}
	a, err := try[meta.Attr](g.world, namespace.OpCreate, req)
	if !g.expect("create", err, want) {
		return
	}
	n := &node{ino: a.Ino, typ: typ}
	if isDir(n) {
		n.nlink = 1
		n.entries = map[string]*node{}
	}
	g.nodes[a.Ino] = n
	g.enter(dir, name, n)
}

func (g *twin) enter(dir *node, name string, n *node) {
	dir.entries[name] = n
	n.nlink++
	if isDir(n) {
		n.parent = dir
		dir.nlink++
	}
}

func (g *twin) leave(dir *node, name string) {
	n := dir.entries[name]
	delete(dir.entries, name)
	n.nlink--
	if isDir(n) {
		dir.nlink--
	}
}

// lose is what happens to a node that has lost a name for good.
func (g *twin) lose(n *node, keep meta.Ino) {
	if isDir(n) {
		n.nlink = 0
	}
	if n.nlink == 0 {
		if n.kept = keep == n.ino; !n.kept {
			delete(g.nodes, n.ino)
		}
	}
}

func (g *twin) link(dir *node, name string) {
	n := g.pick(func(*node) bool { return true })
	want := meta.Kind(0)
	switch {
	case isDir(n):
		want = meta.Fixed
	case n.nlink == 0:
		want = meta.NotExist
	case dir.entries[name] != nil:
		want = meta.Exist
	case dir.nlink == 0:
		want = meta.NotExist
	}
	_, err := try[meta.Attr](g.world, namespace.OpLink, namespace.Link{Ino: n.ino, Parent: dir.ino, Name: name})
	if g.expect("link", err, want) {
		g.enter(dir, name, n)
	}
}

func (g *twin) remove(dir *node, name string) {
	n := dir.entries[name]
	req := namespace.Unlink{Parent: dir.ino, Name: name}
	if n != nil && g.rnd.IntN(3) == 0 {
		req.Keep = n.ino
	}
	op, want := namespace.OpUnlink, meta.Kind(0)
	if g.rnd.IntN(10) < 4 {
		op = namespace.OpRmdir
	}
	switch {
	case n == nil:
		want = meta.NotExist
	case op == namespace.OpUnlink && isDir(n):
		want = meta.IsDir
	case op == namespace.OpRmdir && !isDir(n):
		want = meta.NotDir
	case op == namespace.OpRmdir && len(n.entries) > 0:
		want = meta.NotEmpty
	}
	_, err := try[meta.Attr](g.world, op, req)
	if g.expect("remove", err, want) {
		g.leave(dir, name)
		g.lose(n, req.Keep)
	}
}

// below reports whether dir is n or below it.
func below(dir, n *node) bool {
	for ; dir != n; dir = dir.parent {
		if dir.parent == dir || dir.nlink == 0 {
			return false
		}
	}
	return true
}

func (g *twin) rename(dir *node, name string) {
	to, newName := g.pick(isDir), g.name()
	req := namespace.Rename{Parent: dir.ino, Name: name, NewParent: to.ino, NewName: newName, Flags: meta.RenameFlags([]int{0, 0, 1, 2}[g.rnd.IntN(4)])}
	src, dst := dir.entries[name], to.entries[newName]
	if dst != nil && g.rnd.IntN(3) == 0 {
		req.Keep = dst.ino
	}
	want, nothing := meta.Kind(0), false
	switch {
	case src == nil:
		want = meta.NotExist
	case isDir(src) && below(to, src):
		want = meta.Invalid
	case req.Flags == meta.RenameNoReplace && dst != nil:
		want = meta.Exist
	case req.Flags == meta.RenameExchange && dst == nil:
		want = meta.NotExist
	case src == dst:
		nothing = true
	case req.Flags == meta.RenameExchange:
		if isDir(dst) && below(dir, dst) {
			want = meta.Invalid
		}
	case dst == nil && to.nlink == 0:
		want = meta.NotExist
	case dst == nil:
	case isDir(src) && !isDir(dst):
		want = meta.NotDir
	case !isDir(src) && isDir(dst):
		want = meta.IsDir
	case len(dst.entries) > 0:
		want = meta.NotEmpty
	}
	_, err := try[struct{}](g.world, namespace.OpRename, req)
	if !g.expect(fmt.Sprintf("rename %+v", req), err, want) || nothing {
		return
	}
	if dst != nil {
		g.leave(to, newName)
	}
	g.leave(dir, name)
	g.enter(to, newName, src)
	if req.Flags == meta.RenameExchange {
		g.enter(dir, name, dst)
	} else if dst != nil {
		g.lose(dst, req.Keep)
	}
}

func (g *twin) truncate(f *node) {
	size := g.offset()
	g.world.truncate(f.ino, size)
	f.resize(size)
}

func (f *node) resize(size int64) {
	for int64(len(f.data)) < size {
		f.data = append(f.data, 0)
		f.there = append(f.there, false)
	}
	f.data, f.there = f.data[:size], f.there[:size]
}

func (f *node) hole(from, to int64) {
	for i := from; i < min(to, int64(len(f.data))); i++ {
		f.data[i], f.there[i] = 0, false
	}
}

func (f *node) put(off int64, data []byte) {
	for i, b := range data {
		f.data[off+int64(i)], f.there[off+int64(i)] = b, true
	}
}

// offset returns a size or offset, often small.
func (g *twin) offset() int64 {
	return g.rnd.Int64N([]int64{10, 5000, 20000, 20000}[g.rnd.IntN(4)])
}

func (g *twin) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + g.rnd.IntN(255))
	}
	return b
}

// newStripe stores data as a stripe.
func (g *twin) newStripe(data []byte) chunk.Stripe {
	if len(g.free) == 0 {
		first := g.reserve(8)
		for i := range chunk.StripeID(8) {
			g.free = append(g.free, first+i)
		}
	}
	id := g.free[0]
	g.free = g.free[1:]
	g.low = id + 1
	g.stripes[id] = data
	return stripeOf(id, uint32(len(data)))
}

// change writes extents of all kinds and punches holes.
func (g *twin) change(f *node) {
	w := meta.Write{Ino: f.ino, Size: g.offset()}
	for range g.rnd.IntN(3) {
		r := meta.Range{Off: g.offset(), Len: 1 + g.offset()}
		w.Punch = append(w.Punch, r)
	}
	var datas [][]byte
	off, scattered := g.offset(), g.rnd.IntN(6) == 0
	count := 1 + g.rnd.IntN(4)
	if scattered {
		count = 400 + g.rnd.IntN(500) // more than a truncation removes at once
	}
	for range count {
		size := 1 + g.rnd.IntN(3000)
		if scattered {
			size = 1 + g.rnd.IntN(3)
		}
		data := g.bytes(size)
		e := meta.Extent{Off: off, Len: int64(size)}
		if !scattered && g.rnd.IntN(2) == 0 { // in a stripe, with bytes around
			before := g.rnd.IntN(100)
			s := g.newStripe(slices.Concat(g.bytes(before), data, g.bytes(g.rnd.IntN(100))))
			w.Stripes = append(w.Stripes, s)
			e.Stripe, e.At = s.ID, uint32(before)
		} else {
			e.Inline = data
		}
		w.Extents = append(w.Extents, e)
		datas = append(datas, data)
		off = e.End() + g.rnd.Int64N(20)
	}
	w.Low = g.low
	a, err := g.write(w)
	if !g.expect("write", err, 0) {
		return
	}
	for _, r := range w.Punch {
		f.hole(r.Off, r.Off+r.Len)
	}
	f.resize(max(int64(len(f.data)), w.Size, w.Extents[len(w.Extents)-1].End()))
	for i, e := range w.Extents {
		f.put(e.Off, datas[i])
	}
	if a.Size != int64(len(f.data)) {
		g.t.Errorf("write: size %d, want %d", a.Size, len(f.data))
	}
}

// fold swaps a range that has no holes for one stripe, or is refused.
func (g *twin) fold(f *node) {
	if len(f.data) == 0 {
		return
	}
	from := g.rnd.IntN(len(f.data))
	to := from + 1 + g.rnd.IntN(min(3000, len(f.data)-from))
	want := meta.Kind(0)
	if slices.Contains(f.there[from:to], false) {
		want = meta.Invalid
	}
	req := meta.Swap{Ino: f.ino, Data: g.attr(f.ino).Data, Done: g.rnd.IntN(2) == 0}
	e := meta.Extent{Off: int64(from), Len: int64(to - from)}
	if g.rnd.IntN(2) == 0 {
		e.Inline = slices.Clone(f.data[from:to])
	} else {
		s := g.newStripe(slices.Clone(f.data[from:to]))
		e.Stripe = s.ID
		req.Stripes = []chunk.Stripe{s}
	}
	req.Extents = []meta.Extent{e}
	before := g.attr(f.ino)
	_, err := try[meta.Attr](g.world, namespace.OpSwap, req)
	if g.expect("swap", err, want) {
		after := g.attr(f.ino)
		after.Data, after.Bytes = before.Data, before.Bytes // dead extents may have gone too
		if before != after {
			g.t.Errorf("swap: attributes %+v became %+v", before, after)
		}
		req.Data--
		if _, err := try[meta.Attr](g.world, namespace.OpSwap, req); kindOf(err) != meta.Conflict {
			g.t.Errorf("swap of an old version: %v", err)
		}
	}
}

// purgeOnce goes one step on with one inode.
func (g *twin) purgeOnce() {
	if inos := must[namespace.PurgingReply](g.world, namespace.OpPurging, namespace.After{Limit: 1}).Inos; len(inos) > 0 {
		must[namespace.Purged](g.world, namespace.OpPurge, namespace.Purge{Ino: inos[0], Limit: 1 + g.rnd.IntN(100)})
	}
}

// bury takes the dead stripes off the stores.
func (g *twin) bury() {
	reply := must[namespace.DeadReply](g.world, namespace.OpDead, namespace.Dead{Before: g.at(), Limit: 1 + g.rnd.IntN(20)})
	var ids namespace.StripeIDs
	for _, s := range reply.Stripes {
		if s.Live != 0 || s.Died >= g.at() {
			g.t.Errorf("dead stripe %+v at %d", s, g.at())
		}
		delete(g.stripes, s.Stripe.ID)
		ids.IDs = append(ids.IDs, s.Stripe.ID)
	}
	must[struct{}](g.world, namespace.OpBury, ids)
}

// newSession ends the session, with what it kept, and opens another.
func (g *twin) newSession() {
	old := g.me
	g.me = 0
	for must[session.Ended](g.world, session.OpEnd, session.End{ID: old}).More {
	}
	g.me = must[session.Info](g.world, session.OpOpen, session.Open{}).ID
	g.free, g.low = nil, 0
	for ino, n := range g.nodes {
		if n.kept {
			delete(g.nodes, ino)
		}
	}
}

// compare looks at everything through the queries.
func (g *twin) compare() {
	for _, n := range g.nodes {
		a := g.attr(n.ino)
		if a.Type() != n.typ || int(a.Nlink) != n.nlink {
			g.t.Errorf("inode %d: type %o with %d links, want %o with %d", n.ino, a.Type(), a.Nlink, n.typ, n.nlink)
		}
		switch {
		case isDir(n):
			var after string
			got := map[string]meta.Ino{}
			for more := true; more; {
				reply := must[namespace.EntriesReply](g.world, namespace.OpEntries, namespace.Entries{Dir: n.ino, After: after, Limit: 2, Attrs: true})
				for _, e := range reply.Entries {
					if e.Name <= after || e.Attr.Ino != e.Ino || e.Attr.Type() != e.Type {
						g.t.Errorf("directory %d after %q: %+v", n.ino, after, e)
					}
					after, got[e.Name] = e.Name, e.Ino
				}
				more = reply.More
			}
			want := map[string]meta.Ino{}
			for name, n := range n.entries {
				want[name] = n.ino
			}
			if !maps.Equal(got, want) {
				g.t.Errorf("directory %d has %v, want %v", n.ino, got, want)
			}
		case isFile(n):
			data, there := g.read(a)
			if !bytes.Equal(data, n.data) || !slices.Equal(there, n.there) {
				g.t.Errorf("file %d of %d bytes differs", n.ino, len(n.data))
			}
		}
	}
	if u := must[meta.Usage](g.world, namespace.OpUsage, struct{}{}); u.Inodes != int64(len(g.nodes)) {
		g.t.Errorf("usage %+v, %d inodes", u, len(g.nodes))
	}
}

// read returns the file's bytes, and which are no holes.
func (g *twin) read(a meta.Attr) ([]byte, []bool) {
	data, there := make([]byte, a.Size), make([]bool, a.Size)
	for off := int64(0); off < a.Size; {
		l := must[meta.Layout](g.world, namespace.OpLayout, namespace.Layout{Ino: a.Ino, Off: off, Size: a.Size - off})
		if l.End <= off {
			g.t.Fatalf("layout of %d at %d ends at %d", a.Ino, off, l.End)
		}
		for _, e := range l.Extents {
			from := e.Inline
			if e.Stripe != 0 {
				i := slices.IndexFunc(l.Stripes, func(s chunk.Stripe) bool { return s.ID == e.Stripe })
				if i < 0 || g.stripes[e.Stripe] == nil {
					g.t.Fatalf("file %d names stripe %d, which is not there", a.Ino, e.Stripe)
				}
				from = g.stripes[e.Stripe][e.At:][:e.Len]
			}
			copy(data[e.Off:], from)
			for i := range e.Len {
				there[e.Off+i] = true
			}
		}
		off = l.End
	}
	return data, there
}

// replay applies the same commands again and wants the same bytes.
func (g *twin) replay() {
	again := *g.world
	again.store, again.m = newStore(), newMachine()
	for _, cmd := range g.log {
		again.m.Apply(again.store, cmd)
	}
	if !bytes.Equal(dump(g.store), dump(again.store)) {
		g.t.Error("the same commands gave other rows")
	}
}
