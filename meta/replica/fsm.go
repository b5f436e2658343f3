package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/hashicorp/raft"

	"dos/meta/state"
)

// An fsm applies committed entries. Raft calls it from one goroutine.
type fsm struct {
	r    *Replica
	snap *snapshots

	mu    sync.Mutex
	store *store
	moved chan struct{} // closed and replaced when the applied index moves

	old sync.WaitGroup // generations that wait for their views to end
}

func newFSM(r *Replica, s *store) *fsm {
	return &fsm{r: r, store: s, moved: make(chan struct{})}
}

func (f *fsm) current() *store {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.store
}

func (f *fsm) durable() (uint64, int64) { return f.current().durable() }

// view opens a view of the current state. The state may be swapped between the
// two steps, and the one that was current is closed: then it is tried again.
func (f *fsm) view() (*view, error) {
	for {
		s := f.current()
		v, err := s.view()
		if err == nil || f.current() == s {
			return v, err
		}
	}
}

func (f *fsm) announce() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.moved)
	f.moved = make(chan struct{})
}

// Apply is never called: ApplyBatch is.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries, in as few transactions as they fit into, and
// returns for each a []state.Reply, or an error if the replica is dead. Entries
// up to the applied index are there already.
func (f *fsm) ApplyBatch(entries []*raft.Log) []any {
	out := make([]any, len(entries))
	err := f.apply(entries, out)
	if err != nil {
		f.r.fatal(fmt.Errorf("applying entries up to %d: %w", entries[len(entries)-1].Index, err))
		for i := range out {
			out[i] = err
		}
	}
	return out
}

func (f *fsm) apply(entries []*raft.Log, out []any) error {
	if f.r.failure.Load() != nil {
		return f.r.gone()
	}
	p, err := f.begin()
	if err != nil {
		return err
	}
	defer func() { p.view.close() }()
	for i, e := range entries {
		if e.Index <= p.at.index {
			continue
		}
		switch e.Type {
		case raft.LogCommand:
			replies, err := p.add(e)
			if err != nil {
				return err
			}
			out[i] = replies
		case raft.LogConfiguration:
			p.members = append(binary.BigEndian.AppendUint64(nil, e.Index), e.Data...)
			p.at = position{e.Index, e.Term}
		}
	}
	return p.commit()
}

// pending is a batch in the making.
type pending struct {
	fsm     *fsm
	view    *view
	changes *state.Overlay
	members []byte
	latest  int64 // the time of the latest command
	at      position
}

func (f *fsm) begin() (*pending, error) {
	v, err := f.current().view()
	if err != nil {
		return nil, err
	}
	return &pending{fsm: f, view: v, changes: state.NewOverlay(v), latest: v.latest, at: v.at}, nil
}

// add applies an entry. If it does not fit with what is there, that is
// committed first: batches are cut at the borders of entries.
func (p *pending) add(e *raft.Log) ([]state.Reply, error) {
	cmds, err := decodeEntry(e.Data)
	if err != nil {
		panic(fmt.Sprintf("replica: entry %d of our own log: %v", e.Index, err))
	}
	onto := p.changes
	had, _ := onto.Size()
	if had > 0 {
		onto = state.NewOverlay(p.changes)
	}
	replies := make([]state.Reply, len(cmds))
	latest := p.latest
	for i, cmd := range cmds {
		// A new leader may have proposed this before it had applied what others
		// proposed, by other clocks.
		latest = max(latest, cmd.Time)
		cmd.Time = latest
		replies[i] = p.fsm.r.cfg.Machine.Apply(onto, cmd)
	}
	if had > 0 {
		moreCount, moreSize := onto.Size()
		count, size := p.changes.Size()
		if !p.view.store.fits(count+moreCount, size+moreSize) {
			if err := p.commit(); err != nil {
				return nil, err
			}
		}
		for key, val := range onto.Changes() {
			if val == nil {
				p.changes.Delete(key)
			} else {
				p.changes.Set(key, val)
			}
		}
	}
	p.fsm.r.advance(latest)
	p.at, p.latest = position{e.Index, e.Term}, latest
	return replies, nil
}

