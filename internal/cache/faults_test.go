package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"dos/meta"
	"dos/meta/cache"
	"dos/meta/client"
	"dos/test/history"
)

// An entryOp is a read, a write, a deletion or an addition of one entry.
type entryOp struct {
	verb op
	add  bool
	val  string
}

// An entryAnswer is how it ended.
type entryAnswer struct {
	miss, unsure bool
	val          string
}

// entryModel is an entry that may go at any time: a miss says nothing.
var entryModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		q, a := in.(entryOp), out.(entryAnswer)
		switch {
		case q.verb == opGet:
			return a.miss || a.val == state.(string), state
		case q.verb == opDelete:
			return true, ""
		case q.add && a.miss: // somebody else's was there
			return state.(string) != "", state
		}
		return true, q.val
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v: %+v", in, out) },
}

// TestNothingStale has clients read, write, add and delete while machines are killed, cut
// off, slow to hear, come back and change their weights, and buckets are cleared and
// get other numbers of copies. Nobody gets what was there before.
func TestNothingStale(t *testing.T) {
	for replicas := 1; replicas <= 3; replicas++ {
		t.Run(fmt.Sprint(replicas, " replicas"), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			stale(t, rand.New(rand.NewPCG(seed, 0)), replicas)
		})
	}
}

const (
	staleKeys    = 12
	staleWorkers = 8
	staleFaults  = 12
)

func stale(t *testing.T, rnd *rand.Rand, replicas int) {
	names := []string{"a", "b", "c", "d"}
	w := newWorld(t, names...)
	clients := []*Client{w.client(0), w.client(150 * time.Millisecond)}
	w.make(clients[0], "b", replicas)
	var h history.History
	began := time.Now()
	over := make(chan struct{})
	var hits, writes atomic.Int64
	var wg sync.WaitGroup
	for id := range staleWorkers {
		c, rnd := clients[id%len(clients)], rand.New(rand.NewPCG(rnd.Uint64(), uint64(id)))
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				step(t, &h, c, rnd, id, fmt.Sprintf("%d.%d", id, n), began, &hits, &writes)
			}
		})
	}
	for range staleFaults {
		fault(t, w, clients[0], rnd, names[rnd.IntN(len(names))], replicas)
	}
	w.settled(len(names))
	few := func() bool { return hits.Load() < 200 || writes.Load() < 200 }
	for late := time.Now().Add(time.Minute); few() && time.Now().Before(late); { // on a busy machine
		time.Sleep(10 * time.Millisecond)
	}
	close(over)
	wg.Wait()
	t.Logf("%d hits, %d writes in %v", hits.Load(), writes.Load(), time.Since(began))
	if few() {
		t.Errorf("%d hits and %d writes are too few to tell of", hits.Load(), writes.Load())
	}
	h.Check(t, entryModel)
}

// step does one thing.
func step(t *testing.T, h *history.History, c *Client, rnd *rand.Rand, id int, val string, began time.Time, hits, writes *atomic.Int64) {
	key := fmt.Sprint("k", rnd.IntN(staleKeys))
	q, a := entryOp{verb: opGet}, entryAnswer{}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	call := time.Since(began)
	var err error
	switch rnd.IntN(8) {
	case 0:
		q.verb = opDelete
		if err = c.Delete(ctx, "b", key, 0); errors.Is(err, meta.NotExist) {
			err = nil
		}
	case 1, 2:
		q.verb, q.val = opSet, val
		_, err = c.Set(ctx, "b", key, []byte(val), Options{})
	case 3:
		q.verb, q.val, q.add = opSet, val, true
		if _, err = c.Set(ctx, "b", key, []byte(val), Options{Add: true}); errors.Is(err, meta.Exist) {
			a.miss, err = true, nil
		}
	default:
		var e Entry
		if e, err = c.Get(ctx, "b", key); errors.Is(err, meta.NotExist) {
			a.miss, err = true, nil
		} else if err == nil {
			a.val = string(e.Value)
			hits.Add(1)
		}
	}
	end := int64(time.Since(began))
	if err != nil {
		if q.verb == opGet || !errors.Is(err, meta.Unavailable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v of %s: %v", q, key, err)
			return
		}
		a.unsure, end = true, history.Never
	} else if q.verb != opGet {
		writes.Add(1)
	}
	h.Add(key, porcupine.Operation{ClientId: id, Input: q, Call: int64(call), Output: a, Return: end})
}

// fault does something to a machine, for a moment.
func fault(t *testing.T, w *world, c *Client, rnd *rand.Rand, name string, replicas int) {
	m := w.machine(name)
	short := time.Duration(rnd.IntN(100)) * time.Millisecond
	switch rnd.IntN(9) {
	case 0: // killed, and back before its session is over
		m.stop()
		time.Sleep(short)
		w.begin(name)
	case 1: // killed, and back after that
		m.stop()
		time.Sleep(short)
		w.bury(m)
		time.Sleep(short)
		w.begin(name)
	case 2: // cut off until its session is over
		w.setCut(name, true)
		time.Sleep(short)
		w.bury(m)
		time.Sleep(short)
		m.stop()
		w.setCut(name, false)
		w.begin(name)
	case 3: // cut off for a moment
		w.setCut(name, true)
		time.Sleep(3 * short)
		w.setCut(name, false)
	case 4: // slow to hear, while it comes to weigh more and less
		m.lag.Store(int64(short))
		for range 3 {
			weight := 1 + rnd.Uint32N(64)
			if err := client.Direct(w.meta, m.session).Call(t.Context(), cache.OpWeigh, cache.Weigh{Weight: weight}, nil); err != nil {
				t.Error(err)
			}
			time.Sleep(short / 2)
		}
		m.lag.Store(0)
	case 5: // nobody hears from it that it is over
		w.setCut(name+" meta", true)
		time.Sleep(short)
		w.bury(m)
		time.Sleep(3 * short)
		m.stop()
		w.setCut(name+" meta", false)
		w.begin(name)
	case 6: // it does not get copies from another, which then dies
		other := w.machine(string("abcd"[(name[0]-'a'+1)%4]))
		w.setCut(name+" "+other.name, true)
		time.Sleep(copyWait + 3*short)
		other.stop()
		w.setCut(name+" "+other.name, false)
		w.bury(other)
		time.Sleep(short)
		w.begin(other.name)
	case 7:
		if err := c.Clear(t.Context(), "b"); err != nil {
			t.Error(err)
		}
	case 8:
		for _, n := range []int{1 + rnd.IntN(3), 1 + rnd.IntN(3), replicas} {
			if err := c.SetBucket(t.Context(), cache.Set{Name: "b", Replicas: &n}); err != nil {
				t.Error(err)
			}
		}
	}
	time.Sleep(20 * time.Millisecond)
}
