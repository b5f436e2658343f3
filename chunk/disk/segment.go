package disk

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"dos/internal/disk"
)

const segmentPrefix = "segment-"

func segmentName(n uint32) string { return fmt.Sprintf("%s%08x", segmentPrefix, n) }

func segmentNumber(name string) (uint32, bool) {
	digits, ok := strings.CutPrefix(name, segmentPrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	return uint32(n), err == nil && name == segmentName(uint32(n))
}

// A segment is one open file of records. The fields below file are guarded by
// Store.mu.
type segment struct {
	number uint32
	file   disk.File
	end    uint32 // blocks handed out; the next record begins here
	live   int64  // bytes of live records
	stuck  int64  // live when compaction last could not empty it, else −1
	known  uint32 // what the last checkpoint knows of, in blocks
}

// A scanner finds the records of a segment.
type scanner struct {
	file   disk.File
	inc    Incarnation
	number uint32
	end    uint32 // blocks of the file
	next   uint32 // where to look
	// damaged counts the blocks that were no header where one had to be.
	damaged int64
	// unread counts those of them that the disk could not read.
	unread int64

	buf   []byte
	first uint32 // block that buf begins with
	ahead int    // blocks to read at once
}

// Small records lie close together: reading many blocks at once saves calls.
// Behind a large record one block is enough.
const (
	scanWindow = 64  // blocks
	scanLarge  = 128 // blocks: a record of this size is large
)

// scan returns a scanner that begins at a block.
func scan(file disk.File, inc Incarnation, number, from uint32) (*scanner, error) {
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return &scanner{file: file, inc: inc, number: number, next: max(from, 1), end: blocksOf(st.Size), ahead: scanWindow}, nil
}

// blocksOf counts the whole blocks of a file. A position has 32 bits.
func blocksOf(size int64) uint32 { return uint32(min(size/block, 1<<32-1)) }

// record returns the next valid header, io.EOF when there is none. Its slices
// are valid until the next call.
func (s *scanner) record() (header, error) {
	for lost := false; s.next < s.end; {
		at := place{s.number, s.next}
		b := s.read(1)
		h, err := decodeHeader(b, s.inc, at)
		if errors.Is(err, errShort) {
			b = s.read(maxHeader / block)
			if h, err = decodeHeader(b, s.inc, at); errors.Is(err, errShort) {
				err = errHeader
			}
		}
		if err == nil {
			s.next += h.blocks()
			s.ahead = scanWindow
			if h.blocks() >= scanLarge {
				s.ahead = 1
			}
			return h, nil
		}
		s.ahead = scanWindow
		if !lost || isZero(b) { // perhaps a hole: skip it whole
			lost = true
			next, err := s.file.NextData(s.next64())
			if err == io.EOF {
				break
			}
			if err == nil && next/block > int64(s.next) {
				s.next = uint32(min(next/block, int64(s.end)))
				continue
			}
		}
		if !isZero(b) {
			s.damaged++
		}
		if len(b) == 0 {
			s.unread++
		}
		s.next++
	}
	s.next = s.end
	return header{}, io.EOF
}

func (s *scanner) next64() int64 { return int64(s.next) * block }

func isZero(b []byte) bool { return len(b) >= block && string(b[:block]) == string(zeroBlock) }

// read returns at least n blocks from next on, fewer at the end of the file,
// none where the disk cannot read: what is there is lost as if it were damaged.
func (s *scanner) read(n int) []byte {
	have := func() []byte {
		skip := int64(s.next) - int64(s.first)
		if s.buf == nil || skip < 0 || skip*block >= int64(len(s.buf)) {
			return nil
		}
		return s.buf[skip*block:]
	}
	if b := have(); len(b) >= n*block {
		return b
	}
	if s.buf == nil {
		s.buf = make([]byte, scanWindow*block)
	}
	s.first = s.next
	s.buf = s.buf[:max(n, s.ahead)*block]
	got, err := s.file.ReadAt(s.buf, s.next64())
	if err != nil && err != io.EOF && got < n*block {
		got, _ = s.file.ReadAt(s.buf[:n*block], s.next64()) // a bad sector further on may be to blame
	}
	s.buf = s.buf[:got/block*block]
	return have()
}
