package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"dos/meta"
	"dos/meta/cache"
)

const (
	// Patience bounds what a Client does about a write that nobody answers for: longer
	// than a session lives without its machine.
	Patience = 25 * time.Second
	// readPatience is how long a read follows a key that moves; then it is a miss.
	readPatience = 200 * time.Millisecond
	// retryMin and retryMax bound the pause before the next look at who answers.
	retryMin = 2 * time.Millisecond
	retryMax = 100 * time.Millisecond
)

// Forever is the time to live of an entry that is to stay where the bucket has a ttl.
const Forever time.Duration = -1

// ClientConfig says what a Client works with.
type ClientConfig struct {
	// Meta makes calls, of any session.
	Meta Caller
	// Lines are the ways to the members; nil: the one there is is here.
	Lines Lines
	// Relay has another process's Client.Relay ask the members; nil: Lines are the way.
	Relay func(ctx context.Context, frame []byte) ([]byte, error)
	// Here is the Holder in this process, of the moment; nil if there is none.
	Here func() *Holder
}

// A Client is the cache of all machines. Methods name a bucket, which Make makes, and a
// key of at most cache.KeyMax bytes; values have at most cache.ValueMax bytes.
//
// Errors are kinds of package meta, found with errors.Is: meta.NotExist is a miss, or
// says that there is no such bucket (Bucket tells). A miss that is meta.HostDown too is
// of an entry that may be there, on a machine that does not answer; meta.TooLarge that a key or value is,
// or does not fit the bucket; meta.Unavailable, meta.TimedOut and the context's that
// nobody answered in time. The package comment says what is promised when machines fail.
//
// Methods may be called concurrently, once Run runs.
type Client struct {
	cfg   ClientConfig
	peers *peers
	view  atomic.Pointer[view]

	mu sync.Mutex // held while it is asked for a view
}

// NewClient returns a Client.
func NewClient(c ClientConfig) *Client {
	p := newPeers(c.Lines)
	p.relay = c.Relay
	return &Client{cfg: c, peers: p}
}

// Run keeps up with which machines there are, until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	defer c.peers.close()
	for ctx.Err() == nil {
		var seen uint64
		if v := c.view.Load(); v != nil {
			seen = v.stamp
		}
		if err := c.ask(ctx, seen); err != nil {
			pause(ctx, callRetry)
		}
	}
	return nil
}

// ask asks for a view, which is held back while it is the one seen.
func (c *Client) ask(ctx context.Context, seen uint64) error {
	prev := c.view.Load()
	req := cache.Follow{Seen: seen}
	if prev != nil {
		req.Version = prev.version
	}
	var o cache.Overview
	bound, cancel := context.WithTimeout(ctx, callWait)
	err := c.cfg.Meta.Call(bound, cache.OpFollow, req, &o)
	cancel()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.view.Load()
	if now != nil && (now.stamp >= o.Stamp || !o.Whole && now != prev && now.version != o.Version) {
		return nil // it is known, or was read beside a younger one
	}
	next := newView(o, now, 0)
	c.view.Store(next)
	if now != nil {
		close(now.changed)
	}
	c.peers.keep(next.members)
	return nil
}

// look returns the view of the moment.
func (c *Client) look(ctx context.Context) (*view, error) {
	if v := c.view.Load(); v != nil {
		return v, nil
	}
	return c.refresh(ctx)
}

// refresh returns a view that is not older than the call.
func (c *Client) refresh(ctx context.Context) (*view, error) {
	if err := c.ask(ctx, 0); err != nil {
		return nil, err
	}
	return c.view.Load(), nil
}

// local is the Holder here, if a member is that.
func (c *Client) local(m cache.Member) *Holder {
	if c.cfg.Here != nil {
		if h := c.cfg.Here(); h != nil && h.me == m.Session {
			return h
		}
	}
	return nil
}

// bucket finds a bucket by its name.
func (c *Client) bucket(ctx context.Context, v *view, name string) (cache.Bucket, *view, error) {
	id, is := v.names[name]
	if !is {
		var err error
		if v, err = c.refresh(ctx); err != nil {
			return cache.Bucket{}, v, err
		}
		if id, is = v.names[name]; !is {
			return cache.Bucket{}, v, meta.NotExist
		}
	}
	return v.buckets[id], v, nil
}

// An outcome says what became of a request that has no answer.
type outcome int

const (
	notDone outcome = iota // it was not executed
	maybe                  // it may have been
)

