package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"dos/meta"
	"dos/meta/named"
)

const (
	// idleTime is how long a lock that was lent stays here when nobody uses it.
	idleTime = 5 * time.Second
	// awayMax is how long one waits for whom a lock is lent to where there is an
	// answer without that.
	awayMax = 2 * time.Second
)

// A Stay is the session that a client is in at the moment (Presence).
type Stay interface {
	Caller
	Session() meta.SessionID
	// Trust returns when the session is certainly not over.
	Trust(ctx context.Context) error
}

// Always is the Stay of a session without an end, in the process of the service.
func Always(c Caller, id meta.SessionID) Stay { return always{c, id} }

type always struct {
	Caller
	id meta.SessionID
}

func (a always) Session() meta.SessionID       { return a.id }
func (always) Trust(ctx context.Context) error { return nil }

// Named has the named locks of one client:
//
//	held, err := locks.Lock(ctx, "deploy", client.How{})
//	if err != nil {
//		return err
//	}
//	defer held.Unlock(ctx)
//
// It hears from the service with one question for all of them. A lock that only
// this client uses is lent to it (package named), so that locking it again costs
// nothing; it goes back when somebody else wants it, or when it was not used for
// some seconds. When the session ends, all is lost, and who had something is
// told (Held.Lost). Its methods may be called concurrently, Run once.
type Named struct {
	stay  Stay
	came  chan struct{} // of one: there is something to hear of
	chore chan struct{} // of one: something is to be given up

	mu     sync.Mutex // guards all below, in names and in claims
	last   uint64     // number of a claim
	seen   uint64     // news
	epoch  uint64     // how many sessions have ended
	names  map[string]*name
	claims map[uint64]*Held
	owners map[uint64]map[*Held]bool // those with an owner
	stale  []*Held                   // to be given up
}

// A name is a lock that somebody here is concerned with.
type name struct {
	text string
	// turn is shared by who asks and gives up; alone, by who returns the lock.
	turn   *semaphore.Weighted
	loan   *named.Lock
	until  uint64 // the last token of the loan
	used   time.Time
	claims map[*Held]bool
	users  int // of the name, so that it is not forgotten
}

// How says how a lock is asked for.
type How struct {
	Shared bool
	// ID makes the lock belong to the ID, for TTL: it is not given up with the
	// Held or the session.
	ID  string
	TTL time.Duration
	Who named.Who
	// Owner, if it is not zero, is who waits. If owners wait for each other, the
	// last to wait gets meta.Deadlock.
	Owner uint64
	// Stuck says whether the owner cannot go on, and so give up something else that
	// it has, before it has the lock. Nil: it cannot.
	Stuck func() bool
}

func (h How) stuck() bool { return h.Owner != 0 && (h.Stuck == nil || h.Stuck()) }

// A Held is a claim of a lock: it is held, or waited for.
type Held struct {
	locks  *Named
	name   *name
	number uint64
	how    How
	epoch  uint64

	decided chan struct{} // closed when it is granted or lost
	lost    chan struct{} // closed when it is over without Unlock
	token   uint64        // once granted
	over    bool          // given up, or being so
}

// NewNamed returns the named locks of the session of the moment. Nothing is heard
// of what is waited for until it Runs.
func NewNamed(s Stay) *Named {
	return &Named{
		stay: s, came: make(chan struct{}, 1), chore: make(chan struct{}, 1), names: make(map[string]*name),
		claims: make(map[uint64]*Held), owners: make(map[uint64]map[*Held]bool),
	}
}

// Lock waits until it has the lock, or ctx ends.
func (k *Named) Lock(ctx context.Context, lock string, how How) (*Held, error) {
	h, err := k.Claim(ctx, lock, how)
	if err != nil {
		return nil, err
	}
	if err := h.Wait(ctx); err != nil {
		_ = h.Unlock(context.WithoutCancel(ctx)) // it is tried until it is done
		return nil, err
	}
	return h, nil
}

// TryLock takes a lock if nobody is in the way; else it is meta.Busy.
func (k *Named) TryLock(ctx context.Context, lock string, how How) (*Held, error) {
	return k.claim(ctx, lock, how, false)
}

// Claim asks for a lock and, if it is not free, takes a place in its queue.
func (k *Named) Claim(ctx context.Context, lock string, how How) (*Held, error) {
	return k.claim(ctx, lock, how, true)
}

