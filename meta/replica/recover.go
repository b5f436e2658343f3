package replica

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"dos/meta"
)

// A Survivor is what is left of a group in one member's directory.
type Survivor struct {
	Group []Member // as the member knew it
	Last  uint64   // the last entry that it has
}

// Inspect says what a member that does not run has.
func Inspect(cfg Config) (Survivor, error) { return offline(cfg, (*Replica).survivor) }

// Recover makes the member of a directory a group by itself, of which it is the
// only voter, with all that it has. It is for a group that has lost its majority
// for good. Entries that this member had not got are lost, also acknowledged ones,
// and entries that were never acknowledged may be kept. Other members that have
// survived may have been ahead of this one: they must not go on with what they
// have, and find out themselves (see logs.DeleteRange).
//
// The new group is an entry of its own at the end of the log, as a leader would
// write it.
func Recover(cfg Config) (Survivor, error) {
	return offline(cfg, func(r *Replica) (Survivor, error) {
		s, err := r.survivor()
		if err != nil {
			return s, err
		}
		term, err := r.logs.stable.GetUint64(keyCurrentTerm)
		if err != nil {
			return s, err
		}
		// Above every term that the member has heard of, so that it is not taken for
		// an entry of the old group.
		term++
		if err := r.logs.stable.SetUint64(keyCurrentTerm, term); err != nil {
			return s, err
		}
		alone := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(cfg.ID), Address: raft.ServerAddress(r.cfg.Address)}}}
		return s, r.logs.StoreLog(&raft.Log{Index: s.Last + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(alone)})
	})
}

// offline opens the files of a member that does not run, for do.
func offline(cfg Config, do func(*Replica) (Survivor, error)) (s Survivor, err error) {
	if err := cfg.defaults(); err != nil {
		return s, err
	}
	r := &Replica{cfg: cfg, quit: make(chan struct{}), dead: make(chan struct{})}
	defer func() { err = errors.Join(err, r.release()) }()
	if err := r.openFiles(); err != nil {
		return s, err
	}
	return do(r)
}

func (r *Replica) survivor() (Survivor, error) {
	snap := r.snap.record()
	first, last, err := r.logs.bounds()
	if err != nil {
		return Survivor{}, err
	}
	s := Survivor{Last: max(last, snap.Index)}
	members := snap.Members
	for index := max(first, snap.Index+1); last > 0 && index <= last; index++ {
		var entry raft.Log
		if err := r.logs.GetLog(index, &entry); err != nil {
			return s, fmt.Errorf("replica: entry %d: %w", index, err)
		}
		if entry.Type == raft.LogConfiguration {
			members = entry.Data
		}
	}
	if len(members) == 0 {
		return s, fmt.Errorf("replica: %s was never in a group: %w", r.cfg.Dir, meta.NotExist)
	}
	for _, m := range raft.DecodeConfiguration(members).Servers {
		s.Group = append(s.Group, Member{ID: string(m.ID), Address: string(m.Address), Voter: m.Suffrage == raft.Voter})
	}
	return s, nil
}

// forsake makes the next Open of this directory refuse it as Lost.
func (l *logs) forsake() error {
	l.highest.Store(^uint64(0))
	return l.recordAcked()
}
