package repair

import (
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
	failed         bool // it could not see everything
	started, ended time.Time
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
	Running   bool      // a comparison runs or stripes are being rebuilt
	// Complete says that redundancy is full: a comparison that began after
	// the last change of any store saw everything, every shard was there or
	// has been rebuilt and looked at again, and no damage is known since.
	Complete bool
}

// Status returns the present state.
func (r *Repairer) Status() Status {
	busy, dropped := r.queue.busy()
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.last
	if p.number == 0 && r.current != nil {
		p = r.current
	}
	s := Status{
		Stripes: p.total(), Full: p.counts[full], Degraded: p.counts[degraded],
		Endangered: p.counts[endangered], Lost: p.counts[lost], Short: p.short,
		Queued:  int64(busy),
		Rebuilt: r.done.rebuilt, Bytes: r.done.bytes, Collected: r.done.collected, Buried: r.done.buried,
		LastFull: r.done.lastFull,
		Running:  r.current != nil || busy > 0,
		Complete: r.complete(busy, dropped),
	}
	if busy > 0 && !r.spell.began.IsZero() {
		took := max(time.Since(r.spell.began), time.Millisecond)
		s.Done, s.Rate = r.spell.stripes, int64(float64(r.spell.bytes)/took.Seconds())
		if s.Done > 0 {
			s.Left = time.Duration(float64(took) / float64(s.Done) * float64(busy))
		}
	}
	return s
}

// complete reports whether redundancy is known to be full. Called with mu held.
func (r *Repairer) complete(busy, dropped int) bool {
	return r.last.number != 0 && r.last.epoch == r.epoch && !r.last.failed &&
		busy == 0 && dropped == 0 && r.last.counts[full] == r.last.total()
}

// noteFull notes the time if redundancy is full now.
func (r *Repairer) noteFull() {
	busy, dropped := r.queue.busy()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.complete(busy, dropped) {
		r.done.lastFull = time.Now()
	}
}

// settle says what became of an item: its class now, or that it is gone.
func (r *Repairer) settle(it *item, now class, gone bool) {
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