func (k *Named) claim(ctx context.Context, lock string, how How, wait bool) (_ *Held, err error) {
	if err := named.Valid(lock); err != nil {
		return nil, err
	}
	if err := k.stay.Trust(ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	n := k.enter(lock)
	k.last++
	h := &Held{locks: k, name: n, number: k.last, how: how, epoch: k.epoch, decided: make(chan struct{}), lost: make(chan struct{})}
	n.claims[h] = true
	k.claims[h.number] = h
	if how.Owner != 0 {
		if k.owners[how.Owner] == nil {
			k.owners[how.Owner] = make(map[*Held]bool)
		}
		k.owners[how.Owner][h] = true
	}
	k.mu.Unlock()
	granted, err := h.ask(ctx, wait)
	k.mu.Lock()
	defer k.mu.Unlock()
	there := err == nil && (granted || wait) || err != nil && !refused(err) // perhaps
	switch {
	case err == nil && h.epoch != k.epoch:
		err = errLost
	case err == nil && !granted && !wait:
		err = meta.Busy
	case err == nil && !granted && h.circle():
		err = fmt.Errorf("lock %q: %w", lock, meta.Deadlock)
	}
	if err != nil {
		h.over = true
		if !there || h.leaveHere() {
			k.forget(h)
		} else {
			k.stale = append(k.stale, h)
			signal(k.chore)
		}
		return nil, err
	}
	return h, nil
}

// enter returns a name, which leave lets go. k.mu is held.
func (k *Named) enter(text string) *name {
	n := k.names[text]
	if n == nil {
		signal(k.came)
		n = &name{text: text, turn: semaphore.NewWeighted(alone), claims: make(map[*Held]bool)}
		k.names[text] = n
	}
	n.users++
	return n
}

func (k *Named) leave(n *name) {
	n.used = time.Now()
	if n.users--; n.users == 0 && n.loan == nil && k.names[n.text] == n {
		delete(k.names, n.text)
	}
}

// A Holding is a lock that somebody here holds.
type Holding struct {
	Name   string
	Token  uint64
	Shared bool
	Who    named.Who
}

// Holdings are the locks that are held here, by their names and tokens.
func (k *Named) Holdings() []Holding {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []Holding
	for _, h := range k.claims {
		if h.token != 0 && !h.over {
			list = append(list, Holding{h.name.text, h.token, h.how.Shared, h.how.Who})
		}
	}
	slices.SortFunc(list, func(a, b Holding) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Token, b.Token)) })
	return list
}

// request is the claim as the service knows it.
func (h *Held) request(s meta.SessionID) named.Claim {
	c := named.Claim{Session: s, Number: h.number, Mode: meta.Exclusive, Who: h.how.Who, ID: h.how.ID, TTL: h.how.TTL}
	if h.how.Shared {
		c.Mode = meta.Shared
	}
	return c
}

// ask asks for the lock, here if it is lent to the client, else the service.
func (h *Held) ask(ctx context.Context, wait bool) (granted bool, err error) {
	k, n := h.locks, h.name
	late := time.Now().Add(awayMax)
	for {
		granted, done, spent := h.askHere(wait)
		if done {
			return granted, nil
		}
		if spent {
			if err := k.bring(ctx, n, false); err != nil {
				return false, err
			}
		}
		out, err := h.askService(ctx, wait)
		switch {
		case err != nil:
			return false, err
		case out.Away == 0:
			return out.Token != 0, nil
		case out.Away == k.stay.Session(): // it is on its way here, or was and nobody noticed
			err = k.bring(ctx, n, true)
		case time.Now().After(late):
			return false, nil
		default:
			err = k.awaitReturn(ctx, n.text, late)
		}
		if err != nil {
			return false, err
		}
	}
}

// askHere asks for a lock that is lent to the client; done says that it is. If it
// is spent it must go back first.
func (h *Held) askHere(wait bool) (granted, done, spent bool) {
	k, n := h.locks, h.name
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case n.loan == nil:
		return false, false, false
	case h.how.ID != "", n.loan.Token+uint64(len(n.loan.Waits)) >= n.until:
		return false, false, true
	}
	token, _ := n.loan.Ask(h.request(k.stay.Session()), wait, meta.At(time.Now()))
	if token != 0 {
		h.grant(token)
	}
	return token != 0, true, false
}

// askService asks the service. The outcome is needed: only waiting looks at ctx.
func (h *Held) askService(ctx context.Context, wait bool) (out named.Outcome, err error) {
	k, n := h.locks, h.name
	if err := n.turn.Acquire(ctx, 1); err != nil {
		return out, err
	}
	defer n.turn.Release(1)
	if granted, done, _ := h.askHere(wait); done {
		if granted {
			out.Token = h.token
		}
		return out, nil
	}
	ctx = context.WithoutCancel(ctx)
	err = k.stay.Call(ctx, named.OpAsk, named.Ask{
		Name: n.text, Claim: h.request(k.stay.Session()), Wait: wait, Borrow: h.how.ID == "",
	}, &out)
	if err == nil && !h.asked(out) { // it was asked for in a session that nobody here knows of
		_ = k.stay.Call(ctx, named.OpRelease, named.Release{Name: n.text, Number: h.number}, nil)
		_ = k.stay.Call(ctx, named.OpReturn, named.Return{Locks: []named.Returned{{Name: n.text}}}, nil)
		err = errLost
	}
	return out, err
}

