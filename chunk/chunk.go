// Package chunk is the vocabulary of stored bytes.
//
// File data is cut into stripes. A stripe is written once, as k+m shards on
// k+m different stores, and never changed; any k of the shards give its bytes
// back. To change a file its writer stores new stripes and then asks the
// metadata service to point the file at them; that one metadata command is
// the moment the write happens. Nothing in this package knows about files.
package chunk

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"syscall"
)

const (
	// MaxStripe bounds the data of a stripe, so that every buffer that holds
	// one is bounded. With 4+2 its cells are 1 MiB, the largest request that
	// the kernel sends.
	MaxStripe = 4 << 20
	// MaxShard bounds one shard: a whole copy of the largest stripe.
	MaxShard = MaxStripe
	// Block is the unit of checksums and of alignment, in bytes.
	Block = 4096
	// MaxShards bounds k+m.
	MaxShards = 32
	// CopyMax is the largest stripe, in bytes, that is stored as m+1 whole
	// copies: three small writes beat six.
	CopyMax = 64 << 10
)

// The errors of a Store. They are kinds: test with errors.Is.
var (
	ErrNotExist = errors.New("chunk: does not exist")
	ErrExist    = errors.New("chunk: exists with other contents")
	ErrCorrupt  = errors.New("chunk: checksum mismatch")
	ErrFull     = errors.New("chunk: no space")
	// ErrLost says that the store as a whole is gone or not to be trusted: its
	// folder was deleted, its disk fails, its machine does not answer.
	ErrLost = errors.New("chunk: store lost")
	// ErrTooFew says that fewer shards can be reached than the code needs.
	ErrTooFew = errors.New("chunk: too few shards")
	// ErrGone says, beside ErrTooFew or ErrNotExist, that all stores were heard: what is
	// missing is nowhere.
	ErrGone = errors.New("chunk: no store that is away could have it")
)

// A StripeID names one stripe. IDs are never reused; zero names none.
type StripeID uint64

// A StoreID names the place of one store in the cluster: one disk of one
// machine. It stays when the disk's contents are lost and rebuilt. Zero names none.
type StoreID uint32

// An ID names one shard of one stripe.
type ID struct {
	Stripe StripeID
	Index  uint8 // 0 to k+m-1; the first k hold the data itself
}

// String returns the form used in logs and the shell.
func (id ID) String() string { return fmt.Sprintf("%016x.%d", uint64(id.Stripe), id.Index) }

// Compare orders IDs by stripe, then index.
func (id ID) Compare(other ID) int {
	switch {
	case id.Stripe != other.Stripe:
		if id.Stripe < other.Stripe {
			return -1
		}
		return 1
	default:
		return int(id.Index) - int(other.Index)
	}
}

// A Code says how a stripe is cut: K data shards and M more. With K = 1 all
// M+1 shards are whole copies.
type Code struct {
	K uint8 `cbor:"1,keyasint,omitempty"`
	M uint8 `cbor:"2,keyasint,omitempty"`
}

func (c Code) String() string { return fmt.Sprintf("%d+%d", c.K, c.M) }

// ParseCode reads what String writes; nothing is the zero Code.
func ParseCode(s string) (Code, error) {
	if s == "" {
		return Code{}, nil
	}
	var c Code
	var rest string
	n, _ := fmt.Sscanf(s, "%d+%d%s", &c.K, &c.M, &rest)
	if n != 2 || c.K < 1 || c.M < 1 || c.Shards() > MaxShards {
		return Code{}, fmt.Errorf("%q: K+M is needed, as in 4+2, with at most %d in all", s, MaxShards)
	}
	return c, nil
}

// Shards is the number of shards of a stripe.
func (c Code) Shards() int { return int(c.K) + int(c.M) }

