package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/kv"
	"dos/meta/named"
	"dos/meta/session"
	"dos/meta/state"
)

const (
	// expireEvery is how often the sessions' time is looked at.
	expireEvery = 500 * time.Millisecond
	// gapMax is how late a look may be. A later one means that this process
	// stood still, and with it the renewals that wait in its buffers.
	gapMax = time.Second
)

// expiry is when sessions were renewed, as this member heard of it while it
// leads. It is not replicated: a new leader gives every session its whole time
// again, which is always safe.
type expiry struct {
	mu    sync.Mutex
	term  uint64                           // in which all of this was heard; guarded by mu
	since time.Duration                    // from then on this member has led and looked without a gap; guarded by mu
	last  time.Duration                    // when it looked last; guarded by mu
	heard map[meta.SessionID]time.Duration // when the last renewal came, or the session was seen first; guarded by mu
}

// renewed notes a renewal that was answered. It counts from when it arrived:
// the client counts from when it sent it, which was before.
func (n *Node) renewed(cmd state.Command, arrived time.Duration) {
	var req session.Ask
	if state.Unmarshal(cmd.Body, &req) != nil {
		return
	}
	e := &n.expiry
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heard != nil {
		e.heard[req.ID] = max(e.heard[req.ID], arrived)
	}
}

// expire ends, while this member leads, sessions that were not renewed in time,
// and what named locks have a time for.
func (n *Node) expire(ctx context.Context) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		n.expireLocks(ctx)
		n.expireValues(ctx)
		for _, id := range n.overdue() {
			err := (client.Session{Caller: n}).End(ctx, id)
			switch {
			case err == nil:
				n.log.Warn("meta: a session was not renewed in time and has ended", "session", id)
			case ctx.Err() == nil && !unavailable(err):
				n.log.Warn("meta: ending a session that was not renewed", "session", id, "err", err)
			}
		}
	}
}

// expireLocks has the named locks looked at that something is due of.
func (n *Node) expireLocks(ctx context.Context) {
	if _, leads := n.replica.Leads(); !leads {
		return
	}
	var due named.Due
	err := n.Local(named.OpDue, struct{}{}, &due)
	if err == nil && due.At != 0 && due.At <= meta.At(time.Now()) {
		err = n.Call(ctx, named.OpExpire, struct{}{}, nil)
	}
	if err != nil && ctx.Err() == nil && !unavailable(err) {
		n.log.Warn("meta: looking at locks that are due", "err", err)
	}
}

// expireValues has values removed whose time is over.
func (n *Node) expireValues(ctx context.Context) {
	if _, leads := n.replica.Leads(); !leads {
		return
	}
	var due kv.Due
	err := n.Local(kv.OpDue, struct{}{}, &due)
	for more := true; more && err == nil && due.At != 0 && due.At <= meta.At(time.Now()); {
		var reply kv.Expired
		err = n.Call(ctx, kv.OpExpire, struct{}{}, &reply)
		more = reply.More
	}
	if err != nil && ctx.Err() == nil && !unavailable(err) {
		n.log.Warn("meta: removing values whose time is over", "err", err)
	}
}

// overdue returns the sessions whose time is over.
func (n *Node) overdue() []meta.SessionID {
	now := n.clock()
	term, leads := n.replica.Leads()
	e := &n.expiry
	e.mu.Lock()
	defer e.mu.Unlock()
	if !leads {
		e.heard = nil
		return nil
	}
	if e.heard == nil || e.term != term || now-e.last > gapMax {
		e.heard, e.term, e.since = make(map[meta.SessionID]time.Duration), term, now
	}
	e.last = now
	var late []session.Info
	quiet := make(map[string]bool) // peers with a session that opens files and may be over soon
	there := make(map[meta.SessionID]bool)
	err := n.eachSession(func(s session.Info) {
		if s.TTL == 0 || s.Ending {
			return
		}
		there[s.ID] = true
		if _, seen := e.heard[s.ID]; !seen {
			e.heard[s.ID] = now
		}
		silence := now - max(e.heard[s.ID], e.since)
		if silence > s.TTL {
			late = append(late, s)
		}
		if s.Files && silence > s.TTL/2 {
			quiet[s.Peer] = true
		}
	})
	if err != nil {
		if !errors.Is(err, meta.Unavailable) {
			n.log.Warn("meta: listing sessions", "err", err)
		}
		return nil
	}
	for id := range e.heard {
		if !there[id] {
			delete(e.heard, id)
		}
	}
	var over []meta.SessionID
	for _, s := range late {
		if s.Name != session.Runner || !quiet[s.Peer] {
			over = append(over, s.ID)
		}
	}
	return over
}

// eachSession visits all sessions as applied here.
func (n *Node) eachSession(visit func(session.Info)) error {
	var after meta.SessionID
	for {
		var list session.Listed
		if err := n.Local(session.OpSessions, session.List{After: after, Limit: tendBatch}, &list); err != nil {
			return err
		}
		for _, s := range list.Sessions {
			after = s.ID
			visit(s)
		}
		if !list.More || len(list.Sessions) == 0 {
			return nil
		}
	}
}
