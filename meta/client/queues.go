package client

import (
	"context"

	"dos/meta/queue"
)

// Queues are the calls about queues. What is taken belongs to the session of the
// Caller; a Consumer takes, waits and acknowledges.
type Queues struct{ Caller Caller }

// Make makes a queue, with the permissions of mode.
func (q Queues) Make(ctx context.Context, name string, mode, uid, gid uint32) error {
	return q.Caller.Call(ctx, queue.OpMake, queue.Make{Name: name, Mode: mode, UID: uid, GID: gid}, nil)
}

// Remove removes a queue in which all is settled.
func (q Queues) Remove(ctx context.Context, name string) error {
	return q.Caller.Call(ctx, queue.OpRemove, queue.Named{Name: name}, nil)
}

// Set changes what is not nil.
func (q Queues) Set(ctx context.Context, change queue.Set) error {
	return q.Caller.Call(ctx, queue.OpSet, change, nil)
}

// Purge removes all messages, dead ones too.
func (q Queues) Purge(ctx context.Context, name string) error {
	return q.Caller.Call(ctx, queue.OpPurge, queue.Named{Name: name}, nil)
}

// TryPush sends messages in one command, at most queue.PushMax: all of them, with
// req.Part as many as there is room for. It returns the ids of those that were sent.
func (q Queues) TryPush(ctx context.Context, req queue.Push) ([]uint64, error) {
	out, err := q.push(ctx, req)
	return out.IDs, err
}

func (q Queues) push(ctx context.Context, req queue.Push) (out queue.Pushed, err error) {
	err = q.Caller.Call(ctx, queue.OpPush, req, &out)
	return out, err
}

// Push sends messages and returns when they are as safe as the queue promises. It
// waits for room until ctx ends; then it says which were sent.
func (q Queues) Push(ctx context.Context, name string, list ...queue.Message) (ids []uint64, err error) {
	return q.pushBy(ctx, name, list, q.push)
}

// pushBy is Push where send sends what goes in one command.
func (q Queues) pushBy(ctx context.Context, name string, list []queue.Message, send func(context.Context, queue.Push) (queue.Pushed, error)) (ids []uint64, err error) {
	for {
		n, size := 0, 0
		for n < len(list) && n < queue.PushMax && (n == 0 || size+len(list[n].Body) <= queue.PushBytes) {
			size += len(list[n].Body)
			n++
		}
		// Only the waiting looks at ctx, or nobody would know what was sent.
		out, err := send(context.WithoutCancel(ctx), queue.Push{Name: name, Messages: list[:n], Part: true})
		if err != nil {
			return ids, err
		}
		ids = append(ids, out.IDs...)
		list = list[len(out.IDs):]
		if len(list) == 0 {
			return ids, nil
		}
		if len(out.IDs) == n {
			continue
		}
		if err := q.Caller.Call(ctx, queue.OpRoom, queue.Fit{Queue: out.Queue, N: 1}, nil); err != nil {
			return ids, err
		}
	}
}

// Room returns when there may be room for a message in a queue: at once if there is,
// else when something has changed, or after a while.
func (q Queues) Room(ctx context.Context, name string) error {
	st, err := q.Status(ctx, name)
	if err != nil {
		return err
	}
	return q.Caller.Call(ctx, queue.OpRoom, queue.Fit{Queue: st.ID, N: 1}, nil)
}

// Settle says what becomes of what was taken. It returns how many of the claims are
// no more: what they had is another's by now.
func (q Queues) Settle(ctx context.Context, list ...queue.Settle) (stale int, err error) {
	for len(list) > 0 {
		part := list[:min(len(list), queue.SettleMax)]
		var out queue.Settled
		if err := q.Caller.Call(ctx, queue.OpSettle, queue.Settles{List: part}, &out); err != nil {
			return stale, err
		}
		stale += out.Stale
		list = list[len(part):]
	}
	return stale, nil
}

// MakeGroup makes a group, which begins at the end of the log.
func (q Queues) MakeGroup(ctx context.Context, name, group string) error {
	return q.Caller.Call(ctx, queue.OpMakeGroup, queue.Grouped{Name: name, Group: group}, nil)
}

// RemoveGroup removes a group of which nothing is out.
func (q Queues) RemoveGroup(ctx context.Context, name, group string) error {
	return q.Caller.Call(ctx, queue.OpRemoveGroup, queue.Grouped{Name: name, Group: group}, nil)
}

// Seek puts a group elsewhere in the log.
func (q Queues) Seek(ctx context.Context, to queue.Seek) error {
	return q.Caller.Call(ctx, queue.OpSeek, to, nil)
}

// List returns the names of all queues, in order.
func (q Queues) List(ctx context.Context) (names []string, err error) {
	for more := true; more; {
		var reply queue.Names
		req := queue.List{Limit: queue.ListMax}
		if len(names) > 0 {
			req.After = names[len(names)-1]
		}
		if err := q.Caller.Call(ctx, queue.OpList, req, &reply); err != nil {
			return nil, err
		}
		names = append(names, reply.Names...)
		more = reply.More && len(reply.Names) > 0
	}
	return names, nil
}

// Status describes a queue.
func (q Queues) Status(ctx context.Context, name string) (out queue.Status, err error) {
	err = q.Caller.Call(ctx, queue.OpStatus, queue.Named{Name: name}, &out)
	return out, err
}

// Read returns messages without taking them.
func (q Queues) Read(ctx context.Context, req queue.Read) (out queue.Log, err error) {
	err = q.Caller.Call(ctx, queue.OpRead, req, &out)
	return out, err
}

// Flights returns what is taken of a group, from a message on.
func (q Queues) Flights(ctx context.Context, req queue.Flights) (out queue.Flying, err error) {
	err = q.Caller.Call(ctx, queue.OpFlights, req, &out)
	return out, err
}

// Dead returns dead messages, from one on.
func (q Queues) Dead(ctx context.Context, req queue.Dead) (out queue.Letters, err error) {
	err = q.Caller.Call(ctx, queue.OpDead, req, &out)
	return out, err
}

// Bury removes a dead message.
func (q Queues) Bury(ctx context.Context, name string, number uint64) error {
	return q.Caller.Call(ctx, queue.OpBury, queue.Bury{Name: name, Number: number}, nil)
}
