package node

import (
	"context"

	"dos/internal/steward"
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
	return steward.Remove(ctx, a.m.members(), client.Stripes{Caller: a.m.service.anyone()}, name)
}
