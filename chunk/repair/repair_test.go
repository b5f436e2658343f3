package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/chunk/stripe"
	"dos/chunk/stripe/stripetest"
)

// A table is a stripe table in memory.
type table struct {
	mu    sync.Mutex
	rows  map[chunk.StripeID]chunk.Stripe
	ids   []chunk.StripeID // sorted, of rows
	dead  map[chunk.StripeID]time.Time
	low   chunk.StripeID // IDs below it that have no row are garbage
	fail  error
	slow  time.Duration // how long it takes before a move is made
	moves []Move
}

func newTable() *table {
	return &table{rows: make(map[chunk.StripeID]chunk.Stripe), dead: make(map[chunk.StripeID]time.Time)}
}

func (t *table) Stripes(ctx context.Context, after chunk.StripeID, limit int) ([]chunk.Stripe, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ids) != len(t.rows) {
		t.ids = slices.Sorted(maps.Keys(t.rows))
	}
	at, _ := slices.BinarySearch(t.ids, after+1)
	var list []chunk.Stripe
	for _, id := range t.ids[at:min(at+limit, len(t.ids))] {
		s := t.rows[id]
		s.Stores = slices.Clone(s.Stores)
		list = append(list, s)
	}
	return list, at+limit < len(t.ids), t.fail
}

func (t *table) Move(ctx context.Context, moves []Move) error {
	t.mu.Lock()
	slow := t.slow
	t.mu.Unlock()
	time.Sleep(slow)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range moves {
		if s, ok := t.rows[m.Stripe]; ok && s.Stores[m.Index] == m.From {
			s.Stores = slices.Clone(s.Stores)
			s.Stores[m.Index] = m.To
			t.rows[m.Stripe] = s
		}
	}
	t.moves = append(t.moves, moves...)
	return t.fail
}

func (t *table) Dead(ctx context.Context, before time.Time, limit int) ([]chunk.Stripe, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []chunk.Stripe
	for id, at := range t.dead {
		if at.Before(before) && len(list) < limit {
			list = append(list, t.rows[id])
		}
	}
	return list, t.fail
}

func (t *table) Bury(ctx context.Context, ids []chunk.StripeID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if _, ok := t.dead[id]; ok {
			delete(t.dead, id)
			delete(t.rows, id)
			t.ids = nil
		}
	}
	return t.fail
}

func (t *table) Unnamed(ctx context.Context, ids []chunk.StripeID) ([]chunk.StripeID, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []chunk.StripeID
	for _, id := range ids {
		if _, ok := t.rows[id]; !ok && id < t.low {
			list = append(list, id)
		}
	}
	return list, t.fail
}

func (t *table) row(id chunk.StripeID) (chunk.Stripe, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.rows[id]
	return s, ok
}

// all returns the rows of this moment; a Repairer may move shards meanwhile.
func (t *table) all() map[chunk.StripeID]chunk.Stripe {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.rows)
}

func (t *table) set(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

// A bench is a cluster with stripes and a Repairer that runs.
type bench struct {
	*testing.T
	cluster *ruled
	table   *table
	path    *stripe.Path
	repair  *Repairer
	data    map[chunk.StripeID][]byte
}

var wanted = chunk.Code{K: 4, M: 2}

// run calls f within a bubble of fake time, with n stores.
func run(t *testing.T, n int, f func(b *bench)) {
	t.Helper()
	runWith(t, n, func(c *ruled) Cluster { return c.Cluster }, f)
}

// runWith lets the Repairer see another cluster.
func runWith(t *testing.T, n int, seen func(*ruled) Cluster, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, cluster: &ruled{Cluster: stripetest.New(n, wanted)}, table: newTable(), data: make(map[chunk.StripeID][]byte)}
		var err error
		if b.repair, err = New(Config{Cluster: seen(b.cluster), Table: b.table}); err != nil {
			t.Fatal(err)
		}
		if b.path, err = stripe.New(stripe.Config{Cluster: b.cluster, IDs: b.cluster, Damaged: b.repair.Damaged}); err != nil {
			t.Fatal(err)
		}
		f(b)
		for _, id := range b.cluster.Stores() {
			b.cluster.Faulty(id).Resume()
		}
		if err := b.path.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// start runs the Repairer until the test ends.
func (b *bench) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.repair.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("Run: %v", err)
		}
	}
}

