package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"dos/meta"
	"dos/meta/state"
)

const (
	queueLength = 1024     // proposals that wait for an entry
	queueBytes  = 64 << 20 // and what they may take together, with those under way
	// entriesUnderWay is how many entries may be between us and the answer. What an
	// entry costs is the work of three members to have it, not the commands in it: the
	// more of those wait for one, the more go through. With two, 8 who wait for each
	// command had a fifth less of them a second on two cores.
	entriesUnderWay = 1
)

// A proposal waits for its reply.
type proposal struct {
	cmd  state.Command
	size int64
	done chan answer // of one
}

type answer struct {
	reply state.Reply
	err   error
}

// Propose puts cmd into the log and returns what applying it said. The command's
// time is set here. NoSpace means that it was not proposed for lack of room (see
// space.go). Any other error means Unavailable, and the outcome may be unknown: a
// command that has a session, slot and number may be sent again, here or to
// another member, and is executed once.
func (r *Replica) Propose(ctx context.Context, cmd state.Command) (state.Reply, error) {
	size := int64(len(cmd.Body) + commandOverhead)
	switch {
	case !r.cfg.Machine.IsCommand(cmd.Op):
		return state.Reply{}, fmt.Errorf("replica: %#04x is no command here: %w", uint16(cmd.Op), meta.Unsupported)
	case size > maxCommand:
		return state.Reply{}, fmt.Errorf("replica: a command of %d bytes, at most %d: %w", size, maxCommand, meta.TooLarge)
	case r.raft.State() != raft.Leader:
		return state.Reply{}, r.notLeader()
	}
	shut := r.gate.closed()
	if err := r.room.Acquire(ctx, size); err != nil {
		return state.Reply{}, fmt.Errorf("replica: %w: not proposed: %w", meta.Unavailable, err)
	}
	p := &proposal{cmd: cmd, size: size, done: make(chan answer, 1)}
	select {
	case <-shut:
		r.room.Release(size)
		return state.Reply{}, r.shutError("not proposed")
	default:
	}
	select {
	case r.queue <- p:
	case <-shut:
		r.room.Release(size)
		return state.Reply{}, r.shutError("not proposed")
	case <-ctx.Done():
		r.room.Release(size)
		return state.Reply{}, fmt.Errorf("replica: %w: not proposed: %w", meta.Unavailable, ctx.Err())
	}
	select {
	case a := <-p.done:
		return a.reply, a.err
	case <-shut:
		select { // the answer may have come first
		case a := <-p.done:
			return a.reply, a.err
		default:
			return state.Reply{}, r.shutError("outcome unknown")
		}
	case <-ctx.Done():
		return state.Reply{}, fmt.Errorf("replica: %w: outcome unknown: %w", meta.Unavailable, ctx.Err())
	}
}

func (r *Replica) notLeader() error {
	select {
	case <-r.quit:
		return r.gone()
	case <-r.dead:
		return r.gone()
	default:
	}
	if leader, addr := r.Leader(); leader != "" && leader != r.cfg.ID {
		return fmt.Errorf("replica: %s is not the leader, %s at %s is: %w", r.cfg.ID, leader, addr, meta.Unavailable)
	}
	return fmt.Errorf("replica: there is no leader: %w", meta.Unavailable)
}

func (r *Replica) shutError(outcome string) error {
	select {
	case <-r.quit:
		return fmt.Errorf("%w; %s", r.gone(), outcome)
	case <-r.dead:
		return fmt.Errorf("%w; %s", r.gone(), outcome)
	default:
	}
	return fmt.Errorf("replica: the log has not answered for %v; %s: %w", r.cfg.limits.slow, outcome, meta.Unavailable)
}

// flight is an entry under way.
type flight struct {
	batch  []*proposal
	future raft.ApplyFuture
}

