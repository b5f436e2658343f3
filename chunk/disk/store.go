package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"dos/chunk"
	"dos/internal/disk"
)

// A Store is a chunk.Store in a folder. Open makes it.
type Store struct {
	c    Config
	dir  string
	id   Identity
	lock io.Closer
	mark mark
	sums *sumCache
	room space

	commits chan struct{}  // something waits for a sync
	sweeps  chan struct{}  // something waits for the sweeper
	stop    chan struct{}  // closed by Close
	lostc   chan struct{}  // closed when lost is set
	writes  sync.WaitGroup // records between reservation and retirement
	loops   sync.WaitGroup

	mu       sync.RWMutex
	index    *index                     // guarded by mu, as everything below
	segments map[uint32]*segment        // open ones, by number
	active   *segment                   // where records go; nil: a new one is needed
	rolling  chan struct{}              // closed when the new active segment is there
	busy     map[chunk.ID]chan struct{} // closed when the Put or Delete of the shard is over
	pending  []*op                      // reserved, in order of write; retired ones leave from the front
	queue    []*op                      // written, waiting for a sync
	reap     []grave                    // dead, to be punched
	reaping  []grave                    // being punched
	punched  []grave                    // punched, not synced
	unsafe   map[chunk.ID]int           // how often a shard is in the three lists above
	reaped   chan struct{}              // closed when reap is empty again
	live     int64                      // bytes of live records
	appended int64                      // bytes written since the checkpoint
	lost     error                      // why nothing works any more
	closing  bool

	nextSeq, nextWrite uint64
	nextSeg            uint32
	checkpointSize     int64
}

var (
	_ chunk.Store    = (*Store)(nil)
	_ chunk.Scrubber = (*Store)(nil)
)

// Open opens the store in a folder and rebuilds its index.
func Open(dir string, c Config) (*Store, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if _, err := ReadIdentity(c.FS, dir); errors.Is(err, ErrNone) {
		return nil, err
	}
	lock, err := c.FS.Lock(dir)
	if err != nil {
		return nil, err
	}
	s, err := open(dir, c, lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.loops.Go(s.commitLoop)
	s.loops.Go(s.watchLoop)
	s.loops.Go(s.sweepLoop)
	return s, nil
}

func open(dir string, c Config, lock io.Closer) (*Store, error) {
	id, err := ReadIdentity(c.FS, dir)
	if err != nil {
		return nil, err
	}
	if id.Cluster != c.Cluster || id.Store != c.Store {
		return nil, fmt.Errorf("%s is store %d of cluster %s, want store %d of cluster %s: %w",
			dir, id.Store, id.Cluster, c.Store, c.Cluster, ErrForeign)
	}
	s := &Store{
		c: c, dir: dir, id: id, lock: lock, sums: newSumCache(c.Cache),
		commits: make(chan struct{}, 1), sweeps: make(chan struct{}, 1),
		stop: make(chan struct{}), lostc: make(chan struct{}), reaped: make(chan struct{}),
		index: newIndex(), segments: make(map[uint32]*segment),
		busy: make(map[chunk.ID]chan struct{}), unsafe: make(map[chunk.ID]int),
		nextSeq: 1, nextWrite: 1, nextSeg: 1,
	}
	s.room = space{c: c, dir: dir}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	return s, nil
}

func (s *Store) start() error {
	good, err := heal(s.c, s.dir, s.id)
	if err != nil {
		return err
	}
	if s.mark, err = setMark(s.c.FS, s.dir, good); err != nil {
		return err
	}
	if err := s.room.refresh(); err != nil {
		return err
	}
	if err := s.recover(); err != nil {
		return err
	}
	s.room.keepReserve(s.c.Log)
	return nil
}

// Identity says whose store this is.
func (s *Store) Identity() Identity { return s.id }

// Lost returns a channel that is closed when the store cannot be trusted any
// more. Then every method returns chunk.ErrLost, until somebody closes it and
// opens what is at the path.
func (s *Store) Lost() <-chan struct{} { return s.lostc }

// Err says why the store is lost, nil if it is not.
func (s *Store) Err() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.lost
}

// fail makes the store lost, and returns the error that its users get.
func (s *Store) fail(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = fmt.Errorf("%s: %w: %w", s.dir, chunk.ErrLost, cause)
		close(s.lostc)
	}
	return s.lost
}

