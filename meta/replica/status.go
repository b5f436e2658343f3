package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"dos/meta"
)

// A Status is a member's account of itself.
type Status struct {
	ID       string
	Role     string // Leader, Follower, Candidate, Shutdown
	Leader   string // its ID, or empty
	Term     uint64
	Members  []Member
	Applied  uint64 // the index of the last entry applied
	Durable  uint64 // F: entries up to it need no log
	Snapshot uint64 // the log may begin after this index
	First    uint64 // the first index in the log; 0 if it is empty
	Last     uint64 // the last
	LogSize  int64  // bytes of the log on disk
	Size     int64  // bytes of the state's tables on disk
}

// A Member is one of the group.
type Member struct {
	ID, Address string
	Voter       bool
}

// Status returns the member's account of itself.
func (r *Replica) Status() (Status, error) {
	s := Status{
		ID:       r.cfg.ID,
		Role:     r.raft.State().String(),
		Leader:   r.Leader(),
		Term:     r.raft.CurrentTerm(),
		Applied:  r.Applied(),
		Snapshot: r.snap.record().Index,
	}
	s.Durable, s.Size = r.fsm.durable()
	conf := r.raft.GetConfiguration()
	if err := conf.Error(); err != nil {
		return s, err
	}
	for _, m := range conf.Configuration().Servers {
		s.Members = append(s.Members, Member{string(m.ID), string(m.Address), m.Suffrage == raft.Voter})
	}
	var err error
	if s.First, err = r.logs.FirstIndex(); err != nil {
		return s, err
	}
	if s.Last, err = r.logs.LastIndex(); err != nil {
		return s, err
	}
	s.LogSize, err = dirSize(filepath.Join(r.cfg.Dir, "raft"))
	return s, err
}

// dirSize is the disk space that the files of a flat directory take.
func dirSize(dir string) (int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var size int64
	for _, e := range entries {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, e.Name()), &st); err == nil {
			size += st.Blocks * 512
		} else if !errors.Is(err, unix.ENOENT) { // it was just removed
			return 0, err
		}
	}
	return size, nil
}

// Leader returns the ID of the leader, or "" if none is known.
func (r *Replica) Leader() string {
	_, id := r.raft.LeaderWithID()
	return string(id)
}

// Leads reports whether this member leads, as far as it knows, and in which term.
func (r *Replica) Leads() (term uint64, ok bool) {
	return r.raft.CurrentTerm(), r.raft.State() == raft.Leader
}

// AddVoter makes a member that runs already, at an address that the Streams
// understand, a voter of the group. Only the leader can.
func (r *Replica) AddVoter(ctx context.Context, id, addr string) error {
	return r.change(ctx, r.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(addr), 0, 0))
}

// Remove takes a member out of the group. Only the leader can.
func (r *Replica) Remove(ctx context.Context, id string) error {
	return r.change(ctx, r.raft.RemoveServer(raft.ServerID(id), 0, 0))
}

// Yield hands the lead to another member.
func (r *Replica) Yield(ctx context.Context) error {
	return r.change(ctx, r.raft.LeadershipTransfer())
}

func (r *Replica) change(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	if !r.tasks.start(func() { done <- f.Error() }) {
		return r.gone()
	}
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("replica: %w: %w", meta.Unavailable, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("replica: %w: outcome unknown: %w", meta.Unavailable, ctx.Err())
	case <-r.dead:
		return r.gone()
	}
}
