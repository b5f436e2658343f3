package memory

import (
	"context"
	"errors"
	"time"

	"dos/meta"
	"dos/meta/queue"
)

// keepHomes makes the units what the homes say, each time they change.
func (h *Holder) keepHomes(ctx context.Context) {
	var seen uint64
	for ctx.Err() == nil {
		err := h.serve(ctx)
		if err == nil {
			err = h.readHomes(ctx, &seen)
		}
		if err != nil {
			select {
			case <-time.After(beat):
			case <-ctx.Done():
			}
		}
	}
}

// serve says, once and again when nobody knows of it any more, that queues are held here.
func (h *Holder) serve(ctx context.Context) error {
	h.mu.Lock()
	known := false
	for _, other := range h.others {
		known = known || other.Session == h.cfg.Session
	}
	h.mu.Unlock()
	for more := !known; more; {
		var reply queue.More
		if err := h.call(ctx, queue.OpServe, queue.Serve{Node: h.cfg.Node, Addr: h.cfg.Addr}, &reply); err != nil {
			return err
		}
		more = reply.More
	}
	return nil
}

// readHomes waits for the homes to be others than those seen, and takes them in.
func (h *Holder) readHomes(ctx context.Context, seen *uint64) error {
	listed := make(map[uint64]bool)
	req := queue.Homes{Session: h.cfg.Session, Seen: *seen, Limit: homesMax}
	for {
		var reply queue.HomeList
		if err := h.call(ctx, queue.OpHomes, req, &reply); err != nil {
			return err
		}
		h.mu.Lock()
		h.others = reply.Holders
		h.mu.Unlock()
		for _, home := range reply.List {
			listed[home.Queue] = true
			h.adopt(ctx, home)
		}
		req.Seen = 0 // the rest is wanted now
		if !reply.More || len(reply.List) == 0 {
			*seen = reply.Version
			break
		}
		req.After = reply.List[len(reply.List)-1].Queue
	}
	// Of what is not in the list, it may only be that it was not yet.
	var others []*unit
	h.each(func(u *unit) {
		if !listed[u.id] {
			others = append(others, u)
		}
	})
	for _, u := range others {
		if err := h.review(ctx, u.id); err != nil {
			return err
		}
	}
	return nil
}

// review asks for the home of a queue and makes its unit what that says.
func (h *Holder) review(ctx context.Context, id uint64) error {
	var home queue.Home
	err := h.call(ctx, queue.OpWhose, queue.Whose{Queue: id}, &home)
	switch {
	case errors.Is(err, meta.NotExist):
		h.drop(id, 0)
		h.mu.Lock()
		delete(h.had, id)
		h.mu.Unlock()
		return nil
	case err != nil:
		return err
	}
	h.adopt(ctx, home)
	return nil
}

// drop gives up what is held of a queue, if it is older than an epoch; 0: however old.
func (h *Holder) drop(id, epoch uint64) {
	h.mu.Lock()
	u := h.units[id]
	if u == nil {
		h.mu.Unlock()
		return
	}
	u.mu.Lock()
	old := epoch == 0 || u.epoch < epoch && u.role != filling
	u.mu.Unlock()
	if old {
		delete(h.units, id)
	}
	h.mu.Unlock()
	if old {
		u.stop()
	}
}

// adopt makes the unit of a queue what its home says.
func (h *Holder) adopt(ctx context.Context, home queue.Home) {
	me := h.cfg.Session
	if home.Primary.Session != me && home.Backup.Session != me {
		epoch := home.Epoch
		if epoch == 0 { // it is durable now
			epoch = ^uint64(0)
		}
		h.drop(home.Queue, epoch)
		return
	}
	u, resign := h.unit(home)
	if resign {
		h.start(ctx, func(ctx context.Context) {
			_, _ = h.move(ctx, queue.Move{Queue: home.Queue, Epoch: home.Epoch, Resign: true}) // else it is tried at the next look
			h.wake()
		})
		return
	}
	u.become(ctx, home)
}

// wake has the homes asked for at once.
func (h *Holder) wake() {
	h.mu.Lock()
	h.others = nil // serve looks whether it is known
	h.mu.Unlock()
}

