package stripe

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/chunk/stripe/stripetest"
)

// TestWait has stores go away and come back while the path is told of changes:
// calls wait for them, and not for ever, and not when it would be of no use.
func TestWait(t *testing.T) {
	down := func(c *stripetest.Cluster, n int, is bool) {
		for i := range n {
			c.Faulty(chunk.StoreID(i + 1)).Down(is)
		}
	}
	patient := func(c *Config) {
		told := make(chan struct{}) // never closed: what is not told of is looked for
		c.Changed = func() <-chan struct{} { return told }
	}
	data := random(9, 1<<20)
	const back = 10 * time.Second

	t.Run("back", func(t *testing.T) {
		bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
			s, err := p.Write(t.Context(), begin(t, p), data)
			if err != nil {
				t.Fatal(err)
			}
			down(c, 5, true)
			start := time.Now()
			time.AfterFunc(back, func() { down(c, 5, false) })
			got := make([]byte, len(data))
			if err := p.Read(t.Context(), s, got, 0); err != nil || !bytes.Equal(got, data) {
				t.Errorf("Read of stores that come back: %v", err)
			}
			if d := time.Since(start); d < back || d > back+lookEvery {
				t.Errorf("Read took %v, the stores were away for %v", d, back)
			}
			down(c, 5, true)
			start = time.Now()
			time.AfterFunc(back, func() { down(c, 5, false) })
			if _, err := p.Write(t.Context(), begin(t, p), data); err != nil {
				t.Errorf("Write to stores that come back: %v", err)
			}
			if d := time.Since(start); d < back || d > back+lookEvery {
				t.Errorf("Write took %v, the stores were away for %v", d, back)
			}
		}, patient)
	})
	t.Run("gone", func(t *testing.T) {
		bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
			s, err := p.Write(t.Context(), begin(t, p), data)
			if err != nil {
				t.Fatal(err)
			}
			down(c, 4, true)
			start := time.Now()
			if err := p.Read(t.Context(), s, make([]byte, len(data)), 0); !errors.Is(err, chunk.ErrTooFew) {
				t.Errorf("Read without enough stores: %v, want %v", err, chunk.ErrTooFew)
			}
			if d := time.Since(start); d != DefaultTimeout {
				t.Errorf("Read took %v, want %v", d, DefaultTimeout)
			}
			start = time.Now()
			if _, err := p.Write(t.Context(), begin(t, p), data); !errors.Is(err, chunk.ErrTooFew) {
				t.Errorf("Write without enough stores: %v, want %v", err, chunk.ErrTooFew)
			}
			if d := time.Since(start); d != DefaultTimeout {
				t.Errorf("Write took %v, want %v", d, DefaultTimeout)
			}
		}, patient)
	})
	t.Run("of no use", func(t *testing.T) {
		bubble(t, 6, func(t *testing.T, p *Path, c *stripetest.Cluster) {
			s, err := p.Write(t.Context(), begin(t, p), data)
			if err != nil {
				t.Fatal(err)
			}
			for i, id := range s.Stores[:3] {
				if err := c.Faulty(id).Delete(t.Context(), chunk.ID{Stripe: s.ID, Index: uint8(i)}); err != nil {
					t.Fatal(err)
				}
			}
			start := time.Now()
			if err := p.Read(t.Context(), s, make([]byte, len(data)), 0); !errors.Is(err, chunk.ErrTooFew) {
				t.Errorf("Read of what all stores lost: %v, want %v", err, chunk.ErrTooFew)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("Read of what no store has took %v", d)
			}
		}, patient)
	})
	// One change, told.
	synctest.Test(t, func(t *testing.T) {
		told := make(chan struct{})
		p, c := open(t, 6, func(c *Config) { c.Changed = func() <-chan struct{} { return told } })
		s, err := p.Write(t.Context(), begin(t, p), data)
		if err != nil {
			t.Fatal(err)
		}
		down(c, 5, true)
		start := time.Now()
		const soon = lookEvery / 2
		time.AfterFunc(soon, func() { down(c, 5, false); close(told) })
		if err := p.Read(t.Context(), s, make([]byte, len(data)), 0); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > soon {
			t.Errorf("Read took %v, the news came after %v", d, soon)
		}
	})
}
