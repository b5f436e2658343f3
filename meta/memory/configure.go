package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dos/meta"
	"dos/meta/queue"
	"dos/meta/state"
)

// configures reports whether an operation changes what a queue is.
func configures(op state.Op) bool {
	return slices.Contains([]state.Op{queue.OpSet, queue.OpRemove, queue.OpMakeGroup, queue.OpRemoveGroup}, op)
}

// configure changes what the queue is: in the replicated state, if what is in the queue
// allows it, and then here. The queue stands still meanwhile.
func (u *unit) configure(ctx context.Context, cmd state.Command) (state.Reply, error) {
	var set queue.Set
	if cmd.Op == queue.OpSet {
		if err := state.Unmarshal(cmd.Body, &set); err != nil {
			return state.Reply{}, fmt.Errorf("the request does not decode: %w", meta.Invalid)
		}
		if set.Memory != nil && *set.Memory {
			set.Memory = nil // it is
			cmd.Body = state.Marshal(set)
		}
	}
	u.still.Lock()
	defer u.still.Unlock()
	ends := cmd.Op == queue.OpRemove || set.Memory != nil
	probe := cmd
	if ends {
		probe.Op, probe.Body = queue.OpRemove, state.Marshal(queue.Named{Name: u.name})
	}
	reply, done, err := u.try(probe)
	switch {
	case err != nil || done:
		return reply, err
	case reply.Kind != 0:
		return state.Reply{}, reply.Err()
	}
	// What was asked for is executed in the state that others know before it is here.
	if err := u.record(ctx, cmd); err != nil {
		return state.Reply{}, err
	}
	if ends {
		_ = u.holder.review(ctx, u.id) // else the next look sees it
		return state.Reply{}, nil
	}
	return u.apply(ctx, cmd)
}

// try executes a command of which nothing stays. done says that it was executed before.
func (u *unit) try(cmd state.Command) (reply state.Reply, done bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.role != leading || now() < u.ready {
		return reply, false, errElsewhere
	}
	scratch := state.NewOverlay(u.store)
	cmd.Time = time.Now().UnixNano()
	reply = u.holder.machine.Apply(scratch, cmd)
	n, _ := scratch.Size()
	return reply, n == 0, nil
}

// record has a command executed in the replicated state.
func (u *unit) record(ctx context.Context, cmd state.Command) error {
	var req any
	switch cmd.Op {
	case queue.OpSet:
		req = new(queue.Set)
	case queue.OpRemove:
		req = new(queue.Named)
	default:
		req = new(queue.Grouped)
	}
	if err := state.Unmarshal(cmd.Body, req); err != nil {
		return fmt.Errorf("the request does not decode: %w", meta.Invalid)
	}
	err := u.holder.call(ctx, cmd.Op, req, nil)
	if errors.Is(err, meta.Expired) { // this process's session, not the caller's
		return fmt.Errorf("%w: %w", errElsewhere, err)
	}
	return err
}
