package client

import (
	"context"
	"time"

	"dos/meta/named"
	"dos/meta/state"
)

// decide has a request executed that needs the lock itself to be at the service.
func (k *Named) decide(ctx context.Context, lock string, op state.Op, req any) (out named.Outcome, err error) {
	for {
		if err = k.bringHere(ctx, lock); err != nil {
			return out, err
		}
		out = named.Outcome{}
		if err = k.stay.Call(ctx, op, req, &out); err != nil || out.Away == 0 {
			return out, err
		}
		if out.Away == k.stay.Session() {
			err = k.with(lock, func(n *name) error { return k.bring(ctx, n, true) })
		} else {
			err = k.awaitReturn(ctx, lock, time.Now().Add(Patience))
		}
		if err != nil {
			return out, err
		}
	}
}

// bringHere returns a lock if it is lent to this client.
func (k *Named) bringHere(ctx context.Context, lock string) error {
	k.mu.Lock()
	n := k.names[lock]
	lent := n != nil && n.loan != nil
	k.mu.Unlock()
	if !lent {
		return nil
	}
	return k.with(lock, func(n *name) error { return k.bring(ctx, n, false) })
}

// Set changes settings of a lock.
func (k *Named) Set(ctx context.Context, req named.Set) error {
	_, err := k.decide(ctx, req.Name, named.OpSet, req)
	return err
}

// Break takes a lock from whoever has it. It is for administrators.
func (k *Named) Break(ctx context.Context, lock string) error {
	_, err := k.decide(ctx, lock, named.OpBreak, named.Named{Name: lock})
	return err
}

// Remove forgets the settings of a lock that nobody has.
func (k *Named) Remove(ctx context.Context, lock string) error {
	_, err := k.decide(ctx, lock, named.OpRemove, named.Named{Name: lock})
	return err
}

// ByID renews or releases what an ID has: meta.Conflict if it has nothing (any more).
func (k *Named) ByID(ctx context.Context, req named.ByID) (token uint64, err error) {
	var out named.Outcome
	err = k.stay.Call(ctx, named.OpByID, req, &out)
	return out.Token, err
}

// Status describes a lock as it is now, for which it comes back from where it is
// lent to. If that takes long, Lent says where it is.
func (k *Named) Status(ctx context.Context, lock string) (named.Info, error) {
	if err := k.bringHere(ctx, lock); err != nil {
		return named.Info{}, err
	}
	info, err := k.look(ctx, named.OpStatus, named.Follow{Name: lock})
	if err != nil || info.Lent == 0 {
		return info, err
	}
	if err := k.recall(ctx, lock); err != nil {
		return named.Info{}, err
	}
	return k.look(ctx, named.OpStatus, named.Follow{Name: lock})
}

// recall brings locks back that are lent to others, or waits in vain for a while.
func (k *Named) recall(ctx context.Context, locks ...string) error {
	until := time.Now().Add(awayMax)
	var lent named.Names
	if err := k.stay.Call(ctx, named.OpRecall, named.Names{Names: locks}, &lent); err != nil {
		return err
	}
	for _, lock := range lent.Names {
		if err := k.awaitReturn(ctx, lock, until); err != nil {
			return err
		}
	}
	return nil
}

// Known reports whether a lock is held or waited for here. It costs nothing.
func (k *Named) Known(lock string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.names[lock]
	return n != nil && len(n.claims) > 0
}

// List returns what is in a directory, "" for the first one.
func (k *Named) List(ctx context.Context, dir string) (list []named.Entry, err error) {
	prefix := ""
	if dir != "" {
		prefix = dir + "/"
	}
	for from := ""; ; {
		var part named.Listed
		if err := k.stay.Call(ctx, named.OpList, named.List{Dir: dir, From: from, Limit: named.ListMax}, &part); err != nil {
			return nil, err
		}
		for _, e := range part.Entries {
			if e.Lent != 0 { // is it there?
				info, err := k.Status(ctx, prefix+e.Name)
				if err != nil {
					return nil, err
				}
				if !info.There && info.Lent == 0 {
					continue
				}
			}
			list = append(list, e)
		}
		if from = part.From; from == "" {
			return list, nil
		}
	}
}

// Mkdir makes a directory.
func (k *Named) Mkdir(ctx context.Context, dir string, d named.Dir) error {
	return k.stay.Call(ctx, named.OpMkdir, named.Mkdir{Name: dir, Dir: d}, nil)
}

// Rmdir removes a directory in which nothing is.
func (k *Named) Rmdir(ctx context.Context, dir string) error {
	return k.stay.Call(ctx, named.OpRmdir, named.Named{Name: dir}, nil)
}

// Follow waits until a lock is another than it was seen, and describes it. Changes
// that come quickly after each other may be seen as one. Who follows watches.
func (k *Named) Follow(ctx context.Context, lock string, seen uint64) (info named.Info, err error) {
	for {
		info, err = k.look(ctx, named.OpFollow, named.Follow{Name: lock, Seen: seen})
		if err != nil || info.Version != seen {
			return info, err
		}
		wait(ctx, pauseMin) // a service that does not hold its answers back is not asked without pause
		if err := ctx.Err(); err != nil {
			return info, err
		}
	}
}

// Watch has a lock kept where Follow sees it, or no more. The session watches it
// as long as one of its watchers does, whom the caller counts.
func (k *Named) Watch(ctx context.Context, lock string, off bool) error {
	_, err := k.decide(ctx, lock, named.OpWatch, named.Watch{Name: lock, Off: off})
	return err
}

// End returns what is lent to the client. Run has returned.
func (k *Named) End(ctx context.Context) error {
	k.mu.Lock()
	var lent []string
	for _, n := range k.names {
		if n.loan != nil {
			lent = append(lent, n.text)
		}
	}
	k.mu.Unlock()
	for _, lock := range lent {
		if err := k.bringHere(ctx, lock); err != nil {
			return err
		}
	}
	return nil
}
