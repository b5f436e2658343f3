package replica

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A Status is a member's account of itself.
type Status struct {
	ID     string
	Role   string // Leader, Follower, Candidate, Shutdown
	Leader string // its ID, or empty
	// LeaderAddress is where it is, or empty.
	LeaderAddress string
	Term          uint64
	Members       []Member
	Applied       uint64 // the index of the last entry applied
	Durable       uint64 // F: entries up to it need no log
	Snapshot      uint64 // the log may begin after this index
	First         uint64 // the first index in the log; 0 if it is empty
	Last          uint64 // the last
	LogSize       int64  // bytes of the log on disk
	Size          int64  // bytes of the state's tables on disk
}

// Status returns the member's account of itself.
func (r *Replica) Status() (Status, error) {
	s := Status{
		ID:       r.cfg.ID,
		Role:     r.raft.State().String(),
		Term:     r.raft.CurrentTerm(),
		Applied:  r.Applied(),
		Snapshot: r.snap.record().Index,
	}
	s.Durable, s.Size = r.fsm.durable()
	s.Leader, s.LeaderAddress = r.Leader()
	var err error
	if s.Members, err = r.Members(); err != nil {
		return s, err
	}
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
