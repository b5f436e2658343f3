package client

import (
	"context"
	"errors"

	"dos/meta"
	"dos/meta/task"
)

// Tasks are the calls about tasks: what package task says of each. An id is task.ID;
// task.ParseID reads one, task.Parse reads a script with its options.
//
// A machine's agent offers what it has, follows Orders, claims what is assigned to it,
// runs it and reports. Offers and attempts belong to the session of the Caller.
type Tasks struct{ Caller Caller }

// Submit submits jobs for their owner and returns their IDs, in order. Up to
// task.SubmitMax of together task.SubmitBytes are one commit, all or none; more are
// several, and after an error the IDs are those of the jobs that were submitted.
func (t Tasks) Submit(ctx context.Context, owner task.Owner, specs ...task.Spec) (ids []task.ID, err error) {
	for len(specs) > 0 {
		n, size := 0, 0
		for n < len(specs) && n < task.SubmitMax && (n == 0 || size+specs[n].Size() <= task.SubmitBytes) {
			size += specs[n].Size()
			n++
		}
		var out task.Submitted
		if err := t.Caller.Call(ctx, task.OpSubmit, task.Submit{Owner: owner, Specs: specs[:n]}, &out); err != nil {
			return ids, err
		}
		for i := range uint64(n) {
			ids = append(ids, task.ID{Job: out.First + i})
		}
		specs = specs[n:]
	}
	return ids, nil
}

// Task describes a task: meta.NotExist if there is none.
func (t Tasks) Task(ctx context.Context, id task.ID) (out task.Task, err error) {
	err = t.Caller.Call(ctx, task.OpGet, task.Ask{ID: id}, &out)
	return out, err
}

// Follow describes a task as soon as its version is not the one seen, or after a
// while, which is a few seconds at most.
func (t Tasks) Follow(ctx context.Context, id task.ID, seen uint64) (out task.Task, err error) {
	err = t.Caller.Call(ctx, task.OpAwait, task.Follow{ID: id, Seen: seen}, &out)
	return out, err
}

// Wait returns when a task has ended, or ctx has. It goes on through faults of the
// service that do not last longer than Patience.
func (t Tasks) Wait(ctx context.Context, id task.ID) (task.Task, error) {
	var seen uint64
	for {
		now, err := t.Follow(ctx, id, seen)
		switch {
		case ctx.Err() != nil:
			return now, context.Cause(ctx)
		case err != nil:
			return now, err
		case now.State.Ended():
			return now, nil
		}
		seen = now.Version
	}
}

// Spec returns a task as it was submitted.
func (t Tasks) Spec(ctx context.Context, id task.ID) (out task.Spec, err error) {
	err = t.Caller.Call(ctx, task.OpSpec, task.Ask{ID: id}, &out)
	return out, err
}

// List returns a part of a list of tasks.
func (t Tasks) List(ctx context.Context, req task.List) (out task.Listed, err error) {
	err = t.Caller.Call(ctx, task.OpList, req, &out)
	return out, err
}

// Each calls fn for every task of a list, in order, until it fails.
func (t Tasks) Each(ctx context.Context, req task.List, fn func(task.Task) error) error {
	req.Limit = task.ListMax
	for more := true; more; {
		out, err := t.List(ctx, req)
		if err != nil {
			return err
		}
		for _, one := range out.Tasks {
			if err := fn(one); err != nil {
				return err
			}
		}
		req.After, more = out.Last, out.More
	}
	return nil
}

// Control does something with a task, for the user of the request.
func (t Tasks) Control(ctx context.Context, req task.Control) error {
	return t.Caller.Call(ctx, task.OpControl, req, nil)
}

// Forget removes a job that has ended.
func (t Tasks) Forget(ctx context.Context, id task.ID, uid uint32) error {
	return t.Caller.Call(ctx, task.OpForget, task.Forget{ID: id, UID: uid}, nil)
}

