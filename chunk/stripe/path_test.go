package stripe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"dos/chunk"
	"dos/chunk/stripe/stripetest"
)

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	rand.NewChaCha8(key).Read(b)
	return b
}

var wanted = chunk.Code{K: 4, M: 2}

// open returns a path over n stores; at the end of the test it checks that
// nothing runs any more.
func open(t testing.TB, n int, change ...func(*Config)) (*Path, *stripetest.Cluster) {
	t.Helper()
	c := stripetest.New(n, wanted)
	config := Config{Cluster: c, IDs: c}
	for _, f := range change {
		f(&config)
	}
	p, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, id := range c.Stores() {
			c.Faulty(id).Resume()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return p, c
}

func write(t testing.TB, p *Path, data []byte) chunk.Stripe {
	t.Helper()
	id, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Write(t.Context(), id, data)
	if err != nil {
		t.Fatalf("Write(%d bytes): %v", len(data), err)
	}
	p.End(id)
	return s
}

func check(t testing.TB, p *Path, s chunk.Stripe, data []byte) {
	t.Helper()
	got := make([]byte, len(data))
	if err := p.Read(t.Context(), s, got, 0); err != nil {
		t.Fatalf("Read(%v): %v", s, err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("Read(%v): other bytes than written", s)
	}
}

// distinct reports whether each shard is on a store of its own and there.
func checkStored(t *testing.T, c *stripetest.Cluster, s chunk.Stripe) {
	t.Helper()
	seen := make(map[chunk.StoreID]bool)
	for i, id := range s.Stores {
		if seen[id] {
			t.Errorf("stripe %v: store %d has two shards", s, id)
		}
		seen[id] = true
		info, err := c.Faulty(id).Stat(t.Context(), chunk.ID{Stripe: s.ID, Index: uint8(i)})
		if err != nil || info.Size != int64(s.Code.Cell(int(s.Len))) {
			t.Errorf("stripe %v: shard %d on store %d: %v, %v", s, i, id, info, err)
		}
	}
}

func TestCodes(t *testing.T) {
	for _, test := range []struct {
		stores, down, n int
		want            string
		err             error
	}{
		{6, 0, 4 << 20, "4+2", nil},
		{6, 0, 65537, "4+2", nil},
		{6, 0, 65536, "1+2", nil},
		{6, 0, 1, "1+2", nil},
		{6, 1, 1 << 20, "3+2", nil},
		{6, 2, 1 << 20, "2+2", nil},
		{6, 3, 1 << 20, "1+2", nil},
		{6, 3, 100, "1+2", nil},
		{6, 4, 1 << 20, "", chunk.ErrTooFew},
		{6, 4, 100, "", chunk.ErrTooFew},
		{8, 2, 1 << 20, "4+2", nil},
		{3, 0, 4 << 20, "1+2", nil},
	} {
		t.Run(fmt.Sprintf("%d stores %d down %d bytes", test.stores, test.down, test.n), func(t *testing.T) {
			p, c := open(t, test.stores)
			for i := range test.down {
				c.Faulty(chunk.StoreID(i + 1)).Down(true)
			}
			id, err := p.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			data := random(1, test.n)
			s, err := p.Write(t.Context(), id, data)
			if !errors.Is(err, test.err) {
				t.Fatalf("Write: %v, want %v", err, test.err)
			}
			if err != nil {
				return
			}
			if s.Code.String() != test.want {
				t.Errorf("code %v, want %s", s.Code, test.want)
			}
			checkStored(t, c, s)
			check(t, p, s, data)
		})
	}
}

func TestRanges(t *testing.T) {
	p, c := open(t, 6)
	r := rand.New(rand.NewPCG(4, 5))
	for _, n := range []int{1, 5000, 65536, 65537, 300_001, 4 << 20} {
		data := random(uint64(n), n)
		s := write(t, p, data)
		for down := range 3 { // none, one, two
			for range 60 {
				off := r.IntN(n)
				size := 1 + r.IntN(n-off)
				if r.IntN(2) == 0 {
					size = min(size, 1+r.IntN(8192))
				}
				b := make([]byte, size+2)
				b[0], b[size+1] = 0xaa, 0xbb
				if err := p.Read(t.Context(), s, b[1:size+1], int64(off)); err != nil {
					t.Fatalf("Read(%d bytes at %d of %d, %d down): %v", size, off, n, down, err)
				}
				if !bytes.Equal(b[1:size+1], data[off:off+size]) {
					t.Fatalf("Read(%d bytes at %d of %d, %d down): wrong bytes", size, off, n, down)
				}
				if b[0] != 0xaa || b[size+1] != 0xbb {
					t.Fatalf("Read(%d bytes at %d of %d, %d down) wrote outside", size, off, n, down)
				}
			}
			c.Faulty(s.Stores[down]).Down(true)
		}
		for _, id := range c.Stores() {
			c.Faulty(id).Down(false)
		}
	}
}

func TestReadBeyond(t *testing.T) {
	p, _ := open(t, 6)
	s := write(t, p, random(1, 100_000))
	for _, test := range []struct {
		off int64
		n   int
	}{{100_000, 1}, {-1, 1}, {99_999, 2}, {1 << 40, 1}} {
		if err := p.Read(t.Context(), s, make([]byte, test.n), test.off); err == nil {
			t.Errorf("Read(%d bytes at %d of 100000) succeeded", test.n, test.off)
		}
	}
	if err := p.Read(t.Context(), s, nil, 100_000); err != nil {
		t.Errorf("Read(nothing at the end): %v", err)
	}
	bad := s
	bad.Stores = bad.Stores[:3]
	if err := p.Read(t.Context(), bad, make([]byte, 1), 0); err == nil {
		t.Error("Read of a stripe with three stores for 4+2 succeeded")
	}
}

// Load is even: over stores and over who gets data shards.
func TestSpread(t *testing.T) {
	p, c := open(t, 6)
	for _, n := range []int{100, 70_000} {
		counts := make(map[chunk.StoreID]int)
		const stripes = 600
		for range stripes {
			s := write(t, p, random(1, n))
			counts[s.Stores[0]]++
		}
		for _, id := range c.Stores() {
			if got, want := counts[id], stripes/6; got < want/2 || got > want*2 {
				t.Errorf("%d bytes: store %d has the first shard of %d in %d stripes, want about %d", n, id, got, stripes, want)
			}
		}
	}
}

func TestIDs(t *testing.T) {
	p, c := open(t, 6, func(c *Config) { c.Reserve = 8 })
	if low := p.Low(); low != 0 {
		t.Errorf("Low before the first Begin = %d, want 0", low)
	}
	var ids []chunk.StripeID
	for range 20 {
		id, err := p.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for i, id := range ids {
		if low := p.Low(); low != ids[0] && i < 10 {
			t.Errorf("Low = %d with %d open, want %d", low, ids[0], ids[0])
		}
		if i > 0 && i < 10 {
			p.End(id)
		}
	}
	p.End(ids[0])
	if low := p.Low(); low != ids[10] {
		t.Errorf("Low = %d, want %d", low, ids[10])
	}
	for _, id := range ids[10:] {
		p.End(id)
		p.End(id) // twice does no harm
	}
	next, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if next <= ids[19] {
		t.Errorf("Begin = %d after %d", next, ids[19])
	}
	if low := p.Low(); low != next {
		t.Errorf("Low = %d with only %d open", low, next)
	}
	p.End(next)

	// A failing source is felt only when nothing is left.
	boom := errors.New("boom")
	c.FailReserve(boom)
	n := 0
	for ; n < 100; n++ {
		if _, err = p.Begin(t.Context()); err != nil {
			break
		}
	}
	if !errors.Is(err, boom) || n == 0 || n == 100 {
		t.Errorf("after %d IDs: %v, want some and then %v", n, err, boom)
	}
	c.FailReserve(nil)
	if _, err := p.Begin(t.Context()); err != nil {
		t.Errorf("Begin after the source recovered: %v", err)
	}
}

func TestCapacity(t *testing.T) {
	for _, test := range []struct {
		name string
		free []int64
		disk bool
		want int64
	}{
		{"even", []int64{600, 600, 600, 600, 600, 600}, false, 2400},
		{"one disk", []int64{600, 600, 600, 600, 600, 600}, true, 400},
		{"one full", []int64{1, 600, 600, 600, 600, 600}, false, 1800},
		{"three", []int64{600, 600, 600}, false, 600},
		{"spares", []int64{600, 600, 600, 600, 600, 600, 600, 600, 600, 600, 600, 600}, false, 4800},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, c := open(t, len(test.free), func(c *Config) {
				if test.disk {
					c.Disk = func(chunk.StoreID) string { return "sda" }
				}
			})
			for i, free := range test.free {
				c.Faulty(chunk.StoreID(i + 1)).Limit(free)
			}
			total, free, err := p.Capacity(t.Context())
			if err != nil || free != test.want || total != test.want {
				t.Errorf("Capacity = %d, %d, %v, want %d", total, free, err, test.want)
			}
		})
	}
	p, c := open(t, 6)
	for i := range 4 {
		c.Faulty(chunk.StoreID(i + 1)).Down(true)
	}
	if _, _, err := p.Capacity(t.Context()); !errors.Is(err, chunk.ErrTooFew) {
		t.Errorf("Capacity with two stores: %v, want ErrTooFew", err)
	}
}

// slowIDs are IDs whose source answers late.
type slowIDs struct {
	IDs
	asked, answer chan struct{}
}

func (s slowIDs) Reserve(ctx context.Context, n int) (chunk.StripeID, error) {
	first, err := s.IDs.Reserve(ctx, n)
	s.asked <- struct{}{}
	<-s.answer
	return first, err
}

// IDs of a session that is over are not handed out, also not those that are on
// their way when it ends.
func TestForget(t *testing.T) {
	slow := slowIDs{asked: make(chan struct{}), answer: make(chan struct{})}
	p, _ := open(t, 6, func(c *Config) {
		c.Reserve = 8
		slow.IDs = c.IDs
		c.IDs = slow
	})
	begin := func() <-chan chunk.StripeID {
		got := make(chan chunk.StripeID, 1)
		go func() {
			id, err := p.Begin(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- id
		}()
		return got
	}
	first := begin()
	<-slow.asked
	slow.answer <- struct{}{}
	old := <-first // of 1 to 8
	p.Forget()
	second := begin()
	<-slow.asked // for 9 to 16
	p.Forget()
	slow.answer <- struct{}{}
	<-slow.asked // for 17 to 24
	slow.answer <- struct{}{}
	if id := <-second; old != 1 || id != 17 {
		t.Errorf("handed out %d, then %d, want 1 and 17", old, id)
	}
	if low := p.Low(); low != old {
		t.Errorf("Low = %d while %d has not ended", low, old)
	}
	p.End(old)
	if low := p.Low(); low != 17 {
		t.Errorf("Low = %d, want 17", low)
	}
}