// propose makes entries of what waits, as long as the replica runs.
func (r *Replica) propose() {
	slots := make(chan struct{}, entriesUnderWay)
	flights := make(chan flight, entriesUnderWay)
	var land sync.WaitGroup
	land.Go(func() {
		for f := range flights {
			r.land(f)
			<-slots
		}
	})
	defer land.Wait()
	defer close(flights)
	var next *proposal
	for {
		if next == nil {
			select {
			case next = <-r.queue:
			case <-r.quit:
				r.refuseQueue()
				return
			}
		}
		select {
		case slots <- struct{}{}:
		case <-r.quit:
			r.answer([]*proposal{next}, answer{err: fmt.Errorf("%w; not proposed", r.gone())})
			r.refuseQueue()
			return
		}
		// What came while the slot was awaited goes along; nothing is awaited for
		// company.
		var batch []*proposal
		batch, next = r.gather(next)
		if batch = r.spare(batch); len(batch) == 0 {
			<-slots
			continue
		}
		cmds := make([]state.Command, len(batch))
		for i, p := range batch {
			p.cmd.Time = r.now()
			cmds[i] = p.cmd
		}
		flights <- flight{batch, r.raft.Apply(encodeEntry(cmds), 0)}
	}
}

// gather returns the proposals of the next entry, and one that did not fit.
func (r *Replica) gather(first *proposal) (batch []*proposal, next *proposal) {
	batch = []*proposal{first}
	for size := first.size; len(batch) < maxCommands; {
		select {
		case p := <-r.queue:
			if size += p.size; size > maxEntry {
				return batch, p
			}
			batch = append(batch, p)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// now is the time of a command: the clock's, but never before that of an
// earlier command.
func (r *Replica) now() int64 {
	now := r.cfg.Clock().UnixNano()
	r.advance(now)
	return r.lastTime.Load()
}

// advance notes that a command has the time t.
func (r *Replica) advance(t int64) {
	for {
		last := r.lastTime.Load()
		if t <= last || r.lastTime.CompareAndSwap(last, t) {
			return
		}
	}
}

// land waits for an entry and answers its proposals.
func (r *Replica) land(f flight) {
	err := r.await(f.future)
	if err == nil {
		switch replies := f.future.Response().(type) {
		case []state.Reply:
			for i := range f.batch {
				r.answer(f.batch[i:i+1], answer{reply: replies[i]})
			}
			return
		case error:
			err = replies
		default:
			panic(fmt.Sprintf("replica: entry %d was answered with %T", f.future.Index(), replies))
		}
	}
	if errors.Is(err, raft.ErrNotLeader) { // nothing was written
		r.answer(f.batch, answer{err: r.notLeader()})
		return
	}
	r.answer(f.batch, answer{err: fmt.Errorf("replica: %w: outcome unknown: %w", meta.Unavailable, err)})
}

// await returns how what Raft was asked for has ended. Raft takes requests into
// buffers, and those that come there just when it ends it never answers; what waits
// for their answers is left behind.
func (r *Replica) await(f raft.Future) error {
	answered := make(chan error, 1)
	go func() { answered <- f.Error() }()
	select {
	case err := <-answered:
		return err
	case <-r.ended:
		return raft.ErrRaftShutdown
	}
}

func (r *Replica) answer(batch []*proposal, a answer) {
	for _, p := range batch {
		r.room.Release(p.size)
		p.done <- a
	}
}

// refuseQueue answers what still waits when the replica stops. The gate is shut,
// so that who comes later does not wait.
func (r *Replica) refuseQueue() {
	for {
		select {
		case p := <-r.queue:
			r.answer([]*proposal{p}, answer{err: fmt.Errorf("%w; not proposed", r.gone())})
		default:
			return
		}
	}
}

// A gate tells all who wait when waiting has become pointless.
type gate struct {
	mu     sync.Mutex
	shutCh chan struct{} // closed while the gate is shut
	isShut bool
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shutCh, g.isShut = make(chan struct{}), false
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.isShut {
		close(g.shutCh)
		g.isShut = true
	}
}

// closed returns a channel that is closed when the gate shuts, or is shut.
func (g *gate) closed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shutCh
}