var errClosed = errors.New("the store is closed")

// usable reports why the store is not. mu is held.
func (s *Store) usable() error {
	switch {
	case s.lost != nil:
		return s.lost
	case s.closing:
		return fmt.Errorf("%s: %w: %w", s.dir, chunk.ErrLost, errClosed)
	}
	return nil
}

// Close waits for writes under way, writes a checkpoint if there is room for one,
// and gives the folder back. Methods called later return chunk.ErrLost.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.closing = true
	s.mu.Unlock()
	s.writes.Wait()
	close(s.stop)
	s.loops.Wait()
	var err error
	if s.Err() == nil {
		s.punchAll()
		if err = s.syncPunched(); err == nil {
			err = s.lastCheckpoint()
		}
	}
	return errors.Join(err, s.closeFiles(), s.lock.Close())
}

// lastCheckpoint saves the next start from scanning. A full disk is no failure:
// the segments say it all.
func (s *Store) lastCheckpoint() error {
	err := s.checkpoint()
	if disk.IsFull(err) && s.room.giveReserve() {
		err = s.checkpoint()
	}
	if disk.IsFull(err) {
		s.c.Log.Warn("chunk store: no room for a checkpoint; the next start scans the segments", "dir", s.dir)
		return nil
	}
	return err
}

func (s *Store) closeFiles() error {
	var err error
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		err = errors.Join(err, seg.file.Close())
	}
	if s.mark.file != nil {
		err = errors.Join(err, s.mark.file.Close())
	}
	return err
}

// find looks a live shard up.
func (s *Store) find(ctx context.Context, id chunk.ID) (entry, disk.File, error) {
	if err := ctx.Err(); err != nil {
		return entry{}, nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(); err != nil {
		return entry{}, nil, err
	}
	e, ok := s.index.Get(key(id))
	switch {
	case !ok:
		return entry{}, nil, chunk.ErrNotExist
	case e.bad:
		return entry{}, nil, fmt.Errorf("shard %v: %w", id, chunk.ErrCorrupt)
	}
	return e, s.segments[e.at.segment].file, nil
}

func (s *Store) Stat(ctx context.Context, id chunk.ID) (chunk.Info, error) {
	e, _, err := s.find(ctx, id)
	if err != nil {
		return chunk.Info{}, err
	}
	return chunk.Info{ID: id, Size: int64(e.size)}, nil
}

const listPage = 512 // shards that List takes from the index at once

// List holds no lock while it yields. A shard that was found damaged is not listed.
func (s *Store) List(ctx context.Context, from chunk.ID) iter.Seq2[chunk.Info, error] {
	return func(yield func(chunk.Info, error) bool) {
		page := make([]chunk.Info, 0, listPage)
		for more := true; more; {
			var err error
			page, from, more, err = s.page(ctx, page[:0], from)
			if err != nil {
				yield(chunk.Info{}, err)
				return
			}
			for _, info := range page {
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

// page appends shards from a place on, and says where the next page begins.
func (s *Store) page(ctx context.Context, page []chunk.Info, from chunk.ID) ([]chunk.Info, chunk.ID, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, from, false, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(); err != nil {
		return nil, from, false, err
	}
	more := false
	seen := 0
	s.index.AscendGreaterOrEqual(key(from), func(e entry) bool {
		if seen == listPage {
			from, more = e.id(), true
			return false
		}
		seen++
		if !e.bad {
			page = append(page, chunk.Info{ID: e.id(), Size: int64(e.size)})
		}
		return true
	})
	return page, from, more, nil
}

func (s *Store) Usage(ctx context.Context) (chunk.Usage, error) {
	if err := ctx.Err(); err != nil {
		return chunk.Usage{}, err
	}
	if err := s.room.refresh(); err != nil {
		return chunk.Usage{}, s.fail(err)
	}
	capacity, free := s.room.left()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(); err != nil {
		return chunk.Usage{}, err
	}
	return chunk.Usage{Capacity: capacity, Free: max(0, free), Used: s.live, Shards: int64(s.index.Len())}, nil
}

// addLive counts bytes of live records in a segment. mu is held.
func (s *Store) addLive(at place, n int64) {
	s.live += n
	if seg := s.segments[at.segment]; seg != nil {
		seg.live += n
	}
}
