package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dos/internal/rpc"
	"dos/meta"
)

// search asks all members at once who leads, and returns the first that says it
// does. Those that others name are asked too, if they are not in the list. The
// one at except is not asked.
func (c *Client) search(ctx context.Context, except string) (addr string, err error) {
	c.mu.Lock()
	asked := slices.Clone(c.members)
	c.mu.Unlock()
	if except != "" {
		asked = slices.DeleteFunc(asked, func(addr string) bool { return addr == except })
	}
	if len(asked) == 0 {
		return "", errors.New("no member is known")
	}
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	type said struct {
		addr string
		whereabouts
		err error
	}
	answers := make(chan said)
	under := 0
	ask := func(addr string) {
		under++
		go func() {
			w, err := c.ask(ctx, addr)
			answers <- said{addr, w, err}
		}()
	}
	for _, addr := range asked {
		ask(addr)
	}
	err = errors.New("the members know of no leader")
	for ; under > 0; under-- {
		switch s := <-answers; {
		case s.err != nil:
			err = s.err
		case s.Me && addr == "":
			addr = s.addr
			cancel() // the others need not answer
		case s.Addr != "" && s.Addr != except && !slices.Contains(asked, s.Addr):
			asked = append(asked, s.Addr)
			ask(s.Addr)
		}
	}
	if addr != "" {
		return addr, nil
	}
	return "", err
}

// ask asks one member who leads.
func (c *Client) ask(ctx context.Context, addr string) (w whereabouts, err error) {
	peer, err := c.peer(addr)
	if err != nil {
		return w, err
	}
	var resp rpc.Frame
	if err := peer.Call(ctx, c.service, callLeader, new(rpc.Frame), &resp); err != nil {
		return w, err
	}
	defer resp.Free()
	if err := rpc.Decode(resp.Header, &w); err != nil {
		return w, fmt.Errorf("%s: who leads: %w: %v", addr, meta.Invalid, err)
	}
	return w, nil
}

// peer returns the way to a member.
func (c *Client) peer(addr string) (*rpc.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	if peer := c.peers[addr]; peer != nil {
		return peer, nil
	}
	peer, err := c.dialer(addr)
	if err == nil {
		c.peers[addr] = peer
	}
	return peer, err
}
