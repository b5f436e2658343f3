package stripe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/chunk/stripe/stripetest"
)

// Writers and readers go on while at most M stores at a time are away, hang,
// fail or are slow. Every write succeeds, and every read gives what was
// written, within bounds of time.
func TestWalk(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, 7, func(t *testing.T, p *Path, c *stripetest.Cluster) {
				done := make(chan struct{})
				var wg sync.WaitGroup
				for i := range uint64(3) {
					wg.Go(func() { client(t, p, rand.New(rand.NewPCG(seed, i)), done) })
				}
				r := rand.New(rand.NewPCG(seed, 99))
				for range 20 {
					x := chunk.StoreID(1 + r.IntN(7))
					y := chunk.StoreID(1 + r.IntN(7))
					for _, id := range []chunk.StoreID{x, y} {
						switch s := c.Faulty(id); r.IntN(4) {
						case 0:
							s.Down(true)
						case 1:
							s.Hang(r.IntN(2) == 0)
						case 2:
							s.Fail(chunk.ErrLost)
						case 3:
							s.Slow(time.Duration(r.IntN(100)) * time.Millisecond)
						}
					}
					time.Sleep(time.Duration(r.IntN(20_000)) * time.Millisecond)
					for _, id := range []chunk.StoreID{x, y} {
						s := c.Faulty(id)
						s.Down(false)
						s.Resume()
						s.Fail(nil)
						s.Slow(0)
					}
					// The shards of stripes written meanwhile need M stores more:
					// doubt must have ended before others fail.
					time.Sleep(afterSlow)
				}
				close(done)
				wg.Wait()
			})
		})
	}
}

func client(t *testing.T, p *Path, r *rand.Rand, done chan struct{}) {
	type entry struct {
		stripe chunk.Stripe
		data   []byte
	}
	var all []entry
	for {
		select {
		case <-done:
			return
		case <-time.After(time.Duration(r.IntN(1000)) * time.Millisecond):
		}
		if len(all) < 20 || r.IntN(10) == 0 {
			data := random(r.Uint64(), 1+r.IntN(100_000))
			id, err := p.Begin(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			start := time.Now()
			s, err := p.Write(context.Background(), id, data)
			if err != nil {
				t.Errorf("Write: %v", err)
				return
			}
			if d := time.Since(start); d > DefaultTimeout {
				t.Errorf("Write took %v", d)
			}
			p.End(id)
			if all = append(all, entry{s, data}); len(all) > 40 {
				all = all[1:]
			}
		}
		e := all[r.IntN(len(all))]
		off := r.IntN(len(e.data))
		b := make([]byte, 1+r.IntN(len(e.data)-off))
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if r.IntN(5) == 0 { // some readers go away
			ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(10))*time.Millisecond)
		}
		start := time.Now()
		err := p.Read(ctx, e.stripe, b, int64(off))
		cancel()
		switch {
		case err != nil && ctx.Err() != nil && ctx != context.Background():
		case err != nil:
			t.Errorf("Read(%v): %v", e.stripe, err)
		case !bytes.Equal(b, e.data[off:off+len(b)]):
			t.Errorf("Read(%v): wrong bytes", e.stripe)
		}
		// A deaf store keeps a read as long as it hangs, up to 20 s here.
		if d := time.Since(start); d > 25*time.Second {
			t.Errorf("Read took %v", d)
		}
	}
}

// A deaf store keeps the reads that are in it, and no others.
func TestDeafStore(t *testing.T) {
	bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
		data := random(2, 1<<20)
		s := write(t, p, data)
		deaf := c.Faulty(s.Stores[0])
		deaf.Hang(true)
		var wg sync.WaitGroup
		wg.Go(func() { check(t, p, s, data) })
		time.Sleep(DefaultSlow)
		synctest.Wait()
		start := time.Now()
		for range 100 {
			b := make([]byte, 100)
			if err := p.Read(t.Context(), s, b, 0); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d > 100*DefaultHedge {
			t.Errorf("reads beside one that is stuck took %v", d)
		}
		deaf.Resume()
		wg.Wait()
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := stripetest.New(7, wanted)
		p, err := New(Config{Cluster: c, IDs: c})
		if err != nil {
			t.Fatal(err)
		}
		c.Faulty(1).Hang(true)
		id := begin(t, p)
		if _, err := p.Write(t.Context(), id, random(1, 1<<20)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close with a store that holds a call: %v", err)
		}
		c.Faulty(1).Resume()
		if err := p.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if _, err := New(Config{}); err == nil {
			t.Error("New without a Cluster succeeded")
		}
	})
}

func BenchmarkWrite4MiB(b *testing.B) {
	p, c := open(b, 6)
	data := random(1, 4<<20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		s := write(b, p, data)
		b.StopTimer()
		for i, id := range s.Stores {
			if err := c.Faulty(id).Delete(b.Context(), chunk.ID{Stripe: s.ID, Index: uint8(i)}); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
}

func benchmarkRead(b *testing.B, n int, spoil func(c *stripetest.Cluster, s chunk.Stripe)) {
	p, c := open(b, 6)
	s := write(b, p, random(1, 4<<20))
	spoil(c, s)
	buf := make([]byte, n)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Read(b.Context(), s, buf, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func nothing(*stripetest.Cluster, chunk.Stripe)   {}
func first(c *stripetest.Cluster, s chunk.Stripe) { c.Faulty(s.Stores[0]).Down(true) }
func BenchmarkRead4KiB(b *testing.B)              { benchmarkRead(b, 4<<10, nothing) }
func BenchmarkRead1MiB(b *testing.B)              { benchmarkRead(b, 1<<20, nothing) }
func BenchmarkRead4MiB(b *testing.B)              { benchmarkRead(b, 4<<20, nothing) }
func BenchmarkRead1MiBDegraded(b *testing.B)      { benchmarkRead(b, 1<<20, first) }
func BenchmarkRead4MiBDegraded(b *testing.B)      { benchmarkRead(b, 4<<20, first) }
