// Package disk keeps shards in files: a chunk.Store in one folder of one disk.
// It owns the formats below and what it takes to keep an acknowledged shard
// through any power cut. It does not know stripes, codes or other stores, and
// reaches the disk only through internal/disk.
//
//	FOLDER/identity, identity.copy   whose store this is, twice
//	FOLDER/segment-0000002a          records, appended; never written twice at one place
//	FOLDER/checkpoint                the index as it was, so that a start reads only what came after
//	FOLDER/reserve                   room that is given up last, so that deleting works on a full disk
//	FOLDER/*.new                     half-written; removed at the next start
//
// The folder itself is locked (flock), so that one process has it.
//
// # Segments
//
// A segment is a sequence of 4 KiB blocks. Block 0 says whose it is (see
// Identity). Each record begins on a block:
//
//	┌────────────────────────┬──────────────┬─────┬──────────────┐
//	│ header, table [, tail] │ payload 0    │ …   │ payload n−1  │
//	└────────────────────────┴──────────────┴─────┴──────────────┘
//
//	offset  size  field (all numbers are little-endian)
//	     0     4  "DOSR"
//	     4     1  version, 1
//	     5     1  kind: 1 a shard, 2 tombstones
//	     6     1  of a shard: its index
//	     7     1  zero
//	     8    16  incarnation of the store
//	    24     8  write: the order in which records were written, from 1
//	    32     8  synced: every record with write ≤ this was on the disk when this one was written
//	    40     4  number of the segment
//	    44     4  number of the block in the segment
//	    48     4  of a shard: bytes; of tombstones: how many
//	    52     4  zero
//	    56     8  of a shard: its stripe
//	    64     8  of a shard: seq, which orders the records of one shard
//	    72     4  CRC-32C of bytes 0 to 71 and of the table
//	    76     4  zero
//	    80        table: of a shard, CRC-32C (4 bytes) of each 4 KiB of its bytes;
//	              of tombstones, 24 bytes each: stripe 8, seq 8, index 1, zero 7
//
// The bytes of a shard that do not fill a block are its tail. It lies right
// behind the table if it fits into the last block of the header, so a shard of
// up to 4012 bytes takes one block; else it has a block of its own, zero at the
// end. The header is one block, or two for a shard over 3.9 MiB.
//
// Incarnation (random, never shown to users) and position bind a header to its
// place: bytes that a user stores are never mistaken for one. After damage the
// scan goes on at the next block, so a bad record loses only itself.
//
// # Why a delete is a record of its own
//
// A tombstone is appended like a shard, so that one fdatasync of one file
// acknowledges deletes of many segments together with the puts of the moment,
// and so that a start from a checkpoint finds it behind the checkpoint. Only
// when it is synced is the record it kills punched out, header included. The
// tombstone is needed until every hole it stands for is synced and a checkpoint
// knows of it; then compaction drops it.
//
// # What a power cut leaves
//
// Puts that were not acknowledged may be on the disk whole, in part or not at
// all, in any order. Of what the scan finds, records with a write number above
// the largest synced number can be such; their payload is checked and what is
// torn is erased. What is found beyond the checkpoint is synced before the store
// serves it.
//
// # The index
//
// The index is in memory, a B-tree of 32 bytes a shard; with its slack 47 were
// measured, 66 when stripes come in order. Checksums stay on the disk, with a
// cache of bounded size.
package disk

import (
	"errors"
	"log/slog"
	"time"

	"dos/chunk"
	"dos/internal/disk"
)

// The errors of opening a folder. They are kinds: test with errors.Is.
var (
	// ErrNone says that there is no store at the path: no folder, or nothing of
	// ours in it.
	ErrNone = errors.New("disk: no store here")
	// ErrLocked says that another process has the folder.
	ErrLocked = disk.ErrLocked
	// ErrNewer says that a newer version wrote the store. Nothing was touched.
	ErrNewer = errors.New("disk: store of a newer format")
	// ErrForeign says that the store belongs to another cluster or is another
	// store of ours. Nothing was touched.
	ErrForeign = errors.New("disk: store of another owner")
	// ErrDamaged says that there was a store but nothing says any more whose.
	ErrDamaged = errors.New("disk: store identity damaged")
	// ErrOccupied says that Create found a store at the path.
	ErrOccupied = errors.New("disk: there is a store already")
)

const (
	defaultSegment = 256 << 20
	minSegment     = 16 << 10
	// defaultReserve holds the tombstones of 300,000 shards, while those whose
	// room a delete gives back are punched at once.
	defaultReserve = 8 << 20
	defaultCache   = 4 << 20
	defaultCompact = 32 << 20
	watchEvery     = time.Second
)

// Config says how to run a store. The zero value of a field means the default
// named beside it.
type Config struct {
	FS disk.FS // the file system of this machine

	// Cluster and Store are whose store it must be; Open and Create compare them
	// with what the folder says. They are required.
	Cluster string // at most MaxCluster bytes
	Store   chunk.StoreID

	Segment int64 // bytes of a segment; 256 MiB: large, so that there are few open files
	// Floor is how many bytes of the file system stay free: Put refuses beyond.
	// Default: max(1 GiB, 3 %), of a file system under 20 GiB max(192 MiB, 5 %).
	// Negative: none.
	Floor int64
	// Reserve is the size in bytes of the reserve file; 8 MiB. Negative: none.
	Reserve int64
	Cache   int // bytes of checksums in memory; 4 MiB: those of 4 GiB of full shards
	Compact int // bytes per second that compaction copies; 32 MiB
	Log     *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.FS == nil {
		c.FS = disk.Real{}
	}
	if c.Segment == 0 {
		c.Segment = defaultSegment
	}
	if c.Reserve == 0 {
		c.Reserve = defaultReserve
	}
	if c.Cache == 0 {
		c.Cache = defaultCache
	}
	if c.Compact == 0 {
		c.Compact = defaultCompact
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	switch {
	case c.Cluster == "" || len(c.Cluster) > MaxCluster:
		return c, errors.New("disk: Config.Cluster must have 1 to 64 bytes")
	case c.Store == 0:
		return c, errors.New("disk: Config.Store is required")
	case c.Segment < minSegment || c.Segment > 1<<40 || c.Cache < 0 || c.Compact < 0:
		return c, errors.New("disk: Config has a size that makes no sense")
	}
	return c, nil
}