// Cell returns the size in bytes of each shard of a stripe with n bytes of
// data: n itself for copies, else n/k rounded up to whole blocks.
func (c Code) Cell(n int) int {
	if c.K == 1 {
		return n
	}
	k := int(c.K)
	return ((n+k-1)/k + Block - 1) / Block * Block
}

// A Stripe says all there is to know to read a stripe.
type Stripe struct {
	ID     StripeID  `cbor:"1,keyasint,omitempty"`
	Len    uint32    `cbor:"2,keyasint,omitempty"` // bytes of data, at most MaxStripe
	Code   Code      `cbor:"3,keyasint,omitempty"`
	Stores []StoreID `cbor:"4,keyasint,omitempty"` // where each shard is; len is Code.Shards()
}

// A Group is one row of the table of placement groups: where stripes whose ID
// falls into it are written.
type Group struct {
	Epoch   uint64    `cbor:"1,keyasint,omitempty"` // grows with every edit
	Members []StoreID `cbor:"2,keyasint,omitempty"` // k+m stores in distinct failure domains, then spares
}

// Groups is the number of rows of the table of placement groups.
const Groups = 1024

// GroupOf returns the row of a stripe. IDs are handed out in sequence, so the
// low bits spread them evenly.
func GroupOf(id StripeID) int { return int(id % Groups) }

// Info describes a stored shard.
type Info struct {
	ID   ID
	Size int64 // bytes
}

// Usage says how full a store is, in bytes.
type Usage struct {
	Capacity int64 // of the file system below
	Free     int64 // that can still be written before the store refuses; never negative
	Used     int64 // by live records
	Shards   int64 // live records
}

// A Store keeps shards. Its methods may be called concurrently.
// Package storetest says in code what the comments below say in prose.
type Store interface {
	// Put keeps data under id and returns once it would survive a power
	// cut. Putting the same bytes again succeeds; other bytes are ErrExist,
	// unless what is stored is corrupt: then Put replaces it. ErrFull when
	// there is no room. The store does not retain data. len(data) is 1 to MaxShard.
	Put(ctx context.Context, id ID, data []byte) error

	// ReadAt fills p from offset off of the shard, as io.ReaderAt does (short
	// reads at the end return io.EOF). It verifies what it returns: bad bytes
	// are ErrCorrupt, never data.
	ReadAt(ctx context.Context, id ID, p []byte, off int64) (int, error)

	// Stat describes the shard without reading its contents.
	Stat(ctx context.Context, id ID) (Info, error)

	// Delete forgets the shards and returns once that would survive a power
	// cut. Deleting what is not there succeeds.
	Delete(ctx context.Context, ids ...ID) error

	// List yields every shard with an ID ≥ from, in ID order. Shards put or
	// deleted meanwhile may or may not appear. A failure is the last pair yielded.
	List(ctx context.Context, from ID) iter.Seq2[Info, error]

	// Usage says how full the store is.
	Usage(ctx context.Context) (Usage, error)
}

// An Extent is a part of a shard as it lies in a file, not verified yet.
type Extent struct {
	File syscall.Conn // open at least for as long as the store is
	Off  int64        // in the file, in bytes
	Len  int          // bytes, whole blocks
	Sums []byte       // CRC-32C of each block, 4 bytes each, little-endian
}

// A Placer is a Store that can say where the bytes of a shard lie, for who sends
// them on without looking at them.
type Placer interface {
	// Place returns where the n bytes from offset off of the shard are. Who reads
	// them there verifies them, and reads with ReadAt instead if they are not what
	// they should be: they may be damaged, or removed meanwhile. It is
	// errors.ErrUnsupported if they are not whole blocks that lie together in a file
	// of this machine.
	Place(ctx context.Context, id ID, n int, off int64) (Extent, error)
}

// A Scrubber is a Store that can check its own records.
type Scrubber interface {
	// Verify reads the whole shard and its header from the disk and reports
	// ErrCorrupt or ErrNotExist if it is not as it was put.
	Verify(ctx context.Context, id ID) error
}
