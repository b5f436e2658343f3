package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dos/internal/admin"
	"dos/internal/steward"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/members"
	"dos/meta/replica"
)

// Drain implements admin.Machines.
func (a machineAdmin) Drain(ctx context.Context, name string, on bool) error {
	if !slices.ContainsFunc(a.m.fleet.Map().Nodes, func(n members.Node) bool { return n.Name == name }) {
		return fmt.Errorf("no machine %q, as dosctl node list shows: %w", name, meta.NotExist)
	}
	return a.m.members().Drain(ctx, members.Drain{Node: name, On: on, Why: administratorSaid})
}

// Remove implements admin.Machines. It is done by the machine in charge; one that
// is to go itself hands that over first.
func (a machineAdmin) Remove(ctx context.Context, name string) error {
	chief, err := a.inCharge(ctx)
	if err != nil {
		return err
	}
	if chief != nil {
		return chief.Remove(ctx, name)
	}
	if name == a.m.data.node {
		return a.removeThis(ctx)
	}
	if !a.m.leaving.CompareAndSwap(nil, &name) {
		return fmt.Errorf("another machine is being removed: %w", meta.Busy)
	}
	defer a.m.leaving.Store(nil)
	return steward.Remove(ctx, a.m.members(), client.Stripes{Caller: a.m.service.anyone()}, name, func(ctx context.Context) error {
		if err := a.m.takeVote(ctx, name); err != nil {
			return err
		}
		err := machineAccess(a).Revoke(ctx, true, name)
		if errors.Is(err, meta.NotExist) { // it was turned out before
			return nil
		}
		return err
	})
}

// isLeaving reports whether a machine is being removed.
func (m *Machine) isLeaving(name string) bool {
	leaving := m.leaving.Load()
	return leaving != nil && *leaving == name
}

// groupChange bounds how long the metadata group may take to do without a machine.
// A change of it takes half a second, and at most three are needed.
const groupChange = 15 * time.Second

// changeEvery is the pause between two looks at it.
const changeEvery = 50 * time.Millisecond

// takeVote returns when a machine that is leaving is in the metadata group no
// more: turned out with a vote it could cost the others their majority.
func (m *Machine) takeVote(ctx context.Context, name string) error {
	err := await(ctx, func() (bool, error) {
		group, err := m.meta.Replica().Members()
		return !slices.ContainsFunc(group, func(g replica.Member) bool { return replica.MachineOf(g.ID) == name }), err
	})
	if errors.Is(err, meta.Busy) {
		err = fmt.Errorf("machine %q is needed for the metadata: too few others with the role %s answer, see dosctl node list: %w", name, roleMeta, err)
	}
	return err
}

// removeThis removes the machine in charge.
func (a machineAdmin) removeThis(ctx context.Context) error {
	if err := a.m.meta.Replica().Yield(ctx); err != nil {
		return fmt.Errorf("machine %q is in charge, and no other can take over: %w: %w", a.m.data.node, meta.Busy, err)
	}
	var chief *admin.Client
	err := await(ctx, func() (bool, error) {
		var err error
		if a.m.charge.Load() == nil {
			chief, err = a.m.view().chief()
		}
		return chief != nil && err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("machine %q was in charge, and no other has taken over: %w", a.m.data.node, err)
	}
	return chief.Remove(ctx, a.m.data.node)
}

// await looks until it is done: meta.Busy if that takes longer than a change of the
// metadata group can.
func await(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, groupChange, meta.Busy)
	defer cancel()
	tick := time.NewTicker(changeEvery)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