func (b *bench) write(sizes ...int) {
	b.Helper()
	for _, n := range sizes {
		id, err := b.path.Begin(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		data := make([]byte, n)
		rand.NewChaCha8([32]byte{byte(id), byte(id >> 8)}).Read(data)
		s, err := b.path.Write(context.Background(), id, data)
		if err != nil {
			b.Fatal(err)
		}
		b.table.set(func() { b.table.rows[s.ID], b.table.low = s, s.ID+1 })
		b.path.End(id)
		b.data[s.ID] = data
	}
}

// until waits for a status, in fake time.
func (b *bench) until(limit time.Duration, what string, ok func(Status) bool) Status {
	b.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(time.Second / 4) {
		synctest.Wait()
		s := b.repair.Status()
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			b.Fatalf("not %s after %v: %+v", what, limit, s)
		}
	}
}

func (b *bench) untilFull() Status {
	b.Helper()
	return b.until(time.Minute, "full", func(s Status) bool { return s.Complete })
}

// checkStored looks for every shard of every row on the stores themselves, and
// for nothing else there.
func (b *bench) checkStored() {
	b.Helper()
	found := make(map[chunk.StoreID]map[chunk.ID]int64)
	total, want := 0, 0
	for _, id := range b.cluster.Stores() {
		found[id] = make(map[chunk.ID]int64)
		for _, info := range b.cluster.Faulty(id).Shards() {
			found[id][info.ID] = info.Size
			total++
		}
	}
	for _, s := range b.table.all() {
		for i, store := range s.Stores {
			want++
			if got, size := found[store][chunk.ID{Stripe: s.ID, Index: uint8(i)}], int64(s.Code.Cell(int(s.Len))); got != size {
				b.Errorf("stripe %d shard %d on store %d: %d bytes, want %d", s.ID, i, store, got, size)
			}
		}
	}
	if total != want {
		b.Errorf("%d good shards on the stores, want %d", total, want)
	}
}

// excess counts the shards on the stores that no row has there.
func (b *bench) excess() int {
	n := 0
	for _, id := range b.cluster.Stores() {
		for _, info := range b.cluster.Faulty(id).Shards() {
			if s, ok := b.table.row(info.ID.Stripe); !ok || s.Stores[info.ID.Index] != id {
				n++
			}
		}
	}
	return n
}

// checkHome holds each row to the regular members of its group.
func (b *bench) checkHome() {
	b.Helper()
	for id := range b.data {
		row, _ := b.table.row(id)
		members := b.cluster.Group(id).Members[:wanted.Shards()]
		for i, store := range row.Stores {
			if !slices.Contains(members, store) {
				b.Errorf("stripe %d: shard %d is on store %d, not on one of %v", id, i, store, members)
			}
		}
	}
}

func (b *bench) checkData() {
	b.Helper()
	for id, data := range b.data {
		s, ok := b.table.row(id)
		if !ok {
			continue
		}
		got := make([]byte, len(data))
		if err := b.path.Read(context.Background(), s, got, 0); err != nil {
			b.Errorf("Read(%d): %v", id, err)
		} else if !bytes.Equal(got, data) {
			b.Errorf("Read(%d): wrong bytes", id)
		}
	}
}

var sizes = []int{1, 4096, 65536, 65537, 100_000, 1 << 20}

