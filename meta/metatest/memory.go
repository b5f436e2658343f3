package metatest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/state"
)

// A Memory executes requests on a machine whose state is in memory, one after
// the other: the twin of a metadata member for tests. It is a client.Sender.
type Memory struct {
	machine *state.Machine

	mu       sync.Mutex
	store    *state.Overlay // guarded by mu
	executed int            // commands; guarded by mu
}

// NewMemory returns a service that has nothing yet.
func NewMemory(m *state.Machine) *Memory {
	return &Memory{machine: m, store: state.NewOverlay(nil)}
}

// Do is client.Sender's.
func (s *Memory) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	if err := context.Cause(ctx); err != nil {
		return state.Reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.machine.IsCommand(cmd.Op):
		s.executed++
		cmd.Time = time.Now().UnixNano()
		return s.machine.Apply(s.store, cmd), nil
	case s.machine.IsQuery(cmd.Op):
		return s.machine.Answer(s.store, cmd), nil
	}
	return state.Reply{}, fmt.Errorf("operation %#04x is unknown here: %w", uint16(cmd.Op), meta.Unsupported)
}

// Commands counts the commands that arrived, those that were answered from kept
// replies among them.
func (s *Memory) Commands() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.executed
}