// unit returns the unit of a queue that this process is to hold. If it has none it is
// the queue's beginning here, or it was held and is no more: then it is to be resigned.
func (h *Holder) unit(home queue.Home) (u *unit, resign bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u = h.units[home.Queue]; u != nil && u.begun == home.Begun {
		return u, false
	}
	first := home.First == h.cfg.Session || home.Second == h.cfg.Session
	if !first || h.had[home.Queue] == home.Begun {
		return nil, true
	}
	if u != nil {
		u.stop()
	}
	u = newUnit(h, home.Queue, home.Name, home.Begun)
	queue.Seed(u.store, home)
	u.role, u.epoch = following, 0
	u.measure()
	h.put(u)
	return u, false
}

// put makes a unit the one of its queue. h.mu is held.
func (h *Holder) put(u *unit) {
	h.units[u.id], h.had[u.id] = u, u.begun
}

// become makes the unit what a home says, if that is not older than what it is.
func (u *unit) become(ctx context.Context, home queue.Home) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.role == stopped || home.Epoch < u.epoch {
		return
	}
	u.lost, u.lostAt = home.Lost, home.LostAt
	if home.Backup.Session == u.holder.cfg.Session {
		if u.role != leading {
			u.whom = home.Primary.Session
		}
		if u.role != leading && home.Epoch > u.epoch || u.role == filling {
			u.role, u.epoch, u.heard = following, home.Epoch, now()
		}
		return
	}
	was := u.epoch
	u.epoch = home.Epoch
	if u.role == leading {
		return
	}
	u.role = leading
	u.acked = u.index
	u.ready = u.heard + leaseWait
	if was == 0 { // it begins
		u.ready = 0
	}
	if home.Backup.Session != 0 {
		l := u.connect(home.Backup, true)
		u.holder.start(ctx, func(ctx context.Context) { u.serve(ctx, l, nil, nil) })
	}
}

func (h *Holder) move(ctx context.Context, m queue.Move) (home queue.Home, err error) {
	err = h.call(ctx, queue.OpMove, m, &home)
	return home, err
}

// take makes this process the primary of a queue of which it is the backup.
func (u *unit) take(ctx context.Context) {
	u.mu.Lock()
	epoch := u.epoch
	u.mu.Unlock()
	h := u.holder
	home, err := h.move(ctx, queue.Move{Queue: u.id, Epoch: epoch})
	switch {
	case err == nil:
		h.cfg.Log.Info("memory: the other holder of a queue is silent, and this one goes on alone", "queue", u.name, "epoch", home.Epoch)
		u.become(ctx, home)
	case errors.Is(err, meta.Conflict), errors.Is(err, meta.NotExist):
		_ = h.review(ctx, u.id) // else the next look does
	}
	u.mu.Lock()
	u.moves = false
	u.mu.Unlock()
}

// rehome has the home say that this process is the primary, with a backup or without.
// It reports whether it does; after an error nobody knows. If the home is another's, the
// unit ends.
func (u *unit) rehome(ctx context.Context, backup queue.Holder) (is bool, err error) {
	h := u.holder
	for {
		u.mu.Lock()
		epoch, leads := u.epoch, u.role == leading
		u.mu.Unlock()
		if !leads {
			return false, nil
		}
		home, err := h.move(ctx, queue.Move{Queue: u.id, Epoch: epoch, Backup: backup.Session})
		if errors.Is(err, meta.Conflict) || errors.Is(err, meta.NotExist) {
			if err = h.call(ctx, queue.OpWhose, queue.Whose{Queue: u.id}, &home); errors.Is(err, meta.NotExist) {
				h.drop(u.id, 0)
				return false, nil
			}
		}
		if err != nil {
			return false, err
		}
		if home.Primary.Session != h.cfg.Session {
			h.adopt(ctx, home)
			return false, nil
		}
		u.become(ctx, home)
		if home.Backup.Session == backup.Session {
			return true, nil
		}
		if backup.Session != 0 {
			return false, nil // that one is no holder any more
		}
	}
}
