package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"golang.org/x/sys/unix"

	"dos/meta"
	"dos/meta/state"
)

// Badger's sizes. All together stay below about 200 MiB of memory: up to four
// memtables of 1.3 × their size, what a flush and two compactions build, and no
// block cache, since uncompressed blocks are read through a map of their file
// and the page cache holds them.
const (
	memtableSize = 16 << 20
	memtables    = 3 // that wait to be flushed
	// Level 0 is compacted from 4 tables on, and writers wait only at 24: with
	// the defaults (5 and 15) batches waited for seconds.
	levelZero, levelZeroStall = 4, 24
	compactors                = 2
	tableSize                 = 4 << 20
	baseLevelSize             = 64 << 20
	valueLogSize              = 1 << 20 // the least that there can be; it stays empty
	valueThreshold            = 1 << 20 // the most that there can be; no row reaches it
)

// The replica's own rows. Nothing but a row of ours begins with "0".
var (
	appliedKey = []byte("0applied") // see encodeApplied
	membersKey = []byte("0members") // index(8) of the entry, raft's encoding of the configuration
	fillKey    = []byte("0fill")    // zeros, see flush
	firstKey   = []byte("1")        // the first key that a machine can use
)

// A position is how far the state has come.
type position struct{ index, term uint64 }

// encodeApplied makes the row that says how far the state has come, and the time
// of the latest command in it: version 2, index(8), term(8), ns since 1970(8),
// big-endian. Version 1 has no time.
func encodeApplied(p position, latest int64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{2}, p.index)
	b = binary.BigEndian.AppendUint64(b, p.term)
	return binary.BigEndian.AppendUint64(b, uint64(latest))
}

func decodeApplied(b []byte) (p position, latest int64, err error) {
	switch {
	case len(b) == 25 && b[0] == 2:
		latest = int64(binary.BigEndian.Uint64(b[17:]))
	case len(b) != 17 || b[0] != 1:
		return p, 0, fmt.Errorf("the row of the applied index reads %x: %w", b, meta.Lost)
	}
	return position{binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])}, latest, nil
}

// A store is one generation of the state: a Badger that is written by one
// goroutine, the one that applies, and read by many.
type store struct {
	db         *badger.DB
	generation uint64
	maxSize    int64 // bytes, of half a Badger transaction
	maxCount   int64
	log        *slog.Logger

	roomMu sync.Mutex
	roomy  int  // memtables up to this number have their room, see keepRoom; guarded by roomMu
	begun  bool // one was begun since rotated was asked; guarded by roomMu

	mu      sync.Mutex
	moved   *sync.Cond     // a view was closed
	done    position       // what views see
	latest  int64          // the time of the latest command in it
	views   map[uint64]int // open views by the index they see
	splits  []split
	stable  uint64 // the highest F seen
	tables  int64  // bytes
	stopped bool
}

// A split is a batch that was too large for one Badger transaction and was
// written in several at the same timestamp. Only the last carries the applied
// index. If the process ends between them, what is there of the batch has a
// timestamp beyond the applied index, where nobody looks, and is overwritten by
// the same values when the entries are applied again. But as long as a table's
// version is exactly at, nobody can tell whether all of it is in tables.
type split struct{ at, before uint64 }

func openStore(dir string, generation uint64, cfg *Config) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := removeMemtables(dir); err != nil {
		return nil, err
	}
	if err := verifyTables(dir); err != nil {
		return nil, err
	}
	opt := badger.DefaultOptions(dir).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithMemTableSize(cfg.limits.memtable).
		WithNumMemtables(memtables).
		WithNumLevelZeroTables(levelZero).
		WithNumLevelZeroTablesStall(levelZeroStall).
		WithNumCompactors(compactors).
		WithBaseTableSize(tableSize).
		WithBaseLevelSize(baseLevelSize).
		WithValueThreshold(min(valueThreshold, cfg.limits.memtable/8)).
		WithValueLogFileSize(valueLogSize).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithLogger(badgerLogger{cfg.Log})
	db, err := badger.OpenManaged(opt)
	if err != nil {
		return nil, fmt.Errorf("replica: opening the state in %s: %w", dir, err)
	}
	s := &store{
		db:         db,
		generation: generation,
		maxSize:    db.MaxBatchSize() / 2,
		maxCount:   db.MaxBatchCount() / 2,
		views:      make(map[uint64]int),
		log:        cfg.Log,
	}
	s.keepRoom()
	s.moved = sync.NewCond(&s.mu)
	txn := db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	switch row, err := get(txn, appliedKey); {
	case errors.Is(err, badger.ErrKeyNotFound):
	case err != nil:
		return nil, errors.Join(fmt.Errorf("replica: %s: %w", dir, err), db.Close())
	default:
		if s.done, s.latest, err = decodeApplied(row); err != nil {
			return nil, errors.Join(fmt.Errorf("replica: %s: %w", dir, err), db.Close())
		}
	}
	s.stable = s.done.index // all that is there came from tables
	if top := s.topVersion(); top > s.done.index {
		s.splits = append(s.splits, split{top, s.done.index})
	}
	return s, nil
}

