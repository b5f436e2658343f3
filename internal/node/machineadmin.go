package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/replica"
	"dos/procfs/cluster"
)

// machineAdmin is what dosctl can ask of a machine; it implements admin.Service.
type machineAdmin struct{ m *Machine }

func (a machineAdmin) Status(ctx context.Context) (any, error) {
	if a.m.charge.Load() == nil {
		return a.m.view().Status(ctx)
	}
	return a.m.clusterStatus(ctx)
}

func (a machineAdmin) Events(ctx context.Context, after uint64) (any, error) {
	if a.m.charge.Load() == nil {
		return a.m.view().events(ctx, after)
	}
	return a.m.events.After(after), nil
}

func (a machineAdmin) Fsck(ctx context.Context, data bool, say func(string)) (int, error) {
	return 0, errors.ErrUnsupported
}

func (a machineAdmin) Dump(_ context.Context, w io.Writer) error {
	if a.m.meta == nil {
		return fmt.Errorf("machine %s has no metadata: %w", a.m.data.node, meta.Unsupported)
	}
	return a.m.meta.Replica().Dump(w)
}

func (a machineAdmin) Scrub(ctx context.Context, say func(string)) (int, error) {
	s := a.m.stores.Load()
	if s == nil {
		return 0, nil
	}
	return s.scrub(ctx, say)
}

func (a machineAdmin) Replace(_ context.Context, store uint32) error {
	s := a.m.stores.Load()
	if s == nil {
		return fmt.Errorf("no store %d: %w", store, meta.NotExist)
	}
	return s.Replace(chunk.StoreID(store))
}

// view is the cluster as this machine sees it.
func (m *Machine) view() view {
	return view{fleet: m.fleet, keys: m.keys, name: m.data.node, self: m.state}
}

var errLeft = fmt.Errorf("this machine is not in charge any more: %w", meta.Unavailable)

// clusterStatus is how the cluster is, on the machine in charge.
func (m *Machine) clusterStatus(ctx context.Context) (cluster.Status, error) {
	charge := m.charge.Load()
	if charge == nil {
		return cluster.Status{}, errLeft
	}
	member, err := m.meta.Replica().Status()
	if err != nil {
		return cluster.Status{}, err
	}
	v := m.view()
	s := cluster.Status{
		Name: m.data.node, Version: Version(), Since: meta.At(m.started), Now: meta.At(time.Now()),
		Meta:   cluster.Metadata{Leader: replica.MachineOf(member.Leader), Term: member.Term, Applied: member.Applied},
		Stores: v.stores(ctx),
	}
	up := make(map[string]bool) // addresses
	for _, n := range v.machines(ctx) {
		up[n.Addr] = n.State == cluster.Up
	}
	for _, m := range member.Members {
		if !m.Voter {
			continue
		}
		s.Meta.Members++
		if up[m.Address] {
			s.Meta.Alive++
		}
	}
	charge.upkeep.status(ctx, &s)
	return s, nil
}
