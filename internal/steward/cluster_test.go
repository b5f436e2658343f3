package steward_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/chunk/repair"
	"dos/chunk/stripe"
	"dos/chunk/stripe/stripetest"
	"dos/internal/fleet"
	"dos/internal/steward"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/members"
	"dos/meta/metatest"
	"dos/meta/namespace"
	"dos/meta/node"
	"dos/procfs/nodes"
)

// A whole is a cluster of machines m1, m2, … with a store each, of the same
// number, and all the rooms that care for its placement.
type whole struct {
	*testing.T
	client.Members
	table  client.Stripes
	files  client.Files
	stores *stripetest.Cluster
	fleet  *fleet.Fleet
	repair *repair.Repairer
	path   *stripe.Path
	ino    meta.Ino
	off    int64
	data   map[int64][]byte // what was written at an offset

	mu     sync.Mutex
	silent map[string]error // why a machine does not answer; guarded by mu
}

// A machine implements fleet.Peer.
type machine struct {
	w    *whole
	name string
}

func (m machine) State(ctx context.Context) (nodes.Node, error) {
	m.w.mu.Lock()
	err := m.w.silent[m.name]
	m.w.mu.Unlock()
	if errors.Is(err, context.DeadlineExceeded) { // it hangs
		<-ctx.Done()
	}
	var id uint32
	fmt.Sscanf(m.name, "m%d", &id)
	return nodes.Node{Name: m.name, Disks: []nodes.Disk{{ID: id, State: "up"}}}, err
}

func (m machine) Store(id chunk.StoreID) chunk.Store { return m.w.stores.Faulty(id) }
func (m machine) Close()                             {}

// tableOf is the stripe table as package repair wants it.
type tableOf struct{ client client.Stripes }

func (t tableOf) Stripes(ctx context.Context, after chunk.StripeID, limit int) ([]chunk.Stripe, bool, error) {
	reply, err := t.client.Stripes(ctx, after, limit, chunk.Code{})
	return listOf(reply.Stripes), reply.More, err
}

func (t tableOf) Move(ctx context.Context, moves []repair.Move) error {
	var list []namespace.Move
	for _, m := range moves {
		list = append(list, namespace.Move(m))
	}
	_, err := t.client.Move(ctx, list...)
	return err
}

func (t tableOf) Dead(ctx context.Context, before time.Time, limit int) ([]chunk.Stripe, error) {
	list, _, err := t.client.Dead(ctx, meta.At(before), limit)
	return listOf(list), err
}

func (t tableOf) Bury(ctx context.Context, ids []chunk.StripeID) error {
	return t.client.Bury(ctx, ids...)
}

func (t tableOf) Unnamed(ctx context.Context, ids []chunk.StripeID) ([]chunk.StripeID, error) {
	return t.client.Unnamed(ctx, ids...)
}

func listOf(rows []namespace.StripeInfo) (list []chunk.Stripe) {
	for _, r := range rows {
		list = append(list, r.Stripe)
	}
	return list
}

