// Package node is the life of one metadata member: a replica that runs the
// machine of all services, the requests of this process and of connections
// executed on it, and the work that commands leave behind for later. It knows
// which services there are (Machine), not what any of them does.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"dos/internal/boottime"
	"dos/meta"
	"dos/meta/cache"
	"dos/meta/call"
	"dos/meta/client"
	"dos/meta/kv"
	"dos/meta/lease"
	"dos/meta/lock"
	"dos/meta/members"
	"dos/meta/named"
	"dos/meta/namespace"
	"dos/meta/queue"
	"dos/meta/replica"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/task"
	"dos/meta/trust"
	"dos/meta/txn"
)

// Machine returns a machine with all services. Each keeps its operations to a
// range of 256 numbers, commands below 0x40 of it and queries from there on.
func Machine() *state.Machine {
	m := new(state.Machine)
	session.Register(m, namespace.Release, lease.Release, lock.Release, named.Drop, kv.Release, queue.Release, task.Drop, cache.Release, call.Release) // 0x00xx
	namespace.Register(m)                                                                                                                              // 0x01xx
	members.Register(m)                                                                                                                                // 0x02xx
	trust.Register(m)                                                                                                                                  // 0x03xx
	lease.Register(m)                                                                                                                                  // 0x04xx
	lock.Register(m)                                                                                                                                   // 0x05xx
	named.Register(m)                                                                                                                                  // 0x05xx too
	kv.Register(m)                                                                                                                                     // 0x06xx
	txn.Register(m, kv.Verbs, named.Verbs, queue.Verbs)                                                                                                // 0x06xx too
	queue.Room{Fence: fence}.Register(m)                                                                                                               // 0x07xx
	tasks.Register(m)                                                                                                                                  // 0x08xx
	cache.Register(m)                                                                                                                                  // 0x0axx
	call.Register(m)                                                                                                                                   // 0x0bxx
	return m
}

// fence is how queues are conditional on named locks.
func fence(r state.Reader, t queue.Token) error { return named.Check(r, t.Lock, t.Number) }

// A Node is one member. Its methods may be called concurrently. It is a
// client.Caller for requests without a session, and a client.Sender.
type Node struct {
	replica *replica.Replica
	machine *state.Machine
	log     *slog.Logger
	clock   func() time.Duration // boottime's
	expiry  expiry
	recalls recalls
	rows    *watch
}

var (
	_ client.Caller = (*Node)(nil)
	_ client.Sender = (*Node)(nil)
)

// Open starts the member. The configuration's machine is filled in here. The
// caller must Run the member, and Close it after that has returned.
func Open(c replica.Config) (*Node, error) {
	c.Machine = Machine()
	r, err := replica.Open(c)
	if err != nil {
		return nil, err
	}
	log := c.Log
	if log == nil {
		log = slog.Default()
	}
	return &Node{replica: r, machine: c.Machine, log: log, clock: boottime.Now, rows: newWatch()}, nil
}

// Close stops the member.
func (n *Node) Close() error { return n.replica.Close() }

// Replica is the member's replica, for its status and its administration.
func (n *Node) Replica() *replica.Replica { return n.replica }

// Leader says whether this member leads, and else at which address the one is
// that does, or "" if it is not known.
func (n *Node) Leader() (me bool, addr string) {
	if _, me = n.replica.Leads(); me {
		return true, ""
	}
	_, addr = n.replica.Leader()
	return false, addr
}

// Do is client.Sender's: a command is proposed and answered when it is
// committed and applied, a query sees all that was answered before. If another
// session's lease is in the way, that is asked to give it back, and the request
// is executed again; meta.Leased says that this took too long.
func (n *Node) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	if cmd.Op == lease.OpWanted {
		return n.wanted(ctx, cmd)
	}
	reply, err := n.execute(ctx, cmd)
	if reply.Kind != meta.Leased {
		return reply, err
	}
	until := n.clock() + recallWait
	for err == nil && reply.Kind == meta.Leased && n.recall(ctx, reply, until) {
		reply, err = n.execute(ctx, cmd)
	}
	return reply, err
}

func (n *Node) execute(ctx context.Context, cmd state.Command) (state.Reply, error) {
	hold, holds := heldBack[cmd.Op]
	switch {
	case n.machine.IsCommand(cmd.Op):
		return n.replica.Propose(ctx, cmd)
	case holds:
		return n.await(ctx, cmd, hold)
	case n.machine.IsQuery(cmd.Op):
		arrived := n.clock()
		if cmd.Op == session.OpRenew && n.recalls.refuses(cmd) {
			return state.Reply{Kind: meta.Busy, Text: "a lease is not given back: the session is not renewed"}, nil
		}
		var reply state.Reply
		err := n.replica.View(ctx, func(r state.Reader) error {
			reply = n.machine.Answer(r, cmd)
			return nil
		})
		if err == nil && cmd.Op == session.OpRenew && reply.Err() == nil {
			n.renewed(cmd, arrived)
		}
		return reply, err
	}
	return state.Reply{}, fmt.Errorf("operation %#04x is unknown here: %w", uint16(cmd.Op), meta.Unsupported)
}

// Call is client.Caller's, without a session.
func (n *Node) Call(ctx context.Context, op state.Op, req, resp any) error {
	return n.Session(0).Call(ctx, op, req, resp)
}

// Session returns the Caller of a session of this process. Each request is sent
// once: if it fails with meta.Unavailable its outcome is not known.
func (n *Node) Session(id meta.SessionID) client.Caller { return client.Direct(n, id) }

// unavailable reports whether err says that this member cannot serve now.
func unavailable(err error) bool {
	return errors.Is(err, meta.Unavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
