package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"dos/internal/boottime"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/lock"
	"dos/meta/replica"
	"dos/meta/session"
	"dos/meta/state"
)

// tcp is a Stream over the loopback.
type tcp struct{ net.Listener }

func (tcp) Dial(_, addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

// A group is members in this process, and a Sender that finds the leader.
type group struct {
	mu      sync.Mutex
	members []*Node // guarded by mu
}

func (g *group) list() []*Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.members)
}

func (g *group) leader() *Node {
	for _, n := range g.list() {
		if _, leads := n.Replica().Leads(); leads {
			return n
		}
	}
	return nil
}

func (g *group) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	if n := g.leader(); n != nil {
		return n.Do(ctx, cmd)
	}
	return state.Reply{}, fmt.Errorf("nobody leads: %w", meta.Unavailable)
}

// startGroup starts members that run until the test ends.
func startGroup(t *testing.T, count int) *group {
	t.Helper()
	if count == 1 {
		return &group{members: []*Node{start(t, t.TempDir())}}
	}
	g := new(group)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i := range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n := startWith(t, replica.Config{
			Dir: t.TempDir(), ID: fmt.Sprint(i), Bootstrap: i == 0, Stream: tcp{l}, Beat: 200 * time.Millisecond,
			Fatal: func(err error) { t.Errorf("fatal: %v", err) },
		})
		g.members = append(g.members, n)
		if i == 0 {
			continue
		}
		lead := g.members[0].Replica()
		must := func(what string, do func() error) {
			t.Helper()
			for {
				moved := lead.Moved()
				err := do()
				if err == nil {
					return
				}
				if !errors.Is(err, meta.Unavailable) && !errors.Is(err, meta.Busy) {
					t.Fatalf("%s: %v", what, err)
				}
				select {
				case <-moved:
				case <-time.After(50 * time.Millisecond): // it does not move by itself
				case <-ctx.Done():
					t.Fatalf("%s: %v", what, err)
				}
			}
		}
		must("adding", func() error { return lead.AddNonvoter(ctx, fmt.Sprint(i), l.Addr().String()) })
		must("promoting", func() error { return lead.Promote(ctx, fmt.Sprint(i)) })
	}
	return g
}

// locker opens a session and runs its Locker.
func (g *group) locker(t *testing.T, ttl time.Duration) (*client.Locker, session.Info) {
	t.Helper()
	info, err := client.Session{Caller: client.Direct(g, 0)}.Open(t.Context(), "test", "", ttl)
	if err != nil {
		t.Fatal(err)
	}
	k := client.NewLocker(client.NewRemote(g, info.ID), func() meta.SessionID { return info.ID })
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return k, info
}

// queued waits until n wait for locks of a session.
func (g *group) queued(t *testing.T, s meta.SessionID, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		lead := g.leader()
		if lead == nil {
			runtime.Gosched()
			continue
		}
		moved := lead.Replica().Moved()
		var now lock.Waiting
		if lead.Local(lock.OpAwait, lock.Await{Session: s}, &now) == nil && len(now.Waits) == n {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			t.Fatalf("%d wait, want %d", len(now.Waits), n)
		}
	}
}

func whole(ino meta.Ino, mode meta.LockMode, owner uint64) meta.Lock {
	return meta.Lock{Ino: ino, Kind: meta.Flock, Mode: mode, Owner: owner, Last: meta.LockEnd}
}

// Contenders of several sessions get a lock one at a time, each as soon as it is free.
func TestLocks(t *testing.T) {
	for _, count := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d members", count), func(t *testing.T) {
			g := startGroup(t, count)
			const each, rounds = 4, 10
			var inside sync.Mutex
			var wg sync.WaitGroup
			for range 2 {
				k, _ := g.locker(t, 0)
				for owner := range uint64(each) {
					wg.Go(func() {
						for range rounds {
							if err := k.Wait(t.Context(), whole(7, meta.Exclusive, owner)); err != nil {
								t.Error(err)
								return
							}
							if !inside.TryLock() {
								t.Error("two have the lock")
								return
							}
							inside.Unlock()
							if err := k.Drop(t.Context(), 7, meta.Flock, owner); err != nil {
								t.Error(err)
							}
						}
					})
				}
			}
			began := time.Now()
			wg.Wait()
			turn := time.Since(began) / (2 * each * rounds)
			t.Logf("%v for each turn", turn)
			if turn > awaitMax/2 {
				t.Error("whoever waits hears of it too late")
			}
		})
	}
}

// A place in the queue outlives the leader.
func TestLockNewLeader(t *testing.T) {
	g := startGroup(t, 3)
	a, _ := g.locker(t, 0)
	b, info := g.locker(t, 0)
	ctx := t.Context()
	if err := a.Try(ctx, whole(7, meta.Exclusive, 1)); err != nil {
		t.Fatal(err)
	}
	got := make(chan uint64, 2)
	for owner := range uint64(2) {
		go func() {
			if err := b.Wait(ctx, whole(7, meta.Exclusive, owner)); err != nil {
				t.Errorf("waiter %d: %v", owner, err)
			}
			got <- owner
		}()
		g.queued(t, info.ID, int(owner)+1)
	}
	old := g.leader()
	if err := old.Replica().Yield(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := a.Drop(ctx, 7, meta.Flock, 1); err != nil {
		t.Fatal(err)
	}
	if first := <-got; first != 0 {
		t.Errorf("waiter %d came first", first)
	}
	if g.leader() == old {
		t.Error("the leader is the same")
	}
	t.Logf("%v after the change", time.Since(began))
	if err := b.Drop(ctx, 7, meta.Flock, 0); err != nil {
		t.Fatal(err)
	}
	<-got
}

// What a session that is not renewed had locked is free when it has ended.
func TestLockExpires(t *testing.T) {
	g := startGroup(t, 1)
	began := time.Now()
	a, _ := g.locker(t, session.TTLMin)
	b, info := g.locker(t, session.TTLMin)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go client.NewKeeper(client.NewRemote(g, info.ID), info, boottime.Now()).Run(ctx)
	if err := a.Try(ctx, whole(7, meta.Exclusive, 1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Wait(ctx, whole(7, meta.Exclusive, 1)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < session.TTLMin || took > session.TTLMin+2*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := a.Try(ctx, whole(8, meta.Exclusive, 1)); !errors.Is(err, meta.Expired) {
		t.Errorf("a lock of a session that has ended: %v", err)
	}
}
