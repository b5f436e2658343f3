package node

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/session"
)

// A session lives as long as it is renewed, and not long after.
func TestExpire(t *testing.T) {
	n := open(t, t.TempDir())
	defer n.Close()
	var clock atomic.Int64
	n.clock = func() time.Duration { return time.Duration(clock.Load()) }
	ctx := t.Context()
	s := client.Session{Caller: n}
	begin := func(ttl time.Duration) meta.SessionID {
		t.Helper()
		info, err := s.Open(ctx, "test", "", ttl)
		if err != nil {
			t.Fatal(err)
		}
		return info.ID
	}
	forever, silent, renewed := begin(0), begin(10*time.Second), begin(10*time.Second)
	// pass lets time go by, in steps as the ticker's.
	pass := func(d time.Duration) (over []meta.SessionID) {
		t.Helper()
		for range d / expireEvery {
			clock.Add(int64(expireEvery))
			over = n.overdue()
		}
		return over
	}
	renew := func(id meta.SessionID) error {
		return n.Call(ctx, session.OpRenew, session.Ask{ID: id}, nil)
	}
	none := func(what string, over []meta.SessionID) {
		t.Helper()
		if len(over) > 0 {
			t.Fatalf("%s: %v are over", what, over)
		}
	}
	n.overdue()
	none("at first", pass(6*time.Second))
	if err := renew(renewed); err != nil {
		t.Fatal(err)
	}
	if over := pass(6 * time.Second); len(over) != 1 || over[0] != silent {
		t.Fatalf("over are %v, want %d", over, silent)
	}
	if err := renew(renewed); err != nil {
		t.Fatal(err)
	}
	// This process stood still: what was sent to it meanwhile waits to be read.
	clock.Add(int64(time.Minute))
	none("after a gap", pass(expireEvery))
	none("after a gap", pass(9*time.Second))
	if over := pass(2 * time.Second); len(over) != 2 {
		t.Fatalf("over are %v, want %d and %d", over, silent, renewed)
	}
	if err := s.End(ctx, silent); err != nil {
		t.Fatal(err)
	}
	if err := renew(silent); !errors.Is(err, meta.Expired) {
		t.Errorf("renewing what has ended: %v", err)
	}
	if err := renew(forever); err != nil {
		t.Error(err)
	}
	for _, ttl := range []time.Duration{1, time.Hour, -1} {
		if _, err := s.Open(ctx, "test", "", ttl); !errors.Is(err, meta.Invalid) {
			t.Errorf("a time to live of %v: %v", ttl, err)
		}
	}
}

// What a machine runs tasks in ends after what these may have asked for things in: a mount of that
// machine that is not heard of either. It does not wait for one that is.
func TestExpireRunner(t *testing.T) {
	n := open(t, t.TempDir())
	defer n.Close()
	var clock atomic.Int64
	n.clock = func() time.Duration { return time.Duration(clock.Load()) }
	begin := func(name, peer string, files bool) meta.SessionID {
		t.Helper()
		var info session.Info
		if err := n.Call(t.Context(), session.OpOpen, session.Open{Name: name, Peer: peer, TTL: 10 * time.Second, Files: files}, &info); err != nil {
			t.Fatal(err)
		}
		return info.ID
	}
	renew := func(list ...meta.SessionID) {
		t.Helper()
		for _, id := range list {
			if err := n.Call(t.Context(), session.OpRenew, session.Ask{ID: id}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	pass := func(d time.Duration, want ...meta.SessionID) {
		t.Helper()
		var over []meta.SessionID
		for range d / expireEvery {
			clock.Add(int64(expireEvery))
			over = n.overdue()
		}
		if !slices.Equal(over, want) {
			t.Fatalf("after %v over are %v, want %v", time.Duration(clock.Load()), over, want)
		}
	}
	cut, cutMount := begin(session.Runner, "node/a", false), begin("mount", "node/a", true)
	hangs, itsMount := begin(session.Runner, "node/b", false), begin("mount", "node/b", true)
	other := begin("lock", "node/a", false)
	n.overdue()
	pass(4 * time.Second)
	renew(cutMount, itsMount)
	pass(4 * time.Second)
	renew(itsMount)
	pass(3*time.Second, hangs, other) // after 11 s, cutMount was heard of 7 s ago
	for _, id := range []meta.SessionID{hangs, other} {
		if err := (client.Session{Caller: n}).End(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	pass(3*time.Second+expireEvery, cutMount)
	if err := (client.Session{Caller: n}).End(t.Context(), cutMount); err != nil {
		t.Fatal(err)
	}
	pass(expireEvery, cut)
}

// A member that runs ends what is not renewed.
func TestExpires(t *testing.T) {
	n := start(t, t.TempDir())
	ctx := t.Context()
	s := client.Session{Caller: n}
	info, err := s.Open(ctx, "test", "", session.TTLMin)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := s.Open(ctx, "test", "", session.TTLMin)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	go client.NewKeeper(n, kept, n.clock()).Run(ctx)
	began := time.Now()
	for {
		moved := n.replica.Moved()
		if err := n.Call(ctx, session.OpRenew, session.Ask{ID: kept.ID}, nil); err != nil {
			t.Fatal(err)
		}
		_, err := s.Info(ctx, info.ID)
		if errors.Is(err, meta.NotExist) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			t.Fatal("it does not end")
		}
	}
	if time.Since(began) < session.TTLMin {
		t.Error("it ended too early")
	}
}
