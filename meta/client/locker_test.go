package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/lock"
	"dos/meta/session"
	"dos/meta/state"
)

// lockers returns a service and two sessions' Lockers, which run until the end.
func lockers(t *testing.T) (l *lossy, a, b *client.Locker) {
	t.Helper()
	l, first := open(t)
	info, err := client.Session{Caller: client.Direct(l, 0)}.Open(t.Context(), "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]*client.Locker, 2)
	for i, s := range []meta.SessionID{first, info.ID} {
		k := client.NewLocker(client.NewRemote(l, s), func() meta.SessionID { return s })
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- k.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ran; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		list[i] = k
	}
	return l, list[0], list[1]
}

func exclusive(ino meta.Ino, owner uint64) meta.Lock {
	return meta.Lock{Ino: ino, Kind: meta.Flock, Mode: meta.Exclusive, Owner: owner, Last: meta.LockEnd, PID: 5}
}

func bytesOf(ino meta.Ino, mode meta.LockMode, owner uint64, first, last int64) meta.Lock {
	return meta.Lock{Ino: ino, Kind: meta.Record, Mode: mode, Owner: owner, First: first, Last: last, PID: 5}
}

func want(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// count says how many requests of an operation arrived.
func (l *lossy) count(op state.Op) *atomic.Int64 {
	n := new(atomic.Int64)
	fate := l.fate
	l.fate = func(cmd state.Command) (bool, bool) {
		if cmd.Op == op {
			n.Add(1)
		}
		return fate(cmd)
	}
	return n
}

func TestLocker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := lockers(t)
		ctx := t.Context()
		want(t, "a", a.Try(ctx, exclusive(7, 1)), nil)
		want(t, "b", b.Try(ctx, exclusive(7, 1)), meta.Busy)
		in, err := b.Test(ctx, exclusive(7, 1))
		if err != nil || in.Mode != meta.Exclusive || in.Owner != 1 || in.PID != 0 {
			t.Errorf("in b's way: %+v, %v", in, err)
		}
		if in, err := a.Test(ctx, exclusive(7, 2)); err != nil || in.PID != 5 {
			t.Errorf("in the way of another of a: %+v, %v", in, err)
		}
		got := make(chan error, 2)
		go func() { got <- b.Wait(ctx, exclusive(7, 1)) }()
		go func() { got <- b.Wait(ctx, exclusive(7, 1)) }() // two threads share a place
		synctest.Wait()
		want(t, "a gives up", a.Drop(ctx, 7, meta.Flock, 1), nil)
		want(t, "b", <-got, nil)
		want(t, "b", <-got, nil)
		want(t, "a", a.Try(ctx, exclusive(7, 1)), meta.Busy)

		// What was closed, as another thread waits for it, is not waited for.
		go func() { got <- a.Wait(ctx, exclusive(7, 1)) }()
		synctest.Wait()
		want(t, "a closes", a.Drop(ctx, 7, meta.Flock, 1), nil)
		want(t, "a waits", <-got, meta.Conflict)
		want(t, "b closes", b.Drop(ctx, 7, meta.Flock, 1), nil)
		want(t, "b again", b.Try(ctx, exclusive(7, 9)), nil)

		want(t, "a", a.Try(ctx, bytesOf(8, meta.Exclusive, 1, 0, 0)), nil)
		want(t, "b", b.Try(ctx, bytesOf(8, meta.Exclusive, 1, 1, 1)), nil)
		go func() { got <- a.Wait(ctx, bytesOf(8, meta.Exclusive, 1, 1, 1)) }()
		synctest.Wait()
		want(t, "b waits for a", b.Wait(ctx, bytesOf(8, meta.Exclusive, 1, 0, 0)), meta.Deadlock)
		want(t, "b", b.Try(ctx, bytesOf(8, meta.Unlocked, 1, 0, meta.LockEnd)), nil)
		want(t, "a waits", <-got, nil)
	})
}

// Whoever is interrupted all the time keeps his place, and asks nothing for it.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := lockers(t)
		ctx := t.Context()
		sets := l.count(lock.OpSet)
		want(t, "a", a.Try(ctx, exclusive(7, 1)), nil)
		try := func(d time.Duration) error {
			short, cancel := context.WithTimeout(ctx, d)
			defer cancel()
			return b.Wait(short, exclusive(7, 1))
		}
		for range 500 {
			want(t, "b", try(5*time.Millisecond), context.DeadlineExceeded)
			time.Sleep(time.Millisecond)
		}
		second := make(chan error, 1)
		go func() { second <- a.Wait(ctx, exclusive(7, 2)) }()
		synctest.Wait()
		want(t, "b", try(5*time.Millisecond), context.DeadlineExceeded)
		want(t, "a gives up", a.Drop(ctx, 7, meta.Flock, 1), nil)
		time.Sleep(500 * time.Millisecond) // granted while he is away
		want(t, "b", try(5*time.Millisecond), nil)
		if sets.Load() != 3 {
			t.Errorf("%d requests to have a lock, want one of each owner", sets.Load())
		}
		time.Sleep(time.Minute) // and it stays his
		want(t, "b gives up", b.Drop(ctx, 7, meta.Flock, 1), nil)
		want(t, "a's second", <-second, nil)
	})
}

