package replica

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The file "acked" says up to which index the log was acknowledged. raft-wal
// takes a damaged frame in its tail for a write that a crash tore, and drops
// what follows; only this tells whether that was acknowledged. It has two slots
// of one sector that are written in turn, so that a torn write spoils only one;
// the one with the higher turn counts. All numbers are little-endian.
//
//	offset  size  field
//	     0     4  "DACK"
//	     4     1  version, 1
//	     5     3  zero
//	     8     8  turn
//	    16     8  index
//	    24     4  CRC-32C of bytes 0 to 24
const (
	ackMagic   = "DACK"
	ackVersion = 1
	ackSize    = 28
	ackSlot    = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type acked struct {
	mu    sync.Mutex
	file  *os.File
	turn  uint64
	index uint64
}

func openAcked(path string) (*acked, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	a := &acked{file: f}
	buf := make([]byte, 2*ackSlot)
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("replica: reading %s: %w", path, err)
	}
	found := n == 0
	for at := 0; at+ackSize <= n; at += ackSlot {
		turn, index, err := decodeAck(buf[at : at+ackSize])
		if err == nil && (turn > a.turn || !found) {
			a.turn, a.index, found = turn, index, true
		}
	}
	if !found {
		// Both slots are never written at once: this is damage, and the log
		// cannot prove itself whole.
		a.index = ^uint64(0)
	}
	return a, nil
}

func encodeAck(turn, index uint64) []byte {
	b := append(make([]byte, 0, ackSize), ackMagic...)
	b = append(b, ackVersion, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, turn)
	b = binary.LittleEndian.AppendUint64(b, index)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeAck(b []byte) (turn, index uint64, err error) {
	if len(b) != ackSize || string(b[:4]) != ackMagic || b[4] != ackVersion ||
		binary.LittleEndian.Uint32(b[24:]) != crc32.Checksum(b[:24], castagnoli) {
		return 0, 0, fmt.Errorf("replica: no record of what was acknowledged: %x", b)
	}
	return binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:]), nil
}

// record writes index down and syncs it, unless it stands there.
func (a *acked) record(index uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if index == a.index {
		return nil
	}
	if _, err := a.file.WriteAt(encodeAck(a.turn+1, index), int64((a.turn+1)%2*ackSlot)); err != nil {
		return fmt.Errorf("replica: recording what was acknowledged: %w", err)
	}
	if err := unix.Fdatasync(int(a.file.Fd())); err != nil {
		return fmt.Errorf("replica: recording what was acknowledged: %w", err)
	}
	a.turn, a.index = a.turn+1, index
	return nil
}

func (a *acked) close() error { return a.file.Close() }
