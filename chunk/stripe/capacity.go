package stripe

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"dos/chunk"
)

// fresh is how long an answer of Capacity is given again.
const fresh = time.Second

// space remembers what Capacity said.
type space struct {
	turn        chan struct{} // holds one token while somebody asks the stores
	mu          sync.Mutex
	at          time.Time // guarded by mu
	total, free int64     // guarded by mu
}

func (s *space) last() (total, free int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total, s.free, !s.at.IsZero() && time.Since(s.at) < fresh
}

// Capacity says how many bytes of data the stores can hold in all, and how
// many more, at the code that would be used now. Its answer may be a second old.
func (p *Path) Capacity(ctx context.Context) (total, free int64, err error) {
	if total, free, ok := p.space.last(); ok {
		return total, free, nil
	}
	select {
	case p.space.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
	defer func() { <-p.space.turn }()
	if total, free, ok := p.space.last(); ok {
		return total, free, nil
	}
	usages, failed := p.usages(ctx)
	code := p.config.Cluster.Code()
	if len(usages) < int(code.M)+1 {
		return 0, 0, fmt.Errorf("stripe: capacity: %d stores answer: %v: %w", len(usages), failed, chunk.ErrTooFew)
	}
	var totals, frees []int64
	shared := make(map[string][]chunk.StoreID)
	for id := range usages {
		shared[p.disk(id)] = append(shared[p.disk(id)], id)
	}
	for _, ids := range shared { // the stores of a disk have equal parts of it
		n := int64(len(ids))
		for _, id := range ids {
			totals = append(totals, usages[id].Capacity/n)
			frees = append(frees, usages[id].Free/n)
		}
	}
	total, free = fit(code, totals), fit(code, frees)
	p.space.mu.Lock()
	defer p.space.mu.Unlock()
	p.space.at, p.space.total, p.space.free = time.Now(), total, free
	return total, free, nil
}

func (p *Path) disk(id chunk.StoreID) string {
	if p.config.Disk != nil {
		if d := p.config.Disk(id); d != "" {
			return "disk " + d
		}
	}
	return fmt.Sprint("store ", id)
}

// usages asks all live stores, for as long as a slow one may take.
func (p *Path) usages(ctx context.Context) (map[chunk.StoreID]chunk.Usage, failures) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.config.Slow, errTimeout)
	defer cancel()
	type answer struct {
		id  chunk.StoreID
		u   chunk.Usage
		err error
	}
	stores := make(map[chunk.StoreID]chunk.Store)
	failed := make(failures)
	for g := range chunk.Groups {
		for _, id := range p.config.Cluster.Group(chunk.StripeID(g)).Members {
			if stores[id] != nil || failed[id] != nil {
				continue
			}
			if s, live := p.config.Cluster.Store(id); live {
				stores[id] = s
			} else {
				failed[id] = errNotLive
			}
		}
	}
	answers := make(chan answer, len(stores))
	for id, s := range stores {
		p.wg.Go(func() {
			u, err := s.Usage(ctx)
			answers <- answer{id, u, err}
		})
	}
	usages := make(map[chunk.StoreID]chunk.Usage)
	for range stores {
		select {
		case a := <-answers:
			if a.err != nil {
				failed[a.id] = a.err
			} else {
				usages[a.id] = a.u
			}
		case <-ctx.Done():
			return usages, failed
		}
	}
	return usages, failed
}

// fit returns how much data fits into stores with that many bytes each, when
// each stripe needs k+m different ones, at the widest code that is of use.
func fit(code chunk.Code, bytes []int64) int64 {
	slices.Sort(bytes)
	best := int64(0)
	for k := 1; k <= int(code.K) && k+int(code.M) <= len(bytes); k++ {
		// With L cells in each stripe's place there is room for w L cells in
		// all when the sum of min(bytes, L) is at least w L. From the store
		// with the most: what it has beyond L is of no use.
		w := int64(k) + int64(code.M)
		sum := int64(0)
		for _, b := range bytes {
			sum += b
		}
		wide, rest := w, sum
		for i := len(bytes) - 1; i >= 0 && wide > 1 && bytes[i] > rest/wide; i-- {
			rest -= bytes[i]
			wide--
		}
		best = max(best, rest/wide*int64(k))
	}
	return best
}
