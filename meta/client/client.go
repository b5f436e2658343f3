// Package client is how Go programs, and every other room, ask the metadata
// service: one method for each of its operations, grouped by the service that
// answers.
//
// A Caller makes the calls. In the process of a metadata member it is the
// member itself (package meta/node, or Direct over it); elsewhere it is a
// Remote, which speaks for one session over a connection of package meta/rpc,
// sends again what got no answer and has each request executed once. Files,
// Stripes, Session, Members, Trust, Locks, KV, Queues and Tasks are the typed calls over
// any Caller; they hold nothing but the Caller and may be copied and used concurrently.
// A Locker waits for locks, a Consumer for messages.
//
// Errors are kinds of package meta, found with errors.Is, or the context's. A
// command that fails with meta.Unavailable or meta.TimedOut from a Remote, or
// with the context's error, may have been executed: its outcome is not known.
//
// The package does not know what the operations mean; that is written where
// they are, in meta/namespace, meta/session, meta/members,
// meta/trust, meta/lock, meta/queue and meta/task.
package client

import (
	"context"

	"dos/meta"
	"dos/meta/state"
)

// A Caller executes one operation. req is one of the operation's requests;
// resp points to its answer, or is nil when that is of no interest. It may be
// called concurrently.
type Caller interface {
	Call(ctx context.Context, op state.Op, req, resp any) error
}

// A Sender carries one request, a command or a query, to the service and brings
// back the reply: what executing it said, also if that was an error. An error
// of its own means that there is no reply. If its kind is meta.Unavailable or
// meta.TimedOut, or it has none, it is not known whether a command was executed,
// and sending it again may help; with any other kind it was not executed. The
// command's time is not looked at. It may be called concurrently.
type Sender interface {
	Do(ctx context.Context, cmd state.Command) (state.Reply, error)
}

// Direct returns the Caller that sends each request once, for the session. It
// is for callers in the same process as the service, or before there is a session.
func Direct(s Sender, session meta.SessionID) Caller { return direct{s, session} }

type direct struct {
	sender  Sender
	session meta.SessionID
}

// Session is the session that d speaks for.
func (d direct) Session() meta.SessionID { return d.session }

func (d direct) Call(ctx context.Context, op state.Op, req, resp any) error {
	reply, err := d.sender.Do(ctx, state.Command{Op: op, Session: d.session, Body: state.Marshal(req)})
	if err != nil {
		return err
	}
	return answer(reply, resp)
}

// answer reads a reply into resp.
func answer(reply state.Reply, resp any) error {
	if err := reply.Err(); err != nil {
		return err
	}
	if resp == nil {
		return nil
	}
	return decode(reply.Body, resp)
}
