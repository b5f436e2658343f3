package replica

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"dos/meta"
	"dos/meta/state"
)

// A dump is the whole state at one index: what the leader sends to a follower
// that is too far behind, and what Dump writes. The replica's own rows are not
// in it. Numbers are little-endian.
//
//	offset  size  field
//	     0     4  "DDMP"
//	     4     1  version, 2
//	     5     3  zero
//	     8     8  index
//	    16     8  term
//	    24     8  the time of the latest command, in ns since 1970
//	    32     4  CRC-32C of bytes 0 to 32
//	    36        frames:
//
//	offset  size  field
//	     0     4  n, the size of the frame's rows; 0 in the last frame
//	     4     4  CRC-32C of the size and of what follows the checksum
//	     8     n  rows: length of the key (uvarint), of the value (uvarint), key, value;
//	              in the last frame, 8 bytes: the number of rows in all
//
// Version 1 has no time, and the checksum in its place.
const (
	dumpMagic   = "DDMP"
	dumpVersion = 2
	dumpHeader  = 36
	dumpHeader1 = 28 // of version 1
	frameHeader = 8
	frameSize   = 256 << 10 // a frame ends when it is this long
	maxFrame    = frameSize + state.MaxKey + state.MaxValue + 2*binary.MaxVarintLen64
)

// dump writes what v sees.
func dump(w io.Writer, v *view) error {
	head := append(make([]byte, 0, dumpHeader), dumpMagic...)
	head = append(head, dumpVersion, 0, 0, 0)
	head = binary.LittleEndian.AppendUint64(head, v.at.index)
	head = binary.LittleEndian.AppendUint64(head, v.at.term)
	head = binary.LittleEndian.AppendUint64(head, uint64(v.latest))
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
	if _, err := w.Write(head); err != nil {
		return err
	}
	rows := uint64(0)
	buf := make([]byte, frameHeader, frameHeader+frameSize+4<<10)
	for key, val := range v.Scan(firstKey, nil) {
		buf = binary.AppendUvarint(buf, uint64(len(key)))
		buf = binary.AppendUvarint(buf, uint64(len(val)))
		buf = append(append(buf, key...), val...)
		rows++
		if len(buf) >= frameHeader+frameSize {
			if err := writeFrame(w, buf, len(buf)-frameHeader); err != nil {
				return err
			}
			buf = buf[:frameHeader]
		}
	}
	if len(buf) > frameHeader {
		if err := writeFrame(w, buf, len(buf)-frameHeader); err != nil {
			return err
		}
	}
	return writeFrame(w, binary.LittleEndian.AppendUint64(buf[:frameHeader], rows), 0)
}

// writeFrame writes a frame whose contents follow the room for its header.
func writeFrame(w io.Writer, buf []byte, n int) error {
	binary.LittleEndian.PutUint32(buf, uint32(n))
	binary.LittleEndian.PutUint32(buf[4:], frameSum(buf[:4], buf[frameHeader:]))
	_, err := w.Write(buf)
	return err
}

func frameSum(size, rows []byte) uint32 {
	return crc32.Update(crc32.Checksum(size, castagnoli), castagnoli, rows)
}

// A dumpReader reads a dump and verifies it.
type dumpReader struct {
	r      *bufio.Reader
	at     position
	latest int64 // the time of the latest command; 0 if it is not known
	rows   uint64
	err    error
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("replica: the dump is damaged: "+format+": %w", append(args, meta.Lost)...)
}

func newDumpReader(r io.Reader) (*dumpReader, error) {
	d := &dumpReader{r: bufio.NewReaderSize(r, 64<<10)}
	head := make([]byte, dumpHeader1, dumpHeader)
	if _, err := io.ReadFull(d.r, head); err != nil {
		return nil, damaged("no header (%v)", err)
	}
	switch {
	case string(head[:4]) != dumpMagic:
		return nil, fmt.Errorf("replica: not a dump: %w", meta.Invalid)
	case head[4] > dumpVersion:
		return nil, fmt.Errorf("replica: dump of format %d is newer than this program, which knows %d: %w", head[4], dumpVersion, meta.Unsupported)
	case head[4] == dumpVersion:
		head = head[:dumpHeader]
		if _, err := io.ReadFull(d.r, head[dumpHeader1:]); err != nil {
			return nil, damaged("no header (%v)", err)
		}
		d.latest = int64(binary.LittleEndian.Uint64(head[24:]))
	}
	sum := len(head) - 4
	if head[4] < 1 || binary.LittleEndian.Uint32(head[sum:]) != crc32.Checksum(head[:sum], castagnoli) {
		return nil, damaged("header %x", head)
	}
	d.at = position{binary.LittleEndian.Uint64(head[8:]), binary.LittleEndian.Uint64(head[16:])}
	return d, nil
}