func TestNothingToDo(t *testing.T) {
	run(t, 6, func(b *bench) {
		defer b.start()()
		s := b.untilFull()
		if s.Stripes != 0 || s.Rebuilt != 0 {
			b.Errorf("status of an empty cluster: %+v", s)
		}
		b.write(sizes...)
		b.repair.Notify()
		if b.repair.Status().Complete {
			b.Error("complete right after an event")
		}
		s = b.untilFull()
		if s.Stripes != int64(len(sizes)) || s.Full != s.Stripes || s.Rebuilt != 0 || s.LastFull.IsZero() {
			b.Errorf("status: %+v", s)
		}
	})
}

// Every pair of stores is emptied in turn.
func TestEveryPair(t *testing.T) {
	run(t, 6, func(b *bench) {
		b.write(sizes...)
		defer b.start()()
		b.untilFull()
		for i := range chunk.StoreID(6) {
			for j := range i {
				b.cluster.Faulty(i + 1).Lose()
				b.cluster.Faulty(j + 1).Lose()
				b.repair.Notify()
				b.untilFull()
				b.checkStored()
				b.checkData()
			}
		}
		if s := b.repair.Status(); s.Rebuilt == 0 || s.Bytes == 0 {
			b.Errorf("nothing rebuilt: %+v", s)
		}
	})
}

// A store that goes away and comes back is noticed without Notify; its shards
// wait for it, since there is no spare.
func TestAwayWithoutSpares(t *testing.T) {
	run(t, 6, func(b *bench) {
		b.write(sizes...)
		defer b.start()()
		b.untilFull()
		b.cluster.Faulty(2).Down(true)
		s := b.until(time.Minute, "degraded", func(s Status) bool { return !s.Complete && !s.Running && s.Degraded > 0 })
		if s.Endangered != 0 || s.Lost != 0 {
			b.Errorf("with one store away: %+v", s)
		}
		time.Sleep(time.Hour)
		synctest.Wait() // a comparison may run at this very moment
		if s = b.repair.Status(); s.Complete || s.Running || s.Degraded != 3 {
			b.Errorf("an hour later: %+v, want the three of 4+2 degraded", s)
		}
		for _, m := range b.table.moves { // whole copies do have spares among six stores
			if n := b.table.rows[m.Stripe].Len; n > chunk.CopyMax {
				b.Errorf("%+v of a stripe of %d bytes", m, n)
			}
		}
		b.write(sizes...) // to five stores
		b.cluster.Faulty(2).Lose()
		b.cluster.Faulty(2).Down(false)
		s = b.untilFull()
		if s.Short != 3 {
			b.Errorf("%d short stripes, want the 3 written to five stores", s.Short)
		}
		// Somebody writes them again, with the wanted code, and nobody says so.
		b.table.set(func() {
			for id, row := range b.table.rows {
				if short(row, b.cluster.Code()) {
					delete(b.table.rows, id)
				}
			}
		})
		b.until(5*time.Second, "nothing short", func(s Status) bool { return s.Short == 0 && s.Complete })
		b.checkStored()
		b.checkData()
	})
}

// With spares the shards of a store that stays away move, and what it still
// has when it comes back is deleted.
func TestMove(t *testing.T) {
	run(t, 8, func(b *bench) {
		b.write(sizes...)
		b.write(sizes...)
		defer b.start()()
		b.untilFull()
		b.cluster.Faulty(1).Down(true)
		b.cluster.Faulty(3).Down(true)
		time.Sleep(DefaultGrace / 2)
		if len(b.table.moves) != 0 {
			b.Errorf("moved within the grace: %v", b.table.moves)
		}
		b.until(DefaultGrace, "full", func(s Status) bool { return s.Complete })
		if len(b.table.moves) == 0 {
			b.Error("nothing moved")
		}
		b.checkData()
		b.cluster.Faulty(1).Down(false)
		b.cluster.Faulty(3).Down(false)
		b.until(5*time.Minute, "clean", func(s Status) bool { return s.Complete && b.excess() == 0 })
		b.checkStored()
		b.checkData()
		b.checkHome()
	})
}

