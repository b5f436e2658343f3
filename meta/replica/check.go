package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"dos/meta"
)

// check refuses a directory whose parts do not belong together: going on would
// lose entries silently. With Salvage it makes them fit instead.
func (r *Replica) check() error {
	first, last, err := r.logs.bounds()
	if err != nil {
		return err
	}
	snap, at := r.snap.record(), r.fsm.store.done
	bad := uint64(0)
	if last >= snap.Index {
		err = consistent(at.index, snap.Index, first, last, r.logs.acked.index)
		var damage error
		if first, bad, damage = r.sound(first, last, snap.Index); err == nil {
			err = damage
		}
	} else {
		// What was to be appended next would not follow such a log, so it is as
		// good as empty. A crash between swapping to a state from the leader and
		// removing the log leaves one.
		err = consistent(at.index, snap.Index, 0, 0, r.logs.acked.index)
		if err == nil && last > 0 {
			err = r.logs.DeleteRange(first, last)
		}
	}
	if err != nil {
		err = fmt.Errorf("replica: %s: %w", r.cfg.Dir, err)
	}
	switch {
	case err != nil && r.cfg.Salvage:
		r.cfg.Log.Warn("replica: salvaging", "found", err)
		if bad != 0 { // what is behind it follows nothing
			if err := r.logs.DeleteRange(bad, last); err != nil {
				return err
			}
			if first, last, err = r.logs.bounds(); err != nil {
				return err
			}
		}
		if err := r.salvage(first, last); err != nil {
			return err
		}
	case err != nil:
		return r.refuse(err)
	}
	return r.keepTerm()
}

// refuse adds to the reason why a directory is refused what can be done about it.
func (r *Replica) refuse(err error) error {
	if errors.Is(err, meta.Lost) && r.cfg.Stream == nil {
		return fmt.Errorf("%w; dosctl fsck --data D --salvage goes on with what is there", err)
	}
	return err
}

// sound reads the log. Damaged entries that the snapshot covers are of no use but
// to followers, who get the state instead: they go, with those before them. Of
// others it returns the first.
func (r *Replica) sound(first, last, snapshot uint64) (from, bad uint64, err error) {
	for {
		bad, err = r.logs.verify(first, last)
		if err == nil || bad > snapshot {
			return first, bad, err
		}
		r.cfg.Log.Warn("replica: a damaged part of the log goes; the state has what was in it", "dir", r.cfg.Dir, "err", err)
		if err := r.logs.DeleteRange(first, bad); err != nil {
			return first, 0, err
		}
		if first, last, err = r.logs.bounds(); err != nil || last == 0 {
			return first, 0, err
		}
	}
}

// consistent says what is wrong with the marks of a directory: the applied
// index, that of the snapshot, the first and the last in the log (0 if it is
// empty), and the highest that was acknowledged.
func consistent(applied, snapshot, first, last, acked uint64) error {
	switch {
	case applied < snapshot:
		return fmt.Errorf("the state is at %d and the snapshot at %d: the state has lost entries: %w", applied, snapshot, meta.Lost)
	case last > 0 && applied+1 < first:
		return fmt.Errorf("the state is at %d and the log begins at %d: entries are missing: %w", applied, first, meta.Lost)
	case applied > max(last, snapshot):
		return fmt.Errorf("the state is at %d and the log ends at %d: the log has lost entries: %w", applied, max(last, snapshot), meta.Lost)
	case acked == ^uint64(0):
		return fmt.Errorf("the record of what was acknowledged is damaged, or the group was made anew without this member: the log cannot prove itself whole: %w", meta.Lost)
	case acked > max(last, snapshot):
		return fmt.Errorf("entry %d was acknowledged and the log ends at %d: the log has lost entries: %w", acked, max(last, snapshot), meta.Lost)
	}
	return nil
}

func (l *logs) bounds() (first, last uint64, err error) {
	if first, err = l.FirstIndex(); err != nil {
		return 0, 0, err
	}
	last, err = l.LastIndex()
	return first, last, err
}

// salvage makes the state the truth. A log that follows it without a gap stays,
// else it goes, and counting goes on above every index that was ever used.
func (r *Replica) salvage(first, last uint64) error {
	s, snap := r.fsm.store, r.snap.record()
	at := s.done
	follows := last > 0 && first <= at.index+1 && last >= at.index && at.index >= snap.Index
	if follows {
		r.logs.highest.Store(last)
		return r.logs.recordAcked()
	}
	if last > 0 {
		if err := r.logs.DeleteRange(first, last); err != nil {
			return err
		}
	}
	top := position{max(at.index, snap.Index, last, s.topVersion()), max(at.term, snap.Term, 1)}
	if known := r.logs.acked.index; known != ^uint64(0) {
		top.index = max(top.index, known)
	}
	top.index++ // a timestamp that Badger has not seen
	term, err := r.logs.stable.GetUint64(keyCurrentTerm)
	if err != nil {
		return err
	}
	top.term = max(top.term, term)
	alone := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(r.cfg.ID), Address: raft.ServerAddress(r.cfg.Address)}}}
	members := raft.EncodeConfiguration(alone)
	if err := s.commit(batch{
		changes: func(func(k, v []byte) bool) {},
		to:      top,
		members: append(binary.BigEndian.AppendUint64(nil, top.index), members...),
	}); err != nil {
		return err
	}
	if err := s.flush(nil, top.index); err != nil {
		return err
	}
	snap.Index, snap.Term, snap.Members, snap.MembersFrom = top.index, top.term, members, top.index
	if err := r.snap.advance(snap); err != nil {
		return err
	}
	r.logs.highest.Store(top.index)
	return r.logs.recordAcked()
}

// keyCurrentTerm is where Raft keeps its term.
var keyCurrentTerm = []byte("CurrentTerm")

// keepTerm sees to it that Raft's term is not below the snapshot's, as in a
// directory that was restored from a dump.
func (r *Replica) keepTerm() error {
	term, err := r.logs.stable.GetUint64(keyCurrentTerm)
	if snap := r.snap.record(); err == nil && term < snap.Term {
		err = r.logs.stable.SetUint64(keyCurrentTerm, snap.Term)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("replica: %s: the term", r.cfg.Dir), err)
	}
	return nil
}
