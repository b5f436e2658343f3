package stripe

import (
	"context"
	"sync"
	"time"

	"dos/chunk"
)

// A gathering asks stores for the same range of other shards, until K have it.
// Each call to a store has a buffer of its own and may be left to itself.
type gathering struct {
	path *Path
	want *want

	mu      sync.Mutex
	over    bool     // nobody takes answers any more; guarded by mu
	buffers [][]byte // to be freed at the end; guarded by mu
	answers chan part
}

type part struct {
	index int
	b     []byte
	err   error
}

// gather fills out with the range of w, computed from other shards than
// w.index. have are ranges that are here already; w.why gets what stores said
// that did not have theirs. It returns false when too few did.
func (p *Path) gather(ctx context.Context, w *want, out []byte, have map[int][]byte) bool {
	s := w.stripe
	shards := make([][]byte, s.Code.Shards())
	need := int(s.Code.K)
	for i, b := range have {
		shards[i] = b
		need--
	}
	order := p.order(w, shards)
	g := &gathering{path: p, want: w, answers: make(chan part, len(order))}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer g.end()

	pending := 0
	next := func() {
		if len(order) > 0 {
			g.ask(ctx, order[0], len(out))
			order = order[1:]
			pending++
		}
	}
	for range need {
		next()
	}
	late := time.NewTimer(p.pace.delay())
	defer late.Stop()
	for need > 0 && pending > 0 {
		select {
		case a := <-g.answers:
			pending--
			if a.err != nil {
				w.why.add(a.index, a.err)
				if ctx.Err() == nil && !aboutShard(a.err) {
					p.doubt(s.Stores[a.index], afterError)
				}
				next()
				continue
			}
			shards[a.index] = a.b
			need--
		case <-late.C: // one more; whoever is first counts
			if len(order) > 0 {
				next()
				late.Reset(p.pace.delay())
			}
		case <-ctx.Done():
			for i := range s.Stores {
				if shards[i] == nil && w.why[i] == nil {
					w.why.add(i, errSlow)
				}
			}
			return false
		}
	}
	if need > 0 {
		return false
	}
	dst := make([][]byte, len(shards))
	dst[w.index] = out
	if err := p.coder.Reconstruct(s.Code, shards, dst); err != nil {
		w.why.add(w.index, err)
		return false
	}
	return true
}

// order returns the shards to ask for: of trusted stores, then of doubtful
// ones. The shard wanted itself is among them when its store was not asked.
func (p *Path) order(w *want, shards [][]byte) []int {
	var order, doubtful []int
	for i, id := range w.stripe.Stores {
		if shards[i] != nil || w.why[i] != nil {
			continue
		}
		switch _, live := p.config.Cluster.Store(id); {
		case !live:
			w.why.add(i, errNotLive)
		case p.doubtful(id):
			doubtful = append(doubtful, i)
		default:
			order = append(order, i)
		}
	}
	return append(order, doubtful...)
}

// ask reads the range of shard i.
func (g *gathering) ask(ctx context.Context, i, n int) {
	p := g.path
	id := g.want.stripe.Stores[i]
	store, live := p.config.Cluster.Store(id)
	if !live {
		g.answers <- part{index: i, err: errNotLive}
		return
	}
	shard, off := chunk.ID{Stripe: g.want.stripe.ID, Index: uint8(i)}, g.want.off
	p.wg.Go(func() {
		b := p.coder.Buffer(n)
		err := readFull(ctx, store, shard, b, off)
		g.mu.Lock()
		defer g.mu.Unlock()
		if err != nil || g.over {
			p.coder.Free(b)
			b = nil
		} else {
			g.buffers = append(g.buffers, b)
		}
		g.answers <- part{i, b, err} // there is room for all
	})
}

// end frees the buffers; those of calls that are still under way free theirs.
func (g *gathering) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	for _, b := range g.buffers {
		g.path.coder.Free(b)
	}
	g.buffers = nil
}