// A place that nobody comes back to is given up, also if the lock was granted.
func TestAbandoned(t *testing.T) {
	for _, granted := range []bool{false, true} {
		t.Run(fmt.Sprintf("granted=%v", granted), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, b := lockers(t)
				ctx := t.Context()
				want(t, "a", a.Try(ctx, exclusive(7, 1)), nil)
				short, cancel := context.WithCancel(ctx)
				got := make(chan error, 1)
				go func() { got <- b.Wait(short, exclusive(7, 1)) }()
				synctest.Wait()
				cancel()
				want(t, "b", <-got, context.Canceled)
				if granted {
					want(t, "a gives up", a.Drop(ctx, 7, meta.Flock, 1), nil)
					want(t, "a again", a.Try(ctx, exclusive(7, 1)), meta.Busy)
				}
				time.Sleep(3 * time.Second)
				if !granted {
					want(t, "a gives up", a.Drop(ctx, 7, meta.Flock, 1), nil)
				}
				want(t, "a again", a.Try(ctx, exclusive(7, 1)), nil)
			})
		})
	}
}

// Whoever does something else has given up waiting: what he had before is his still.
func TestChangedMind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := lockers(t)
		ctx := t.Context()
		want(t, "a", a.Try(ctx, bytesOf(7, meta.Shared, 1, 0, 9)), nil)
		want(t, "b", b.Try(ctx, bytesOf(7, meta.Shared, 1, 0, 9)), nil)
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		want(t, "b", b.Wait(short, bytesOf(7, meta.Exclusive, 1, 0, 9)), context.DeadlineExceeded)
		want(t, "a gives up", a.Drop(ctx, 7, meta.Record, 1), nil)
		want(t, "a again", a.Try(ctx, bytesOf(7, meta.Shared, 1, 0, 9)), meta.Busy) // b has it
		want(t, "b", b.Try(ctx, bytesOf(7, meta.Shared, 1, 20, 29)), nil)
		want(t, "a again", a.Try(ctx, bytesOf(7, meta.Shared, 1, 0, 9)), nil)
		want(t, "a more", a.Try(ctx, bytesOf(7, meta.Exclusive, 1, 0, 9)), meta.Busy)
	})
}

// A shared lock that was waited for lets others in where it was exclusive before.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := lockers(t)
		ctx := t.Context()
		want(t, "a", a.Try(ctx, bytesOf(7, meta.Exclusive, 1, 0, 9)), nil)
		want(t, "b", b.Try(ctx, bytesOf(7, meta.Exclusive, 1, 10, 19)), nil)
		got := make(chan error, 1)
		go func() { got <- a.Wait(ctx, bytesOf(7, meta.Shared, 1, 0, 19)) }()
		synctest.Wait()
		want(t, "b gives up", b.Drop(ctx, 7, meta.Record, 1), nil)
		want(t, "a", <-got, nil)
		want(t, "b", b.Try(ctx, bytesOf(7, meta.Shared, 1, 5, 5)), nil)
	})
}

// What cannot be given up now is given up later, and before its owner's number
// gets anything new.
func TestDropLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := lockers(t)
		ctx := t.Context()
		var dead atomic.Bool
		fate := l.fate
		l.fate = func(cmd state.Command) (bool, bool) {
			if dead.Load() && cmd.Op == lock.OpDrop {
				return false, false
			}
			return fate(cmd)
		}
		want(t, "a", a.Try(ctx, exclusive(7, 1)), nil)
		dead.Store(true)
		began := time.Now()
		want(t, "a gives up", a.Drop(ctx, 7, meta.Flock, 1), meta.TimedOut)
		if took := time.Since(began); took > client.Patience {
			t.Errorf("it took %v", took)
		}
		want(t, "b", b.Try(ctx, exclusive(7, 1)), meta.Busy)
		dead.Store(false)
		time.Sleep(10 * time.Second)
		want(t, "b", b.Try(ctx, exclusive(7, 1)), nil)
		want(t, "a", a.Try(ctx, exclusive(7, 1)), meta.Busy)
		want(t, "b gives up", b.Drop(ctx, 7, meta.Flock, 1), nil)
		want(t, "a", a.Try(ctx, exclusive(7, 1)), nil)
		time.Sleep(time.Minute)
		want(t, "b", b.Try(ctx, exclusive(7, 1)), meta.Busy)
	})
}

