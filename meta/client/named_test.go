package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/named"
	"dos/meta/state"
)

// namedClients returns a service and n clients of it, which run until the end.
func namedClients(t *testing.T, n int) (l *lossy, list []*client.Named, ids []meta.SessionID) {
	t.Helper()
	l, _ = open(t)
	for range n {
		info, err := client.Session{Caller: client.Direct(l, 0)}.Open(t.Context(), "test", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		k := client.NewNamed(client.Always(client.NewRemote(l, info.ID), info.ID))
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- k.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ran; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		list, ids = append(list, k), append(ids, info.ID)
	}
	return l, list, ids
}

func locked(t *testing.T, k *client.Named, lock string, how client.How) *client.Held {
	t.Helper()
	h, err := k.Lock(t.Context(), lock, how)
	if err != nil {
		t.Fatalf("locking %q: %v", lock, err)
	}
	return h
}

func token(t *testing.T, h *client.Held) uint64 {
	t.Helper()
	n, err := h.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A lock that one client alone uses costs nothing after the second time.
func TestNamedCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, k, _ := namedClients(t, 2)
		ctx := t.Context()
		commands := 0
		fate := l.fate
		l.fate = func(cmd state.Command) (bool, bool) {
			if !client.IsQuery(cmd.Op) {
				commands++
			}
			return fate(cmd)
		}
		for range 1000 {
			want(t, "unlocking", locked(t, k[0], "x", client.How{}).Unlock(ctx), nil)
		}
		if commands != 3 { // grant, give up, lend
			t.Errorf("locking a thousand times took %d commands", commands)
		}
		h := locked(t, k[0], "x", client.How{})
		_, err := k[1].TryLock(ctx, "x", client.How{})
		want(t, "another's try", err, meta.Busy)
		if n := token(t, h); n != 1001 {
			t.Errorf("token %d of grant 1001", n)
		}
		want(t, "unlocking", h.Unlock(ctx), nil)
		if n := token(t, locked(t, k[1], "x", client.How{})); n != 1002 {
			t.Errorf("token %d of grant 1002", n)
		}
		// What nobody has used for a while goes back by itself, and is not there.
		want(t, "unlocking", locked(t, k[0], "y", client.How{}).Unlock(ctx), nil)
		want(t, "unlocking", locked(t, k[0], "y", client.How{}).Unlock(ctx), nil)
		time.Sleep(10 * time.Second)
		var info named.Info
		want(t, "status", client.Direct(l, 0).Call(ctx, named.OpStatus, named.Follow{Name: "y"}, &info), nil)
		if info.Lent != 0 || info.There {
			t.Errorf("after some seconds: %+v", info)
		}
	})
}

// Whoever relocks does not overtake who waits elsewhere.
func TestNamedFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k, _ := namedClients(t, 2)
		ctx := t.Context()
		for range 3 {
			want(t, "unlocking", locked(t, k[0], "x", client.How{}).Unlock(ctx), nil)
		}
		h := locked(t, k[0], "x", client.How{})
		other, err := k[1].Claim(ctx, "x", client.How{})
		want(t, "claiming", err, nil)
		time.Sleep(time.Second) // what the first must know, it knows
		again, err := k[0].Claim(ctx, "x", client.How{})
		want(t, "claiming again", err, nil)
		want(t, "unlocking", h.Unlock(ctx), nil)
		want(t, "the other", other.Wait(ctx), nil)
		if token(t, again) != 0 {
			t.Error("two have it")
		}
		want(t, "unlocking", other.Unlock(ctx), nil)
		want(t, "the first again", again.Wait(ctx), nil)
		want(t, "unlocking", again.Unlock(ctx), nil)
	})
}

func TestNamedDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, k, _ := namedClients(t, 1)
		ctx := t.Context()
		locked(t, k[0], "x", client.How{Owner: 1})
		y := locked(t, k[0], "y", client.How{Owner: 2})
		waits, err := k[0].Claim(ctx, "y", client.How{Owner: 1})
		want(t, "the elder", err, nil)
		_, err = k[0].Lock(ctx, "x", client.How{Owner: 2})
		want(t, "the youngest", err, meta.Deadlock)
		want(t, "unlocking", y.Unlock(ctx), nil)
		want(t, "the elder", waits.Wait(ctx), nil)
	})
}

