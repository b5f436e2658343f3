package cache

import (
	"context"
	"fmt"
	"sync"
	"time"

	entries "dos/chunk/cache"
	"dos/meta"
	"dos/meta/cache"
	"dos/meta/state"
)

// A party is who asks by one stream: it may have rights to fill, which end with it.
type party struct {
	mu    sync.Mutex
	fills map[uint64]*entries.Fill // by number; nil when it is over; guarded by mu
}

func newParty() *party { return &party{fills: make(map[uint64]*entries.Fill)} }

// end gives up what it has.
func (p *party) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.fills {
		f.Abandon()
	}
	p.fills = nil
}

func (p *party) put(n uint64, f *entries.Fill) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fills == nil {
		f.Abandon()
		return
	}
	p.fills[n] = f
}

func (p *party) get(n uint64, take bool) *entries.Fill {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fills[n]
	if take {
		delete(p.fills, n)
	}
	return f
}

// A place is where a request belongs by a view.
type place struct {
	view   *view
	bucket cache.Bucket
	at     entries.Bucket
	hash   uint64
}

// find finds the place of a request. It is found if this process answers for its key,
// unless others still may: then pending. h.mu is held.
func (h *Holder) find(req *request) (p place, found, pending bool) {
	p.view = h.view.Load()
	if p.view == nil || !h.cfg.Valid() {
		return p, false, false
	}
	p.bucket, found = p.view.buckets[req.Bucket]
	if !found || p.bucket.Generation != req.Generation {
		return p, false, false
	}
	p.at, p.hash = at(p.bucket), cache.Hash(req.Bucket, req.Key)
	if req.Op == opScan || req.Op == opStats {
		return p, true, false
	}
	if req.Op < opCopySet && p.view.ring().Owner(p.hash) != h.me {
		return p, false, false
	}
	if keep := h.sweep.Load(); keep != nil && !(*keep)(req.Bucket, []byte(req.Key)) {
		h.entries.Forget(p.at, req.Key)
	}
	return p, true, req.Op < opCopySet && !p.view.cleared(h.me, p.hash)
}

