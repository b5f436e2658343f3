package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/state"
)

const (
	// searchMax bounds how long a request waits for a leader to be found, with
	// nothing sent: several elections.
	searchMax = 5 * time.Second
	// searchEvery is the pause between two rounds of asking who leads.
	searchEvery = 50 * time.Millisecond
	// askMax bounds one question, and making a stream to the leader.
	askMax = time.Second
	// silence is how long the leader may have requests and answer none before the
	// others are asked whether they have another.
	silence = time.Second
)

// A Client carries requests to the members of a metadata group (it is a
// meta/client.Sender) over one stream to the one that leads. When that breaks or
// its member cannot serve, requests under way fail, and the next one waits until
// the members say who leads now. Nothing is sent twice. Its methods may be called
// concurrently.
type Client struct {
	service string
	patient time.Duration // as searchMax
	dialer  func(addr string) (*rpc.Client, error)
	turn    chan struct{} // holds one token while a link is being made

	mu      sync.Mutex
	members []string               // addresses; guarded by mu
	peers   map[string]*rpc.Client // by address; guarded by mu
	at      string                 // the address of link; guarded by mu
	link    *link                  // nil: none; guarded by mu
	closed  bool                   // guarded by mu
}

// NewClient returns a client of the members at these addresses, of which some
// may be gone. dial prepares the way to one; it is not to connect yet. Close
// closes what it returned.
func NewClient(dial func(addr string) (*rpc.Client, error), members ...string) *Client {
	return &Client{service: metaName, patient: searchMax, dialer: dial, turn: make(chan struct{}, 1), members: members, peers: make(map[string]*rpc.Client)}
}

// NewMemoryClient returns a client of the process at an address that holds queues in
// memory. It does not wait for one that cannot be reached: another may hold them by now.
func NewMemoryClient(dial func(addr string) (*rpc.Client, error), addr string) *Client {
	c := NewClient(dial, addr)
	c.service, c.patient = memoryName, 0
	return c
}

// SetMembers says where the members are from now on. Requests under way go on,
// except those to a member that is none any more.
func (c *Client) SetMembers(members []string) {
	c.mu.Lock()
	c.members = slices.Clone(members)
	var gone []*rpc.Client
	for addr, peer := range c.peers {
		if !slices.Contains(members, addr) {
			gone = append(gone, peer)
			delete(c.peers, addr)
		}
	}
	var l *link
	if !slices.Contains(members, c.at) {
		l, c.link = c.link, nil
	}
	c.mu.Unlock()
	if l != nil {
		l.close(errors.New("the member is none any more"))
		l.wait()
	}
	for _, peer := range gone {
		peer.Close()
	}
}

// Close ends the stream; requests under way fail.
func (c *Client) Close() {
	c.mu.Lock()
	l, peers := c.link, c.peers
	c.link, c.peers, c.closed = nil, nil, true
	c.mu.Unlock()
	if l != nil {
		l.close(errClosed)
		l.wait()
	}
	for _, peer := range peers {
		peer.Close()
	}
}

var errClosed = errors.New("client is closed")

// Do sends one request and waits for its answer. What fails on the way is
// meta.Unavailable: whether the request was executed is not known. An error of
// another kind is the member's refusal to look at it.
func (c *Client) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	if len(cmd.Body) > payloadMax {
		return state.Reply{}, fmt.Errorf("request of %d bytes, at most %d can be sent: %w", len(cmd.Body), payloadMax, meta.TooLarge)
	}
	l, err := c.connect(ctx)
	if err != nil {
		return state.Reply{}, away(ctx, err)
	}
	ans, err := l.do(ctx, cmd)
	if err != nil {
		if ctx.Err() == nil || errors.Is(err, errSilent) {
			c.leave(l, err)
		}
		return state.Reply{}, away(ctx, err)
	}
	if ans.Failed {
		if ans.Kind == meta.Unavailable && c.several() {
			c.leave(l, ans.Err()) // another may lead
		}
		return state.Reply{}, ans.Err()
	}
	return ans.Reply, nil
}

// away is the error of a request that was not answered.
func away(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("metadata service: %w", cause)
	}
	return fmt.Errorf("metadata service: %w: %w", meta.Unavailable, err)
}

// connect returns the link in use, or makes one to the member that leads.
func (c *Client) connect(ctx context.Context) (*link, error) {
	if l, err := c.current(); l != nil || err != nil {
		return l, err
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-c.turn }()
	for late := time.Now().Add(c.patient); ; {
		if l, err := c.current(); l != nil || err != nil {
			return l, err // made meanwhile
		}
		addr, err := c.search(ctx, "")
		if err == nil {
			err = c.join(ctx, addr)
		}
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case time.Now().After(late):
			return nil, err
		}
		pause := time.NewTimer(searchEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// join makes the link to addr the one in use.
func (c *Client) join(ctx context.Context, addr string) error {
	peer, err := c.peer(addr)
	if err != nil {
		return err
	}
	attempt, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	l, err := dial(attempt, peer, c.service)
	if err != nil {
		return err
	}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.link, c.at = l, addr
		l.ended.Go(func() { c.watch(l, addr) })
	}
	c.mu.Unlock()
	if closed {
		l.close(errClosed)
		l.wait()
		return errClosed
	}
	return nil
}

// current returns the link in use, nil if there is none that works.
func (c *Client) current() (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	if c.link != nil && c.link.reason() != nil {
		c.link = nil // it broke while nobody asked
	}
	return c.link, nil
}

func (c *Client) several() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.members) > 1
}

// leave gives up a link that is of no use any more.
func (c *Client) leave(l *link, why error) {
	c.mu.Lock()
	if c.link == l {
		c.link = nil
	}
	c.mu.Unlock()
	l.close(why)
	l.wait()
}

// watch closes a link whose member answers nothing while another leads: one that
// was stopped, or that the network has lost, breaks no connection for long.
func (c *Client) watch(l *link, addr string) {
	tick := time.NewTicker(silence)
	defer tick.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.ended.Go(func() {
		<-l.dead
		cancel()
	})
	var seen uint64
	for {
		select {
		case <-tick.C:
		case <-l.dead:
			return
		}
		received, waiting := l.progress()
		if !waiting || received != seen {
			seen = received
			continue
		}
		if now, err := c.search(ctx, addr); err == nil {
			l.close(fmt.Errorf("no answer from %s, and %s leads now", addr, now))
			return
		}
	}
}