// When a session ends, who had something in it is told, and the next ones get it.
func TestNamedLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, k, ids := namedClients(t, 2)
		ctx := t.Context()
		for range 3 { // granted, and lent
			want(t, "unlocking", locked(t, k[0], "x", client.How{}).Unlock(ctx), nil)
		}
		h, y := locked(t, k[0], "x", client.How{}), locked(t, k[0], "y", client.How{})
		waits, err := k[1].Claim(ctx, "y", client.How{})
		want(t, "claiming", err, nil)
		want(t, "ending", client.Session{Caller: client.Direct(l, 0)}.End(ctx, ids[0]), nil)
		k[0].Fenced()
		for _, h := range []*client.Held{h, y} {
			<-h.Lost()
			_, err := h.Token(ctx)
			want(t, "its token", err, meta.Expired)
			want(t, "unlocking what is lost", h.Unlock(ctx), nil)
		}
		want(t, "the next", waits.Wait(ctx), nil)
		if n := token(t, locked(t, k[1], "x", client.How{})); n <= 4 {
			t.Errorf("token %d after one that was lent may have been greater", n)
		}
	})
}

// Three clients over bad lines: never two have what one alone may have, each gets
// its turn, and tokens grow with each grant.
func TestNamedTogether(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { together(t, seed) })
		})
	}
}

func together(t *testing.T, seed uint64) {
	l, clients, _ := namedClients(t, 3)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0)) // guarded by mu, as all below
	number := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	l.fate = func(state.Command) (bool, bool) {
		time.Sleep(time.Duration(number(3)) * time.Millisecond)
		arrives := number(50) > 0
		return arrives, arrives && number(50) > 0
	}
	writers, readers, grants, greatest := 0, 0, 0, uint64(0)
	enter := func(shared bool, token uint64) {
		mu.Lock()
		defer mu.Unlock()
		if writers > 0 || !shared && readers > 0 {
			t.Errorf("a holder (shared: %v) beside %d writers and %d readers", shared, writers, readers)
		}
		if token != 0 && !shared {
			if token <= greatest {
				t.Errorf("token %d after %d", token, greatest)
			}
			greatest = token
		}
		if grants++; shared {
			readers++
		} else {
			writers++
		}
	}
	leave := func(shared bool) {
		mu.Lock()
		defer mu.Unlock()
		if shared {
			readers--
		} else {
			writers--
		}
	}
	var wg sync.WaitGroup
	for who := range 9 {
		wg.Go(func() {
			k := clients[who%3]
			for range 60 {
				if who >= 3 && number(3) == 0 { // others are alone for a while
					time.Sleep(time.Duration(number(300)) * time.Millisecond)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+number(400))*time.Millisecond)
				how := client.How{Shared: number(3) == 0}
				lock := k.Lock
				if number(4) == 0 {
					lock = k.TryLock
				}
				h, err := lock(ctx, "x", how)
				cancel()
				if err != nil {
					if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, meta.Busy) {
						t.Errorf("locking: %v", err)
					}
					continue
				}
				known := uint64(0)
				if number(4) == 0 {
					known = token(t, h)
				}
				enter(how.Shared, known)
				time.Sleep(time.Duration(number(20)) * time.Millisecond)
				leave(how.Shared)
				if err := h.Unlock(t.Context()); err != nil {
					t.Errorf("unlocking: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if grants < 100 {
		t.Errorf("only %d grants", grants)
	}
	// Nothing is left of what was given up.
	time.Sleep(20 * time.Second)
	info, err := clients[0].Status(t.Context(), "x")
	if err != nil || !info.Lock.Free() {
		t.Errorf("afterwards: %+v, %v", info, err)
	}
}