// Events returns what happened after an event, at most limit, as soon as there is
// something, or nothing after a while.
func (t Tasks) Events(ctx context.Context, after uint64, limit int) (out task.Events, err error) {
	err = t.Caller.Call(ctx, task.OpEvents, task.Since{Seq: after, Limit: limit}, &out)
	return out, err
}

// Status is an overview of all.
func (t Tasks) Status(ctx context.Context) (out task.Status, err error) {
	err = t.Caller.Call(ctx, task.OpStatus, struct{}{}, &out)
	return out, err
}

// Offers returns the machines that offer something, with what is used of it.
func (t Tasks) Offers(ctx context.Context) ([]task.NodeStatus, error) {
	var out task.Offers
	err := t.Caller.Call(ctx, task.OpOffers, struct{}{}, &out)
	return out.Nodes, err
}

// Queue describes a partition.
func (t Tasks) Queue(ctx context.Context, name string) (out task.Queue, err error) {
	err = t.Caller.Call(ctx, task.OpQueue, task.Named{Name: name}, &out)
	return out, err
}

// Queues describes all partitions, by name.
func (t Tasks) Queues(ctx context.Context) ([]task.Queue, error) {
	var out task.Queues
	err := t.Caller.Call(ctx, task.OpQueues, struct{}{}, &out)
	return out.List, err
}

// MakeQueue makes a partition.
func (t Tasks) MakeQueue(ctx context.Context, req task.MakeQueue) error {
	return t.Caller.Call(ctx, task.OpMakeQueue, req, nil)
}

// SetQueue changes a partition.
func (t Tasks) SetQueue(ctx context.Context, req task.SetQueue) error {
	return t.Caller.Call(ctx, task.OpSetQueue, req, nil)
}

// RemoveQueue removes a partition of which all jobs have ended.
func (t Tasks) RemoveQueue(ctx context.Context, name string) error {
	return t.Caller.Call(ctx, task.OpRemoveQueue, task.Named{Name: name}, nil)
}

// Offer says what a machine has for tasks, until the session ends.
func (t Tasks) Offer(ctx context.Context, offer task.Offer) error {
	return t.Caller.Call(ctx, task.OpOffer, offer, nil)
}

// Withdraw ends the session's offer for a machine. What it has claimed goes on.
func (t Tasks) Withdraw(ctx context.Context, node string) error {
	return t.Caller.Call(ctx, task.OpWithdraw, task.Named{Name: node}, nil)
}

// Orders returns what is new for an offer's session after a version (0 at first), as
// soon as there is something, or nothing after a while.
func (t Tasks) Orders(ctx context.Context, session meta.SessionID, seen uint64) (out task.Orders, err error) {
	err = t.Caller.Call(ctx, task.OpOrders, task.Seen{Session: session, Version: seen}, &out)
	return out, err
}

// Report says what became of attempts. The errors are one for one: nil, or of kind
// meta.Fenced when an attempt is not the session's any more; err says that nothing was heard.
func (t Tasks) Report(ctx context.Context, list ...task.Report) (each []error, err error) {
	for len(list) > 0 {
		part := list[:min(len(list), task.ReportMax)]
		var out task.Heard
		if err := t.Caller.Call(ctx, task.OpReport, task.Reports{List: part}, &out); err != nil {
			return each, err
		}
		if len(out.Kinds) != len(part) {
			return each, errors.Join(meta.Protocol, errors.New("the answer is not one for one"))
		}
		for _, kind := range out.Kinds {
			if kind == 0 {
				each = append(each, nil)
			} else {
				each = append(each, kind)
			}
		}
		list = list[len(part):]
	}
	return each, nil
}

// Forgotten returns jobs that were forgotten and whose output is still to be removed.
func (t Tasks) Forgotten(ctx context.Context) ([]uint64, error) {
	var out task.Jobs
	err := t.Caller.Call(ctx, task.OpForgotten, struct{}{}, &out)
	return out.Jobs, err
}

// Cleared says that the output of jobs is removed.
func (t Tasks) Cleared(ctx context.Context, jobs ...uint64) error {
	return t.Caller.Call(ctx, task.OpCleared, task.Cleared{Jobs: jobs}, nil)
}