// quick executes a request that need not wait for anything. done is false if it has to.
func (h *Holder) quick(by *party, req *request) (a answer, done bool) {
	switch req.Op {
	case opAbandon: // whoever has the key by now
		if f := by.get(req.Fill, true); f != nil {
			f.Abandon()
		}
		return a, true
	case opBucket:
		return h.bucket(req.Key), true
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	p, found, pending := h.find(req)
	switch {
	case !found:
		return moved(), true
	case pending && req.Op.stream() == streamRead:
		return answer{Kind: meta.NotExist, Unsure: true}, true
	case pending || req.Op == opFill:
		return a, false
	case p.bucket.Settings.Replicas > 1 && req.Op.stream() == streamWrite:
		return a, false
	}
	return h.execute(by, p, req), true
}

// bucket says what is known of a bucket here. While the session is not over, what is not
// known here is not in force.
func (h *Holder) bucket(name string) answer {
	v := h.view.Load()
	if v == nil || !h.cfg.Valid() {
		return moved()
	}
	id, is := v.names[name]
	if !is {
		return answer{Kind: meta.NotExist}
	}
	return answer{Value: state.Marshal(v.buckets[id])}
}

// do executes a request. It may wait for what the key needs, or until ctx ends.
func (h *Holder) do(ctx context.Context, by *party, req *request) answer {
	if a, done := h.quick(by, req); done {
		return a
	}
	late := time.NewTimer(waitMax)
	defer late.Stop()
	for {
		v := h.view.Load() // before looking, so that no change is missed
		a, done := h.quick(by, req)
		if done || v == nil {
			return a
		}
		var wait <-chan struct{}
		h.mu.RLock()
		p, found, pending := h.find(req)
		switch {
		case found && !pending && req.Op == opFill:
			a, wait = h.offer(by, p, req)
		}
		h.mu.RUnlock()
		if found && !pending && req.Op != opFill {
			return h.replicated(ctx, by, req)
		}
		if found && !pending && wait == nil {
			return a
		}
		expired := late.C
		if wait != nil {
			expired = nil // somebody provides it, and will end
		}
		select {
		case <-wait:
		case <-v.changed:
		case <-expired:
			return moved()
		case <-ctx.Done():
			return failed(fmt.Errorf("%w: %w", meta.TimedOut, context.Cause(ctx)))
		}
	}
}

// offer gives the entry, or the right to provide it, or what to wait for.
func (h *Holder) offer(by *party, p place, req *request) (answer, <-chan struct{}) {
	e, f, wait, err := h.entries.TryFill(p.at, req.Key, nil)
	switch {
	case err != nil:
		return failed(err), nil
	case f != nil:
		n := h.fill.Add(1)
		by.put(n, f)
		return answer{Fill: n}, nil
	}
	if wait != nil && req.NoWait {
		return answer{Kind: meta.WouldWait}, nil
	}
	return found(e), wait
}

func found(e entries.Entry) answer {
	a := answer{Value: e.Value, Size: len(e.Value), Version: e.Version}
	if !e.Expires.IsZero() {
		a.TTL = max(1, time.Until(e.Expires))
	}
	return a
}

// execute executes a request here alone. h.mu is held.
func (h *Holder) execute(by *party, p place, req *request) (a answer) {
	var err error
	switch req.Op {
	case opGet:
		var e entries.Entry
		if e, err = h.entries.Get(p.at, req.Key, nil); err == nil {
			return found(e)
		}
	case opStat:
		e, size, err := h.entries.Stat(p.at, req.Key)
		if err == nil {
			a = found(e)
			a.Size = size
		} else {
			a = failed(err)
		}
		a.Known = p.view.version
		return a
	case opScan:
		return h.scan(p, req)
	case opStats:
		return h.stats(p)
	case opSet:
		a.Version, err = h.entries.Set(p.at, req.Key, req.Value, req.write())
	case opDelete:
		err = h.entries.Delete(p.at, req.Key, req.If)
	case opExpire:
		err = h.entries.Expire(p.at, req.Key, req.expires())
	case opIncr:
		a.Sum, err = h.entries.Incr(p.at, req.Key, req.By)
	case opCommit:
		f := by.get(req.Fill, true)
		if f == nil {
			return answer{Kind: meta.Conflict, Text: "the right to provide the value is over"}
		}
		a.Version, err = f.Commit(req.Value, req.write())
	case opCopySet, opCopyDelete, opCopyExpire:
		return h.copied(p, req)
	default:
		return answer{Kind: meta.Unsupported, Text: fmt.Sprintf("cache: operation %d", req.Op)}
	}
	if err != nil {
		return failed(err)
	}
	return a
}

// forever is the time to live of what does not expire in a bucket whose entries do.
const forever = 100 * 365 * 24 * time.Hour

// expires is when the entry of a write does; zero: as the bucket says.
func (r *request) expires() time.Time {
	switch {
	case r.TTL > 0:
		return time.Now().Add(r.TTL)
	case r.TTL < 0 && r.Op == opSet, r.TTL < 0 && r.Op == opCommit:
		return time.Now().Add(forever)
	}
	return time.Time{}
}

func (r *request) write() entries.Write {
	return entries.Write{Expires: r.expires(), Keep: r.Keep, Add: r.Add, Replace: r.Replace, If: r.If, Version: r.Version}
}

// scan lists keys that are this process's own.
func (h *Holder) scan(p place, req *request) (a answer) {
	keys, next, err := h.entries.Scan(p.at, req.From, min(max(req.Limit, 1), scanMax))
	if err != nil {
		return failed(err)
	}
	a.Next = next
	keep := h.sweep.Load()
	for _, key := range keys {
		if p.view.ring().Owner(cache.Hash(p.bucket.ID, key)) == h.me && (keep == nil || (*keep)(p.bucket.ID, []byte(key))) {
			a.Keys = append(a.Keys, key)
		}
	}
	return a
}

// scanMax bounds the chains that one Scan looks at: their keys fit a frame, as a rule.
const scanMax = 1024

// stats counts what is here.
func (h *Holder) stats(p place) answer {
	s, err := h.entries.Stats(p.at)
	if err != nil {
		return failed(err)
	}
	used, limit := h.entries.Memory()
	return answer{Stats: &Stats{
		Node: h.cfg.Node, Items: s.Items + s.DiskItems, Bytes: s.Bytes, DiskItems: s.DiskItems, DiskBytes: s.DiskBytes,
		Hits: s.Hits, Misses: s.Misses, Evictions: s.Evictions, Expired: s.Expired, Used: used, Limit: limit,
	}}
}