// call has the owner of a key execute a request. An error with the outcome notDone comes
// when nobody was found to, in time.
func (c *Client) call(ctx context.Context, name string, req *request) (answer, outcome, error) {
	if a, is := c.here(name, req); is {
		return a, notDone, a.err()
	}
	own := *req // so that what is done here allocates none
	a, out, err := c.search(ctx, name, &own)
	req.Bucket, req.Generation = own.Bucket, own.Generation
	return a, out, err
}

// here executes a request if that is done here, and without waiting.
func (c *Client) here(name string, req *request) (a answer, is bool) {
	v := c.view.Load()
	if v == nil || c.cfg.Here == nil {
		return a, false
	}
	h := c.cfg.Here()
	id, is := v.names[name]
	if h == nil || !is {
		return a, false
	}
	req.Bucket, req.Generation = id, v.buckets[id].Generation
	a, is = h.quick(h.here, req)
	a.from = h.me
	return a, is && !a.Moved && !a.Unsure
}

// Near reports whether an entry is this process's own, so that nobody else is asked for it.
func (c *Client) Near(bucket, key string) bool {
	v := c.view.Load()
	if v == nil || c.cfg.Here == nil {
		return false
	}
	h := c.cfg.Here()
	return h != nil && v.ring().Owner(cache.Hash(v.names[bucket], key)) == h.me
}

// search is call for what others may have.
func (c *Client) search(ctx context.Context, name string, req *request) (answer, outcome, error) {
	v, err := c.look(ctx)
	if err != nil {
		return answer{}, notDone, err
	}
	read := req.Op.stream() == streamRead
	patience := Patience
	if read {
		patience = readPatience
	}
	began := time.Now()
	wait := retryMin
	var why error
	for {
		var b cache.Bucket
		if b, v, err = c.bucket(ctx, v, name); err != nil {
			return answer{}, notDone, err
		}
		req.Bucket, req.Generation = b.ID, b.Generation
		owner := v.ring().Owner(cache.Hash(b.ID, req.Key))
		m, is := v.members[owner]
		if !is {
			why = fmt.Errorf("cache: no machine has entries: %w", meta.Unavailable)
		} else {
			a, err := c.askMember(ctx, m, req)
			switch {
			case err == nil && !a.Moved:
				return a, notDone, a.err()
			case ctx.Err() != nil:
				return answer{}, done(err), context.Cause(ctx)
			case err == nil:
				why = fmt.Errorf("cache: machine %s does not answer for the key yet: %w", m.Node, meta.Unavailable)
			case errors.Is(err, errNotSent):
				why = fmt.Errorf("cache: machine %s: %w", m.Node, err)
			case !read:
				return answer{}, maybe, fmt.Errorf("cache: machine %s: %w", m.Node, err)
			default:
				why = fmt.Errorf("cache: machine %s: %w", m.Node, err)
			}
			if err != nil && read {
				return answer{}, notDone, unsure(why) // lost, for now
			}
		}
		if time.Since(began) > patience {
			break
		}
		pause(ctx, wait)
		wait = min(2*wait, retryMax)
		if ctx.Err() != nil {
			return answer{}, notDone, context.Cause(ctx)
		}
		if now, err := c.refresh(ctx); err == nil {
			v = now
		}
	}
	if read {
		return answer{}, notDone, unsure(why)
	}
	return answer{}, notDone, why
}

func done(err error) outcome {
	if errors.Is(err, errNotSent) {
		return notDone
	}
	return maybe
}

// askMember has one member execute a request. It gives up a write when that is no member
// any more.
func (c *Client) askMember(ctx context.Context, m cache.Member, req *request) (answer, error) {
	if h := c.local(m); h != nil {
		a := h.do(ctx, h.here, req)
		a.from = m.Session
		return a, nil
	}
	own := *req // what is under way is the link's
	a, err := c.peers.do(ctx, m, &own)
	a.from = m.Session
	return a, err
}

// settle brings the outcome of a write about that may have been executed by a machine
// that is gone: that it was lost. It deletes the key at who answers for it next.
func (c *Client) settle(ctx context.Context, bucket, key string) error {
	for ctx.Err() == nil {
		_, out, err := c.call(ctx, bucket, &request{Op: opDelete, Key: key})
		if errors.Is(err, meta.NotExist) {
			return nil
		}
		if err == nil || out == notDone {
			return err
		}
	}
	return context.Cause(ctx)
}

// send executes a write whose outcome is settled by settle.
func (c *Client) send(ctx context.Context, bucket string, req *request) (answer, error) {
	a, out, err := c.call(ctx, bucket, req)
	if out == notDone || ctx.Err() != nil {
		return a, err
	}
	if e := c.settle(ctx, bucket, req.Key); e != nil {
		return a, e
	}
	return answer{}, nil
}
