package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"

	"dos/chunk"
	"dos/internal/disk"
)

const (
	floorMin     = 1 << 30
	floorPercent = 3
	smallDisk    = 20 << 30 // bytes: a file system below keeps smallPercent
	smallPercent = 5
	// smallFloor is the least: a metadata member on the same disk must be able
	// to go on when the stores take nothing more, see meta/replica.
	smallFloor = 192 << 20
	// spaceEvery is how many bytes are written until the file system is asked
	// again. Several stores may share it, and each knows only what it wrote itself.
	spaceEvery  = 1 << 20
	reserveName = "reserve"
)

// A space knows how much may still be written.
type space struct {
	c   Config
	dir string

	mu       sync.Mutex
	capacity int64 // of the file system; guarded by mu, as what follows
	free     int64 // above the floor, less what was written since; may be negative
	written  int64 // since the file system was asked
	reserve  bool  // the reserve file has its room
}

// floor is what has to stay free of a file system, in bytes.
func floor(c Config, capacity int64) int64 {
	switch {
	case c.Floor < 0:
		return 0
	case c.Floor > 0:
		return c.Floor
	case capacity < smallDisk:
		return max(smallFloor, capacity/100*smallPercent)
	}
	return max(floorMin, capacity/100*floorPercent)
}

// refresh asks the file system.
func (s *space) refresh() error {
	sp, err := s.c.FS.Space(s.dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity = sp.Capacity
	s.free = sp.Free - floor(s.c, sp.Capacity)
	s.written = 0
	return nil
}

func (s *space) left() (capacity, free int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.capacity, s.free
}

// take reserves n bytes; chunk.ErrFull when there is no room.
func (s *space) take(n int64) error {
	s.mu.Lock()
	stale := s.written+n > spaceEvery || n > s.free
	s.mu.Unlock()
	if stale {
		if err := s.refresh(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.free {
		return fmt.Errorf("%s: %d bytes wanted, %d left above the reserve: %w", s.dir, n, max(0, s.free), chunk.ErrFull)
	}
	s.free -= n
	s.written += n
	return nil
}

// keepReserve makes the reserve file if there is ample room for it.
func (s *space) keepReserve(log *slog.Logger) {
	s.mu.Lock()
	wanted := s.c.Reserve > 0 && !s.reserve && s.free > 2*s.c.Reserve
	s.mu.Unlock()
	path := filepath.Join(s.dir, reserveName)
	switch st, err := s.c.FS.Stat(path); {
	case !wanted:
		return
	case err == nil && st.Size == s.c.Reserve: // from an earlier time
	case err == nil || errors.Is(err, fs.ErrNotExist):
		err := replaceBy(s.c.FS, s.dir, reserveName, func(f disk.File) error { return f.Allocate(s.c.Reserve) })
		if err != nil {
			log.Warn("chunk store: no reserve file", "dir", s.dir, "err", err)
			return
		}
	default:
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserve = true
}

// giveReserve gives the reserve up and reports whether there was one.
func (s *space) giveReserve() bool {
	s.mu.Lock()
	s.reserve = false
	s.mu.Unlock()
	return s.c.FS.Remove(filepath.Join(s.dir, reserveName)) == nil
}
