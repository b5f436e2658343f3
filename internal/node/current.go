package node

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"dos/internal/agent"
)

// current is the agent that a runner has at the moment.
type current struct {
	mu       sync.Mutex
	agent    *agent.Agent         // nil between sessions; guarded by mu
	left     func() time.Duration // of its session; guarded by mu
	draining bool                 // guarded by mu
}

// begin notes the agent of a new session, nil for the end of one. It is false if nothing is to
// begin any more.
func (h *current) begin(a *agent.Agent, left func() time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.agent, h.left = a, left
	return !h.draining || a == nil
}

func (h *current) tasks() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.agent == nil {
		return 0
	}
	return h.agent.Tasks()
}

// idle reports whether nothing runs: there is no task, or the hour of all has passed, and
// what is left of them is output that nobody takes.
func (h *current) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.agent == nil || h.agent.Tasks() == 0 || h.left() <= 0
}

// drain has the agent end with its last task; false if there is none.
func (h *current) drain() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	if h.agent == nil {
		return false
	}
	h.agent.Drain()
	return true
}

// keyOf is a short name for what a text says.
func keyOf(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:16] }
