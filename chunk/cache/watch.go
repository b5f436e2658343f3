package cache

import (
	"context"
	"slices"
)

// A Change is what happened to an entry.
type Change uint8

// The changes.
const (
	Set    Change = 1 + iota
	Del           // somebody deleted it
	Expire        // its time was over
	Evict         // it had to make room
	Clear         // all entries at once; there is no key
	Missed        // the watcher was too slow: Count events are not told
)

// An Event is one change of a bucket.
type Event struct {
	Change  Change
	Key     string
	Version uint64 // of the entry that was written or is gone
	Count   uint64 // of Missed
}

// eventsMax is how many events wait for a watcher: what a busy bucket does while a
// reader is scheduled, at some 100 KiB.
const eventsMax = 1024

// A Watcher is told what happens in one bucket on this node, also after it was
// cleared. It is for one goroutine.
type Watcher struct {
	c    *Cache
	b    *bucket
	wake chan struct{} // has room for one

	// Guarded by Cache.mu.
	events []Event
	missed uint64
	err    error
}

// Watch begins to watch. The caller closes the Watcher.
func (c *Cache) Watch(at Bucket) (*Watcher, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.enter(at)
	if err != nil {
		return nil, err
	}
	w := &Watcher{c: c, b: b, wake: make(chan struct{}, 1)}
	b.watchers = append(b.watchers, w)
	return w, nil
}

// Next returns the next event, for which it waits. ErrClosed when the cache or the
// Watcher is closed, ErrUnknown when the bucket is dropped.
func (w *Watcher) Next(ctx context.Context) (Event, error) {
	for {
		if e, ok, err := w.take(); ok || err != nil {
			return e, err
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

func (w *Watcher) take() (e Event, ok bool, err error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	switch {
	case len(w.events) > 0:
		e = w.events[0]
		w.events = w.events[1:]
		return e, true, nil
	case w.missed > 0:
		e = Event{Change: Missed, Count: w.missed}
		w.missed = 0
		return e, true, nil
	}
	return Event{}, false, w.err
}

// Close ends the watching.
func (w *Watcher) Close() {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.b.watchers = slices.DeleteFunc(w.b.watchers, func(o *Watcher) bool { return o == w })
	w.end(ErrClosed)
}

func (w *Watcher) end(err error) {
	if w.err == nil {
		w.err = err
	}
	w.ring()
}

func (w *Watcher) ring() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (b *bucket) endWatchers(err error) {
	for _, w := range b.watchers {
		w.end(err)
	}
	b.watchers = nil
}

// tell tells b's watchers. A watcher that missed something is told so before anything
// that came later: until it has taken all that it has, it is told nothing new.
func (c *Cache) tell(b *bucket, change Change, key []byte, version uint64) {
	if len(b.watchers) == 0 {
		return
	}
	e := Event{Change: change, Key: string(key), Version: version}
	for _, w := range b.watchers {
		if w.missed > 0 || len(w.events) >= eventsMax {
			w.missed++
			continue
		}
		w.events = append(w.events, e)
		w.ring()
	}
}
