package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"

	"dos/meta"
)

// logs is the log store that Raft sees: raft-wal, and what we want to know of
// it: how long a write takes, how much was written, what was acknowledged.
type logs struct {
	*wal.WAL
	stable raft.StableStore
	index  *metadb.BoltMetaDB
	acked  *acked
	fatal  func(error)
	// needed says whether the state has an entry from this log, so that the log may
	// not get another in its place; nil before the two are known to fit each other.
	needed func(index uint64) bool

	began   atomic.Int64  // when the write under way began, in ns on our own clock; 0 if none is
	highest atomic.Uint64 // the last index that was acknowledged
	written atomic.Int64  // bytes in all
	clock   time.Time     // where that clock began

	// hold, in tests, is called in the middle of every write.
	hold atomic.Pointer[func()]
}

func openLogs(dir string, cfg *Config) (*logs, error) {
	sub := filepath.Join(dir, "raft")
	if err := os.MkdirAll(sub, 0o700); err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	ack, err := openAcked(filepath.Join(dir, "acked"))
	if err != nil {
		return nil, err
	}
	w, index, err := openWAL(sub, cfg)
	if errors.Is(err, meta.Lost) && cfg.Salvage {
		to, err := aside(sub)
		if err != nil {
			return nil, errors.Join(err, ack.close())
		}
		cfg.Log.Warn("replica: salvaging without the log", "it is in", to)
		return openLogs(dir, cfg)
	}
	if err != nil {
		return nil, errors.Join(err, ack.close())
	}
	l := &logs{WAL: w, stable: w, index: index, acked: ack, clock: time.Now()}
	l.highest.Store(ack.index)
	return l, nil
}

func (l *logs) close() error {
	return errors.Join(l.WAL.Close(), l.index.Close(), l.acked.close())
}

// IsMonotonic is said here in so many words because Raft looks for it: without
// it a follower can get stuck between a conflicting entry and a snapshot.
func (l *logs) IsMonotonic() bool { return l.WAL.IsMonotonic() }

func (l *logs) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs writes and syncs entries. An error ends the member: what the disk
// holds after a failed sync is not known, and the next start finds out.
func (l *logs) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	l.began.Store(max(1, int64(time.Since(l.clock))))
	defer l.began.Store(0)
	if hold := l.hold.Load(); hold != nil {
		(*hold)()
	}
	whole := make([]*raft.Log, len(entries))
	for i, e := range entries {
		whole[i] = sealed(e)
	}
	if err := l.WAL.StoreLogs(whole); err != nil {
		if l.fatal != nil && !errors.Is(err, wal.ErrClosed) {
			l.fatal(fmt.Errorf("writing the log: %w", err))
		}
		return err
	}
	size := 0
	for _, e := range entries {
		size += len(e.Data) + entryOverhead
	}
	l.written.Add(int64(size))
	l.highest.Store(entries[len(entries)-1].Index)
	return nil
}

// entryOverhead is about what the log adds to each entry.
const entryOverhead = 48

// DeleteRange cuts the log. When its end goes, because a new leader says
// otherwise, what was acknowledged of it goes first, or the next start would
// miss it. What was applied does not go: then the group was made anew without this
// member (see Recover), and the state here is of another history. The member ends,
// and its directory is not to be used again.
func (l *logs) DeleteRange(from, to uint64) error {
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	if l.needed != nil && to >= last && l.needed(from) {
		err := fmt.Errorf("entry %d was applied here and the group has another: it was made anew without this member: %w", from, meta.Lost)
		if l.fatal != nil {
			l.fatal(errors.Join(err, l.forsake()))
		}
		return err
	}
	if to >= last && from <= l.highest.Load() {
		l.highest.Store(from - 1)
		if err := l.recordAcked(); err != nil {
			return err
		}
	}
	return l.WAL.DeleteRange(from, to)
}

// recordAcked writes down the highest index acknowledged, if it has changed.
func (l *logs) recordAcked() error { return l.acked.record(l.highest.Load()) }

// writing returns when the write under way began, as a number that tells it from
// others, and how long it has taken; 0 if none is.
func (l *logs) writing() (began int64, took time.Duration) {
	if began = l.began.Load(); began != 0 {
		took = time.Since(l.clock) - time.Duration(began)
	}
	return began, took
}

// last is the last index, 0 if the log is empty. It cannot fail while open.
func (l *logs) last() uint64 {
	last, err := l.LastIndex()
	if err != nil {
		return 0
	}
	return last
}

var _ raft.MonotonicLogStore = (*logs)(nil)

// openWAL opens the log proper. Its index is a Bolt file that raft-wal opens
// but does not close, so we hold it. What is neither of these libraries' files is
// Lost: they say so in many ways, also by a panic.
func openWAL(dir string, cfg *Config) (w *wal.WAL, index *metadb.BoltMetaDB, err error) {
	index = new(metadb.BoltMetaDB)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("replica: the log in %s cannot be read (%.100v): %w", dir, p, meta.Lost)
		}
	}()
	w, err = wal.Open(dir, wal.WithMetaStore(mendedIndex{index}), wal.WithSegmentSize(cfg.limits.segment), wal.WithSegmentFiler(segment.NewFiler(dir, newLogFiles())),
		wal.WithLogger(raftLogger(cfg.Log, false, nil)))
	var path *fs.PathError
	switch {
	case errors.As(err, &path) && !errors.Is(err, os.ErrNotExist):
		err = fmt.Errorf("replica: opening the log in %s: %w", dir, err)
	case err != nil:
		err = fmt.Errorf("replica: the log in %s cannot be read: %w: %w", dir, meta.Lost, err)
	}
	if err != nil {
		return nil, nil, errors.Join(err, index.Close())
	}
	return w, index, nil
}

// segmentSize is that of the log's files. They are made at full size, so a
// small log takes one of them, and go when a snapshot has passed them.
const segmentSize = 32 << 20
