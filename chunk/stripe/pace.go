package stripe

import (
	"slices"
	"sync/atomic"
	"time"
)

const (
	// recent is how many reads the 95th percentile is taken of, and every how
	// many it is taken anew.
	recent      = 128
	recentEvery = 32
	// hedgeCost is what reads must save for each that a hedge makes, and a hedge
	// makes k: so hedges add a twentieth to what is read, not k times as much.
	hedgeCost = 20
	// hedgeSave bounds what reads may save up, so that a store that becomes
	// slow after a quiet hour is not answered with a storm.
	hedgeSave = 16 * hedgeCost
	// unknown is how many times the least wait before a hedge is waited while it is
	// not known how long reads take here: the first ones open connections and files.
	unknown = 10
)

// A pace knows how long reads take and how many may be hedged.
type pace struct {
	min, max time.Duration
	wait     atomic.Int64 // nanoseconds before a hedge
	credit   atomic.Int64 // reads saved up for hedges
	count    atomic.Uint32
	times    [recent]atomic.Int64 // nanoseconds that recent reads took
}

func (p *pace) init(least, most time.Duration) {
	p.min, p.max = least, max(least, most)
	p.wait.Store(int64(min(unknown*least, p.max)))
	p.credit.Store(hedgeSave)
}

// delay is how long a read waits for its store before it asks others.
func (p *pace) delay() time.Duration { return time.Duration(p.wait.Load()) }

// began counts a read.
func (p *pace) began() {
	if p.credit.Load() < hedgeSave {
		p.credit.Add(1)
	}
}

// allow takes the right to a hedge of so many reads.
func (p *pace) allow(reads int) bool {
	cost := int64(reads) * hedgeCost
	for {
		c := p.credit.Load()
		if c < cost {
			return false
		}
		if p.credit.CompareAndSwap(c, c-cost) {
			return true
		}
	}
}

// took records how long a store took for a read.
func (p *pace) took(d time.Duration) {
	n := p.count.Add(1)
	p.times[(n-1)%recent].Store(int64(d))
	if n%recentEvery != 0 {
		return
	}
	var times [recent]int64
	sorted := times[:min(n, recent)]
	for i := range sorted {
		sorted[i] = p.times[i].Load()
	}
	slices.Sort(sorted)
	p95 := time.Duration(sorted[len(sorted)*95/100])
	p.wait.Store(int64(min(max(p95, p.min), p.max)))
}
