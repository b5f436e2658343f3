package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dos/internal/admin"
	"dos/internal/steward"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/members"
)

// Drain implements admin.Machines.
func (a machineAdmin) Drain(ctx context.Context, name string, on bool) error {
	chief, err := a.inCharge(ctx) // the log of events that people see is its
	if err != nil {
		return err
	}
	if chief != nil {
		return chief.Drain(ctx, name, on)
	}
	if !slices.ContainsFunc(a.m.fleet.Map().Nodes, func(n members.Node) bool { return n.Name == name }) {
		return fmt.Errorf("no machine %q, as dosctl node list shows: %w", name, meta.NotExist)
	}
	if err := a.m.members().Drain(ctx, members.Drain{Node: name, On: on, Why: "the administrator said so"}); err != nil {
		return err
	}
	if on {
		a.m.events.Add("machine %s is being emptied: the administrator said so", name)
	} else {
		a.m.events.Add("machine %s is in use again: the administrator said so", name)
	}
	return nil
}

// Remove implements admin.Machines.
func (a machineAdmin) Remove(ctx context.Context, name string) error {
	if name == a.m.data.node && admin.Here(ctx) {
		return fmt.Errorf("machine %s cannot remove itself: ask another: %w", name, meta.Busy)
	}
	if name == a.m.data.node { // it cannot turn itself out
		chief, err := a.m.view().others()
		if err != nil {
			return err
		}
		return chief.Remove(ctx, name)
	}
	if err := steward.Remove(ctx, a.m.members(), client.Stripes{Caller: a.m.service.anyone()}, name); err != nil {
		return err
	}
	err := machineAccess(a).Revoke(ctx, true, name)
	if errors.Is(err, meta.NotExist) { // it was turned out before
		err = nil
	}
	if err != nil {
		return fmt.Errorf("machine %s is removed, and its certificate is good still (dosctl identity revoke --node %s): %w", name, name, err)
	}
	return nil
}
