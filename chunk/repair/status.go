package repair

import (
	"maps"
	"slices"
	"time"

	"dos/chunk"
)

// A class says how much of a stripe is there.
type class int

const (
	full       class = iota // all shards
	degraded                // some are missing, and more could be
	endangered              // readable, but no further loss may happen
	lost                    // too few shards can be reached now
	classes
)

// classOf classes a stripe of which that many shards are missing.
func classOf(code chunk.Code, missing int) class {
	switch {
	case missing == 0:
		return full
	case missing < int(code.M):
		return degraded
	case missing == int(code.M):
		return endangered
	}
	return lost
}

// A pass is what one comparison counted, and what became of it since.
type pass struct {
	number         uint64
	epoch          uint64 // when it began
	counts         [classes]int64
	short          int64
	stores         map[chunk.StoreID]*holding
	young          bool // something was left to be done soon
	failed         bool // it could not see everything
	started, ended time.Time
}

// A holding is what the table names on one store.
type holding struct {
	shards, bytes int64
	missing       int64 // of the shards, were not there
	listed        bool  // what is there was seen as a whole
}

func (p *pass) holding(id chunk.StoreID) *holding {
	h := p.stores[id]
	if h == nil {
		h = new(holding)
		p.stores[id] = h
	}
	return h
}

func (p *pass) total() int64 {
	n := int64(0)
	for _, c := range p.counts {
		n += c
	}
	return n
}

// progress counts since the start.
type progress struct {
	rebuilt, bytes    int64
	collected, buried int64
	lastFull          time.Time
}

// A spell is the time since there was last nothing to rebuild.
type spell struct {
	began   time.Time
	stripes int64 // done
	bytes   int64 // of shards rebuilt
}

// A Status says how redundant the stripes are. The counts of stripes are those
// of the last comparison that ended (of the running one during the first), kept
// up to date as stripes are rebuilt.
type Status struct {
	Stripes    int64
	Full       int64 // with all shards
	Degraded   int64 // with shards missing, and redundancy left
	Endangered int64 // with no redundancy left
	Lost       int64 // unreadable now
	Short      int64 // with a narrower code than wanted

	Queued int64         // stripes that wait to be rebuilt or looked at
	Done   int64         // since none waited last
	Rate   int64         // bytes of shards rebuilt in a second, since then
	Left   time.Duration // about, until none waits; zero if that is not known

	Rebuilt   int64     // shards rebuilt since the start
	Bytes     int64     // and their bytes
	Collected int64     // shards of no stripe, deleted since the start
	Buried    int64     // dead stripes deleted since the start
	LastFull  time.Time // when redundancy was last known to be full
	Moving    int64     // of Queued, whole stripes of which shards are to lie elsewhere
	Leaving   []Leaving // stores that are to be emptied, by ID
	Running   bool      // a comparison runs or stripes are being rebuilt
	// Complete says that redundancy is full: a comparison that began after
	// the last change of any store saw everything, every shard was there or
	// has been rebuilt and looked at again, and no damage is known since.
	Complete bool
}

// Leaving is what is still named on a store that is to be emptied.
type Leaving struct {
	Store  chunk.StoreID
	Shards int64
	Bytes  int64
	Left   time.Duration // about, until there is none; zero if that is not known
}

// Status returns the present state.
func (r *Repairer) Status() Status {
	q := r.queue.backlog()
	busy := q.items
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.last
	if p.number == 0 && r.current != nil {
		p = r.current
	}
	s := Status{
		Stripes: p.total(), Full: p.counts[full], Degraded: p.counts[degraded],
		Endangered: p.counts[endangered], Lost: p.counts[lost], Short: p.short,
		Queued: int64(busy), Moving: int64(q.calm),
		Rebuilt: r.done.rebuilt, Bytes: r.done.bytes, Collected: r.done.collected, Buried: r.done.buried,
		LastFull: r.done.lastFull,
		Running:  r.current != nil || busy > 0,
		Complete: r.complete(q),
	}
	if busy > 0 && !r.spell.began.IsZero() {
		took := max(time.Since(r.spell.began), time.Millisecond)
		s.Done, s.Rate = r.spell.stripes, int64(float64(r.spell.bytes)/took.Seconds())
		if s.Done > 0 {
			s.Left = time.Duration(float64(took) / float64(s.Done) * float64(busy))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.leaving)) {
		l := Leaving{Store: id}
		if h := p.stores[id]; h != nil {
			l.Shards, l.Bytes = h.shards, h.bytes
		}
		if s.Rate > 0 {
			l.Left = time.Duration(float64(l.Bytes) / float64(s.Rate) * float64(time.Second))
		}
		s.Leaving = append(s.Leaving, l)
	}
	return s
}

// UpToDate reports whether a store that was away has everything that the table
// names there: a comparison that began after its return has seen that.
func (r *Repairer) UpToDate(id chunk.StoreID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, away := r.away[id]
	if away || r.last.number == 0 || r.last.started.Before(r.back[id]) {
		return false
	}
	h := r.last.stores[id]
	return h != nil && h.listed && h.missing == 0
}

// complete reports whether redundancy is known to be full. Called with mu held.
func (r *Repairer) complete(q backlog) bool {
	return r.last.number != 0 && r.last.epoch == r.epoch && !r.last.failed &&
		q.items == q.calm && q.dropped == 0 && r.last.counts[full] == r.last.total()
}

// noteFull notes the time if redundancy is full now.
func (r *Repairer) noteFull() {
	q := r.queue.backlog()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.complete(q) {
		r.done.lastFull = time.Now()
	}
}

// moved counts shards of an item that the table has elsewhere now.
func (r *Repairer) moved(it *item, moves []Move, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range []*pass{&r.last, r.current} {
		if p == nil || it.pass == 0 || p.number != it.pass {
			continue
		}
		for _, m := range moves {
			from, to := p.holding(m.From), p.holding(m.To)
			from.shards, from.bytes = from.shards-1, from.bytes-size
			to.shards, to.bytes = to.shards+1, to.bytes+size
		}
	}
}

// finish says what became of an item: its class now, or that it is gone.
func (r *Repairer) finish(it *item, now class, gone bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range []*pass{&r.last, r.current} {
		if p == nil || it.pass == 0 || p.number != it.pass {
			continue
		}
		p.counts[it.class]--
		if !gone {
			p.counts[now]++
		}
	}
	if it.pass == 0 && !gone && now != full {
		r.epoch++ // the counts do not know of it
		r.signal()
	}
}

func (r *Repairer) rebuilt(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.rebuilt++
	r.done.bytes += bytes
	r.spell.bytes += bytes
}

// begin and end are called before and after work on a stripe.
func (r *Repairer) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spell.began.IsZero() {
		r.spell.began = time.Now()
	}
}

func (r *Repairer) end() {
	q := r.queue.backlog()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spell.stripes++; q.items == 0 {
		r.spell = spell{}
	}
}

func (r *Repairer) collected(shards, stripes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.collected += shards
	r.done.buried += stripes
}
