package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"

	entries "dos/chunk/cache"
	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/cache"
)

// A Change is what happened to an entry.
type Change uint8

// The changes.
const (
	WasSet     Change = 1 + iota
	WasDeleted        // somebody deleted it
	HasExpired        // its time was over
	WasEvicted        // it had to make room
	WasCleared        // all entries of the bucket at once; there is no key
	WereMissed        // Count events are not told: who watches was too slow
	WasLost           // a machine came or went: some entries may be gone; there is no key
)

// An Event is a change of a bucket.
type Event struct {
	Change  Change `cbor:"1,keyasint,omitempty"`
	Key     string `cbor:"2,keyasint,omitempty"`
	Version uint64 `cbor:"3,keyasint,omitempty"` // of the entry that was written or is gone
	Count   uint64 `cbor:"4,keyasint,omitempty"`
}

// eventsMax bounds the events in one frame, and those that wait for a Watch.
const eventsMax = 1024

// An ownWatch watches a bucket on this machine: what happens to keys that are its own.
type ownWatch struct {
	h      *Holder
	bucket uint64
	events *entries.Watcher
}

func (h *Holder) watch(what wanted) (*ownWatch, error) {
	w, err := h.entries.Watch(entries.Bucket{ID: what.Bucket, Generation: what.Generation})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", meta.Unavailable, err)
	}
	return &ownWatch{h, what.Bucket, w}, nil
}

func (w *ownWatch) close() { w.events.Close() }

// next waits for events. meta.NotExist says that the bucket was removed.
func (w *ownWatch) next(ctx context.Context) ([]Event, error) {
	for {
		e, err := w.events.Next(ctx)
		switch {
		case errors.Is(err, entries.ErrUnknown):
			return nil, meta.NotExist
		case err != nil:
			return nil, err
		}
		v := w.h.view.Load()
		if v == nil {
			return nil, meta.Unavailable
		}
		if e.Key == "" || v.ring().Owner(cache.Hash(w.bucket, e.Key)) == w.h.me {
			return []Event{{Change: Change(e.Change), Key: e.Key, Version: e.Version, Count: e.Count}}, nil
		}
	}
}

// A Watch is told what happens in a bucket, on all machines. Events of one key come in
// order. It is for one goroutine, which closes it.
type Watch struct {
	events chan Event
	cancel context.CancelFunc
	ended  sync.WaitGroup
	gone   chan struct{} // closed when the bucket is
	once   sync.Once
}

// Watch begins to watch a bucket; with the return what happens is seen.
func (c *Client) Watch(ctx context.Context, bucket string) (*Watch, error) {
	if c.cfg.Relay != nil {
		return nil, fmt.Errorf("cache: events are not passed on; watch with --cluster, or at a mount: %w", meta.Unsupported)
	}
	b, err := c.Bucket(ctx, bucket)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.Background())
	w := &Watch{events: make(chan Event, eventsMax), cancel: cancel, gone: make(chan struct{})}
	begun := make(chan struct{})
	w.ended.Go(func() { w.run(running, c, b, begun) })
	select {
	case <-begun:
		return w, nil
	case <-ctx.Done():
		w.Close()
		return nil, context.Cause(ctx)
	}
}

// Next waits for an event. meta.NotExist says that the bucket was removed.
func (w *Watch) Next(ctx context.Context) (Event, error) {
	select {
	case e := <-w.events:
		return e, nil
	default:
	}
	select {
	case e := <-w.events:
		return e, nil
	case <-w.gone:
		return Event{}, meta.NotExist
	case <-ctx.Done():
		return Event{}, context.Cause(ctx)
	}
}

// Close ends the watching.
func (w *Watch) Close() {
	w.cancel()
	w.ended.Wait()
}

// run watches each member, until ctx ends.
func (w *Watch) run(ctx context.Context, c *Client, b cache.Bucket, begun chan struct{}) {
	type one struct {
		cancel context.CancelFunc
		done   chan struct{}
	}
	watched := make(map[meta.SessionID]one)
	defer func() {
		for _, o := range watched {
			o.cancel()
			<-o.done
		}
	}()
	first := true
	for ctx.Err() == nil {
		v, err := c.look(ctx)
		if err != nil {
			pause(ctx, callRetry)
			continue
		}
		now, is := v.buckets[b.ID]
		if !is {
			w.once.Do(func() { close(w.gone) })
			return
		}
		b = now
		var wait sync.WaitGroup
		changed := false
		for s, o := range watched {
			if _, is := v.members[s]; is {
				select {
				case <-o.done: // it broke
				default:
					continue
				}
			}
			o.cancel()
			<-o.done
			delete(watched, s)
			changed = true
		}
		for s, m := range v.members {
			if _, is := watched[s]; is {
				continue
			}
			running, cancel := context.WithCancel(ctx)
			o := one{cancel, make(chan struct{})}
			watched[s] = o
			ready := make(chan struct{})
			w.ended.Go(func() {
				defer close(o.done)
				w.member(running, c, m, b, sync.OnceFunc(func() { close(ready) }))
			})
			wait.Go(func() {
				select {
				case <-ready:
				case <-o.done:
				}
			})
			changed = true
		}
		wait.Wait()
		if first {
			close(begun)
		} else if changed {
			w.tell(ctx, Event{Change: WasLost})
		}
		first = false
		again, stop := context.WithTimeout(ctx, silence)
		select {
		case <-v.changed:
		case <-again.Done(): // one may have broken
		}
		stop()
	}
}

// tell waits for room, so that nothing is lost; who is too slow is told by the entries'
// own watchers how much he missed.
func (w *Watch) tell(ctx context.Context, e Event) {
	select {
	case w.events <- e:
	case <-ctx.Done():
	}
}

// member watches one member until that breaks.
func (w *Watch) member(ctx context.Context, c *Client, m cache.Member, b cache.Bucket, ready func()) {
	what := wanted{b.ID, b.Generation}
	if h := c.local(m); h != nil {
		own, err := h.watch(what)
		if err != nil {
			return
		}
		defer own.close()
		ready()
		for {
			list, err := own.next(ctx)
			if err != nil {
				return
			}
			for _, e := range list {
				w.tell(ctx, e)
			}
		}
	}
	if c.cfg.Lines == nil {
		return
	}
	line, err := c.cfg.Lines.Line(m)
	if err != nil {
		return
	}
	s, err := line.Open(ctx, serviceName, streamWatch)
	if err != nil || s.Send(&rpc.Frame{Header: rpc.Encode(what)}) != nil {
		return
	}
	for {
		var f rpc.Frame
		if s.Recv(&f) != nil {
			return
		}
		list, err := decode[Event](&f)
		if err != nil {
			return
		}
		ready()
		for _, e := range list {
			w.tell(ctx, e)
		}
	}
}