func TestDamaged(t *testing.T) {
	run(t, 6, func(b *bench) {
		b.write(sizes...)
		defer b.start()()
		b.untilFull()
		for _, s := range b.table.all() {
			for i := range s.Code.M {
				b.cluster.Faulty(s.Stores[i]).Corrupt(chunk.ID{Stripe: s.ID, Index: i})
			}
		}
		b.checkData() // reports what it meets
		b.untilFull()
		b.checkData()
		b.untilFull()
		b.checkStored()
	})
}

// Of three stores that are lost, all that had shards there is lost until one
// comes back with what it had.
func TestLostAndFound(t *testing.T) {
	run(t, 6, func(b *bench) {
		b.write(1<<20, 70_000, 100_000)
		defer b.start()()
		b.untilFull()
		b.cluster.Faulty(1).Lose()
		b.cluster.Faulty(2).Lose()
		b.cluster.Faulty(3).Down(true)
		b.repair.Notify()
		s := b.until(time.Minute, "lost", func(s Status) bool { return s.Lost == 3 && !s.Running })
		if s.Complete || s.Stripes != 3 {
			b.Errorf("with three stores gone: %+v", s)
		}
		b.cluster.Faulty(3).Down(false)
		b.untilFull()
		b.checkStored()
		b.checkData()
	})
}

func TestCollect(t *testing.T) {
	run(t, 6, func(b *bench) {
		b.write(sizes...)
		b.write(sizes...)
		ctx := context.Background()
		garbage := chunk.ID{Stripe: 5000, Index: 1}
		young := chunk.ID{Stripe: 7000, Index: 1}
		for _, id := range []chunk.ID{garbage, young} {
			if err := b.cluster.Faulty(4).Put(ctx, id, []byte("x")); err != nil {
				b.Fatal(err)
			}
		}
		b.table.set(func() { b.table.low = 6000 })
		b.cluster.Faulty(6).Down(true) // has shards of what dies
		stop := b.start()
		b.table.set(func() {
			for id := range b.table.rows {
				if id%2 == 0 {
					b.table.dead[id] = time.Now()
				}
			}
		})
		time.Sleep(DefaultDeadGrace - time.Second)
		if s := b.repair.Status(); s.Buried != 0 {
			b.Errorf("buried within the grace: %+v", s)
		}
		b.until(time.Minute, "buried", func(s Status) bool { return s.Buried == int64(len(sizes)) })
		b.cluster.Faulty(6).Down(false)
		b.untilFull()
		if _, err := b.cluster.Faulty(4).Stat(ctx, garbage); !errors.Is(err, chunk.ErrNotExist) {
			b.Errorf("garbage: %v, want ErrNotExist", err)
		}
		if err := b.cluster.Faulty(4).Verify(ctx, young); err != nil {
			b.Errorf("a shard whose stripe may still be named: %v", err)
		}
		if err := b.cluster.Faulty(4).Delete(ctx, young); err != nil {
			b.Fatal(err)
		}
		b.checkStored()
		b.checkData()
		stop()
	})
}

// Writes go on while stores are emptied and rebuilt.
func TestWritesMeanwhile(t *testing.T) {
	run(t, 6, func(b *bench) {
		defer b.start()()
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
				b.write(1+i*37%5000, 65537+i*101%9000)
			}
		}()
		for i := range 12 {
			time.Sleep(time.Second)
			b.cluster.Faulty(chunk.StoreID(1 + i%6)).Lose()
			b.cluster.Faulty(chunk.StoreID(1 + (i*5+2)%6)).Lose()
			b.repair.Notify()
			b.until(time.Minute, "full", func(s Status) bool { return s.Complete })
		}
		close(stop)
		<-done
		b.repair.Notify()
		b.untilFull()
		b.checkStored()
		b.checkData()
	})
}