// removeMemtables removes Badger's logs of what its memtables held. It must be
// done before every open (see the package comment).
func removeMemtables(dir string) error {
	logs, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return err
	}
	for _, path := range logs {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// time returns the time of the latest command that views see.
func (s *store) time() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest
}

// position returns how far views see.
func (s *store) position() position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// A batch is what commit writes.
type batch struct {
	changes state.Seq
	count   int
	size    int
	to      position
	latest  int64  // the time of its latest command; 0 if it has none
	members []byte // the new value of its row, if not nil
	// check, if any, is asked after the last change whether all were sound.
	check func() error
}

// rowOverhead is more than Badger counts for a row beside key and value.
const rowOverhead = 16

// fits reports whether rows go into half a Badger transaction. The other half
// is for Badger's own accounting and the rows that commit adds.
func (s *store) fits(count, size int) bool {
	return int64(count) < s.maxCount && int64(size+count*rowOverhead) < s.maxSize
}

// commit writes a batch at the timestamp of its index, and moves what views see
// to it. It is called by one goroutine.
func (s *store) commit(b batch) error {
	if !s.fits(b.count, b.size) {
		s.mu.Lock()
		s.splits = append(s.splits, split{b.to.index, s.done.index})
		s.mu.Unlock()
	}
	s.keepRoom()
	s.mu.Lock()
	latest := max(s.latest, b.latest)
	s.mu.Unlock()
	txn := s.db.NewTransactionAt(b.to.index, true)
	defer func() { txn.Discard() }()
	count, size := 0, 0
	put := func(key, val []byte) error {
		if int64(len(val)) >= s.db.Opts().ValueThreshold {
			panic(fmt.Sprintf("replica: row %q of %d bytes would go to the value log", key, len(val)))
		}
		if count > 0 && !s.fits(count+1, size+len(key)+len(val)) {
			if err := txn.CommitAt(b.to.index, nil); err != nil {
				return err
			}
			s.keepRoom()
			txn = s.db.NewTransactionAt(b.to.index, true)
			count, size = 0, 0
		}
		count, size = count+1, size+len(key)+len(val)
		if val == nil {
			return txn.Delete(key)
		}
		return txn.Set(key, val)
	}
	for key, val := range b.changes {
		if err := put(key, val); err != nil {
			return err
		}
	}
	if b.check != nil {
		if err := b.check(); err != nil {
			return err
		}
	}
	if b.members != nil {
		if err := txn.Set(membersKey, b.members); err != nil {
			return err
		}
	}
	if err := txn.Set(appliedKey, encodeApplied(b.to, latest)); err != nil {
		return err
	}
	if err := txn.CommitAt(b.to.index, nil); err != nil {
		return err
	}
	s.mu.Lock()
	s.done, s.latest = b.to, latest
	s.mu.Unlock()
	return nil
}

// keepRoom sees to it that the log of the active memtable has its room on the
// disk. Badger makes a sparse file and writes through a map: if others filled the
// disk, the next page of it would kill the process. The files are numbered from
// 1 on at each start, since those of earlier ones are removed. It is called before
// each transaction, so that it meets each file while it is the active one.
func (s *store) keepRoom() {
	s.roomMu.Lock()
	defer s.roomMu.Unlock()
	for {
		path := filepath.Join(s.db.Opts().Dir, fmt.Sprintf("%05d.mem", s.roomy+1))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		s.roomy++
		s.begun = true
		if err == nil {
			size := s.db.Opts().MemTableSize + s.db.MaxBatchSize() + memtableSlack
			err = errors.Join(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size), f.Close())
		}
		if err != nil { // then it is as with any other file of Badger's
			s.log.Debug("replica: no room for a memtable", "path", path, "err", err)
		}
	}
}

// rotated reports whether a memtable was begun since it was last asked, so that
// an earlier one is about to be written out.
func (s *store) rotated() bool {
	s.keepRoom()
	s.roomMu.Lock()
	defer s.roomMu.Unlock()
	was := s.begun
	s.begun = false
	return was
}

