package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/lock"
	"dos/meta/session"
	"dos/meta/state"
)

// ownLocks returns the locks of files of a mount that is the only one. What is
// locked ends with the mount, so it need not be stored: the service is a machine
// of its own, in memory.
func ownLocks(ctx context.Context) (*client.Locker, error) {
	s := &lockService{machine: new(state.Machine), store: state.NewOverlay(nil), changed: make(chan struct{})}
	session.Register(s.machine, lock.Release)
	lock.Register(s.machine)
	info, err := client.Session{Caller: client.Direct(s, 0)}.Open(ctx, "locks of files", nodeName, 0)
	if err != nil {
		return nil, err
	}
	return client.NewLocker(client.Direct(s, info.ID), func() meta.SessionID { return info.ID }), nil
}

// A lockService is a client.Sender.
type lockService struct {
	machine *state.Machine

	mu      sync.Mutex
	store   *state.Overlay // guarded by mu
	changed chan struct{}  // closed at the next command; guarded by mu
}

// awaitMax is how long an answer is held back while there is nothing new.
const awaitMax = 2 * time.Second

// Do is client.Sender's.
func (s *lockService) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	if !s.machine.IsQuery(cmd.Op) {
		s.mu.Lock()
		defer s.mu.Unlock()
		cmd.Time = time.Now().UnixNano()
		close(s.changed)
		s.changed = make(chan struct{})
		return s.machine.Apply(s.store, cmd), nil
	}
	late := time.NewTimer(awaitMax)
	defer late.Stop()
	for {
		s.mu.Lock()
		reply, changed := s.machine.Answer(s.store, cmd), s.changed
		s.mu.Unlock()
		if cmd.Op != lock.OpAwait || reply.Err() != nil {
			return reply, nil
		}
		var req lock.Await
		var now lock.Waiting
		if state.Unmarshal(cmd.Body, &req) != nil || state.Unmarshal(reply.Body, &now) != nil {
			return state.Reply{}, fmt.Errorf("a question after locks does not decode: %w", meta.Invalid)
		}
		if now.Grants != req.Seen {
			return reply, nil
		}
		select {
		case <-changed:
		case <-late.C:
			return reply, nil
		case <-ctx.Done():
			return state.Reply{}, context.Cause(ctx)
		}
	}
}
