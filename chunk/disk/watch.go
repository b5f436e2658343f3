package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"dos/internal/disk"
)

// A mark is the identity file, held open so that its inode is not used again:
// while the same file is at its path, the folder is where it was.
type mark struct {
	path string
	file disk.File
	stat disk.Stat
}

func setMark(fsys disk.FS, dir, name string) (mark, error) {
	m := mark{path: filepath.Join(dir, name)}
	f, err := fsys.Open(m.path)
	if err != nil {
		return m, err
	}
	m.file = f
	m.stat, err = f.Stat()
	return m, err
}

var errGone = errors.New("deleted or replaced")

// present reports an error unless the folder and these segments are there. The
// descriptors of a deleted folder go on working and would look healthy.
func (s *Store) present(segments []*segment) error {
	st, err := s.c.FS.Stat(s.mark.path)
	if err != nil {
		return err
	}
	if !st.Same(s.mark.stat) {
		return fmt.Errorf("%s: %w", s.mark.path, errGone)
	}
	for _, seg := range segments {
		st, err := seg.file.Stat()
		if err != nil {
			return err
		}
		if st.Links == 0 {
			return fmt.Errorf("%s: %w", segmentName(seg.number), errGone)
		}
	}
	return nil
}

// watchLoop looks every second whether the folder is still there.
func (s *Store) watchLoop() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.lostc:
			return
		case <-tick.C:
		}
		err := s.present(nil)
		for _, seg := range s.all() {
			if err != nil {
				break
			}
			err = s.linked(seg)
		}
		if err == nil {
			err = s.room.refresh()
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// linked is present for one segment that compaction may remove meanwhile.
func (s *Store) linked(seg *segment) error {
	st, err := seg.file.Stat()
	if err == nil && st.Links > 0 {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.segments[seg.number] != seg {
		return nil
	}
	return errors.Join(err, fmt.Errorf("%s: %w", segmentName(seg.number), errGone))
}

// all returns the open segments.
func (s *Store) all() []*segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]*segment, 0, len(s.segments))
	for _, seg := range s.segments {
		list = append(list, seg)
	}
	return list
}
