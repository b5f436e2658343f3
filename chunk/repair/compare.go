package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"dos/chunk"
)

const (
	// page is how many rows of the table are read at once.
	page = 1024
	// strayMax bounds the listed shards without a row that wait for an answer
	// of Table.Unnamed.
	strayMax = 1024
	// extrasMax bounds the shards that are known to be too many. What does not fit
	// is deleted later.
	extrasMax = 1 << 16
	// often is the least time between comparisons without a reason; they run
	// one in share of the time at most.
	often = time.Minute
	share = 50
	// The same while stripes are short of their code: somebody writes them again,
	// and whoever asks whether all is well waits for that.
	oftenShort = time.Second
	shareShort = 10
)

// compareAll compares at the start, after every change, and from time to time.
func (r *Repairer) compareAll(ctx context.Context) error {
	for ctx.Err() == nil {
		ok := r.compare(ctx)
		next := time.NewTimer(r.pause(ok))
		r.await(ctx, next)
		next.Stop()
	}
	return nil
}

// await waits for a reason to compare again.
func (r *Repairer) await(ctx context.Context, next *time.Timer) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			return
		case <-r.wake:
			r.mu.Lock()
			stale := r.epoch != r.last.epoch
			r.mu.Unlock()
			pause := r.rest(poll)
			if !stale {
				continue
			}
			if pause > 0 { // many changes, one comparison
				next.Reset(pause)
				continue
			}
			return
		case <-tick.C: // what did not fit into the queue is looked for again
			if q := r.queue.backlog(); q.items == 0 && q.dropped+q.later > 0 && r.rest(r.config.Retry) <= 0 {
				return
			}
		}
	}
}

// pause is how long to wait after a comparison when nothing happens: one that
// is quick may come often, so that the counts are fresh and garbage goes soon.
func (r *Repairer) pause(ok bool) time.Duration {
	if !ok {
		return r.rest(r.config.Retry)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	took := r.last.ended.Sub(r.last.started)
	if r.last.short > 0 && len(r.away) == 0 {
		return min(r.config.Every, max(oftenShort, shareShort*took))
	}
	if r.last.young {
		return min(r.config.Every, max(settle, shareShort*took))
	}
	return min(r.config.Every, max(often, share*took))
}

// rest is how long to wait before the next comparison, when at least so much
// is to lie between them. One that takes long runs a fifth of the time at most.
func (r *Repairer) rest(least time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Until(r.last.ended.Add(max(least, 4*r.last.ended.Sub(r.last.started))))
}

// compare goes through the stripe table and the lists of all live stores, side
// by side in the order of IDs. It returns false when it did not see everything.
func (r *Repairer) compare(ctx context.Context) bool {
	r.mu.Lock()
	r.passes++
	p := &pass{number: r.passes, epoch: r.epoch, started: time.Now(), stores: make(map[chunk.StoreID]*holding)}
	r.current = p
	r.lines = 0
	r.mu.Unlock()
	r.queue.clearDropped()

	m := &comparison{r: r, pass: p}
	err := m.run(ctx)
	if err != nil && ctx.Err() == nil {
		slog.Warn("repair: comparison of stripes and stores failed", "err", err)
	}

	defer r.noteFull()
	r.mu.Lock()
	defer r.mu.Unlock()
	p.failed, p.ended = err != nil, time.Now()
	r.last, r.current = *p, nil
	if err == nil || m.whole {
		for id, listed := range m.listed {
			p.holding(id).listed = listed && m.whole
		}
	}
	if err == nil && p.counts[lost] > 0 {
		slog.Error("repair: stripes have lost more shards than their code allows", "stripes", p.counts[lost], "away", len(r.away))
	}
	return err == nil
}

// A comparison is one comparison.
type comparison struct {
	r       *Repairer
	pass    *pass
	cursors []*cursor
	listed  map[chunk.StoreID]bool // stores whose list has not failed so far
	failed  []error
	whole   bool // the table has been read to its end

	extras  map[extra]time.Time        // as Repairer.extras, of those seen this time
	strays  map[chunk.StripeID][]extra // listed, but without a row
	waiting int                        // shards in strays
}

func (m *comparison) run(ctx context.Context) error {
	m.strays, m.listed = make(map[chunk.StripeID][]extra), make(map[chunk.StoreID]bool)
	m.extras = make(map[extra]time.Time)
	defer func() {
		for _, c := range m.cursors {
			c.close()
		}
	}()
	for _, id := range m.r.config.Cluster.Stores() {
		if _, live := m.r.config.Cluster.Store(id); live {
			m.listed[id] = true
			m.cursors = append(m.cursors, m.r.open(ctx, id))
		} else {
			m.r.missed(id)
		}
	}
	after := chunk.StripeID(0)
	for more := true; more; {
		var list []chunk.Stripe
		var err error
		list, more, err = m.stripes(ctx, after)
		if err != nil {
			return fmt.Errorf("stripe table: %w", err)
		}
		for _, s := range list {
			if s.ID <= after {
				return fmt.Errorf("stripe table: %016x follows %016x", uint64(s.ID), uint64(after))
			}
			after = s.ID
			if err := m.stripe(ctx, s); err != nil {
				return err
			}
		}
		more = more && len(list) > 0
	}
	m.whole = true
	for _, c := range m.cursors { // beyond the last row
		if err := m.skip(ctx, c, 0); err != nil {
			return err
		}
	}
	if err := m.flush(ctx); err != nil {
		return err
	}
	err := errors.Join(m.failed...)
	if err == nil || len(m.r.extras)+len(m.extras) > extrasMax {
		m.r.extras = m.extras
	} else { // what was not seen may be there
		maps.Copy(m.r.extras, m.extras)
	}
	return err
}

func (m *comparison) stripes(ctx context.Context, after chunk.StripeID) ([]chunk.Stripe, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, m.r.config.Timeout)
	defer cancel()
	return m.r.config.Table.Stripes(ctx, after, page)
}

