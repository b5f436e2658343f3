package services

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/history"
)

const (
	// workers is how many programs a service has on each mount.
	workers = 4
	// pace is how long a program that has done its share of a round rests between
	// operations, and how long one waits whose mount is not there.
	pace = 20 * time.Millisecond
	// grace is how long after a disturbance of a mount errors may still be told.
	grace = 5 * time.Second
)

// A site is a mount, and when it was disturbed so that what programs have there may
// be lost, or nobody knows how what they did ended.
type site struct {
	*cluster.Mount
	name  string
	began time.Time

	mu    sync.Mutex
	spans [][2]time.Duration // since began; guarded by mu
}

func (s *site) now() time.Duration { return time.Since(s.began) }

// disturb notes a disturbance, until over is called.
func (s *site) disturb() (over func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := len(s.spans)
	s.spans = append(s.spans, [2]time.Duration{s.now(), history.Never})
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.spans[i][1] = s.now() + grace
	}
}

// disturbed reports whether it was at any time between those.
func (s *site) disturbed(since, until time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.spans {
		if since <= span[1] && until >= span[0] {
			return true
		}
	}
	return false
}

// A service is what programs do, and the order that it should have been in.
type service struct {
	name  string
	share int // operations in a round
	step  func(*worker) (done int)

	left  atomic.Int64 // of the share of the round
	total atomic.Int64
}

// A worker is a program on a mount.
type worker struct {
	id   int // among those of its service
	site *site
	rnd  *rand.Rand
	tb   testing.TB
	desk desk
	buf  []byte
	last uint64 // number of what it named last
	torn bool   // something failed: its files are to be opened anew
	had  taken  // what its stream read last
}

func newWorker(tb testing.TB, id int, s *site, rnd *rand.Rand) *worker {
	return &worker{id: id, site: s, rnd: rand.New(rand.NewPCG(rnd.Uint64(), uint64(id))), tb: tb, desk: make(desk), buf: make([]byte, 64<<10)}
}

// run works until there is nothing more to do.
func (w *worker) run(s *service, over <-chan struct{}) {
	defer w.desk.clear("/")
	rest := time.NewTicker(pace)
	defer rest.Stop()
	for {
		select {
		case <-over:
			return
		default:
		}
		n := s.step(w)
		s.total.Add(int64(n))
		if left := s.left.Add(int64(-n)); left <= 0 || w.torn {
			<-rest.C
		}
		if w.torn {
			w.torn = false
			w.desk.clear("/")
		}
	}
}

func (w *worker) now() int64 { return int64(w.site.now()) }

// number is one that nobody else has.
func (w *worker) number() uint64 {
	w.last++
	return w.last<<8 | uint64(w.id)
}

// failed is told of every error that says nothing but that something failed. An
// undisturbed mount has none. All files are opened anew after the step.
func (w *worker) failed(what string, since int64, err error) {
	if !w.lost(since) {
		w.tb.Errorf("%v: %s on %s, which nothing disturbed: %v", w.site.now(), what, w.site.name, err)
	}
	w.torn = true
}

// lost reports whether what the worker got since then may have been taken from it.
func (w *worker) lost(since int64) bool { return w.site.disturbed(time.Duration(since), w.site.now()) }

func (w *worker) String() string { return fmt.Sprintf("%s/%d", w.site.name, w.id) }
