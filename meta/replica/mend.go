package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"dos/meta"
)

// A mended index is raft-wal's account of its segments, with what version 0.4.0
// leaves out of it. When a new leader has a member drop the end of its log, the
// last segment is closed where it was cut, and the place of the list of its
// entries is not noted, because no list was written. The running process still
// has one in memory; after the next start no entry of the segment could be read.
// So when the log is opened such lists are made, from the segment, and appended
// to it.
type mendedIndex struct{ *metadb.BoltMetaDB }

func (m mendedIndex) Load(dir string) (types.PersistentState, error) {
	s, err := m.BoltMetaDB.Load(dir)
	if err != nil {
		return s, err
	}
	mended := false
	for i, seg := range s.Segments {
		if seg.SealTime.IsZero() || seg.IndexStart != 0 {
			continue
		}
		if s.Segments[i].IndexStart, err = appendOffsets(filepath.Join(dir, segment.FileName(seg)), seg); err != nil {
			return s, err
		}
		mended = true
	}
	if mended {
		err = m.CommitState(s)
	}
	return s, err
}

// A segment begins with a header of this size. Frames follow, each a type(1),
// zero(3) and length(4), little-endian, then as many bytes of an entry, padded to
// a multiple of 8. That of a commit has a checksum in place of the length, and
// nothing follows.
const (
	segmentHeader = 32
	segmentFrame  = 8
)

// appendOffsets appends to a segment where each of its entries begins, as many as
// are in use, and returns the offset of that list.
func appendOffsets(path string, seg types.SegmentInfo) (at uint64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var list []byte
	offset := int64(segmentHeader)
	for next := seg.BaseIndex; next <= seg.MaxIndex; {
		var head [segmentFrame]byte
		if _, err := f.ReadAt(head[:], offset); err != nil && err != io.EOF {
			return 0, err
		}
		switch head[0] {
		case segment.FrameEntry:
			list = binary.LittleEndian.AppendUint32(list, uint32(offset))
			size := int64(binary.LittleEndian.Uint32(head[4:]))
			offset += segmentFrame + (size+segmentFrame-1)/segmentFrame*segmentFrame
			next++
		case segment.FrameCommit:
			offset += segmentFrame
		default:
			return 0, fmt.Errorf("entry %d is not in %s: %w", next, path, meta.Lost)
		}
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := (info.Size() + segmentFrame - 1) / segmentFrame * segmentFrame
	if _, err := f.WriteAt(list, end); err != nil {
		return 0, err
	}
	return uint64(end), f.Sync()
}
