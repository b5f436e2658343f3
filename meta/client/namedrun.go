package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/meta"
	"dos/meta/named"
	"dos/meta/state"
)

// with does something with a name.
func (k *Named) with(lock string, do func(*name) error) error {
	k.mu.Lock()
	n := k.enter(lock)
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.leave(n)
	}()
	return do(n)
}

// bring returns a lock that is lent to the client to the service. With lost, one
// of which the service alone believes that it is here, too. Somebody uses the name.
func (k *Named) bring(ctx context.Context, n *name, lost bool) error {
	if err := n.turn.Acquire(ctx, alone); err != nil {
		return err
	}
	defer n.turn.Release(alone)
	k.mu.Lock()
	back, epoch := named.Returned{Name: n.text}, k.epoch
	if n.loan != nil {
		back.Known, back.Lock = true, *n.loan
		n.loan = nil
	}
	k.mu.Unlock()
	if !back.Known && !lost {
		return nil
	}
	// Nothing else goes on with the lock before the service has it.
	for {
		err := k.stay.Call(context.WithoutCancel(ctx), named.OpReturn, named.Return{Locks: []named.Returned{back}}, nil)
		k.mu.Lock()
		over := k.epoch != epoch
		k.mu.Unlock()
		if err == nil || over || errors.Is(err, meta.Expired) || !errors.Is(err, meta.Unavailable) && !errors.Is(err, meta.TimedOut) {
			return err
		}
		wait(ctx, recallRetry)
	}
}

// awaitReturn waits, until then, for a lock to come back from another session.
func (k *Named) awaitReturn(ctx context.Context, lock string, until time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	info, err := k.look(ctx, named.OpStatus, named.Follow{Name: lock})
	for err == nil && info.Lent != 0 && info.Lent != k.stay.Session() {
		info, err = k.Follow(ctx, lock, info.Version)
	}
	if errors.Is(err, context.DeadlineExceeded) && !time.Now().Before(until) {
		return nil
	}
	return err
}

func (k *Named) look(ctx context.Context, op state.Op, req named.Follow) (info named.Info, err error) {
	err = k.stay.Call(ctx, op, req, &info)
	return info, err
}

// Fenced is told that the session has ended, before the next one begins.
func (k *Named) Fenced() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.epoch++
	k.seen = 0
	for _, h := range k.claims {
		if !h.over {
			h.lose()
		}
		delete(h.name.claims, h)
		h.name.users--
	}
	clear(k.claims)
	clear(k.owners)
	k.stale = nil
	for text, n := range k.names {
		if n.loan = nil; n.users <= 0 {
			delete(k.names, text)
		}
	}
}

// Run hears what became of claims, returns what others want, and gives up what
// could not be given up at once, until ctx ends.
func (k *Named) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { k.chores(ctx) })
	k.listen(ctx)
	wg.Wait()
	return nil
}

// listen takes the news as long as there is something that they could be of.
func (k *Named) listen(ctx context.Context) {
	var work errgroup.Group
	defer work.Wait()
	for ctx.Err() == nil {
		k.mu.Lock()
		idle, seen, epoch := len(k.names) == 0, k.seen, k.epoch
		k.mu.Unlock()
		if idle {
			select {
			case <-k.came:
			case <-ctx.Done():
			}
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, awaitPatience)
		var now named.Arrived
		err := k.stay.Call(attempt, named.OpAwait, named.Await{Session: k.stay.Session(), Seen: seen}, &now)
		cancel()
		if err != nil {
			wait(ctx, recallRetry)
			continue
		}
		if len(now.News) == 0 { // a service that does not hold its answers back is not asked without pause
			wait(ctx, pauseMin)
		}
		for _, lock := range k.heard(epoch, now.News) {
			work.Go(func() error { return k.with(lock, func(n *name) error { return k.bring(ctx, n, true) }) })
		}
	}
}

// heard takes news, and returns the locks that are recalled.
func (k *Named) heard(epoch uint64, news []named.News) (recalled []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.epoch != epoch {
		return nil
	}
	for _, one := range news {
		k.seen = one.Seq
		h := k.claims[one.Number]
		switch {
		case one.Number == 0:
			recalled = append(recalled, one.Name)
		case h != nil && !one.Lost:
			h.grant(one.Token)
		case h != nil && h.how.ID == "":
			h.lose()
		case one.Lost: // of an ID: nobody else will tell the service that it was heard
			if h == nil {
				h = &Held{locks: k, name: k.enter(one.Name), number: one.Number, epoch: epoch}
				h.name.claims[h] = true
			} else {
				h.lose()
			}
			h.over = true
			k.stale = append(k.stale, h)
			signal(k.chore)
		}
	}
	return recalled
}

// chores gives up what is stale, and returns what nobody has used for a while.
func (k *Named) chores(ctx context.Context) {
	tick := time.NewTicker(choreEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-k.chore:
		case <-ctx.Done():
			return
		}
		k.mu.Lock()
		stale := k.stale
		k.stale = nil
		var unused []string
		for _, n := range k.names {
			if n.loan != nil && n.loan.Free() && time.Since(n.used) > idleTime {
				unused = append(unused, n.text)
			}
		}
		k.mu.Unlock()
		for _, h := range stale {
			attempt, cancel := context.WithTimeout(ctx, Patience)
			err := h.leave(attempt)
			cancel()
			k.mu.Lock()
			if err != nil { // at the next tick
				k.stale = append(k.stale, h)
			} else {
				k.forget(h)
			}
			k.mu.Unlock()
		}
		for _, lock := range unused {
			_ = k.with(lock, func(n *name) error { return k.bring(ctx, n, false) }) // what fails is tried again
		}
	}
}