// asked notes what the service said, if it said it to the session of the claim.
func (h *Held) asked(out named.Outcome) bool {
	k := h.locks
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.epoch != k.epoch {
		return false
	}
	if out.Loan != nil {
		h.name.loan, h.name.until = &out.Loan.Lock, out.Loan.Last
	}
	if out.Token != 0 {
		h.grant(out.Token)
	}
	return true
}

// grant notes that the lock is held. k.mu is held.
func (h *Held) grant(token uint64) {
	if h.token == 0 && h.epoch == h.locks.epoch {
		h.token = token
		close(h.decided)
	}
}

// lose notes that it is over. k.mu is held.
func (h *Held) lose() {
	select {
	case <-h.lost:
	default:
		close(h.lost)
		if h.token == 0 {
			close(h.decided)
		}
	}
}

// Wait waits until the lock is held, or ctx ends. Who waits again goes on where he was.
func (h *Held) Wait(ctx context.Context) error {
	select {
	case <-h.decided:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := h.locks.stay.Trust(ctx); err != nil {
		return err
	}
	select {
	case <-h.lost:
		return errLost
	default:
		return nil
	}
}

// Waits reports whether the claim is in the lock's queue still: neither held nor lost.
func (h *Held) Waits() bool {
	select {
	case <-h.decided:
		return false
	default:
		return true
	}
}

// Lost is closed when the lock is not held any more, or not waited for, though
// nobody gave it up.
func (h *Held) Lost() <-chan struct{} { return h.lost }

// Token is the token of the grant, for who checks it. A lock that is lent goes
// back for that: the service then knows the token.
func (h *Held) Token(ctx context.Context) (uint64, error) {
	k := h.locks
	k.mu.Lock()
	lent := h.name.loan != nil
	k.mu.Unlock()
	if lent {
		if err := k.bring(ctx, h.name, false); err != nil {
			return 0, err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.epoch != k.epoch {
		return 0, errLost
	}
	return h.token, nil
}

// Unlock gives the lock up, or the place in its queue. What an ID has stays. If it
// fails it is tried again until it is done.
func (h *Held) Unlock(ctx context.Context) error {
	k, n := h.locks, h.name
	k.mu.Lock()
	if h.over {
		k.mu.Unlock()
		return nil
	}
	h.over = true
	if h.epoch != k.epoch || h.how.ID != "" && h.token != 0 || h.leaveHere() {
		k.forget(h)
		k.mu.Unlock()
		return nil
	}
	k.mu.Unlock()
	err := h.leave(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.stale = append(k.stale, h)
		signal(k.chore)
		return fmt.Errorf("giving lock %q up, which is tried again: %w", n.text, err)
	}
	k.forget(h)
	return nil
}

// leaveHere gives up what is lent to the client. k.mu is held.
func (h *Held) leaveHere() bool {
	k, n := h.locks, h.name
	if n.loan == nil {
		return false
	}
	if _, had := n.loan.Leave(k.stay.Session(), h.number); !had {
		return false
	}
	for _, c := range n.loan.Next(meta.At(time.Now())) {
		if next := k.claims[c.Number]; next != nil {
			next.grant(c.Token)
		}
	}
	return true
}

// leave gives up what the service has.
func (h *Held) leave(ctx context.Context) error {
	k, n := h.locks, h.name
	if err := n.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer n.turn.Release(1)
	k.mu.Lock()
	done := h.epoch != k.epoch || h.leaveHere()
	k.mu.Unlock()
	if done {
		return nil
	}
	err := k.stay.Call(ctx, named.OpRelease, named.Release{Name: n.text, Number: h.number}, nil)
	if errors.Is(err, meta.Expired) {
		return nil
	}
	return err
}

// forget removes a claim. k.mu is held.
func (k *Named) forget(h *Held) {
	if !h.name.claims[h] {
		return
	}
	delete(h.name.claims, h)
	delete(k.claims, h.number)
	if o := k.owners[h.how.Owner]; o != nil {
		if delete(o, h); len(o) == 0 {
			delete(k.owners, h.how.Owner)
		}
	}
	k.leave(h.name)
}

// circle reports whether a claim's owner waits, perhaps through others, for
// itself. k.mu is held.
func (h *Held) circle() bool {
	k, me := h.locks, h.how.Owner
	if h.token != 0 || !h.how.stuck() {
		return false
	}
	seen := make(map[uint64]bool)
	var blocked func(*Held) bool // whether it waits for me
	blocked = func(w *Held) bool {
		for holder := range w.name.claims {
			o := holder.how.Owner
			switch {
			case holder == w || holder.token == 0 || holder.over || o == 0 || seen[o]:
				continue
			case o == me:
				return true
			}
			seen[o] = true
			for next := range k.owners[o] {
				if next.token == 0 && !next.over && next.how.stuck() && blocked(next) {
					return true
				}
			}
		}
		return false
	}
	return blocked(h)
}
