package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/internal/admin"
	"dos/meta"
	"dos/meta/members"
	"dos/meta/replica"
	"dos/procfs/cluster"
)

// machineAdmin is what dosctl can ask of a machine about what is stored; it
// implements admin.Data. Any machine can be asked: what another one knows or
// does it has done there.
type machineAdmin struct{ m *Machine }

func (m *Machine) adminServices() admin.Services {
	return admin.Services{Data: machineAdmin{m}, Meta: executor{m.service.Client, m.holders, m.asker}, Machines: machineAdmin{m}, Access: machineAccess{m}}
}

var errLeft = fmt.Errorf("this machine is not in charge any more: %w", meta.Unavailable)

// inCharge returns the machine in charge if it is another one, which then is to
// be asked, else nil.
func (a machineAdmin) inCharge(ctx context.Context) (*admin.Client, error) {
	if a.m.charge.Load() != nil {
		return nil, nil
	}
	if admin.Here(ctx) {
		return nil, errLeft
	}
	return a.m.view().chief()
}

func (a machineAdmin) Status(ctx context.Context) (any, error) {
	if admin.Here(ctx) || a.m.charge.Load() != nil {
		return a.m.clusterStatus(ctx)
	}
	return a.m.view().Status(ctx)
}

func (a machineAdmin) Nodes(ctx context.Context) (any, error) { return a.m.view().machines(ctx), nil }

func (a machineAdmin) Events(ctx context.Context, after uint64) (any, error) {
	if admin.Here(ctx) || a.m.charge.Load() != nil {
		return a.m.events.After(after), nil
	}
	return a.m.view().events(ctx, after)
}

func (a machineAdmin) Fsck(ctx context.Context, data bool, to admin.Report) (int, error) {
	chief, err := a.inCharge(ctx)
	if err != nil {
		return 0, err
	}
	if chief != nil {
		return chief.Fsck(ctx, data, to)
	}
	charge := a.m.charge.Load()
	if charge == nil {
		return 0, errLeft
	}
	c := &checker{meta: a.m.meta.Replica(), stores: a.m.fleet, where: a.m.where, stripes: charge.stripes(), data: data, to: to}
	return c.run(ctx)
}

// where says where a store is.
func (m *Machine) where(id chunk.StoreID) string {
	for _, s := range m.fleet.Map().Stores {
		if s.ID == id {
			return s.Path + " of " + s.Node
		}
	}
	return "of no machine"
}

// Dump has secrets in it and does not travel: it is asked of the machine in charge.
func (a machineAdmin) Dump(_ context.Context, w io.Writer) error {
	if a.m.charge.Load() == nil {
		name, _, err := a.m.view().leader()
		if err != nil {
			return err
		}
		return fmt.Errorf("a dump holds the cluster's keys and is made where the metadata is led: on machine %s: %w", name, meta.Unsupported)
	}
	return a.m.meta.Replica().Dump(w)
}

// Scrub has all machines scrub at once.
func (a machineAdmin) Scrub(ctx context.Context, to admin.Report) (int, error) {
	s := a.m.stores.Load()
	if admin.Here(ctx) {
		if s == nil {
			return 0, nil
		}
		return s.scrub(ctx, to)
	}
	sum := newSum(to)
	var mu sync.Mutex
	problems := 0
	var failed []error
	var g errgroup.Group
	for _, n := range a.m.fleet.Map().Nodes {
		if !slices.Contains(n.Roles, roleChunk) {
			continue
		}
		part := sum.part("machine " + n.Name + ": ")
		g.Go(func() error {
			var found int
			var err error
			switch {
			case n.Name != a.m.data.node:
				found, err = a.m.view().administration(n.Name, n.Addr).Here().Scrub(ctx, part)
			case s != nil:
				found, err = s.scrub(ctx, part)
			}
			mu.Lock()
			defer mu.Unlock()
			problems += found
			if err != nil {
				failed = append(failed, fmt.Errorf("machine %s: %w", n.Name, err))
			}
			return nil
		})
	}
	return problems, errors.Join(g.Wait(), errors.Join(failed...))
}

// Replace is done by the machine that has the store.
func (a machineAdmin) Replace(ctx context.Context, store uint32) error {
	id := chunk.StoreID(store)
	if s := a.m.stores.Load(); s != nil && s.find(id) != nil {
		return s.Replace(id)
	}
	known := a.m.fleet.Map()
	at := slices.IndexFunc(known.Stores, func(s members.Store) bool { return s.ID == id })
	if at < 0 || admin.Here(ctx) {
		return fmt.Errorf("no store %d: %w", store, meta.NotExist)
	}
	for _, n := range known.Nodes {
		if n.Name != known.Stores[at].Node || n.Name == a.m.data.node {
			continue
		}
		if err := a.m.view().administration(n.Name, n.Addr).Here().Replace(ctx, fmt.Sprint(store)); err != nil {
			return fmt.Errorf("machine %s: %w", n.Name, err)
		}
		return nil
	}
	return fmt.Errorf("store %d is not open yet: %w", store, meta.Unavailable)
}

// view is the cluster as this machine sees it.
func (m *Machine) view() view {
	return view{fleet: m.fleet, keys: m.keys, name: m.data.node, self: m.state}
}

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
		Stores: v.stores(ctx), Scrub: v.scrubbed(ctx),
	}
	s.Machines = m.machines(ctx, member)
	for _, one := range member.Members {
		if !one.Voter {
			continue
		}
		s.Meta.Members++
		if slices.ContainsFunc(s.Machines, func(m cluster.Machine) bool {
			return m.Name == replica.MachineOf(one.ID) && m.State == cluster.Up
		}) {
			s.Meta.Alive++
		}
	}
	charge.status(ctx, &s)
	r := charge.repair.Status()
	s.Worst = worst(m.fleet.Map(), r.Complete && r.Moving == 0)
	return s, charge.moving(ctx, &s)
}
