package steward_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/internal/steward"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/members"
	"dos/meta/metatest"
	"dos/meta/node"
)

const limit = 10 * time.Minute

// A world is a metadata service, and machines m1 to mN with a store each, of
// the same number.
type world struct {
	*testing.T
	client.Members
	memory *metatest.Memory

	mu     sync.Mutex
	down   map[string]bool        // machines; guarded by mu
	behind map[chunk.StoreID]bool // stores that are not up to date; guarded by mu
	events []string               // guarded by mu
}

func newWorld(t *testing.T, n int) *world {
	w := &world{T: t, memory: metatest.NewMemory(node.Machine()), down: make(map[string]bool), behind: make(map[chunk.StoreID]bool)}
	w.Members = client.Members{Caller: client.Direct(w.memory, 0)}
	if err := w.Init(t.Context(), members.ClusterID{1}, chunk.Code{K: 2, M: 1}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		w.join(i + 1)
	}
	return w
}

func (w *world) join(i int) {
	w.Helper()
	name := fmt.Sprint("m", i)
	if err := w.PutNode(w.Context(), members.Node{Name: name}); err != nil {
		w.Fatal(err)
	}
	if s, err := w.PutStore(w.Context(), members.Store{Node: name}); err != nil || s.ID != chunk.StoreID(i) {
		w.Fatalf("store of %s: %+v, %v", name, s, err)
	}
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) downs(down bool, list ...int) {
	synctest.Wait() // a look that has begun sees none of it, not a part
	w.set(func() {
		for _, i := range list {
			w.down[fmt.Sprint("m", i)] = down
		}
	})
}

func (w *world) Answers(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.down[name]
}

func (w *world) Store(id chunk.StoreID) (chunk.Store, bool) {
	return nil, w.Answers(fmt.Sprint("m", id))
}

// start runs a steward until the returned function is called or the test ends.
func (w *world) start(m steward.Members) (stop func()) {
	w.Helper()
	s, err := steward.New(steward.Config{
		Members: m, Fleet: w, Limit: limit,
		UpToDate: func(id chunk.StoreID) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return !w.behind[id]
		},
		Event: func(format string, args ...any) {
			w.set(func() { w.events = append(w.events, fmt.Sprintf(format, args...)) })
		},
	})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
}

// expect holds the standings to want, a letter a store, and the table to them.
func (w *world) expect(what, want string) members.Map {
	w.Helper()
	synctest.Wait()
	m, err := w.Map(w.Context(), 0)
	if err != nil {
		w.Fatal(err)
	}
	all, got := members.Standings(m.Stores, m.Nodes), ""
	for _, s := range m.Stores {
		got += all[s.ID].String()[:1]
	}
	if got != want {
		w.Fatalf("%s: stores are %s, want %s", what, got, want)
	}
	if rows := members.Plan(m); len(rows) != 0 {
		w.Fatalf("%s: %d rows of the table are to change still", what, len(rows))
	}
	return m
}

func run(t *testing.T, stores int, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) { f(newWorld(t, stores)) })
}

func TestAwayTooLong(t *testing.T) {
	run(t, 6, func(w *world) {
		defer w.start(w.Members)()
		time.Sleep(10 * time.Second)
		w.expect("at first", "iiiiii")
		w.downs(true, 2)
		time.Sleep(limit - 5*time.Second)
		w.expect("within the limit", "iiiiii")
		w.downs(false, 2) // back sooner: it begins anew
		time.Sleep(time.Minute)
		w.downs(true, 2)
		time.Sleep(limit - 5*time.Second)
		w.expect("within the limit again", "iiiiii")
		time.Sleep(10 * time.Second)
		w.expect("after the limit", "ioiiii")
		w.set(func() { w.behind[2] = true })
		w.downs(false, 2)
		time.Sleep(time.Hour)
		w.expect("back, but not up to date", "ioiiii")
		w.set(func() { w.behind[2] = false })
		time.Sleep(5 * time.Second)
		w.expect("up to date", "iiiiii")
		if len(w.events) != 2 {
			t.Errorf("events: %q", w.events)
		}
	})
}

