package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	entries "dos/chunk/cache"
	"dos/meta"
	"dos/meta/cache"
)

const (
	// copyWait is how long an owner waits for another to take a copy, until it has it
	// distrusted: long enough for one that is busy, or that has not heard yet of a map.
	copyWait = time.Second
	// copyRetry is the pause before one that was not taken is sent again.
	copyRetry = 10 * time.Millisecond
	// distrustWait bounds the wait until a command of that is known here.
	distrustWait = 10 * time.Second
)

// A change is what a write comes to: what copies are told, and what is done then.
type change struct {
	copy request
	do   func() (answer, error)
}

// replicated executes a write of a key that others have copies of.
func (h *Holder) replicated(ctx context.Context, by *party, req *request) answer {
	stripe := &h.stripes[cache.Hash(req.Bucket, req.Key)%stripes]
	stripe.Lock()
	defer stripe.Unlock()
	var sent atomic.Bool // to somebody who may have done it
	var errs error
	for ctx.Err() == nil {
		h.mu.RLock()
		p, found, pending := h.find(req)
		var c change
		var err error
		if found && !pending {
			c, err = h.plan(by, p, req)
		}
		h.mu.RUnlock()
		switch {
		case !found && sent.Load():
			return answer{Kind: meta.Unavailable, Text: fmt.Sprintf("cache: the key went to another machine meanwhile: %v", errs)}
		case !found:
			return moved()
		case err != nil && sent.Load():
			return h.undo(ctx, p, req, err)
		case err != nil:
			return failed(err)
		case pending:
			select {
			case <-p.view.changed:
			case <-ctx.Done():
			}
			continue
		}
		if err := h.send(ctx, p, c.copy, &sent); err != nil {
			errs = err
			continue
		}
		a, err := h.finish(p, c)
		switch {
		case err == nil:
			return a
		case !errors.Is(err, errAgain):
			return h.undo(ctx, p, req, err)
		}
	}
	if !sent.Load() {
		return moved()
	}
	return answer{Kind: meta.Unavailable, Text: fmt.Sprintf("cache: copies were not taken: %v", errs)}
}

// undo takes a write that was refused in the end from those who have copies of it: it
// must not come to light when one of them becomes the owner.
func (h *Holder) undo(ctx context.Context, p place, req *request, why error) answer {
	var sent atomic.Bool
	err := h.send(ctx, p, request{Op: opCopyDelete, Bucket: req.Bucket, Generation: req.Generation, Key: req.Key}, &sent)
	if err != nil && !errors.Is(err, errAgain) {
		return answer{Kind: meta.Unavailable, Text: fmt.Sprintf("cache: %v, and taking it back: %v", why, err)}
	}
	if err != nil { // another map: their copies are the owner's to look after
		return answer{Kind: meta.Unavailable, Text: fmt.Sprintf("cache: the machines changed meanwhile: %v", why)}
	}
	return failed(why)
}

// finish executes a write that all copies have, if it is still this process's to do, and
// nothing came in between, else errAgain.
func (h *Holder) finish(p place, c change) (answer, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	now, found, pending := h.find(&c.copy)
	if !found || pending || now.view.ring().Owner(p.hash) != h.me || now.view.ring().Epoch != p.view.ring().Epoch || now.bucket.Placed != p.bucket.Placed {
		return answer{}, errAgain
	}
	return c.do()
}

// errAgain says that what a write was made of has changed meanwhile.
var errAgain = errors.New("changed meanwhile")

// plan says what a write comes to, or why it is refused. h.mu is held, and whoever
// writes the key by this way waits.
func (h *Holder) plan(by *party, p place, req *request) (c change, err error) {
	c.copy = request{Op: opCopySet, Bucket: req.Bucket, Generation: req.Generation, Key: req.Key, TTL: req.TTL}
	w := req.write()
	switch req.Op {
	case opDelete:
		c.copy.Op = opCopyDelete
		if req.If != 0 {
			err = h.entries.Check(p.at, req.Key, 0, entries.Write{If: req.If})
		}
		c.do = func() (answer, error) { return answer{}, h.entries.Delete(p.at, req.Key, req.If) }
		return c, err
	case opExpire:
		c.copy.Op = opCopyExpire
		if _, _, err = h.entries.Stat(p.at, req.Key); err != nil {
			return c, err
		}
		c.do = func() (answer, error) { return answer{}, h.entries.Expire(p.at, req.Key, req.expires()) }
		return c, nil
	case opIncr:
		e, err := h.entries.Get(p.at, req.Key, nil)
		if err != nil && !errors.Is(err, entries.ErrMiss) {
			return c, err
		}
		text := e.Value
		if err != nil {
			text = []byte("0")
		}
		n, err := entries.Sum(text, req.By)
		if err != nil {
			return c, err
		}
		w = entries.Write{Keep: true, If: e.Version, Add: e.Version == 0}
		c.copy.Value, c.copy.TTL = strconv.AppendInt(nil, n, 10), found(e).TTL
		c.set(h, p, w, func(answer) answer { return answer{Sum: n} })
		return c, nil
	case opCommit:
		f := by.get(req.Fill, false)
		if f == nil || !f.Valid() {
			return c, fmt.Errorf("the right to provide the value is over: %w", meta.Conflict)
		}
		c.copy.Value, c.copy.Version = req.Value, h.entries.Version()
		w.Version = c.copy.Version
		c.do = func() (a answer, err error) {
			by.get(req.Fill, true)
			a.Version, err = f.Commit(req.Value, w)
			return a, err
		}
		return c, nil
	}
	if err := h.entries.Check(p.at, req.Key, len(req.Value), w); err != nil {
		return c, err
	}
	if e, _, err := h.entries.Stat(p.at, req.Key); err == nil {
		if req.Keep {
			c.copy.TTL = max(found(e).TTL, 0)
			if c.copy.TTL == 0 {
				c.copy.TTL = -1
			}
		}
		if w.If == 0 {
			w.If = e.Version
		}
	} else {
		w.Add = true
	}
	c.copy.Value = req.Value
	c.set(h, p, w, func(a answer) answer { return a })
	return c, nil
}

