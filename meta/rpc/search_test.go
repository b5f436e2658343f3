package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/state"
)

// A group pretends to be members of which one at a time leads.
type group struct {
	mu     sync.Mutex
	leads  int // which member; -1: none; guarded by mu
	addrs  []string
	server []func() // stop
}

type member struct {
	g *group
	i int
}

func (m member) Leader() (me bool, addr string) {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	if m.g.leads < 0 {
		return false, ""
	}
	return m.g.leads == m.i, m.g.addrs[m.g.leads]
}

func (m member) Do(context.Context, state.Command) (state.Reply, error) {
	if me, _ := m.Leader(); !me {
		return state.Reply{}, fmt.Errorf("not the leader: %w", meta.Unavailable)
	}
	return state.Reply{Body: state.Marshal(m.i)}, nil
}

func (g *group) lead(i int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leads = i
}

func newGroup(t *testing.T, n int) *group {
	g := &group{leads: -1}
	for i := range n {
		l := rpctest.Listen(t)
		g.addrs = append(g.addrs, l.Addr().String())
		g.server = append(g.server, rpctest.Serve(t, l, rpc.ServerConfig{Plain: true}, Serve(member{g, i})))
	}
	return g
}

func (g *group) client(t *testing.T, addrs ...string) *Client {
	c := NewClient(dialer(rpc.ClientConfig{Plain: true}), addrs...)
	t.Cleanup(c.Close)
	return c
}

// says asks for the leader's number, as a session does.
func says(t *testing.T, r *client.Remote, want int) {
	t.Helper()
	var got int
	if err := r.Call(t.Context(), 0x0140, struct{}{}, &got); err != nil || got != want {
		t.Errorf("member %d answers, %v, want %d", got, err, want)
	}
}

// The leader is found whoever is known, and found again.
func TestFollowsLeader(t *testing.T) {
	g := newGroup(t, 3)
	gone := rpctest.Listen(t)
	gone.Close()
	c := g.client(t, gone.Addr().String(), g.addrs[0], g.addrs[1]) // nobody has told of 2
	remote := client.NewRemote(c, 1)
	for _, leads := range []int{1, 0, 2, 0, 1} {
		g.lead(leads)
		says(t, remote, leads)
	}
	// Nobody leads for a moment: the request waits for it.
	g.lead(-1)
	time.AfterFunc(300*time.Millisecond, func() { g.lead(0) })
	says(t, remote, 0)
	// The leader dies.
	g.server[0]()
	g.lead(1)
	says(t, remote, 1)

	c.Close()
	if _, err := c.Do(t.Context(), state.Command{Op: 1}); !errors.Is(err, meta.Unavailable) {
		t.Errorf("Do after Close = %v, want Unavailable", err)
	}
}

// A request does not wait for a leader for ever, nor longer than it may.
func TestNoLeader(t *testing.T) {
	g := newGroup(t, 2)
	c := g.client(t, g.addrs...)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Do(ctx, state.Command{Op: 0x140}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a leader, for 200 ms: %v", err)
	}
	began := time.Now()
	if _, err := c.Do(t.Context(), state.Command{Op: 0x140}); !errors.Is(err, meta.Unavailable) {
		t.Errorf("without a leader: %v", err)
	}
	if took := time.Since(began); took < searchMax {
		t.Errorf("it gave up after %v", took)
	}
	if _, err := g.client(t).Do(ctx, state.Command{Op: 0x140}); err == nil {
		t.Error("a client of nobody was answered")
	}
}

func TestSetMembers(t *testing.T) {
	g := newGroup(t, 3)
	g.lead(0)
	c := g.client(t, g.addrs[0])
	remote := client.NewRemote(c, 1)
	says(t, remote, 0)
	g.lead(2)
	c.SetMembers(g.addrs[1:])
	says(t, remote, 2)
	g.server[0]()
	says(t, remote, 2)
	c.SetMembers(g.addrs)
	says(t, remote, 2)
	c.mu.Lock()
	kept := len(c.peers)
	c.mu.Unlock()
	c.SetMembers(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept == 0 || len(c.peers) != 0 || c.link != nil {
		t.Errorf("%d members were kept, then %d", kept, len(c.peers))
	}
}

// A leader that stands still, its connections open, is left for the next.
func TestSilentLeader(t *testing.T) {
	g := newGroup(t, 2)
	proxy := rpctest.NewProxy(t, g.addrs[0])
	g.addrs[0] = proxy.Addr()
	g.lead(0)
	c := g.client(t, g.addrs...)
	remote := client.NewRemote(c, 1)
	says(t, remote, 0)
	proxy.Hold()
	began := time.Now()
	time.AfterFunc(500*time.Millisecond, func() { g.lead(1) }) // the others elect
	says(t, remote, 1)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
