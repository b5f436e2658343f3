package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"

	"dos/meta"
)

// snapshots is what Raft takes for a store of snapshots. It holds at most one,
// the record in "current"; the data is the state itself.
type snapshots struct {
	dir  string
	fsm  *fsm
	quit <-chan struct{}
	log  *slog.Logger

	mu       sync.Mutex
	current  current
	incoming *current // arrives or has arrived from the leader, not yet restored
}

// record returns what "current" says.
func (s *snapshots) record() current {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// arriving returns the snapshot that came from the leader.
func (s *snapshots) arriving() current {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.incoming == nil {
		panic("replica: Restore without a snapshot that arrived")
	}
	return *s.incoming
}

// swap makes c, which was restored, the record.
func (s *snapshots) swap(c current) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := saveCurrent(s.dir, c); err != nil {
		return err
	}
	s.current, s.incoming = c, nil
	if err := os.Remove(filepath.Join(s.dir, "incoming")); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("replica: removing a snapshot that was restored", "err", err)
	}
	return nil
}

// advance makes c, of the same state, the record. A state that was swapped
// meanwhile, or a snapshot that is older, leaves it as it is.
func (s *snapshots) advance(c current) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Generation != s.current.Generation || c.Index < s.current.Index {
		return fmt.Errorf("replica: snapshot at %d of generation %d: the record is at %d of generation %d: %w",
			c.Index, c.Generation, s.current.Index, s.current.Generation, meta.Conflict)
	}
	if err := saveCurrent(s.dir, c); err != nil {
		return err
	}
	s.current = c
	return nil
}

// atEnd records a snapshot of a state that was closed, all in tables.
func (s *snapshots) atEnd(at position, members []byte) error {
	c := s.record()
	if len(members) < 8 || at.index <= c.Index {
		return nil
	}
	c.Index, c.Term = at.index, at.term
	c.MembersFrom, c.Members = binary.BigEndian.Uint64(members), members[8:]
	return s.advance(c)
}

func snapshotID(index, term uint64) string { return fmt.Sprintf("%d-%d", term, index) }

// Create begins a snapshot: of our own state, if Persist is called with the sink
// next, or one that the leader sends, if it is written to.
func (s *snapshots) Create(_ raft.SnapshotVersion, index, term uint64, members raft.Configuration, from uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	c := s.record()
	c.Index, c.Term = index, term
	c.Members, c.MembersFrom = raft.EncodeConfiguration(members), from
	return &sink{snapshots: s, new: c}, nil
}

func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	c := s.record()
	if c.Index == 0 {
		return nil, nil
	}
	return []*raft.SnapshotMeta{describe(c)}, nil
}

func describe(c current) *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version:            raft.SnapshotVersionMax,
		ID:                 snapshotID(c.Index, c.Term),
		Index:              c.Index,
		Term:               c.Term,
		Configuration:      raft.DecodeConfiguration(c.Members),
		ConfigurationIndex: c.MembersFrom,
	}
}

// Open returns a state to send to a follower, or the one that has just arrived.
//
// What is sent is the state as it is now, not as it was when the snapshot was
// recorded: versions that old are gone. It is committed, so a follower may have
// it, and the description says its index.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	in := s.incoming
	s.mu.Unlock()
	if in != nil && id == snapshotID(in.Index, in.Term) {
		f, err := os.Open(filepath.Join(s.dir, "incoming"))
		if err != nil {
			return nil, nil, err
		}
		info, err := f.Stat()
		if err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
		meta := describe(*in)
		meta.Size = info.Size()
		return meta, f, nil
	}
	v, err := s.fsm.view()
	if err != nil {
		return nil, nil, err
	}
	row, ok := v.Get(membersKey)
	if !ok {
		v.close()
		return nil, nil, fmt.Errorf("replica: the state at %d does not know the members: %w", v.at.index, meta.Lost)
	}
	desc := describe(current{Index: v.at.index, Term: v.at.term, MembersFrom: binary.BigEndian.Uint64(row), Members: row[8:]})
	// The receiver must be told the size beforehand. The view does not change,
	// so counting once and sending once see the same.
	var count counter
	if err := dump(&count, v); err != nil {
		v.close()
		return nil, nil, err
	}
	desc.Size = int64(count)
	from, to := io.Pipe()
	done := make(chan struct{})
	go func() { // ends when the reader is read to its end or closed, and Close waits for it
		defer close(done)
		defer v.close()
		to.CloseWithError(dump(to, v))
	}()
	return desc, sending{from, done}, nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

type sending struct {
	*io.PipeReader
	done <-chan struct{}
}

func (s sending) Close() error {
	err := s.PipeReader.Close()
	<-s.done
	return err
}

// A sink takes in one snapshot.
type sink struct {
	*snapshots
	new    current
	own    bool // Persist has made sure of the index
	file   *os.File
	closed bool
}

func (s *sink) ID() string { return snapshotID(s.new.Index, s.new.Term) }

func (s *sink) Write(p []byte) (int, error) {
	if s.file == nil {
		f, err := os.OpenFile(filepath.Join(s.dir, "incoming"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return 0, err
		}
		s.file = f
	}
	return s.file.Write(p)
}

// Close ends a snapshot. That of our own state is recorded. One that arrived is
// recorded when it is restored, not before: until then it is no state of ours.
func (s *sink) Close() error {
	switch {
	case s.closed:
		return nil
	case s.own:
		s.closed = true
		return s.recordOwn()
	case s.file == nil:
		return errors.New("replica: an empty snapshot")
	}
	s.closed = true
	err := errors.Join(s.file.Sync(), s.file.Close())
	s.file = nil
	if err == nil {
		s.mu.Lock()
		s.incoming = &s.new
		s.mu.Unlock()
	}
	return err
}

func (s *sink) recordOwn() error {
	st := s.fsm.current()
	if st.generation != s.new.Generation {
		return fmt.Errorf("replica: the state was swapped meanwhile: %w", meta.Conflict)
	}
	if f, _ := st.durable(); s.new.Index > f {
		panic(fmt.Sprintf("replica: snapshot at %d, durable is %d", s.new.Index, f))
	}
	// The folder's own entries are the last thing that might not be on disk.
	if err := syncDir(stateDir(s.dir, s.new.Generation)); err != nil {
		return err
	}
	return s.advance(s.new)
}

func (s *sink) Cancel() error {
	s.closed = true
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.file.Close(), os.Remove(s.file.Name()))
	s.file = nil
	return err
}

// snapshot is a snapshot of our own state: nothing but the wish for one.
type snapshot struct{ fsm *fsm }

func (snapshot) Release() {}

// Persist makes the state durable up to the snapshot's index, while entries go
// on being applied.
func (s snapshot) Persist(to raft.SnapshotSink) error {
	sink, ok := to.(*sink)
	if !ok {
		return fmt.Errorf("replica: a sink of type %T", to)
	}
	if err := s.fsm.current().flush(sink.quit, sink.new.Index); err != nil {
		return fmt.Errorf("making the state durable up to %d: %w", sink.new.Index, err)
	}
	sink.own = true
	return nil
}
