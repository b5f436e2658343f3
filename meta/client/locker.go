package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"dos/meta"
	"dos/meta/lock"
)

const (
	// graceTime is how long a wait that was interrupted keeps its place: programs
	// are interrupted all the time and go on waiting at once.
	graceTime = time.Second
	// choreEvery is the pause between two looks for waits that were abandoned and
	// for locks that could not be given up.
	choreEvery = 250 * time.Millisecond
	// awaitPatience bounds one question after what the session waits for. A member
	// answers well before that.
	awaitPatience = 7 * time.Second
)

// A Locker has the locks of files of one client (package fuse's Locks). It waits for them
// with one question for all, and sees to it that what nobody wants any more is
// given up, however often that takes. When its session ends, which Fenced tells
// it, each owner who had or waited for something is told meta.Expired until what
// he has is dropped: he must not go on as if he had it still. Commands of one
// owner may be under way at once. Its methods may be called concurrently, Run once.
type Locker struct {
	caller  Caller
	session func() meta.SessionID
	came    chan struct{} // of one: something is waited for
	chore   chan struct{} // of one: something is to be given up

	mu      sync.Mutex // guards all below and in holders
	holders map[lockOwner]*holder
	places  map[uint64]*wanting // not over yet, by number
	last    lock.Waiting        // the latest answer
	epoch   uint64              // how many sessions have ended
	ended   bool                // nobody asks for what is waited for any more
}

type lockOwner struct {
	ino    meta.Ino
	kind   meta.LockKind
	number uint64
}

// A holder is an owner who may have something on an inode.
type holder struct {
	lockOwner
	turn *semaphore.Weighted // shared by commands; alone, by what gives up

	waits   map[meta.Lock]*wanting // without a PID
	stale   []uint64               // places to be given up
	gone    bool                   // all is to be given up
	lost    bool                   // a session that it had something in has ended
	holds   bool                   // there may be something to give up
	flying  int                    // commands under way
	started int                    // commands so far
}

const alone = 1 << 30

// A wanting is a place in a queue, or the lock that came of it.
type wanting struct {
	number uint64
	done   chan struct{} // closed when it is over
	err    error         // why without the lock; set before done is closed
	here   int           // how many wait for it
	left   time.Time     // when the last of them went
}

// NewLocker returns a Locker for the session, the one of the moment, that c
// speaks for. It waits for nothing until it Runs.
func NewLocker(c Caller, session func() meta.SessionID) *Locker {
	return &Locker{
		caller: c, session: session, came: make(chan struct{}, 1), chore: make(chan struct{}, 1),
		holders: make(map[lockOwner]*holder), places: make(map[uint64]*wanting),
	}
}

func (k *Locker) locks() Locks { return Locks{k.caller, k.session()} }

// Fenced is told that the session has ended, before the next one begins.
func (k *Locker) Fenced() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lose()
}

// Try takes, changes or, with mode Unlocked, gives up a lock. It is meta.Busy if
// another owner is in the way.
func (k *Locker) Try(ctx context.Context, l meta.Lock) error {
	out, err := k.set(ctx, l, false, nil)
	if err == nil && out.Busy {
		err = meta.Busy
	}
	return err
}

// Wait takes a lock, and waits for it until ctx ends; only the waiting looks at
// ctx. A wait that has ended so keeps its place for a second: who waits again for
// the same goes on where he was. It is meta.Deadlock if waiting would never end,
// and meta.Conflict if the owner's locks are dropped meanwhile.
func (k *Locker) Wait(ctx context.Context, l meta.Lock) error {
	var w *wanting
	_, err := k.set(context.WithoutCancel(ctx), l, true, &w)
	if err != nil || w == nil {
		return err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	if err = k.claim(ctx, l, w); err == nil && l.Kind == meta.Record && l.Mode == meta.Shared {
		// What of it was exclusive before is so until its owner asks again. Others
		// wait for that in vain, he does not: so it is no error of his if it fails.
		_ = k.Try(context.WithoutCancel(ctx), l)
	}
	return err
}

// claim ends one's waiting for w.
func (k *Locker) claim(ctx context.Context, l meta.Lock, w *wanting) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	w.here--
	select {
	case <-w.done:
		if h := k.holders[ownerOf(l)]; h != nil && h.waits[nameless(l)] == w {
			delete(h.waits, nameless(l)) // whoever waits for it too has it as well
		}
		return w.err
	default:
		w.left = time.Now()
		signal(k.chore)
		return context.Cause(ctx)
	}
}

// Drop gives up all that an owner has and waits for on an inode. If that fails
// it is tried again until it is done; the owner gets nothing before.
func (k *Locker) Drop(ctx context.Context, ino meta.Ino, kind meta.LockKind, number uint64) error {
	k.mu.Lock()
	h := k.holders[lockOwner{ino, kind, number}]
	if h == nil {
		k.mu.Unlock()
		return nil
	}
	h.gone = true
	k.mu.Unlock()
	err := k.tidy(ctx, h)
	if err != nil {
		signal(k.chore)
	}
	return err
}