// set has the change be a write, conditional on what is there now.
func (c *change) set(h *Holder, p place, w entries.Write, say func(answer) answer) {
	c.copy.Version = h.entries.Version()
	w.Version = c.copy.Version
	c.do = func() (answer, error) {
		_, err := h.entries.Set(p.at, c.copy.Key, c.copy.Value, w)
		if errors.Is(err, entries.ErrConflict) || errors.Is(err, entries.ErrExist) || errors.Is(err, entries.ErrMiss) {
			return answer{}, errAgain
		}
		return say(answer{Version: w.Version}), err
	}
}

// send gives a copy to all who are to have one. When it returns nil they have it, or
// what they have does not count.
func (h *Holder) send(ctx context.Context, p place, req request, sent *atomic.Bool) error {
	req.Owner, req.Epoch, req.Placed = h.me, p.view.ring().Epoch, p.bucket.Placed
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs error
	for _, s := range p.view.ring().Order(p.hash, p.bucket.Settings.Replicas)[1:] {
		m, is := p.view.members[s]
		if !is || m.Known < m.Fresh {
			continue
		}
		req := req
		req.Fresh = m.Fresh
		wg.Go(func() {
			if err := h.sendTo(ctx, p.view, m, &req, sent); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = errors.Join(errs, fmt.Errorf("%s: %w", m.Node, err))
			}
		})
	}
	wg.Wait()
	return errs
}

// sendTo gives a copy to one, or has it distrusted.
func (h *Holder) sendTo(ctx context.Context, v *view, m cache.Member, req *request, sent *atomic.Bool) error {
	bound, cancel := context.WithTimeout(ctx, copyWait)
	defer cancel()
	var err error
	for bound.Err() == nil && !h.peers.isBehind(m) {
		var a answer
		a, err = h.peers.do(bound, m, req)
		if err != nil && !errors.Is(err, errNotSent) || err == nil && !a.Moved {
			sent.Store(true)
		}
		if err == nil && !a.Moved {
			return a.err()
		}
		if now := h.view.Load(); now != v { // by another view it may be another's, or not needed
			return errAgain
		}
		if err != nil {
			break // whether it has it is not known
		}
		pause(bound, copyRetry)
	}
	if ctx.Err() != nil {
		h.peers.setBehind(m)
		return context.Cause(ctx)
	}
	h.peers.setBehind(m)
	return h.distrust(ctx, m)
}

// distrust has a member's copies not count any more.
func (h *Holder) distrust(ctx context.Context, m cache.Member) error {
	ctx, cancel := context.WithTimeout(ctx, distrustWait)
	defer cancel()
	for {
		v := h.view.Load()
		if v == nil {
			return meta.Expired
		}
		if now, is := v.members[m.Session]; !is || now.Fresh != m.Fresh {
			return nil
		}
		if err := h.call(ctx, cache.OpDistrust, cache.Distrust{Session: m.Session, Fresh: m.Fresh}, nil); err != nil {
			pause(ctx, callRetry)
		} else {
			h.cfg.Log.Warn("cache: a machine did not take copies in time; those that it has do not count", "machine", m.Node)
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// copied takes a copy, if this process and the owner that sends it agree on what it is
// part of. h.mu is held.
func (h *Holder) copied(p place, req *request) answer {
	r, n := p.view.ring(), p.bucket.Settings.Replicas
	if r.Epoch != req.Epoch || p.bucket.Placed != req.Placed || p.view.members[h.me].Fresh != req.Fresh || r.Owner(p.hash) != req.Owner || !r.Among(h.me, p.hash, n) {
		return moved()
	}
	var err error
	switch req.Op {
	case opCopySet:
		as := request{Op: opSet, TTL: req.TTL}
		w := entries.Write{Version: req.Version, Quiet: true, Expires: as.expires()}
		_, err = h.entries.Set(p.at, req.Key, req.Value, w)
		if errors.Is(err, entries.ErrTooLarge) { // there is no room: it is as if evicted
			h.entries.Forget(p.at, req.Key)
			err = nil
		}
	case opCopyDelete:
		h.entries.Forget(p.at, req.Key)
	case opCopyExpire:
		if err = h.entries.Expire(p.at, req.Key, req.expires()); errors.Is(err, entries.ErrMiss) {
			err = nil
		}
	}
	if err != nil {
		return failed(err)
	}
	return answer{}
}
