package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/chunk/repair"
	"dos/chunk/stripe"
	"dos/internal/fleet"
	"dos/meta"
	"dos/meta/members"
	"dos/procfs/nodes"
)

// A Fleet is all that the rooms that work on a cluster need to know of it. The
// last is asked for by type assertion, so nothing else would notice.
var (
	_ stripe.Cluster = (*fleet.Fleet)(nil)
	_ repair.Cluster = (*fleet.Fleet)(nil)
	_ repair.Leaver  = (*fleet.Fleet)(nil)
)

// world is a cluster as far as a Fleet sees it.
type world struct {
	mu     sync.Mutex
	now    members.Map           // guarded by mu
	silent map[string]error      // why a machine, by address, does not answer; guarded by mu
	says   map[string]nodes.Node // what it answers; guarded by mu
	open   map[string]int        // connections by address; guarded by mu
}

func newWorld() *world {
	w := &world{silent: make(map[string]error), says: make(map[string]nodes.Node), open: make(map[string]int)}
	w.now.Epoch = 1
	w.now.Code = chunk.Code{K: 1, M: 1}
	for i, name := range []string{"a", "b", "c"} {
		w.now.Nodes = append(w.now.Nodes, members.Node{Name: name, Addr: name + ":1"})
		w.now.Stores = append(w.now.Stores, members.Store{ID: chunk.StoreID(i + 1), Node: name})
		w.says[name+":1"] = nodes.Node{Name: name, Disks: []nodes.Disk{{ID: uint32(i + 1), State: "up"}}}
	}
	return w
}

// change makes a change that the Fleet sees at its next look.
func (w *world) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

func (w *world) readMap(_ context.Context, since uint64) (members.Map, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if since == w.now.Epoch {
		return members.Map{Epoch: since}, nil
	}
	return w.now, nil
}

func (w *world) dial(n members.Node) (fleet.Peer, error) {
	if n.Addr == "nowhere" {
		return nil, errors.New("no address")
	}
	w.change(func() { w.open[n.Addr]++ })
	return &peer{w, n.Addr}, nil
}

type peer struct {
	world *world
	addr  string
}

// A remote is a store that tells where it is by Stat, and whose ReadAt and List
// hang.
type remote struct {
	chunk.Store
	addr string
}

func (r remote) Stat(context.Context, chunk.ID) (chunk.Info, error) {
	return chunk.Info{}, errors.New(r.addr)
}

func (r remote) ReadAt(ctx context.Context, _ chunk.ID, _ []byte, _ int64) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func (r remote) List(ctx context.Context, _ chunk.ID) iter.Seq2[chunk.Info, error] {
	return func(yield func(chunk.Info, error) bool) {
		if yield(chunk.Info{}, nil) {
			<-ctx.Done()
			yield(chunk.Info{}, ctx.Err())
		}
	}
}

// where is the address at which a store is looked for.
func where(f *fleet.Fleet, id chunk.StoreID) string {
	s, _ := f.Store(id)
	_, err := s.Stat(context.Background(), chunk.ID{})
	return err.Error()
}

func (p *peer) State(ctx context.Context) (nodes.Node, error) {
	p.world.mu.Lock()
	n, err := p.world.says[p.addr], p.world.silent[p.addr]
	p.world.mu.Unlock()
	if errors.Is(err, context.DeadlineExceeded) { // it hangs
		<-ctx.Done()
	}
	return n, err
}
func (p *peer) Store(id chunk.StoreID) chunk.Store { return remote{addr: p.addr} }
func (p *peer) Close()                             { p.world.change(func() { p.world.open[p.addr]-- }) }

// start runs a Fleet on machine a of the world.
func start(t *testing.T, w *world) *fleet.Fleet {
	t.Helper()
	f := fleet.New(fleet.Config{
		Map: w.readMap, Dial: w.dial, Self: "a",
		Local: func(id chunk.StoreID) (chunk.Store, bool) { return remote{addr: "here"}, true },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.change(func() {
			for addr, n := range w.open {
				if n != 0 {
					t.Errorf("%d connections to %s are left open", n, addr)
				}
			}
		})
	})
	if err := f.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return f
}

func live(f *fleet.Fleet) (list []chunk.StoreID) {
	for _, id := range f.Stores() {
		if _, ok := f.Store(id); ok {
			list = append(list, id)
		}
	}
	return list
}

func expect(t *testing.T, what string, got []chunk.StoreID, want ...chunk.StoreID) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: live are %v, want %v", what, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: live are %v, want %v", what, got, want)
		}
	}
}

func TestWhoLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		f := start(t, w)
		expect(t, "at first", live(f), 1, 2, 3)
		if where(f, 1) != "here" {
			t.Error("the store of this machine is reached through a connection")
		}
		if where(f, 2) != "b:1" {
			t.Error("the store of another machine is not its own")
		}
		if s, ok := f.Store(9); s != nil || ok {
			t.Error("a store that nobody has is there")
		}

		for _, why := range []error{errors.New("refused"), context.DeadlineExceeded} {
			changed := f.Changed()
			w.change(func() { w.silent["b:1"] = why })
			<-changed
			expect(t, why.Error(), live(f), 1, 3)
			if n, err := f.Node("b"); err != nil || n.State != "down" || n.Seen == n.Now || len(n.Disks) != 1 {
				t.Errorf("b is %+v, %v", n, err)
			}
			changed = f.Changed()
			w.change(func() { delete(w.silent, "b:1") })
			<-changed
			expect(t, "after it came back", live(f), 1, 2, 3)
		}

		// A store that its machine does not trust, another machine at the address.
		w.change(func() { w.says["b:1"] = nodes.Node{Name: "b", Disks: []nodes.Disk{{ID: 2, State: "lost"}}} })
		w.change(func() { w.says["c:1"] = nodes.Node{Name: "x", Disks: []nodes.Disk{{ID: 3, State: "up"}}} })
		time.Sleep(5 * time.Second)
		expect(t, "lost and mistaken", live(f), 1)
		if _, err := f.Node("x"); !errors.Is(err, meta.NotExist) {
			t.Errorf("a machine that is not in the map: %v", err)
		}
	})
}

func TestMapChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		f := start(t, w)
		w.change(func() { // b moves, c goes, d comes
			w.now.Epoch++
			w.now.Nodes = []members.Node{{Name: "a"}, {Name: "b", Addr: "b:2"}, {Name: "d", Addr: "d:1"}}
			w.now.Stores = []members.Store{{ID: 1, Node: "a"}, {ID: 2, Node: "b"}, {ID: 4, Node: "d"}}
			w.says["b:2"] = w.says["b:1"]
			w.says["d:1"] = nodes.Node{Name: "d", Disks: []nodes.Disk{{ID: 4, State: "rebuilding"}}}
		})
		time.Sleep(3 * time.Second)
		expect(t, "after the change", live(f), 1, 2, 4)
		if at := where(f, 2); at != "b:2" {
			t.Errorf("the store of a machine that moved is looked for at %s", at)
		}
		w.change(func() {
			for addr, want := range map[string]int{"b:1": 0, "b:2": 1, "c:1": 0, "d:1": 1} {
				if w.open[addr] != want {
					t.Errorf("%d connections to %s, want %d", w.open[addr], addr, want)
				}
			}
		})
	})
}

// When a machine hangs, the calls to its stores end soon, and new ones at once.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		f := start(t, w)
		s, _ := f.Store(2)
		w.change(func() { w.silent["b:1"] = context.DeadlineExceeded })
		begun := time.Now()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for _, err := range s.List(t.Context(), chunk.ID{}) {
				if err != nil && !errors.Is(err, chunk.ErrLost) {
					t.Errorf("a list of a store of a machine that hangs: %v, want ErrLost", err)
				}
			}
		})
		if _, err := s.ReadAt(t.Context(), chunk.ID{}, nil, 0); !errors.Is(err, chunk.ErrLost) || time.Since(begun) > 3*time.Second {
			t.Errorf("a read of a store of a machine that hangs: %v after %v, want ErrLost within 3 s", err, time.Since(begun))
		}
		wg.Wait()
		begun = time.Now()
		if _, err := s.ReadAt(t.Context(), chunk.ID{}, nil, 0); !errors.Is(err, chunk.ErrLost) || time.Since(begun) > 0 {
			t.Errorf("another read: %v after %v, want ErrLost at once", err, time.Since(begun))
		}
		expect(t, "while b hangs", live(f), 1, 3)
		if f.Answers("b") || !f.Answers("a") || !f.Answers("c") || f.Answers("x") {
			t.Error("who answers is not a and c")
		}
		// The others are looked at every second still.
		w.change(func() { w.silent["c:1"] = errors.New("refused") })
		begun = time.Now()
		for f.Answers("c") {
			<-f.Changed()
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("c was found dead after %v, while b hangs", took)
		}
		w.change(func() { w.silent = make(map[string]error) })
		time.Sleep(4 * time.Second)
		expect(t, "when both are back", live(f), 1, 2, 3)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.ReadAt(ctx, chunk.ID{}, nil, 0); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() == nil {
			t.Errorf("a read after b is back: %v, want the caller's deadline", err)
		}
	})
}

// What changes all the time is no news, and a machine that cannot be dialled
// keeps nobody from the others.
func TestNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.change(func() {
			w.now.Nodes[2].Addr = "nowhere"
			w.now.Stores[1].Out = true
		})
		f := start(t, w)
		expect(t, "with one that cannot be dialled", live(f), 1, 2)
		if s, up := f.Store(3); s != nil || up {
			t.Errorf("the store of a machine that cannot be dialled: %v, %v", s, up)
		}
		for id, want := range []string{1: "false false", 2: "true true", 3: "false false", 9: "false false"} {
			if leaving, out := f.Leaving(chunk.StoreID(id)); want != "" && fmt.Sprint(leaving, out) != want {
				t.Errorf("store %d is leaving, out: %v, %v, want %s", id, leaving, out, want)
			}
		}
		changed := f.Changed()
		w.change(func() { w.says["b:1"] = nodes.Node{Name: "b", Disks: []nodes.Disk{{ID: 2, State: "up", Used: 77}}} })
		time.Sleep(3 * time.Second)
		select {
		case <-changed:
			t.Error("a disk that fills up was told as news")
		default:
		}
		if n, _ := f.Node("b"); n.Disks[0].Used != 77 {
			t.Errorf("b has %+v", n.Disks)
		}
	})
}
