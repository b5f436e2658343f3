package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/state"
)

// A Client carries requests to the members of a metadata group (it is a
// meta/client.Sender) over one stream to one of them at a time. When that
// breaks or its member cannot serve, requests under way fail and the next one
// goes to the next member. Nothing is sent twice. Its methods may be called
// concurrently.
type Client struct {
	members []*rpc.Client
	turn    chan struct{} // holds one token while a link is being made

	mu     sync.Mutex
	at     int   // the member in use, of members; guarded by mu
	link   *link // nil: none; guarded by mu
	closed bool  // guarded by mu
}

// NewClient returns a client of the members, which the caller closes after it.
func NewClient(members ...*rpc.Client) *Client {
	return &Client{members: members, turn: make(chan struct{}, 1)}
}

// Close ends the stream; requests under way fail.
func (c *Client) Close() {
	c.mu.Lock()
	l := c.link
	c.link, c.closed = nil, true
	c.mu.Unlock()
	if l != nil {
		l.close(errClosed)
		l.wait()
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
		if len(c.members) > 1 {
			c.leave(l, ans.Err()) // the next may lead
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

// connect returns the link in use, or makes one.
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
	if l, err := c.current(); l != nil || err != nil {
		return l, err // made meanwhile
	}
	c.mu.Lock()
	member := c.members[c.at]
	c.mu.Unlock()
	l, err := dial(ctx, member)

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		c.at = (c.at + 1) % len(c.members)
		return nil, err
	case c.closed:
		l.close(errClosed)
		return nil, errClosed
	}
	c.link = l
	return l, nil
}

func (c *Client) current() (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	if c.link != nil && c.link.reason() != nil {
		c.link = nil // it broke while nobody asked
		c.at = (c.at + 1) % len(c.members)
	}
	return c.link, nil
}

// leave gives up a link that is of no use any more, for the next member's.
func (c *Client) leave(l *link, why error) {
	c.mu.Lock()
	if c.link == l {
		c.link = nil
		c.at = (c.at + 1) % len(c.members)
	}
	c.mu.Unlock()
	l.close(why)
	l.wait()
}