// Test returns the lock that is in the way of l, with mode Unlocked if there is
// none. It has no PID if it is another session's.
func (k *Locker) Test(ctx context.Context, l meta.Lock) (meta.Lock, error) {
	locks := k.locks()
	in, err := locks.Test(ctx, l)
	if in.Session != locks.Session {
		in.Lock.PID = 0
	}
	return in.Lock, err
}

func ownerOf(l meta.Lock) lockOwner { return lockOwner{l.Ino, l.Kind, l.Owner} }

// nameless is what a wait is known by: threads of a process may take turns.
func nameless(l meta.Lock) meta.Lock {
	l.PID = 0
	return l
}

// set sends one lock.Set. With to, a place that comes of it, or that there is
// already, is returned there, for one more who waits.
func (k *Locker) set(ctx context.Context, l meta.Lock, wait bool, to **wanting) (lock.Outcome, error) {
	h, err := k.enter(ctx, l, wait)
	if err != nil {
		return lock.Outcome{}, err
	}
	defer h.turn.Release(1)
	key := nameless(l)
	k.mu.Lock()
	if w := h.waits[key]; wait && w != nil {
		w.here++
		*to = w
		k.mu.Unlock()
		return lock.Outcome{}, nil
	}
	held := h.holds
	h.holds = true
	h.flying++
	h.started++
	mine, epoch := h.started, k.epoch
	k.mu.Unlock()

	out, err := k.locks().Set(ctx, l, wait)

	k.mu.Lock()
	defer k.mu.Unlock()
	calm := h.flying == 1 && h.started == mine // nothing else was under way
	h.flying--
	switch {
	case k.epoch != epoch:
		h.lost = true // whichever session it was in
		return out, errLost
	case errors.Is(err, meta.Expired):
		h.holds = held
		k.lose()
	case calm && !held && (out.Busy || isRefusal(err)):
		h.holds = false
	case calm && err == nil && l.Mode == meta.Unlocked && l.First == 0 && l.Last == meta.LockEnd && len(h.waits) == 0:
		h.holds = false
	case err == nil && out.Wait != 0:
		*to = k.place(h, key, out.Wait)
	}
	return out, err
}

// isRefusal reports whether err is the service's, which changed nothing.
func isRefusal(err error) bool {
	return errors.Is(err, meta.Deadlock) || errors.Is(err, meta.Quota) || errors.Is(err, meta.Invalid)
}

// enter returns the holder of l with a share of its turn, when nothing of it
// that is not wanted any more is left.
func (k *Locker) enter(ctx context.Context, l meta.Lock, wait bool) (*holder, error) {
	o := ownerOf(l)
	for {
		k.mu.Lock()
		h := k.holders[o]
		if h == nil {
			h = &holder{lockOwner: o, turn: semaphore.NewWeighted(alone), waits: make(map[meta.Lock]*wanting)}
			k.holders[o] = h
		}
		if h.lost && !h.gone {
			k.mu.Unlock()
			return nil, errLost
		}
		for key, w := range h.waits {
			if w.here == 0 && !(wait && key == nameless(l)) {
				k.abandon(h, key, w)
			}
		}
		k.mu.Unlock()
		if err := k.tidy(ctx, h); err != nil {
			return nil, err
		}
		if err := h.turn.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		k.mu.Lock()
		there := k.holders[o] == h && !h.gone && !h.lost && len(h.stale) == 0
		k.mu.Unlock()
		if there {
			return h, nil
		}
		h.turn.Release(1)
	}
}

// place notes a place in a queue. k.mu is held.
func (k *Locker) place(h *holder, key meta.Lock, number uint64) *wanting {
	w := h.waits[key]
	if w == nil || w.number != number {
		w = &wanting{number: number, done: make(chan struct{})}
		h.waits[key] = w
		switch {
		case number <= k.last.Last && !slices.Contains(k.last.Waits, number):
			close(w.done) // it was granted before we heard that there was a place
		case k.ended:
			k.finish(w, errEnded)
		default:
			k.places[number] = w
			signal(k.came)
		}
	}
	w.here++
	return w
}

// abandon makes a wait one that is to be given up. k.mu is held.
func (k *Locker) abandon(h *holder, key meta.Lock, w *wanting) {
	delete(h.waits, key)
	delete(k.places, w.number)
	h.stale = append(h.stale, w.number)
}

