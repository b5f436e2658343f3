package replica

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"dos/meta"
	"dos/meta/state"
)

// View calls fn with the state. It sees everything that was acknowledged, by
// any member, before View was called, and sees one index throughout. The reader
// is not valid after fn has returned. Only the leader can; the error is
// Unavailable, or fn's own.
func (r *Replica) View(ctx context.Context, fn func(state.Reader) error) error {
	if err := r.barrier(ctx); err != nil {
		return err
	}
	return r.Local(fn)
}

// Local is View without asking anyone: what it sees may be old.
func (r *Replica) Local(fn func(state.Reader) error) error {
	v, err := r.fsm.view()
	if err != nil {
		return err
	}
	defer v.close()
	return fn(v)
}

// barrier returns when what is applied here includes everything that was
// acknowledged before it was called.
func (r *Replica) barrier(ctx context.Context) error {
	if r.raft.State() != raft.Leader {
		return r.notLeader()
	}
	if r.term.Load() != r.raft.CurrentTerm() {
		if err := r.caughtUp(ctx); err != nil {
			return err
		}
	}
	// A group of one. Every acknowledgement was given by this process after it
	// had applied the entry, or in an earlier term, which caughtUp has seen to.
	// Nobody else can have become leader meanwhile: for that a configuration
	// with another voter would have to be in our log first (Raft uses one from
	// the moment it is appended, and so does GetConfiguration), and from one of
	// two members our vote would be needed, which ends our own lead before it is
	// sent. So there is nothing to verify or to wait for, and no disk involved.
	if r.alone() {
		return nil
	}
	select {
	case <-r.gate.closed():
		return r.shutError("not read")
	default:
	}
	index := r.raft.CommitIndex()
	if err := r.verify.join(ctx, &r.tasks, func() error { return r.await(r.raft.VerifyLeader()) }); err != nil {
		return fmt.Errorf("replica: %w: %w", meta.Unavailable, err)
	}
	// Entries of this term after the barrier all reach the state machine; those
	// before it were applied before.
	if index <= r.since.Load() {
		return nil
	}
	return r.Await(ctx, index)
}

func (r *Replica) alone() bool {
	servers := r.raft.GetConfiguration().Configuration().Servers
	return len(servers) == 1 && servers[0].ID == raft.ServerID(r.cfg.ID) && servers[0].Suffrage == raft.Voter
}

// caughtUp makes sure, once a term, that a new leader has applied all that its
// predecessors acknowledged.
func (r *Replica) caughtUp(ctx context.Context) error {
	done := make(chan error, 1)
	started := r.tasks.start(func() {
		r.ready.Lock()
		defer r.ready.Unlock()
		term := r.raft.CurrentTerm()
		if r.term.Load() == term {
			done <- nil
			return
		}
		// An entry without commands rather than Raft's own barrier, which the
		// state machine would not see: then a snapshot could be asked for at an
		// index that the state never reaches.
		f := r.raft.Apply(encodeEntry(nil), 0)
		err := r.await(f)
		if err == nil && r.raft.CurrentTerm() == term {
			r.since.Store(f.Index())
			r.term.Store(term)
		}
		done <- err
	})
	if !started {
		return r.gone()
	}
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("replica: %w: %w", meta.Unavailable, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("replica: %w: %w", meta.Unavailable, ctx.Err())
	case <-r.dead:
		return r.gone()
	}
}

// Applied returns the index of the last entry that was applied here.
func (r *Replica) Applied() uint64 { return r.fsm.current().position().index }

// Moved returns a channel that is closed when the applied index next moves. To
// follow the state, take the channel first, then read, then wait.
func (r *Replica) Moved() <-chan struct{} {
	r.fsm.mu.Lock()
	defer r.fsm.mu.Unlock()
	return r.fsm.moved
}

// Await returns when the entry at index has been applied here.
func (r *Replica) Await(ctx context.Context, index uint64) error {
	for {
		moved := r.Moved()
		if r.Applied() >= index {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("replica: waiting for index %d, at %d: %w: %w", index, r.Applied(), meta.Unavailable, ctx.Err())
		case <-r.quit:
			return r.gone()
		case <-r.dead:
			return r.gone()
		}
	}
}

// A verifier lets readers share a round of asking the others: all that came
// before a round began.
type verifier struct {
	mu   sync.Mutex
	busy bool
	next *round
}

type round struct {
	done chan struct{}
	err  error
}

// join waits for a round of ask that begins after join was called.
func (v *verifier) join(ctx context.Context, tasks *tasks, ask func() error) error {
	v.mu.Lock()
	if v.next == nil {
		v.next = &round{done: make(chan struct{})}
	}
	mine := v.next
	if !v.busy {
		if !tasks.start(func() { v.run(ask) }) {
			v.mu.Unlock()
			return raft.ErrRaftShutdown
		}
		v.busy = true
	}
	v.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *verifier) run(ask func() error) {
	for {
		v.mu.Lock()
		now := v.next
		v.next = nil
		if now == nil {
			v.busy = false
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		now.err = ask()
		close(now.done)
	}
}
