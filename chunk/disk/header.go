package disk

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"dos/chunk"
)

const (
	block        = chunk.Block
	headerMagic  = "DOSR"
	headerSize   = 80 // without the table
	crcAt        = 72
	version      = 1
	kindShard    = 1
	kindBuried   = 2
	sumSize      = 4
	buriedSize   = 24
	maxHeader    = 2 * block
	perTombstone = (block - headerSize) / buriedSize // tombstones a record has at most: one block
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
	zeroBlock  = make([]byte, block)

	errHeader   = errors.New("no valid header")
	errShort    = errors.New("header goes on in the next block")
	errChecksum = errors.New("wrong checksum")
)

// A place is where a record begins.
type place struct {
	segment uint32
	block   uint32
}

func (p place) before(q place) bool {
	return p.segment < q.segment || p.segment == q.segment && p.block < q.block
}

func (p place) offset() int64 { return int64(p.block) * block }

// A header describes a record.
type header struct {
	kind   byte
	id     chunk.ID // of a shard
	seq    uint64   // of a shard
	size   uint32   // of a shard, in bytes
	at     place
	write  uint64
	synced uint64
	buried []tombstone // of tombstones
	sums   []byte      // of a shard: the table
}

// A tombstone says that all records of id before seq are dead.
type tombstone struct {
	id  chunk.ID
	seq uint64
}

// A shape says how a shard of some size lies in a segment.
type shape struct {
	sums   int // entries of the table
	header int // blocks
	full   int // full blocks of payload
	tail   int // bytes behind them
	inside bool
}

func shapeOf(size int) shape {
	s := shape{sums: (size + block - 1) / block, full: size / block, tail: size % block}
	used := headerSize + s.sums*sumSize
	s.header = (used + block - 1) / block
	s.inside = s.tail > 0 && used+s.tail <= s.header*block
	return s
}

// tailAt is where the tail begins in the header, if it is inside.
func (s shape) tailAt() int { return headerSize + s.sums*sumSize }

// blocks is the length of the record.
func (s shape) blocks() uint32 {
	n := s.header + s.full
	if s.tail > 0 && !s.inside {
		n++
	}
	return uint32(n)
}

// sum fills the table of a header for data, and the tail if it goes inside.
func (s shape) fill(b, data []byte) {
	for i := range s.sums {
		part := data[i*block : min((i+1)*block, len(data))]
		le.PutUint32(b[headerSize+i*sumSize:], crc32.Checksum(part, castagnoli))
	}
	if s.inside {
		copy(b[s.tailAt():], data[s.full*block:])
	}
}

// blocks is the length of the record.
func (h *header) blocks() uint32 {
	if h.kind == kindBuried {
		return 1
	}
	return shapeOf(int(h.size)).blocks()
}

// encode writes the header to b, zero but for the table and tail of a shard,
// which shape.fill wrote.
func (h *header) encode(b []byte, inc Incarnation) {
	copy(b, headerMagic)
	b[4] = version
	b[5] = h.kind
	copy(b[8:], inc[:])
	le.PutUint64(b[24:], h.write)
	le.PutUint64(b[32:], h.synced)
	le.PutUint32(b[40:], h.at.segment)
	le.PutUint32(b[44:], h.at.block)
	var table int
	switch h.kind {
	case kindShard:
		b[6] = h.id.Index
		le.PutUint32(b[48:], h.size)
		le.PutUint64(b[56:], uint64(h.id.Stripe))
		le.PutUint64(b[64:], h.seq)
		table = shapeOf(int(h.size)).sums * sumSize
	case kindBuried:
		le.PutUint32(b[48:], uint32(len(h.buried)))
		for i, t := range h.buried {
			e := b[headerSize+i*buriedSize:]
			le.PutUint64(e, uint64(t.id.Stripe))
			le.PutUint64(e[8:], t.seq)
			e[16] = t.id.Index
		}
		table = len(h.buried) * buriedSize
	}
	le.PutUint32(b[crcAt:], headerSum(b, table))
}

func headerSum(b []byte, table int) uint32 {
	crc := crc32.Checksum(b[:crcAt], castagnoli)
	return crc32.Update(crc, castagnoli, b[headerSize:headerSize+table])
}

// decodeHeader reads the header of the record at a place. b is one block or
// more; errShort asks for two. The header keeps slices of b.
func decodeHeader(b []byte, inc Incarnation, at place) (header, error) {
	if len(b) < block || string(b[:4]) != headerMagic || b[4] != version || Incarnation(b[8:24]) != inc {
		return header{}, errHeader
	}
	h := header{
		kind: b[5], write: le.Uint64(b[24:]), synced: le.Uint64(b[32:]),
		at: place{le.Uint32(b[40:]), le.Uint32(b[44:])},
	}
	if h.at != at || h.write == 0 || h.synced >= h.write || b[7] != 0 || le.Uint32(b[52:]) != 0 || le.Uint32(b[76:]) != 0 {
		return header{}, errHeader
	}
	n := le.Uint32(b[48:])
	var table int
	switch h.kind {
	case kindShard:
		if n == 0 || n > chunk.MaxShard {
			return header{}, errHeader
		}
		h.size = n
		h.id = chunk.ID{Stripe: chunk.StripeID(le.Uint64(b[56:])), Index: b[6]}
		h.seq = le.Uint64(b[64:])
		table = shapeOf(int(n)).sums * sumSize
	case kindBuried:
		if n == 0 || n > perTombstone || b[6] != 0 || le.Uint64(b[56:]) != 0 || le.Uint64(b[64:]) != 0 {
			return header{}, errHeader
		}
		table = int(n) * buriedSize
	default:
		return header{}, errHeader
	}
	if len(b) < headerSize+table {
		return header{}, errShort
	}
	if le.Uint32(b[crcAt:]) != headerSum(b, table) {
		return header{}, errHeader
	}
	rows := b[headerSize : headerSize+table]
	if h.kind == kindShard {
		h.sums = rows
		return h, nil
	}
	for ; len(rows) > 0; rows = rows[buriedSize:] {
		h.buried = append(h.buried, tombstone{
			id:  chunk.ID{Stripe: chunk.StripeID(le.Uint64(rows)), Index: rows[16]},
			seq: le.Uint64(rows[8:]),
		})
	}
	return h, nil
}