// tidy gives up what h is to give up.
func (k *Locker) tidy(ctx context.Context, h *holder) error {
	k.mu.Lock()
	nothing := !h.gone && len(h.stale) == 0
	k.mu.Unlock()
	if nothing {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, errPatience)
	defer cancel()
	if err := h.turn.Acquire(ctx, alone); err != nil {
		return fmt.Errorf("giving up locks of inode %d: %w", h.ino, context.Cause(ctx))
	}
	defer h.turn.Release(alone)

	k.mu.Lock()
	if k.holders[h.lockOwner] != h { // it is all given up, and the number may be another's by now
		k.mu.Unlock()
		return nil
	}
	gone, stale, holds := h.gone, slices.Clone(h.stale), h.holds
	if gone {
		for key, w := range h.waits {
			delete(h.waits, key)
			delete(k.places, w.number)
			k.finish(w, meta.Conflict)
		}
	}
	k.mu.Unlock()

	var err error
	if gone {
		if holds {
			err = k.locks().Drop(ctx, h.ino, h.kind, h.number)
		}
	} else {
		for _, number := range stale {
			if err = k.locks().Cancel(ctx, h.ino, number, h.kind, h.number); err != nil {
				break
			}
		}
	}
	if errors.Is(err, meta.Expired) {
		err = nil
	}
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if gone {
		delete(k.holders, h.lockOwner)
	} else {
		h.stale = h.stale[min(len(stale), len(h.stale)):]
	}
	return nil
}

// finish ends a wait. k.mu is held.
func (k *Locker) finish(w *wanting, err error) {
	select {
	case <-w.done:
	default:
		w.err = err
		close(w.done)
	}
}

var (
	errLost  = fmt.Errorf("the locks were lost: %w", meta.Expired)
	errEnded = fmt.Errorf("nobody waits for locks any more: %w", meta.Unavailable)
)

// lose notes that all is lost that anybody has or waits for. k.mu is held.
func (k *Locker) lose() {
	k.epoch++
	k.last = lock.Waiting{}
	for number, w := range k.places {
		delete(k.places, number)
		k.finish(w, errLost)
	}
	for _, h := range k.holders {
		h.lost = h.lost || h.holds
		h.stale = nil
		clear(h.waits)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run asks what became of waits, and gives up what is abandoned, until ctx ends.
// Waits under way end with it.
func (k *Locker) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { k.chores(ctx) })
	k.poll(ctx)
	wg.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = true
	for number, w := range k.places {
		delete(k.places, number)
		k.finish(w, errEnded)
	}
	return nil
}

// poll asks as long as something is waited for.
func (k *Locker) poll(ctx context.Context) {
	heard := time.Now()
	for ctx.Err() == nil {
		k.mu.Lock()
		idle, seen, epoch := len(k.places) == 0, k.last, k.epoch
		k.mu.Unlock()
		if idle {
			select {
			case <-k.came:
			case <-ctx.Done():
			}
			heard = time.Now()
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, awaitPatience)
		now, err := k.locks().Await(attempt, seen)
		cancel()
		if err == nil {
			heard = time.Now()
		}
		k.heard(epoch, now, err, time.Since(heard) > Patience)
		if err != nil || now.Grants == seen.Grants { // a service that does not hold its answers back is not asked without pause
			pause := time.NewTimer(pauseMin)
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
			pause.Stop()
		}
	}
}

// heard ends the waits that an answer, or its absence, says are over.
func (k *Locker) heard(epoch uint64, now lock.Waiting, err error, silent bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.epoch != epoch: // it is about another session
	case errors.Is(err, meta.Expired):
		k.lose()
	case err == nil:
		k.last = now
		for number, w := range k.places {
			if number <= now.Last && !slices.Contains(now.Waits, number) {
				delete(k.places, number)
				k.finish(w, nil)
			}
		}
	case silent:
		for _, h := range k.holders {
			for key, w := range h.waits {
				if k.places[w.number] == w {
					k.abandon(h, key, w)
					k.finish(w, fmt.Errorf("waiting for a lock: nothing heard for %v: %w", Patience, meta.Unavailable))
				}
			}
		}
		signal(k.chore)
	}
}

// chores gives up what is abandoned.
func (k *Locker) chores(ctx context.Context) {
	for {
		select {
		case <-k.chore:
		case <-ctx.Done():
			return
		}
		for k.work(ctx) {
			pause := time.NewTimer(choreEvery)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return
			}
		}
	}
}

// work does what there is to do, and reports whether there is more to come.
func (k *Locker) work(ctx context.Context) (more bool) {
	var due []*holder
	k.mu.Lock()
	for _, h := range k.holders {
		for key, w := range h.waits {
			switch {
			case w.here > 0:
			case time.Since(w.left) >= graceTime:
				k.abandon(h, key, w)
			default:
				more = true
			}
		}
		if h.gone || len(h.stale) > 0 {
			due = append(due, h)
		}
	}
	k.mu.Unlock()
	for _, h := range due {
		if k.tidy(ctx, h) != nil {
			more = true
		}
	}
	return more
}