// As long as stripes could not have all their shards, a store that joins is used
// at the next look; after that the map has to be quiet first.
func TestJoinsAtOnce(t *testing.T) {
	run(t, 1, func(w *world) {
		defer w.start(w.Members)()
		for i := 2; i <= 3; i++ {
			w.join(i)
			time.Sleep(1500 * time.Millisecond)
			w.expect(fmt.Sprintf("%d stores of a code of three", i), "iii"[:i])
		}
		w.join(4)
		time.Sleep(1500 * time.Millisecond)
		m, err := w.Map(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(members.Plan(m)) == 0 {
			t.Error("a store that only balances the load was used before the map was quiet")
		}
		time.Sleep(5 * time.Second)
		w.expect("four stores", "iiii")
	})
}

// Nobody is marked out by one who may be cut off himself, has just begun, or slept.
func TestObserves(t *testing.T) {
	run(t, 6, func(w *world) {
		stop := w.start(w.Members)
		time.Sleep(time.Minute)
		w.downs(true, 1, 2, 3, 4)
		time.Sleep(time.Hour)
		w.expect("four of six away", "iiiiii")
		w.downs(false, 3, 4)
		time.Sleep(limit - 5*time.Second)
		w.expect("two away, but how long is known only since", "iiiiii")
		stop()
		time.Sleep(time.Minute)
		stop = w.start(w.Members)
		defer stop()
		time.Sleep(limit - 5*time.Second)
		w.expect("another steward has just begun", "iiiiii")
		time.Sleep(10 * time.Second)
		w.expect("it has seen them away for the limit", "ooiiii")
	})
}

// A steward whose metadata service does not answer sees nothing meanwhile.
func TestSleeps(t *testing.T) {
	run(t, 6, func(w *world) {
		m := &moody{Members: w.Members}
		defer w.start(m)()
		time.Sleep(time.Minute)
		w.downs(true, 1)
		time.Sleep(limit - time.Minute)
		m.fail(meta.Unavailable)
		time.Sleep(time.Minute)
		m.fail(nil)
		time.Sleep(limit - 5*time.Second)
		w.expect("since it sees again", "iiiiii")
		time.Sleep(10 * time.Second)
		w.expect("after the limit", "oiiiii")
	})
}

type moody struct {
	client.Members
	mu  sync.Mutex
	err error // guarded by mu
}

func (m *moody) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *moody) Map(ctx context.Context, since uint64) (members.Map, error) {
	m.mu.Lock()
	err := m.err
	m.mu.Unlock()
	if err != nil {
		return members.Map{}, err
	}
	return m.Members.Map(ctx, since)
}

// A store is replaced only if another can take its place.
func TestNoReplacement(t *testing.T) {
	run(t, 4, func(w *world) {
		defer w.start(w.Members)()
		time.Sleep(time.Minute)
		w.downs(true, 1, 2)
		time.Sleep(2 * limit)
		w.expect("three are needed", "oiii")
		w.join(5)
		time.Sleep(time.Minute)
		w.expect("one more has come", "ooiii")
	})
}

func TestDrain(t *testing.T) {
	run(t, 5, func(w *world) {
		defer w.start(w.Members)()
		time.Sleep(time.Minute)
		if err := w.Drain(t.Context(), members.Drain{Node: "m4", On: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		w.expect("draining", "iiidi")
		w.downs(true, 4) // one that is drained may be out without a replacement
		time.Sleep(limit + 5*time.Second)
		w.expect("and away", "iiioi")
		w.downs(false, 4)
		time.Sleep(time.Minute)
		w.expect("and back", "iiidi")
		if err := w.Drain(t.Context(), members.Drain{Node: "m4"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.expect("resumed", "iiiii")
	})
}

// Two stewards at once agree, and stores that come at once are placed at once.
func TestTwo(t *testing.T) {
	run(t, 4, func(w *world) {
		defer w.start(w.Members)()
		time.Sleep(300 * time.Millisecond)
		defer w.start(w.Members)()
		time.Sleep(time.Minute)
		before := w.expect("two stewards", "iiii")
		for i := range 4 {
			w.join(5 + i)
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Second)
		after := w.expect("with more", "iiiiiiii")
		epochs := make(map[uint64]bool)
		for _, g := range after.Groups {
			if g.Epoch > before.Epoch {
				epochs[g.Epoch] = true
			}
		}
		if len(epochs) != 1 {
			t.Errorf("the table was changed %d times for four stores that came together", len(epochs))
		}
		w.downs(true, 1)
		time.Sleep(limit + 5*time.Second)
		w.expect("one goes", "oiiiiiii")
	})
}

func TestRemove(t *testing.T) {
	run(t, 5, func(w *world) {
		stop := w.start(w.Members)
		time.Sleep(time.Minute)
		stop()
		ctx := t.Context()
		table := client.Stripes{Caller: w.Caller}
		turned := 0
		turnOut := func(context.Context) error { turned++; return nil }
		if err := steward.Remove(ctx, w.Members, table, "m5", turnOut); !errors.Is(err, meta.Busy) {
			t.Errorf("a machine in use: %v, want Busy", err)
		}
		if err := steward.Remove(ctx, w.Members, table, "m9", turnOut); !errors.Is(err, meta.NotExist) {
			t.Errorf("no machine: %v, want NotExist", err)
		}
		if err := w.Drain(ctx, members.Drain{Node: "m5", On: true}); err != nil {
			t.Fatal(err)
		}
		if err := steward.Remove(ctx, w.Members, table, "m5", turnOut); !errors.Is(err, meta.Busy) {
			t.Errorf("a machine that is in groups still: %v, want Busy", err)
		}
		defer w.start(w.Members)()
		time.Sleep(time.Minute)
		w.store(5)
		if err := steward.Remove(ctx, w.Members, table, "m5", turnOut); !errors.Is(err, meta.Busy) {
			t.Errorf("a machine with a shard: %v, want Busy", err)
		}
		if done, err := table.Move(ctx, w.moved()); err != nil || !done[0] {
			t.Fatal(done, err)
		}
		if turned != 0 {
			t.Error("a machine that stays was turned out")
		}
		if err := steward.Remove(ctx, w.Members, table, "m5", turnOut); err != nil || turned != 1 {
			t.Errorf("%v; turned out %d times", err, turned)
		}
		w.expect("removed", "iiii")
		if m, _ := w.Map(ctx, 0); len(m.Nodes) != 4 {
			t.Errorf("machines: %+v", m.Nodes)
		}
	})
}