// More stripes than the table gives at once, and more strays than are asked
// about at once.
func TestPages(t *testing.T) {
	run(t, 6, func(b *bench) {
		for range 2*page + 10 {
			b.write(10)
		}
		for i := range chunk.StripeID(strayMax + 10) {
			if err := b.cluster.Faulty(2).Put(context.Background(), chunk.ID{Stripe: 1<<30 + i}, []byte("x")); err != nil {
				b.Fatal(err)
			}
		}
		b.table.set(func() { b.table.low = 1 << 40 })
		b.cluster.Faulty(5).Lose()
		defer b.start()()
		s := b.untilFull()
		if s.Stripes != 2*page+10 || s.Collected != strayMax+10 || s.Rebuilt == 0 {
			b.Errorf("status: %+v", s)
		}
		b.checkStored()
	})
}

// Dead stripes keep their grace also when the clock of the machine that was in
// charge when they died is behind this one's.
func TestGraceByAnotherClock(t *testing.T) {
	run(t, 6, func(b *bench) {
		b.write(sizes...)
		b.table.set(func() {
			for id := range b.table.rows {
				b.table.dead[id] = time.Now().Add(-10 * time.Minute)
			}
		})
		defer b.start()()
		time.Sleep(DefaultDeadGrace - time.Second)
		if s := b.repair.Status(); s.Buried != 0 {
			b.Errorf("buried within the grace: %+v", s)
		}
		b.until(time.Minute, "buried", func(s Status) bool { return s.Buried == int64(len(sizes)) })
		b.checkStored()
	})
}

// Under space pressure dead stripes go at once.
func TestPressure(t *testing.T) {
	run(t, 6, func(b *bench) {
		b.write(sizes...)
		b.cluster.Faulty(3).Limit(1)
		defer b.start()()
		b.table.set(func() {
			for id := range b.table.rows {
				b.table.dead[id] = time.Now()
			}
		})
		b.until(pressed+2*collectEvery, "buried", func(s Status) bool { return s.Buried == int64(len(sizes)) })
		b.checkStored()
	})
}

func TestTroubles(t *testing.T) {
	boom := errors.New("boom")
	for _, test := range []struct {
		name       string
		begin, end func(b *bench)
	}{
		{"table fails", func(b *bench) { b.table.set(func() { b.table.fail = boom }) },
			func(b *bench) { b.table.set(func() { b.table.fail = nil }) }},
		{"store fails", func(b *bench) { b.cluster.Faulty(5).Fail(boom) }, func(b *bench) { b.cluster.Faulty(5).Fail(nil) }},
		{"store hangs", func(b *bench) { b.cluster.Faulty(5).Hang(false) }, func(b *bench) { b.cluster.Faulty(5).Resume() }},
		{"home is full", func(b *bench) { b.cluster.Faulty(2).Limit(1) }, func(b *bench) { b.cluster.Faulty(2).Limit(0) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, 6, func(b *bench) {
				b.write(sizes...)
				defer b.start()()
				b.untilFull()
				b.cluster.Faulty(2).Lose()
				test.begin(b)
				b.repair.Notify()
				time.Sleep(10 * time.Minute)
				if s := b.repair.Status(); s.Complete {
					b.Errorf("complete in spite of it: %+v", s)
				}
				test.end(b)
				b.until(5*time.Minute, "full", func(s Status) bool { return s.Complete })
				b.checkStored()
				b.checkData()
			})
		})
	}
}

// The stripe with the least redundancy left goes first.
func TestOrder(t *testing.T) {
	var q queue
	q.init()
	add := func(id chunk.StripeID, left int, urgent bool) {
		q.add(&item{stripe: id, left: left, urgent: urgent})
	}
	add(1, 1, false)
	add(2, -1, false)
	add(3, 0, false)
	add(4, 1, true)
	add(5, 2, false)
	add(5, 0, true) // known better
	add(6, 0, false)
	var got []chunk.StripeID
	for range 6 {
		it, err := q.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, it.stripe)
		q.finish(it)
	}
	if want := []chunk.StripeID{5, 3, 6, 4, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	if left := q.backlog(); left.items != 0 || left.calm != 0 {
		t.Errorf("left: %+v", left)
	}
}

