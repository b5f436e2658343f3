// Package rpc carries frames between machines: it dials, serves, keeps
// connections alive, bounds what a peer may send and how long an answer may
// take, and checks every byte from end to end. gRPC is the transport; it is
// confined to this package and to the rpc package of each service, and no
// protobuf is involved. Package rpc knows nothing of what the frames mean.
//
// # The frame
//
// Each gRPC message is one frame. All numbers are big-endian.
//
//	offset  size  field
//	     0     4  "DOSf"
//	     4     1  version, 1
//	     5     3  zero
//	     8     4  H, bytes of the header, at most MaxHeader
//	    12     4  P, bytes of the payload, at most MaxPayload
//	    16     4  CRC-32C of bytes 0 to 16, of the header and of the payload
//	    20     H  the header: what the service says of the frame (CBOR in ours)
//	  20+H     P  the payload: bytes that are passed on, never looked into
//
// The payload is handed to the transport and from it by reference. A frame
// that is longer or shorter than it says, too large, of another version or
// with another checksum is refused, and the call that it belongs to fails.
//
// # Bulk calls
//
// What has much payload need not go by gRPC: see Client.Bulk. On a connection of
// the protocol Bulk (ALPN) the client sends a message and the server answers with
// one, as often as they like:
//
//	size  field
//	   4  H, bytes of the head, at most headMax, and sealed with it
//	H+16  the head, sealed: the CBOR of bulkCall or of bulkAnswer, in which are the
//	      header that the service sees and the bytes of the payload
//	      the payload in pieces of pieceSize, the last one of what is left; each
//	      sealed, which makes it 16 bytes longer
//
// Hands are shaken as on any connection, but the messages are no TLS records: those
// have 16 KiB at most, and each is copied on its way to TLS and from it, twice. The
// keys come from TLS (RFC 8446 §7.5; WebRTC does likewise, RFC 5764): of what it
// exports for sealLabel, without a context, the first 28 bytes are AES-128-GCM's key
// and IV for what the client sends, the next for what the server does. Heads and
// pieces are counted together in each direction from 0, and the nonce is the IV, its
// last 8 bytes xor the count: so nothing can be left out, repeated or moved. What
// does not open ends the connection.
//
// Within a machine bulk calls go by a unix socket beside the port (local.go). Hands
// are shaken there too and heads are sealed, but with keys for localLabel, and
// payloads are sent as they are, in one piece: they do not leave the kernel. With
// six servers on one machine that made cold reads a fifth faster.
// There an answer may be a part of a file too (FilePart).
//
// The answer to a bulk call whose caller has left is read to its end by nobody, and the
// connection stays: shaking hands again costs more.
//
// # Errors
//
// What a service has to say about a request, errors too, stands in the header
// of its answer. The errors of this package are about the way there: ErrDown,
// ErrRefused, or the context's.
package rpc

import (
	"errors"
	"time"
)

// The errors of a call. They are kinds: test with errors.Is.
var (
	// ErrDown says that the peer could not be reached, or that the connection
	// died before the answer came: whether the request was executed is not known.
	ErrDown = errors.New("rpc: peer unreachable")
	// ErrRefused says that one side refused what the other sent: no such
	// method, not a frame, a wrong checksum, too large.
	ErrRefused = errors.New("rpc: refused")
)

const (
	// MaxHeader bounds a header in bytes: a header describes, it does not carry.
	MaxHeader = 64 << 10
	// MaxPayload bounds a payload in bytes: twice the largest shard, which
	// leaves room for the longest answer of the metadata service.
	MaxPayload = 8 << 20

	maxFrame = prefix + MaxHeader + MaxPayload

	// window is how much a sender may send before the receiver has taken it, a
	// stream and a connection: the largest frame and more, so that no call
	// waits for a round trip in its middle, and the bound of what a connection
	// can make us keep.
	window = 16 << 20
	// buffer is how much a connection collects before it writes: fewer, larger
	// system calls.
	buffer = 256 << 10
	// streams bounds the calls under way of one connection.
	streams = 256

	// A connection that has been silent for keepTime is asked for a sign of
	// life and given up after keepTimeout without one: together less than the
	// 30 s in which everything has to fail that cannot succeed.
	keepTime    = 10 * time.Second
	keepTimeout = 10 * time.Second
	// handshake bounds the time a new connection takes to become usable.
	handshake = 5 * time.Second
	// The pause before a connection is tried again, growing from the first to
	// the last: a peer that comes back is found soon.
	retryMin = 50 * time.Millisecond
	retryMax = time.Second
	// grace is how long calls under way may go on when a server stops.
	grace = time.Second
	// linger is how long the answers of calls that have ended may take to leave then.
	linger = 50 * time.Millisecond

	// DefaultTimeout bounds a call whose context has no earlier deadline.
	DefaultTimeout = 30 * time.Second
)
