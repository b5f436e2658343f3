package node

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/replica"
	"dos/meta/session"
)

// The wall clock may jump as it likes: sessions go by the clock that does not.
func TestExpireWallClock(t *testing.T) {
	var wall, boot atomic.Int64
	n, err := Open(replica.Config{
		Dir: t.TempDir(), ID: "a", Bootstrap: true,
		Clock: func() time.Time { return time.Unix(0, wall.Load()) },
		Fatal: func(err error) { t.Errorf("fatal: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	n.clock = func() time.Duration { return time.Duration(boot.Load()) }
	wall.Store(int64(1000 * time.Hour))
	info, err := client.Session{Caller: n}.Open(t.Context(), "test", "", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	opened := info.Opened
	n.overdue()
	for i, jump := range []time.Duration{time.Hour, -10 * time.Hour, 20 * time.Hour} {
		wall.Add(int64(jump))
		for range 4 { // 2 s
			boot.Add(int64(expireEvery))
			if over := n.overdue(); len(over) != 0 {
				t.Fatalf("jump %d: %v are over", i, over)
			}
		}
		later, err := client.Session{Caller: n}.Open(t.Context(), "test", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		if at, before := later.Opened, opened; at < before {
			t.Errorf("jump %d: opened at %v, after one at %v", i, at, before)
		}
		opened = later.Opened
	}
	wall.Add(-int64(500 * time.Hour))
	var over []meta.SessionID
	for range 10 { // 11 s in all
		boot.Add(int64(expireEvery))
		over = n.overdue()
	}
	if len(over) != 1 || over[0] != info.ID {
		t.Errorf("after its time over are %v, want %d", over, info.ID)
	}
}

// stream is a replica.Stream over the loopback.
type stream struct{ net.Listener }

func (stream) Dial(_, addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

// A new leader gives every session its whole time again, by its own clock.
func TestExpireNewLeader(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var boot atomic.Int64
	nodes := make(map[string]*Node)
	addrs := make(map[string]string)
	start := func(id string, wall time.Duration) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n, err := Open(replica.Config{
			Dir: t.TempDir(), ID: id, Bootstrap: id == "a", Stream: stream{l}, Beat: 300 * time.Millisecond,
			Clock: func() time.Time { return time.Now().Add(wall) },
			Fatal: func(err error) { t.Errorf("fatal: %v", err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		n.clock = func() time.Duration { return time.Duration(boot.Load()) }
		nodes[id], addrs[id] = n, l.Addr().String()
	}
	// again does something until it succeeds.
	again := func(what string, do func() error) {
		t.Helper()
		for {
			err := do()
			if err == nil {
				return
			}
			if !errors.Is(err, meta.Unavailable) && !errors.Is(err, meta.Busy) {
				t.Fatalf("%s: %v", what, err)
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	start("a", 0)
	a := nodes["a"].Replica()
	for id, wall := range map[string]time.Duration{"b": 10 * time.Minute, "c": -10 * time.Minute} {
		start(id, wall)
		again("adding", func() error { return a.AddNonvoter(ctx, id, addrs[id]) })
		again("promoting", func() error { return a.Promote(ctx, id) })
	}
	var info session.Info
	again("opening", func() (err error) {
		info, err = client.Session{Caller: nodes["a"]}.Open(ctx, "test", "", 10*time.Second)
		return err
	})
	pass := func(n *Node, d time.Duration) (over []meta.SessionID) {
		for range d / expireEvery {
			boot.Add(int64(expireEvery))
			over = n.overdue()
		}
		return over
	}
	lead := "a"
	for range 3 {
		n := nodes[lead]
		n.overdue()
		if over := pass(n, 9*time.Second); len(over) != 0 {
			t.Fatalf("%s says that %v are over", lead, over)
		}
		again("yielding", func() error { return n.Replica().Yield(ctx) })
		again("leading", func() error {
			for id, n := range nodes {
				if me, _ := n.Leader(); me && id != lead {
					lead = id
					return nil
				}
			}
			return meta.Unavailable
		})
		if over := n.overdue(); len(over) != 0 {
			t.Errorf("who does not lead says that %v are over", over)
		}
	}
	n := nodes[lead]
	again("catching up", func() error {
		_, err := client.Session{Caller: n}.Info(ctx, info.ID)
		return err
	})
	n.overdue()
	if over := pass(n, 11*time.Second); len(over) != 1 || over[0] != info.ID {
		t.Errorf("over are %v, want %d", over, info.ID)
	}
}
