package cache

import (
	"context"
	"errors"
	"fmt"

	"dos/meta"
	"dos/meta/cache"
	"dos/meta/state"
)

// A relayed is a request to a member that another process passes on.
type relayed struct {
	To      cache.Member `cbor:"1,keyasint,omitempty"`
	Request request      `cbor:"2,keyasint,omitempty"`
}

// A relayedAnswer is what came of it. Lost says that there is no answer, and NotSent that
// the request did not go out.
type relayedAnswer struct {
	Answer  answer `cbor:"1,keyasint,omitempty"`
	Lost    string `cbor:"2,keyasint,omitempty"`
	NotSent bool   `cbor:"3,keyasint,omitempty"`
}

// Relay executes what a Client in a process without ways to the members asks
// (ClientConfig.Relay). Rights to fill would have nobody to end them, so there are none.
func (c *Client) Relay(ctx context.Context, frame []byte) ([]byte, error) {
	var r relayed
	if err := state.Unmarshal(frame, &r); err != nil {
		return nil, fmt.Errorf("cache: what is to be passed on does not decode: %w", meta.Invalid)
	}
	switch op := r.Request.Op; {
	case op == opFill || op == opCommit || op == opAbandon || op.stream() == streamCopy:
		return nil, fmt.Errorf("cache: operation %d is not passed on: %w", op, meta.Unsupported)
	}
	a, err := c.askMember(ctx, r.To, &r.Request)
	out := relayedAnswer{Answer: a}
	if err != nil {
		out.Lost, out.NotSent = err.Error(), errors.Is(err, errNotSent)
	}
	return state.Marshal(out), nil
}

// Close ends the ways to the members of a Client that does not Run.
func (c *Client) Close() { c.peers.close() }

// relayTo has another process ask a member.
func (p *peers) relayTo(ctx context.Context, m cache.Member, req *request) (answer, error) {
	said, err := p.relay(ctx, state.Marshal(relayed{m, *req}))
	if err != nil {
		return answer{}, err
	}
	var r relayedAnswer
	switch err := state.Unmarshal(said, &r); {
	case err != nil:
		return answer{}, fmt.Errorf("cache: what was passed on does not decode: %w", meta.Protocol)
	case r.NotSent:
		return answer{}, fmt.Errorf("%w: %s", errNotSent, r.Lost)
	case r.Lost != "":
		return answer{}, fmt.Errorf("%s: %w", r.Lost, meta.Unavailable)
	}
	return r.Answer, nil
}