// stripe looks at what the stores list of one row.
func (m *comparison) stripe(ctx context.Context, s chunk.Stripe) error {
	if s.Code.Shards() != len(s.Stores) {
		return fmt.Errorf("stripe table: %016x has %d stores for code %v", uint64(s.ID), len(s.Stores), s.Code)
	}
	size := int64(s.Code.Cell(int(s.Len)))
	found := uint32(0)
	var extras []extra
	for _, c := range m.cursors {
		if err := m.skip(ctx, c, s.ID); err != nil {
			return err
		}
		for c.ok && c.info.ID.Stripe == s.ID {
			i := int(c.info.ID.Index)
			switch {
			case i >= len(s.Stores) || s.Stores[i] != c.store:
				if e := (extra{c.store, c.info.ID}); m.old(e) {
					extras = append(extras, e)
				}
			case c.info.Size == size:
				found |= 1 << i
			}
			m.next(ctx, c)
		}
	}
	it := &item{stripe: s.ID, extras: extras, pass: m.pass.number}
	missing, actionable := 0, len(extras) > 0
	for i, id := range s.Stores {
		if found>>i&1 == 1 {
			continue
		}
		missing++
		switch {
		case m.listed[id]:
			actionable = true
		case m.r.movable(id):
			regular, spares := m.r.places(s)
			actionable = m.soon(len(regular)+len(spares) > 0) || actionable
		}
	}
	it.class = classOf(s.Code, missing)
	it.left = int(s.Code.M) - missing
	if missing == 0 {
		how, move := m.r.toMove(s, found)
		it.calm, it.left = true, how
		actionable = m.soon(move) || actionable
	}
	m.count(s, it.class, found)
	if actionable {
		m.r.queue.add(it)
	}
	return nil
}

// soon is whether a move that is wanted may be made now. If not, the next
// comparison comes soon.
func (m *comparison) soon(wanted bool) bool {
	if wanted && !m.r.mayMove() {
		m.pass.young = true
		return false
	}
	return wanted
}

// old reports whether a shard that the table has elsewhere has been there for
// long enough to be deleted. A store that is leaving keeps what it has.
func (m *comparison) old(e extra) bool {
	if m.r.isLeaving(e.store) {
		return false
	}
	first, seen := m.r.extras[e]
	if !seen {
		first = time.Now()
	}
	if len(m.extras) < extrasMax {
		m.extras[e] = first
	}
	if time.Since(first) < settle {
		m.pass.young = true
		return false
	}
	return true
}

// count counts a stripe.
func (m *comparison) count(s chunk.Stripe, c class, found uint32) {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	m.pass.counts[c]++
	if short(s, m.r.config.Cluster.Code()) {
		m.pass.short++
	}
	size := int64(s.Code.Cell(int(s.Len)))
	for i, id := range s.Stores {
		h := m.pass.holding(id)
		h.shards, h.bytes = h.shards+1, h.bytes+size
		if found>>i&1 == 0 {
			h.missing++
		}
	}
}

// short reports whether a stripe should have a wider code.
func short(s chunk.Stripe, want chunk.Code) bool {
	if s.Len <= chunk.CopyMax {
		return s.Code.M < want.M
	}
	return s.Code.K < want.K || s.Code.M < want.M
}

// next moves a cursor. One that fails is at its end, and the comparison has
// not seen everything.
func (m *comparison) next(ctx context.Context, c *cursor) {
	if err := c.next(ctx); err != nil {
		m.listed[c.store] = false
		m.failed = append(m.failed, fmt.Errorf("list of store %d: %w", c.store, err))
	}
}

// skip moves a cursor to the stripe, or to the end if that is zero. What it
// passes has no row.
func (m *comparison) skip(ctx context.Context, c *cursor, to chunk.StripeID) error {
	if !c.begun {
		m.next(ctx, c)
	}
	for c.ok && (to == 0 || c.info.ID.Stripe < to) {
		m.strays[c.info.ID.Stripe] = append(m.strays[c.info.ID.Stripe], extra{c.store, c.info.ID})
		m.waiting++
		m.next(ctx, c)
		if m.waiting >= strayMax {
			if err := m.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush deletes the strays that no command will ever name.
func (m *comparison) flush(ctx context.Context) error {
	if m.waiting == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.r.config.Timeout)
	defer cancel()
	ids := make([]chunk.StripeID, 0, len(m.strays))
	for id := range m.strays {
		ids = append(ids, id)
	}
	unnamed, err := m.r.config.Table.Unnamed(ctx, ids)
	if err != nil {
		return fmt.Errorf("unnamed stripes: %w", err)
	}
	dead := make(map[chunk.StoreID][]chunk.ID)
	for _, id := range unnamed {
		for _, e := range m.strays[id] {
			dead[e.store] = append(dead[e.store], e.id)
		}
	}
	m.r.deleteAll(ctx, dead, func(id chunk.StoreID, err error) {
		if err == nil {
			m.r.collected(int64(len(dead[id])), 0)
		} // else the next comparison finds them
	})
	m.strays, m.waiting = make(map[chunk.StripeID][]extra), 0
	return nil
}
