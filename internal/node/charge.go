package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/internal/boottime"
	"dos/internal/steward"
	"dos/meta/client"
	"dos/meta/members"
	"dos/procfs/nodes"
)

// chargeEvery is how often a machine looks whether it leads.
const chargeEvery = 500 * time.Millisecond

// takeCharge does the cluster's upkeep whenever this machine leads.
func (m *Machine) takeCharge(ctx context.Context) error {
	tick := time.NewTicker(chargeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if _, leads := m.meta.Replica().Leads(); !leads {
			continue
		}
		if err := m.lead(ctx); err != nil && ctx.Err() == nil {
			slog.Warn("node: the upkeep of the cluster was interrupted", "err", err)
		}
	}
}

var errNotLeading = errors.New("another machine leads")

// lead does the upkeep until this machine does not lead any more.
func (m *Machine) lead(ctx context.Context) error {
	if err := m.fleet.Ready(ctx); err != nil {
		return nil
	}
	sent := boottime.Now()
	sessions := client.Session{Caller: m.service.anyone()}
	info, err := sessions.Open(ctx, "upkeep", m.data.node, client.SessionTTL)
	if err != nil {
		return err
	}
	caller := client.NewRemote(m.service, info.ID)
	up, err := newUpkeep(m.fleet, caller, m.disk)
	if err != nil {
		return err
	}
	placement, err := steward.New(steward.Config{
		Members: m.members(), Fleet: m.fleet, UpToDate: up.repair.UpToDate, Event: m.events.Add,
	})
	if err != nil {
		return err
	}
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	keeper := client.NewKeeper(caller, info, sent)
	g, work := errgroup.WithContext(work)
	g.Go(func() error { return keeper.Run(work) })
	g.Go(func() error { return up.Run(work) })
	g.Go(func() error { return m.watchMap(work, up) })
	g.Go(func() error { return m.watchMachines(work) })
	g.Go(func() error { return placement.Run(work) })
	g.Go(func() error { return m.whileLeading(work) })
	m.charge.Store(up)
	m.events.Add("machine %s is in charge", m.data.node)
	err = g.Wait()
	m.charge.Store(nil)
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	err = errors.Join(err, up.path.Close(leave))
	if !errors.Is(err, errNotLeading) { // else it ends by itself
		err = errors.Join(err, sessions.End(leave, info.ID))
	}
	if errors.Is(err, errNotLeading) {
		return nil
	}
	return err
}

func (m *Machine) whileLeading(ctx context.Context) error {
	tick := time.NewTicker(chargeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if _, leads := m.meta.Replica().Leads(); !leads {
			return errNotLeading
		}
	}
}

// watchMap has repair look again when stores come, go or begin anew, tells it of
// damage that machines have found, and takes the mark from stores that have all their shards again.
func (m *Machine) watchMap(ctx context.Context, up *upkeep) error {
	known := make(map[chunk.StoreID]uint64) // incarnations
	var told map[nodes.Shard]bool
	tick := time.NewTicker(rebuiltEvery)
	defer tick.Stop()
	for {
		fleetChanged := m.fleet.Changed()
		now := m.fleet.Map()
		begun := false
		for _, s := range now.Stores {
			if before, seen := known[s.ID]; !seen || before != s.Incarnation {
				known[s.ID], begun = s.Incarnation, true
			}
		}
		told = m.tellDamage(ctx, up, told)
		if begun {
			up.repair.Notify() // and nothing is complete before it has looked
		}
		if up.repair.Status().Complete {
			for _, s := range now.Stores {
				if !s.Rebuilding {
					continue
				}
				s.Rebuilding = false
				if err := m.whole(ctx, s); err != nil && ctx.Err() == nil {
					slog.Warn("node: a store that is whole again", "store", s.ID, "err", err)
				}
			}
		}
		select {
		case <-tick.C:
		case <-fleetChanged:
			up.repair.Notify()
		case <-ctx.Done():
			return nil
		}
	}
}

// tellDamage has repair look at what machines have found damaged, each shard once
// while they tell of it: those before. It returns those that they tell of now.
func (m *Machine) tellDamage(ctx context.Context, up *upkeep, before map[nodes.Shard]bool) map[nodes.Shard]bool {
	now := make(map[nodes.Shard]bool)
	for _, n := range m.view().machines(ctx) {
		for _, d := range n.Damaged {
			if now[d] = true; !before[d] {
				up.repair.Damaged(chunk.ID{Stripe: chunk.StripeID(d.Stripe), Index: d.Index})
			}
		}
	}
	return now
}

func (m *Machine) whole(ctx context.Context, s members.Store) error {
	if _, err := m.members().PutStore(ctx, s); err != nil {
		return fmt.Errorf("store %d: %w", s.ID, err)
	}
	m.events.Add("store %d is whole again", s.ID)
	return nil
}

// disk names the file system that a store lies on.
func (m *Machine) disk(id chunk.StoreID) string {
	if s := m.stores.Load(); s != nil && s.find(id) != nil {
		return s.disk(id) + " of " + m.data.node
	}
	return m.fleet.Disk(id)
}