// commit writes what is pending and begins anew on top of it.
func (p *pending) commit() error {
	if p.at == p.view.at {
		return nil
	}
	count, size := p.changes.Size()
	s := p.view.store
	err := s.commit(batch{changes: p.changes.Changes(), count: count, size: size, to: p.at, latest: p.latest, members: p.members})
	if err != nil {
		return err
	}
	if s.rotated() && p.fsm.r.space != nil {
		// Badger builds the table in memory before it writes it out. If others
		// filled the disk, the reserve is given up by then.
		if _, err := p.fsm.r.space.look(); err != nil {
			p.fsm.r.cfg.Log.Debug("replica: looking at the disk", "err", err) // tend says it aloud
		}
	}
	next, err := s.view()
	if err != nil {
		return err
	}
	p.view.close()
	p.view = next
	p.changes, p.members = state.NewOverlay(p.view), nil
	p.fsm.announce()
	return nil
}

// Snapshot returns at once. That there is something durable to record is seen
// to in Persist, which Raft calls from another goroutine.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return snapshot{f}, nil }

// Restore takes over a state that the leader sent. Raft has just opened it from
// our own snapshot store, which knows what it is.
func (f *fsm) Restore(data io.ReadCloser) error {
	err := f.restore(data)
	if err != nil {
		f.r.cfg.Log.Error("replica: the leader's snapshot could not be restored", "err", err)
	}
	return errors.Join(err, data.Close())
}

func (f *fsm) restore(data io.Reader) error {
	old := f.current()
	next := f.snap.arriving()
	next.Generation = old.generation + 1
	dir := stateDir(f.r.cfg.Dir, next.Generation)
	if err := os.RemoveAll(dir); err != nil { // of an attempt that failed
		return err
	}
	if err := fill(dir, next, data, &f.r.cfg); err != nil {
		return err
	}
	fresh, err := openStore(dir, next.Generation, &f.r.cfg)
	if err != nil {
		return err
	}
	if fresh.done.index != next.Index {
		return errors.Join(fmt.Errorf("the new state is at %d, not %d", fresh.done.index, next.Index), fresh.close())
	}
	// From here on a start finds the new state, and the snapshot.
	if err := f.snap.swap(next); err != nil {
		return errors.Join(err, fresh.close())
	}
	f.r.advance(fresh.time())
	f.mu.Lock()
	f.store = fresh
	f.mu.Unlock()
	f.announce()
	f.old.Go(func() {
		err := errors.Join(old.close(), os.RemoveAll(stateDir(f.r.cfg.Dir, old.generation)))
		if err != nil {
			f.r.cfg.Log.Warn("replica: removing the old state", "err", err)
		}
	})
	return nil
}

// needs returns a function that says whether the state has an entry of the log.
// After a state from the leader has taken the place of the old one, Raft empties
// the log first of all: that one belonged to the old one.
func (f *fsm) needs() func(index uint64) bool {
	of := f.current().generation
	return func(index uint64) bool {
		s := f.current()
		if s.generation != of {
			of = s.generation
			return false
		}
		return index <= s.position().index
	}
}

// stop closes the state, and if it was sound to the end records a snapshot at
// its end: all of it is in tables then, and the next start need not apply
// anything again.
func (f *fsm) stop() error {
	f.old.Wait()
	s := f.current()
	if f.r.failure.Load() != nil {
		// Badger would try to flush for ever if the disk is what failed. The log
		// has everything, and the process is to end.
		return nil
	}
	if _, err := f.r.space.look(); err != nil || f.r.space.level() == full {
		// Writing the memtable out would kill the process, see minFree. The log
		// has everything, and a start finds it there.
		f.r.cfg.Log.Warn("replica: the disk is full: the state was left as after a crash", "dir", f.r.cfg.Dir, "err", err)
		return nil
	}
	at, members, err := s.last()
	if err := errors.Join(err, s.close()); err != nil || f.r.raft == nil {
		return err
	}
	return f.snap.atEnd(at, members)
}

// last returns the position and the row of the members.
func (s *store) last() (position, []byte, error) {
	v, err := s.view()
	if err != nil {
		return position{}, nil, err
	}
	defer v.close()
	row, _ := v.Get(membersKey)
	return v.at, row, nil
}
