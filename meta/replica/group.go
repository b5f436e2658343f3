package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"dos/meta"
)

// A Member is one of the group, as a member's own log has it.
type Member struct {
	ID, Address string
	Voter       bool

	// What the leader knows of the others; of itself it says now and 0.
	Heard time.Time // when it answered last; zero: not since this leader leads
	Lag   uint64    // how many entries it was behind then
}

// CaughtUp is the largest lag with which a member can become a voter: the entries
// of a moment, which it has at the next heartbeat.
const CaughtUp = 512

// Members returns the group. It is empty in a member that has never heard of one.
func (r *Replica) Members() ([]Member, error) {
	conf := r.raft.GetConfiguration()
	if err := conf.Error(); err != nil {
		return nil, r.gone()
	}
	term, leads := r.Leads()
	var list []Member
	for _, s := range conf.Configuration().Servers {
		m := Member{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter}
		switch {
		case !leads:
		case m.ID == r.cfg.ID:
			m.Heard = time.Now()
		case r.peers != nil:
			c, _ := r.peers.contact(s.ID, term)
			m.Heard, m.Lag = c.at, c.lag
		}
		list = append(list, m)
	}
	return list, nil
}

// member returns one of the group.
func (r *Replica) member(id string) (Member, error) {
	list, err := r.Members()
	if err != nil {
		return Member{}, err
	}
	for _, m := range list {
		if m.ID == id {
			return m, nil
		}
	}
	return Member{}, fmt.Errorf("replica: %s is not a member of the group: %w", id, meta.NotExist)
}

// Removed reports whether this member was in the group and is not any more, as
// far as its own log says. One that was away then does not hear of it: the others
// do not listen to it.
func (r *Replica) Removed() bool {
	list, err := r.Members()
	if err != nil || len(list) == 0 {
		return false
	}
	_, err = r.member(r.cfg.ID)
	return errors.Is(err, meta.NotExist)
}

// Leader returns the ID of the leader and where it is, or nothing if none is known.
func (r *Replica) Leader() (id, addr string) {
	at, who := r.raft.LeaderWithID()
	return string(who), string(at)
}

// Leads reports whether this member leads, as far as it knows, and in which term.
func (r *Replica) Leads() (term uint64, ok bool) {
	return r.raft.CurrentTerm(), r.raft.State() == raft.Leader
}

// AddNonvoter makes a member that runs already, at an address that the Streams
// understand, get all that is written. It has no vote. Of one that is there
// already only the address changes. As with all changes of the group, only the
// leader can, one at a time.
func (r *Replica) AddNonvoter(ctx context.Context, id, addr string) error {
	return r.change(ctx, func() raft.Future { return r.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(addr), 0, 0) })
}

// Promote gives a member a vote: Busy while it does not answer or has yet to
// catch up, since writes would wait for it.
func (r *Replica) Promote(ctx context.Context, id string) error {
	m, err := r.member(id)
	switch {
	case err != nil:
		return err
	case m.Voter:
		return nil
	case !r.hears(m):
		return fmt.Errorf("replica: %s does not answer: %w", id, meta.Busy)
	case m.Lag > CaughtUp:
		return fmt.Errorf("replica: %s is %d entries behind: %w", id, m.Lag, meta.Busy)
	}
	return r.change(ctx, func() raft.Future {
		return r.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(m.Address), 0, 0)
	})
}

// hears reports whether a member has answered lately.
func (r *Replica) hears(m Member) bool { return time.Since(m.Heard) < 2*r.cfg.Beat }

// Demote takes a member's vote. It still gets all that is written.
func (r *Replica) Demote(ctx context.Context, id string) error {
	return r.change(ctx, func() raft.Future { return r.raft.DemoteVoter(raft.ServerID(id), 0, 0) })
}

// Remove takes a member out of the group.
func (r *Replica) Remove(ctx context.Context, id string) error {
	return r.change(ctx, func() raft.Future { return r.raft.RemoveServer(raft.ServerID(id), 0, 0) })
}

// Yield hands the lead to the voter that has most of the log, of those that
// answer.
func (r *Replica) Yield(ctx context.Context) error {
	to, err := r.successor()
	if err != nil {
		return err
	}
	return r.change(ctx, r.handTo(to))
}

func (r *Replica) handTo(to Member) func() raft.Future {
	return func() raft.Future {
		return r.raft.LeadershipTransferToServer(raft.ServerID(to.ID), raft.ServerAddress(to.Address))
	}
}

func (r *Replica) successor() (Member, error) {
	list, err := r.Members()
	if err != nil {
		return Member{}, err
	}
	var best Member
	for _, m := range list {
		if m.Voter && m.ID != r.cfg.ID && r.hears(m) && (best.ID == "" || m.Lag < best.Lag) {
			best = m
		}
	}
	if best.ID == "" {
		return Member{}, fmt.Errorf("replica: no other voter answers: %w", meta.Unavailable)
	}
	return best, nil
}

// change waits for a change of the group. It is begun by a goroutine, because
// beginning may have to wait too.
func (r *Replica) change(ctx context.Context, begin func() raft.Future) error {
	done := make(chan error, 1)
	if !r.tasks.start(func() { done <- r.await(begin()) }) {
		return r.gone()
	}
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("replica: %w: %w", meta.Unavailable, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("replica: %w: outcome unknown: %w", meta.Unavailable, ctx.Err())
	case <-r.dead:
		return r.gone()
	}
}

// yieldWait bounds how long a clean stop waits for somebody else to lead.
const yieldWait = 2 * time.Second

// resign hands the lead over before a clean stop, if somebody can take it: an
// election that nobody calls for costs the clients seconds.
func (r *Replica) resign() {
	if _, leads := r.Leads(); !leads || r.peers == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), yieldWait)
	defer cancel()
	if err := r.Yield(ctx); err != nil {
		r.cfg.Log.Warn("replica: the lead was not handed over", "err", err)
	}
}

// keepAddress sees to it that the group knows where this member is. Only a leader
// can say so; a follower that has moved is told of by whoever finds it. An
// embedded cluster that becomes one of several machines goes through here: its
// one member was nowhere.
func (r *Replica) keepAddress() {
	tick := time.NewTicker(r.cfg.Beat / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.quit:
			return
		case <-r.dead:
			return
		}
		if _, leads := r.Leads(); !leads {
			continue
		}
		self, err := r.member(r.cfg.ID)
		if err != nil || self.Address == r.cfg.Address {
			continue
		}
		// It fails when the lead was lost or the group just changes: then it is
		// tried again.
		if err := r.raft.AddNonvoter(raft.ServerID(r.cfg.ID), raft.ServerAddress(r.cfg.Address), 0, r.cfg.Beat).Error(); err == nil {
			r.cfg.Log.Info("replica: this member is at another address now", "was", self.Address, "is", r.cfg.Address)
		}
	}
}

// soleVoter refuses a directory of a group of several for a member that can reach
// nobody.
func (r *Replica) soleVoter() error {
	list, err := r.Members()
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.ID != r.cfg.ID {
			return fmt.Errorf("replica: %s belongs to a group of %d members: only dosd, with the others, can go on with it: %w", r.cfg.Dir, len(list), meta.Invalid)
		}
	}
	if len(list) == 0 {
		return fmt.Errorf("replica: %s belongs to a member that was never part of a group: %w", r.cfg.Dir, meta.Invalid)
	}
	return nil
}
