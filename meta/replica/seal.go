package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"dos/meta"
)

// raft-wal checks its checksums once, and only those of the last write before a
// crash. A bit that flips on the disk would be read as it is, applied here, and
// sent to the followers. So each entry carries a seal, as the end of what Raft
// calls its extensions, which nobody else uses:
//
//	size  field
//	   4  "DSEA"
//	   4  CRC-32C of index(8), term(8), type(1), the data and the other extensions,
//	      little-endian
//
// Entries of logs that were begun before there were seals have none.
const (
	sealMagic = "DSEA"
	sealSize  = 8
)

// sealed returns a copy of an entry with its seal.
func sealed(e *raft.Log) *raft.Log {
	s := *e
	ext := append(make([]byte, 0, len(e.Extensions)+sealSize), e.Extensions...)
	s.Extensions = binary.LittleEndian.AppendUint32(append(ext, sealMagic...), sealSum(e))
	return &s
}

func sealSum(e *raft.Log) uint32 {
	head := binary.LittleEndian.AppendUint64(make([]byte, 0, 17), e.Index)
	head = binary.LittleEndian.AppendUint64(head, e.Term)
	head = append(head, byte(e.Type))
	sum := crc32.Update(0, castagnoli, head)
	sum = crc32.Update(sum, castagnoli, e.Data)
	return crc32.Update(sum, castagnoli, e.Extensions)
}

// unseal takes the seal off an entry that was read, and checks it. had is false
// if there was none.
func unseal(e *raft.Log) (had bool, err error) {
	rest := len(e.Extensions) - sealSize
	if rest < 0 || string(e.Extensions[rest:rest+4]) != sealMagic {
		return false, nil
	}
	want := binary.LittleEndian.Uint32(e.Extensions[rest+4:])
	e.Extensions = e.Extensions[:rest:rest]
	if rest == 0 {
		e.Extensions = nil
	}
	if sealSum(e) != want {
		return true, fmt.Errorf("the checksum of entry %d of the log does not match: %w", e.Index, meta.Lost)
	}
	return true, nil
}

// read reads an entry and checks it. The library's decoder panics on some kinds of
// damage.
func (l *logs) read(index uint64, e *raft.Log) (sealed bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("entry %d of the log does not decode (%.100v): %w", index, p, meta.Lost)
		}
	}()
	switch err := l.WAL.GetLog(index, e); {
	case errors.Is(err, wal.ErrNotFound) || errors.Is(err, wal.ErrClosed):
		return false, err
	case err != nil:
		return false, fmt.Errorf("entry %d of the log cannot be read: %w: %w", index, meta.Lost, err)
	case e.Index != index:
		return false, fmt.Errorf("where entry %d of the log should be is entry %d: %w", index, e.Index, meta.Lost)
	}
	return unseal(e)
}

// GetLog reads an entry. One that is damaged ends the member: it must neither be
// applied nor sent to others.
func (l *logs) GetLog(index uint64, e *raft.Log) error {
	_, err := l.read(index, e)
	if errors.Is(err, meta.Lost) && l.fatal != nil {
		l.fatal(err)
	}
	return err
}

// verify reads the whole log. It returns the first index that is damaged, and how.
func (l *logs) verify(first, last uint64) (bad uint64, err error) {
	if first == 0 {
		return 0, nil
	}
	seals := false
	for i := first; i <= last; i++ {
		var e raft.Log
		sealed, err := l.read(i, &e)
		if err == nil && seals && !sealed {
			err = fmt.Errorf("entry %d of the log has lost its checksum: %w", i, meta.Lost)
		}
		if err != nil {
			return i, err
		}
		seals = sealed
	}
	return 0, nil
}
