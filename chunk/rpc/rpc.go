// Package rpc is a chunk.Store at the other end of a connection: a client that
// is one and a service that serves several on one port. It owns what a request
// and an answer look like and how a store's errors travel; it knows neither
// where stores keep their bytes nor which of them make up a stripe.
//
// The service dos.chunk has the calls Put, ReadAt, Stat, Delete, Usage and
// Verify and the stream List. A request's header (CBOR, small integers for
// keys) is a request, an answer's a reply; the bytes of a shard are the
// payload, of Put's request and of ReadAt's answer. List answers with frames
// of up to listBatch shards until one says that it is the last.
//
// A large read by a process of the same machine is answered by the file itself
// (chunk.Placer): its pages go through a socket without being copied or looked at,
// and the client verifies them. What it finds damaged it asks for again, and the
// server sees for itself.
package rpc

import (
	"dos/chunk"
	"dos/internal/rpc"
)

// Name is the service's name.
const Name = "dos.chunk"

const (
	deleteBatch = 2048     // shards of one Delete; each takes at most 12 bytes of a header
	listBatch   = 1024     // shards of one frame of List; each takes at most 21 bytes
	placeMin    = 64 << 10 // bytes of a read that comes from the file; for less, one system call more is not worth it
)

// A payload holds the largest shard.
const _ = uint(rpc.MaxPayload - chunk.MaxShard)

// A request is the header of a request.
type request struct {
	Store  chunk.StoreID  `cbor:"1,keyasint,omitempty"`
	Stripe chunk.StripeID `cbor:"2,keyasint,omitempty"`
	Index  uint8          `cbor:"3,keyasint,omitempty"`
	Off    int64          `cbor:"4,keyasint,omitempty"` // ReadAt
	Size   int            `cbor:"5,keyasint,omitempty"` // ReadAt: how many bytes
	Shards []shard        `cbor:"6,keyasint,omitempty"` // Delete
	Verify bool           `cbor:"7,keyasint,omitempty"` // ReadAt: the caller verifies what comes with sums
}

func (r request) id() chunk.ID { return chunk.ID{Stripe: r.Stripe, Index: r.Index} }

// A shard is a chunk.ID or a chunk.Info.
type shard struct {
	_      struct{} `cbor:",toarray"`
	Stripe chunk.StripeID
	Index  uint8
	Size   int64 // zero in a request
}

func (s shard) id() chunk.ID { return chunk.ID{Stripe: s.Stripe, Index: s.Index} }

// A reply is the header of an answer.
type reply struct {
	Failure failure `cbor:"1,keyasint,omitempty"`
	Text    string  `cbor:"2,keyasint,omitempty"` // of the error, with what it wraps
	Size    int64   `cbor:"3,keyasint,omitempty"` // Stat
	Shards  []shard `cbor:"4,keyasint,omitempty"` // List
	Last    bool    `cbor:"5,keyasint,omitempty"` // List: nothing follows
	Usage   *usage  `cbor:"6,keyasint,omitempty"`
	Sums    []byte  `cbor:"7,keyasint,omitempty"` // ReadAt: not verified, here is CRC-32C of each block (chunk.Extent)
}

type usage struct {
	Capacity int64 `cbor:"1,keyasint,omitempty"`
	Free     int64 `cbor:"2,keyasint,omitempty"`
	Used     int64 `cbor:"3,keyasint,omitempty"`
	Shards   int64 `cbor:"4,keyasint,omitempty"`
}