// all yields the rows. Afterwards err says whether they were all.
func (d *dumpReader) all(yield func(key, val []byte) bool) {
	for {
		rows, last, err := d.frame()
		if err != nil || last {
			d.err = err
			return
		}
		for len(rows) > 0 {
			key, val, rest, ok := cutRow(rows)
			if !ok {
				d.err = damaged("row %d", d.rows)
				return
			}
			rows = rest
			d.rows++
			if !yield(key, val) {
				d.err = damaged("reading ended early, at row %d", d.rows)
				return
			}
		}
	}
}

func (d *dumpReader) check() error { return d.err }

// frame reads one frame, in memory of its own, since rows are slices of it.
func (d *dumpReader) frame() (rows []byte, last bool, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(d.r, head[:]); err != nil {
		return nil, false, damaged("it ends after row %d (%v)", d.rows, err)
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, false, damaged("a frame of %d bytes after row %d", n, d.rows)
	}
	last = n == 0
	if last {
		n = 8
	}
	rows = make([]byte, n)
	if _, err := io.ReadFull(d.r, rows); err != nil {
		return nil, false, damaged("it ends after row %d (%v)", d.rows, err)
	}
	if binary.LittleEndian.Uint32(head[4:]) != frameSum(head[:4], rows) {
		return nil, false, damaged("checksum of the frame after row %d", d.rows)
	}
	if last && binary.LittleEndian.Uint64(rows) != d.rows {
		return nil, false, damaged("%d rows, not %d", d.rows, binary.LittleEndian.Uint64(rows))
	}
	return rows, last, nil
}

func cutRow(b []byte) (key, val, rest []byte, ok bool) {
	k, n := binary.Uvarint(b)
	if n <= 0 || k == 0 || k > state.MaxKey {
		return nil, nil, nil, false
	}
	b = b[n:]
	v, n := binary.Uvarint(b)
	if n <= 0 || v > state.MaxValue || uint64(len(b)-n) < k+v {
		return nil, nil, nil, false
	}
	b = b[n:]
	return b[:k:k], b[k : k+v : k+v], b[k+v:], true
}

// fill makes a new state in dir from a dump, at c's index, all in tables.
func fill(dir string, c current, data io.Reader, cfg *Config) error {
	d, err := newDumpReader(data)
	if err != nil {
		return err
	}
	if want := (position{c.Index, c.Term}); d.at != want {
		return fmt.Errorf("replica: the dump is of index %d and term %d, not %d and %d: %w", d.at.index, d.at.term, want.index, want.term, meta.Invalid)
	}
	s, err := openStore(dir, c.Generation, cfg)
	if err != nil {
		return err
	}
	err = s.commit(batch{
		changes: d.all,
		count:   math.MaxInt, // it is not known, and may be more than one transaction takes
		to:      d.at,
		latest:  d.latest,
		members: append(binary.BigEndian.AppendUint64(nil, c.MembersFrom), c.Members...),
		check:   d.check,
	})
	return errors.Join(err, s.close(), syncDir(dir), syncDir(filepath.Dir(dir)))
}

// Dump writes the whole state, as it was last applied here, while everything
// goes on.
func (r *Replica) Dump(w io.Writer) error {
	v, err := r.fsm.view()
	if err != nil {
		return err
	}
	defer v.close()
	return dump(w, v)
}

// Restore makes a new directory of a group of one from a dump. The directory
// must be empty or missing. Open it afterwards.
func Restore(cfg Config, from io.Reader) error {
	if err := cfg.defaults(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	if entries, err := os.ReadDir(cfg.Dir); err != nil {
		return err
	} else if len(entries) > 0 {
		return fmt.Errorf("replica: %s is not empty: %w", cfg.Dir, meta.NotEmpty)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return err
	}
	buf := bufio.NewReader(from)
	head, err := buf.Peek(dumpHeader1)
	if err != nil {
		return errors.Join(damaged("no header (%v)", err), lock.Close())
	}
	alone := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(cfg.ID), Address: raft.ServerAddress(cfg.Address)}}}
	c := current{
		ID:         cfg.ID,
		Generation: 1,
		Index:      binary.LittleEndian.Uint64(head[8:]),
		Term:       binary.LittleEndian.Uint64(head[16:]),
		Members:    raft.EncodeConfiguration(alone),
	}
	c.MembersFrom = c.Index
	err = fill(stateDir(cfg.Dir, c.Generation), c, buf, &cfg)
	if err == nil {
		err = saveCurrent(cfg.Dir, c)
	}
	return errors.Join(err, lock.Close())
}