// memtableSlack is more than Badger adds to the entries of one batch.
const memtableSlack = 1 << 20

// durable returns F, the highest index up to which everything is in tables, and
// the size of the tables.
func (s *store) durable() (index uint64, size int64) {
	var top uint64
	for _, t := range s.db.Tables() {
		top = max(top, t.MaxVersion)
		size += int64(t.OnDiskSize)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := min(top, s.done.index)
	kept := s.splits[:0]
	for _, sp := range s.splits {
		if sp.at == top {
			f = min(f, sp.before)
		}
		if sp.at >= top {
			kept = append(kept, sp)
		}
	}
	s.splits = kept
	s.stable = max(s.stable, f)
	s.tables = size
	return s.stable, size
}

// topVersion is the largest version in any table. Badger's own MaxVersion also
// counts memtables, which are not durable.
func (s *store) topVersion() uint64 {
	var top uint64
	for _, t := range s.db.Tables() {
		top = max(top, t.MaxVersion)
	}
	return top
}

// discard lets compactions drop every version that no view can see and no start
// will need; without it each version of each row is kept for ever.
func (s *store) discard() {
	f, _ := s.durable()
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := range s.views {
		f = min(f, at)
	}
	s.db.SetDiscardTs(f)
}

// flush sees to it that everything up to index is in tables. Badger flushes a
// memtable when it is full and at no other time, so flush fills it, with one row
// of zeros over and over, which leaves nothing but that row.
func (s *store) flush(quit <-chan struct{}, index uint64) error {
	if f, _ := s.durable(); f >= index {
		return nil
	}
	s.mu.Lock()
	at := s.done.index
	for _, sp := range s.splits {
		if sp.at == at {
			s.mu.Unlock()
			return fmt.Errorf("replica: whether %d is in tables shows only once there is a later entry: %w", index, meta.Busy)
		}
	}
	s.mu.Unlock()
	zeros := make([]byte, min(256<<10, s.maxSize/4))
	for written := int64(0); written <= s.db.Opts().MemTableSize+int64(len(zeros)); written += int64(len(zeros)) {
		s.keepRoom()
		txn := s.db.NewTransactionAt(at, true)
		err := txn.Set(fillKey, zeros)
		if err == nil {
			err = txn.CommitAt(at, nil)
		}
		txn.Discard()
		if err != nil {
			return err
		}
		select {
		case <-quit:
			return fmt.Errorf("replica: stopped: %w", meta.Unavailable)
		default:
		}
	}
	tick, late := time.NewTicker(5*time.Millisecond), time.NewTimer(flushWait)
	defer tick.Stop()
	defer late.Stop()
	for {
		if f, _ := s.durable(); f >= index {
			return nil
		}
		if s.isStopped() { // another state has taken its place
			return fmt.Errorf("replica: stopped: %w", meta.Unavailable)
		}
		select {
		case <-tick.C:
		case <-quit:
			return fmt.Errorf("replica: stopped: %w", meta.Unavailable)
		case <-late.C:
			return fmt.Errorf("replica: a memtable was not flushed within %v: %w", flushWait, meta.TimedOut)
		}
	}
}

// flushWait bounds a flush. A memtable takes well under a second.
const flushWait = 30 * time.Second

func (s *store) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// close waits for the views to end and flushes everything to tables.
func (s *store) close() error {
	s.mu.Lock()
	s.stopped = true
	for len(s.views) > 0 {
		s.moved.Wait()
	}
	s.mu.Unlock()
	return s.db.Close()
}

func get(txn *badger.Txn, key []byte) ([]byte, error) {
	item, err := txn.Get(key)
	if err != nil {
		return nil, err
	}
	var val []byte
	// The value was copied into the item, which nobody else has.
	err = item.Value(func(v []byte) error { val = v; return nil })
	return val, err
}

// badgerLogger passes on warnings and errors.
type badgerLogger struct{ log *slog.Logger }

func (l badgerLogger) Errorf(format string, args ...any) { l.log.Error(badgerLine(format, args)) }
func (l badgerLogger) Warningf(format string, args ...any) {
	l.log.Warn(badgerLine(format, args))
}
func (badgerLogger) Infof(string, ...any)  {}
func (badgerLogger) Debugf(string, ...any) {}

func badgerLine(format string, args []any) string {
	return "badger: " + strings.TrimSpace(fmt.Sprintf(format, args...))
}