func TestQueueIsBounded(t *testing.T) {
	var q queue
	q.init()
	for i := range chunk.StripeID(queueMax + 100) {
		q.add(&item{stripe: i + 1, left: 1})
	}
	if b := q.backlog(); b.items != queueMax || b.dropped != 100 {
		t.Errorf("%+v, want %d items and 100 dropped", b, queueMax)
	}
	if !q.add(&item{stripe: 1 << 40, left: 0}) {
		t.Error("an endangered stripe did not find room")
	}
	it, err := q.take(t.Context())
	if err != nil || it.stripe != 1<<40 {
		t.Errorf("took %v, %v, want the endangered stripe", it, err)
	}
	// What is learnt during the work on a stripe is worked on afterwards.
	q.add(&item{stripe: 1 << 40, left: 0, suspect: 2})
	q.finish(it)
	if it, err = q.take(t.Context()); err != nil || it.stripe != 1<<40 || it.suspect != 2 {
		t.Errorf("took %v, %v, want the endangered stripe again", it, err)
	}
}

// While it rebuilds it says how far it is, how fast, and for how much longer.
func TestProgress(t *testing.T) {
	run(t, 6, func(b *bench) {
		for range 40 {
			b.write(1 << 20) // shards of 256 KiB
		}
		b.repair.rate.perSecond = 1 << 20
		defer b.start()()
		b.untilFull()
		b.cluster.Faulty(2).Lose()
		b.repair.Notify()
		b.until(time.Minute, "rebuilding", func(s Status) bool { return s.Done >= 20 })
		s := b.repair.Status()
		if s.Done+s.Queued != 40 || s.Rate < 900<<10 || s.Rate > 1300<<10 || s.Left < 3*time.Second || s.Left > 7*time.Second {
			b.Errorf("half-way: %+v", s)
		}
		b.untilFull()
		if s := b.repair.Status(); s.Done != 0 || s.Rate != 0 || s.Left != 0 {
			b.Errorf("at the end: %+v", s)
		}
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rate{perSecond: 1000}
		start := time.Now()
		for range 11 {
			if err := r.wait(t.Context(), 500); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("10 times 500 bytes at 1000/s took %v, want 5s", d)
		}
	})
}

// A random walk: stores are emptied, sent away and brought back, at most two
// at a time, while stripes are written, read and damaged; whenever redundancy
// is reported full, it is.
func TestWalk(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			run(t, 6, func(b *bench) {
				r := rand.New(rand.NewPCG(seed, 1))
				defer b.start()()
				for range 25 {
					b.write(1+r.IntN(5000), 65537+r.IntN(200_000))
					x, y := chunk.StoreID(1+r.IntN(6)), chunk.StoreID(1+r.IntN(6))
					for _, id := range []chunk.StoreID{x, y} {
						switch f := b.cluster.Faulty(id); r.IntN(4) {
						case 0:
							f.Lose()
							b.repair.Notify()
						case 1:
							f.Down(true)
						case 2:
							f.Hang(false)
						case 3:
							for _, info := range f.Shards() {
								if r.IntN(3) == 0 {
									f.Corrupt(info.ID)
									if r.IntN(2) == 0 {
										b.repair.Damaged(info.ID)
									}
								}
							}
						}
					}
					time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
					b.checkData()
					for _, id := range []chunk.StoreID{x, y} {
						b.cluster.Faulty(id).Down(false)
						b.cluster.Faulty(id).Resume()
					}
					for _, id := range []chunk.StoreID{x, y} { // as a scrub would
						f := b.cluster.Faulty(id)
						for info := range f.List(context.Background(), chunk.ID{}) {
							if f.Verify(context.Background(), info.ID) != nil {
								b.repair.Damaged(info.ID)
							}
						}
					}
					b.until(5*time.Minute, "full", func(s Status) bool { return s.Complete })
					b.checkStored()
				}
			})
		})
	}
}