// runWhole runs f with n machines, of at most most.
func runWhole(t *testing.T, n, most int, f func(w *whole)) {
	synctest.Test(t, func(t *testing.T) {
		code := chunk.Code{K: 4, M: 2}
		w := &whole{T: t, stores: stripetest.New(most, code), data: make(map[int64][]byte), silent: make(map[string]error)}
		memory := metatest.NewMemory(node.Machine())
		ctx, cancel := context.WithCancel(t.Context())
		w.Members = client.Members{Caller: client.Direct(memory, 0)}
		info, err := client.Session{Caller: w.Caller}.Open(ctx, "test", "", 0)
		w.must(err)
		caller := client.Direct(memory, info.ID)
		w.table, w.files = client.Stripes{Caller: caller}, client.Files{Caller: caller}
		_, err = w.files.Init(ctx, 0o755, 0, 0)
		w.must(err)
		attr, err := w.files.Create(ctx, meta.Root, "f", meta.Node{Mode: meta.TypeFile | 0o600})
		w.must(err)
		w.ino = attr.Ino
		w.must(w.Init(ctx, members.ClusterID{1}, code))
		for i := range n {
			w.join(i + 1)
		}
		w.fleet = fleet.New(fleet.Config{Map: w.Map, Dial: func(n members.Node) (fleet.Peer, error) { return machine{w, n.Name}, nil }})
		w.repair, err = repair.New(repair.Config{Cluster: w.fleet, Table: tableOf{w.table}})
		w.must(err)
		w.path, err = stripe.New(stripe.Config{Cluster: w.fleet, IDs: client.Session{Caller: caller}, Damaged: w.repair.Damaged})
		w.must(err)
		s, err := steward.New(steward.Config{Members: w.Members, Fleet: w.fleet, UpToDate: w.repair.UpToDate, Limit: limit})
		w.must(err)
		var wg sync.WaitGroup
		for _, run := range []func(context.Context) error{w.fleet.Run, w.repair.Run, s.Run} {
			wg.Go(func() {
				if err := run(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		w.until(time.Minute, "a table", func() bool { return len(w.fleet.Map().Groups) > 0 })
		f(w)
		cancel()
		wg.Wait()
		w.must(w.path.Close(t.Context()))
	})
}

func (w *whole) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *whole) join(i int) {
	w.Helper()
	name := fmt.Sprint("m", i)
	w.must(w.PutNode(w.Context(), members.Node{Name: name, Addr: name}))
	_, err := w.PutStore(w.Context(), members.Store{ID: chunk.StoreID(i), Node: name})
	w.must(err)
}

// silence makes a machine hang, fail, or with nil work again.
func (w *whole) silence(i int, why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent[fmt.Sprint("m", i)] = why
	s := w.stores.Faulty(chunk.StoreID(i))
	s.Fail(nil)
	s.Resume()
	switch {
	case errors.Is(why, context.DeadlineExceeded):
		s.Hang(false)
	case why != nil:
		s.Fail(why)
	}
}

func (w *whole) until(most time.Duration, what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(most); !ok(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			w.Fatalf("not %s after %v: %+v", what, most, w.repair.Status())
		}
	}
}

// write appends stripes to the file, and holds each to a time.
func (w *whole) write(n int, most time.Duration) {
	w.Helper()
	ctx := w.Context()
	for range n {
		begun := time.Now()
		id, err := w.path.Begin(ctx)
		w.must(err)
		data := make([]byte, 70_000+w.off%9000)
		rand.NewChaCha8([32]byte{byte(id), byte(id >> 8)}).Read(data)
		s, err := w.path.Write(ctx, id, data)
		w.must(err)
		_, err = w.files.Write(ctx, meta.Write{
			Ino: w.ino, Extents: []meta.Extent{{Off: w.off, Len: int64(len(data)), Stripe: s.ID}}, Stripes: []chunk.Stripe{s},
		})
		w.must(err)
		w.path.End(id)
		if took := time.Since(begun); took > most {
			w.Errorf("a write took %v", took)
		}
		w.data[w.off] = data
		w.off += int64(len(data))
	}
}

// read reads everything, and holds each read to a time.
func (w *whole) read(most time.Duration) {
	w.Helper()
	for off, data := range w.data {
		begun := time.Now()
		l, err := w.files.Layout(w.Context(), w.ino, off, int64(len(data)))
		w.must(err)
		got := make([]byte, len(data))
		w.must(w.path.Read(w.Context(), l.Stripes[0], got, 0))
		if !bytes.Equal(got, data) {
			w.Fatalf("wrong bytes at %d", off)
		}
		if took := time.Since(begun); took > most {
			w.Errorf("a read took %v", took)
		}
	}
}

// on counts the shards that are named on a store.
func (w *whole) on(id chunk.StoreID) int64 {
	loads, err := w.table.Stored(w.Context())
	w.must(err)
	return loads[id].Shards
}

func (w *whole) standing(id chunk.StoreID) members.Standing {
	m := w.fleet.Map()
	return members.Standings(m.Stores, m.Nodes)[id]
}

func (w *whole) quiet() bool {
	s := w.repair.Status()
	return s.Complete && s.Moving == 0
}

// A machine hangs, one dies and comes back late, one is drained and removed, one
// joins, with reads and writes all the time: everything is there and where it
// should be.
func TestCluster(t *testing.T) {
	runWhole(t, 9, 10, func(w *whole) {
		ctx := t.Context()
		w.write(40, time.Second)
		w.until(time.Minute, "full", w.quiet)

		w.silence(3, context.DeadlineExceeded)
		w.write(20, 5*time.Second)
		w.read(5 * time.Second)
		w.silence(3, nil)
		w.until(5*time.Minute, "full after a machine hung", w.quiet)

		w.silence(4, errors.New("refused"))
		w.write(20, 5*time.Second)
		time.Sleep(limit / 2)
		if w.on(4) == 0 || w.standing(4) != members.In {
			t.Errorf("within the limit store 4 has %d shards and is %v", w.on(4), w.standing(4))
		}
		w.until(limit, "rebuilt", func() bool { return w.standing(4) == members.Out && w.on(4) == 0 && w.quiet() })
		w.read(time.Second)
		w.silence(4, nil)
		w.until(5*time.Minute, "in again", func() bool { return w.standing(4) == members.In && w.on(4) > 0 && w.quiet() })

		w.must(w.Drain(ctx, members.Drain{Node: "m2", On: true}))
		w.until(10*time.Minute, "removed", func() bool {
			w.write(1, time.Second)
			err := steward.Remove(ctx, w.Members, w.table, "m2", func(context.Context) error { return nil })
			if err != nil && !errors.Is(err, meta.Busy) {
				t.Error(err)
			}
			return err == nil
		})
		w.silence(2, errors.New("gone"))
		w.read(time.Second)

		w.join(10)
		w.until(10*time.Minute, "shared with who joined", func() bool { return w.on(10) > 0 && w.quiet() })
		w.read(time.Second)
		w.until(5*time.Minute, "at home", w.atHome)
		w.until(5*time.Minute, "clean", func() bool { return w.excess() == 0 })
		w.read(time.Second)
		if s := w.repair.Status(); s.Full != s.Stripes || int(s.Stripes) != len(w.data) {
			t.Errorf("at the end: %+v", s)
		}
	})
}

// atHome reports whether each shard is on a regular member of its group.
func (w *whole) atHome() bool {
	rows, _, err := tableOf{w.table}.Stripes(w.Context(), 0, namespace.ListMax)
	w.must(err)
	for _, s := range rows {
		for _, id := range s.Stores {
			if !slices.Contains(w.fleet.Group(s.ID).Members[:6], id) {
				return false
			}
		}
	}
	return true
}

// excess counts the shards on known stores that the table has elsewhere.
func (w *whole) excess() (n int) {
	rows, _, err := tableOf{w.table}.Stripes(w.Context(), 0, namespace.ListMax)
	w.must(err)
	named := make(map[chunk.StoreID]map[chunk.ID]bool)
	for _, s := range rows {
		for i, id := range s.Stores {
			if named[id] == nil {
				named[id] = make(map[chunk.ID]bool)
			}
			named[id][chunk.ID{Stripe: s.ID, Index: uint8(i)}] = true
		}
	}
	for _, id := range w.fleet.Stores() {
		for _, info := range w.stores.Faulty(id).Shards() {
			if !named[id][info.ID] {
				n++
			}
		}
	}
	return n
}