// What has nothing to give up sends nothing.
func TestDropNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := lockers(t)
		ctx := t.Context()
		drops := l.count(lock.OpDrop)
		want(t, "b", b.Try(ctx, exclusive(7, 1)), nil)
		want(t, "a", a.Try(ctx, exclusive(7, 1)), meta.Busy)
		want(t, "a closes", a.Drop(ctx, 7, meta.Flock, 1), nil)
		open := exclusive(7, 1)
		open.Mode = meta.Unlocked
		want(t, "b unlocks", b.Try(ctx, open), nil)
		want(t, "b closes", b.Drop(ctx, 7, meta.Flock, 1), nil)
		want(t, "b closes another", b.Drop(ctx, 8, meta.Flock, 1), nil)
		if drops.Load() != 0 {
			t.Errorf("%d requests to give up nothing", drops.Load())
		}
		want(t, "a", a.Try(ctx, exclusive(7, 1)), nil)
		want(t, "a closes", a.Drop(ctx, 7, meta.Flock, 1), nil)
		if drops.Load() != 1 {
			t.Errorf("%d requests to give up a lock", drops.Load())
		}
	})
}

// A service that does not answer ends waiting; a session that is over does at once.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := lockers(t)
		ctx := t.Context()
		fate := l.fate
		var silent atomic.Bool
		l.fate = func(cmd state.Command) (bool, bool) {
			if silent.Load() {
				return false, false
			}
			return fate(cmd)
		}
		want(t, "a", a.Try(ctx, exclusive(7, 1)), nil)
		got := make(chan error, 1)
		began := time.Now()
		go func() { got <- b.Wait(ctx, exclusive(7, 1)) }()
		synctest.Wait()
		silent.Store(true)
		want(t, "b", <-got, meta.Unavailable)
		if took := time.Since(began); took < client.Patience || took > 2*client.Patience {
			t.Errorf("it took %v", took)
		}
		silent.Store(false)
		time.Sleep(client.Patience)
		want(t, "a gives up", a.Drop(ctx, 7, meta.Flock, 1), nil)
		want(t, "a again", a.Try(ctx, exclusive(7, 1)), nil) // b waits no more
	})
}

// Whoever had something in a session that has ended is told so until he closes
// the file; others go on in the next session.
func TestFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := lockers(t)
		ctx := t.Context()
		direct := client.Direct(l, 0)
		begin := func() *client.Remote {
			info, err := client.Session{Caller: direct}.Open(ctx, "test", "", 0)
			if err != nil {
				t.Fatal(err)
			}
			return client.NewRemote(l, info.ID)
		}
		var now atomic.Pointer[client.Remote]
		now.Store(begin())
		b := client.NewLocker(callerFunc(func(ctx context.Context, op state.Op, req, resp any) error {
			return now.Load().Call(ctx, op, req, resp)
		}), func() meta.SessionID { return now.Load().Session() })
		run, stop := context.WithCancel(ctx)
		ran := make(chan error, 1)
		go func() { ran <- b.Run(run) }()
		defer func() { stop(); <-ran }()

		for _, told := range []bool{true, false} { // that the session has ended, or it finds out
			want(t, "a", a.Try(ctx, exclusive(7, 1)), nil)
			want(t, "b", b.Try(ctx, exclusive(8, 1)), nil)
			want(t, "b", b.Try(ctx, exclusive(7, 3)), meta.Busy)
			got := make(chan error, 1)
			go func() { got <- b.Wait(ctx, exclusive(7, 2)) }()
			synctest.Wait()
			want(t, "the end", direct.Call(ctx, session.OpEnd, session.End{ID: now.Load().Session()}, nil), nil)
			want(t, "a", a.Try(ctx, exclusive(8, 1)), nil)
			if told {
				b.Fenced()
				want(t, "b waits", <-got, meta.Expired)
			} else {
				want(t, "b waits", <-got, meta.Expired)
				b.Fenced()
			}
			now.Store(begin())
			want(t, "b, who had one", b.Try(ctx, exclusive(8, 1)), meta.Expired)
			want(t, "b, who waited", b.Wait(ctx, exclusive(7, 2)), meta.Expired)
			want(t, "b, who had none", b.Try(ctx, exclusive(7, 3)), meta.Busy)
			want(t, "a gives up", a.Drop(ctx, 8, meta.Flock, 1), nil)
			want(t, "a gives up", a.Drop(ctx, 7, meta.Flock, 1), nil)
			want(t, "b, who had one", b.Try(ctx, exclusive(8, 1)), meta.Expired)
			want(t, "b, who had none", b.Wait(ctx, exclusive(7, 3)), nil)
			for owner := range uint64(4) {
				want(t, "b closes", b.Drop(ctx, 7, meta.Flock, owner), nil)
				want(t, "b closes", b.Drop(ctx, 8, meta.Flock, owner), nil)
			}
		}
		want(t, "b, again", b.Wait(ctx, exclusive(8, 1)), nil)
	})
}

type callerFunc func(ctx context.Context, op state.Op, req, resp any) error

func (f callerFunc) Call(ctx context.Context, op state.Op, req, resp any) error {
	return f(ctx, op, req, resp)
}
