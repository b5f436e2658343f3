package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"time"

	"dos/chunk"
	"dos/internal/rpc"
)

// A Store is one store of a peer. Its methods may be called concurrently. A
// peer that cannot be reached, or that does not answer within the connection's
// timeout, is chunk.ErrLost.
type Store struct {
	peer *rpc.Client
	id   chunk.StoreID
}

var (
	_ chunk.Store    = (*Store)(nil)
	_ chunk.Scrubber = (*Store)(nil)
)

// Open returns the store with that ID of peer, which several may share and
// whose owner closes it. It does not ask whether the peer has it.
func Open(peer *rpc.Client, id chunk.StoreID) *Store { return &Store{peer, id} }

// Addr is the address of the store's peer.
func (s *Store) Addr() string { return s.peer.Addr() }

// Put is chunk.Store's.
func (s *Store) Put(ctx context.Context, id chunk.ID, data []byte) error {
	if len(data) > chunk.MaxShard {
		return fmt.Errorf("chunk: %v: %d bytes are more than a shard has", id, len(data))
	}
	frame := rpc.Frame{Payload: rpc.Own(data)}
	_, err := s.call(ctx, "Put", s.about(id), &frame)
	return err
}

// ReadAt is chunk.Store's.
func (s *Store) ReadAt(ctx context.Context, id chunk.ID, p []byte, off int64) (int, error) {
	read := 0
	for {
		n, err := s.readAt(ctx, id, p[read:min(len(p), read+chunk.MaxShard)], off+int64(read))
		read += n
		if err != nil || read == len(p) {
			return read, err
		}
	}
}

func (s *Store) readAt(ctx context.Context, id chunk.ID, p []byte, off int64) (int, error) {
	req := s.about(id)
	req.Off, req.Size, req.Verify = off, len(p), true
	frame := rpc.Frame{Into: p}
	rep, err := s.call(ctx, "ReadAt", req, &frame)
	if err == nil && len(rep.Sums) > 0 && !good(frame.Into, rep.Sums) {
		req.Verify = false
		frame = rpc.Frame{Into: p}
		_, err = s.call(ctx, "ReadAt", req, &frame)
	}
	if err != nil && err != io.EOF {
		return 0, err
	}
	n := len(frame.Into)
	if n < len(p) && err == nil {
		return 0, fmt.Errorf("%w: store %d: %s: %d bytes in answer to %d", chunk.ErrLost, s.id, s.peer.Addr(), n, len(p))
	}
	return n, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// good verifies blocks.
func good(p, sums []byte) bool {
	for len(p) >= chunk.Block && len(sums) >= crc32.Size {
		if crc32.Checksum(p[:chunk.Block], castagnoli) != binary.LittleEndian.Uint32(sums) {
			return false
		}
		p, sums = p[chunk.Block:], sums[crc32.Size:]
	}
	return len(p) == 0 && len(sums) == 0
}

// Stat is chunk.Store's.
func (s *Store) Stat(ctx context.Context, id chunk.ID) (chunk.Info, error) {
	rep, err := s.call(ctx, "Stat", s.about(id), nil)
	if err != nil {
		return chunk.Info{}, err
	}
	return chunk.Info{ID: id, Size: rep.Size}, nil
}

// Delete is chunk.Store's.
func (s *Store) Delete(ctx context.Context, ids ...chunk.ID) error {
	for len(ids) > 0 {
		n := min(len(ids), deleteBatch)
		req := request{Store: s.id, Shards: make([]shard, n)}
		for i, id := range ids[:n] {
			req.Shards[i] = shard{Stripe: id.Stripe, Index: id.Index}
		}
		if _, err := s.call(ctx, "Delete", req, nil); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// Usage is chunk.Store's.
func (s *Store) Usage(ctx context.Context) (chunk.Usage, error) {
	rep, err := s.call(ctx, "Usage", request{Store: s.id}, nil)
	if err != nil {
		return chunk.Usage{}, err
	}
	if rep.Usage == nil {
		return chunk.Usage{}, fmt.Errorf("%w: store %d: %s: no usage in the answer", chunk.ErrLost, s.id, s.peer.Addr())
	}
	return chunk.Usage(*rep.Usage), nil
}

// Verify is chunk.Scrubber's. It is errors.ErrUnsupported if the store is none.
func (s *Store) Verify(ctx context.Context, id chunk.ID) error {
	_, err := s.call(ctx, "Verify", s.about(id), nil)
	return err
}

// List is chunk.Store's.
func (s *Store) List(ctx context.Context, from chunk.ID) iter.Seq2[chunk.Info, error] {
	return func(yield func(chunk.Info, error) bool) {
		if err := s.list(ctx, from, yield); err != nil {
			yield(chunk.Info{}, err)
		}
	}
}

// list returns nil when all was yielded or nobody wants more.
func (s *Store) list(ctx context.Context, from chunk.ID, yield func(chunk.Info, error) bool) error {
	// The server must not be silent for longer than a call may last; how long
	// the caller takes over what it is given is its own affair.
	sctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(rpc.DefaultTimeout, func() { cancel(context.DeadlineExceeded) })
	defer silent.Stop()
	lost := func(err error) error { return away(ctx, s.id, err) }

	stream, err := s.peer.Open(sctx, Name, "List")
	if err != nil {
		return lost(err)
	}
	if err := stream.Send(&rpc.Frame{Header: rpc.Encode(s.about(from))}); err != nil {
		return lost(err)
	}
	last := from
	for {
		var frame rpc.Frame
		silent.Reset(rpc.DefaultTimeout)
		err := stream.Recv(&frame)
		silent.Stop()
		if err != nil {
			return lost(fmt.Errorf("list is not complete: %w", err))
		}
		frame.Free()
		var rep reply
		if err := rpc.Decode(frame.Header, &rep); err != nil {
			return lost(err)
		}
		for _, sh := range rep.Shards {
			if sh.id().Compare(last) < 0 {
				return lost(fmt.Errorf("%w: %s: list goes back from %v to %v", rpc.ErrRefused, s.peer.Addr(), last, sh.id()))
			}
			last = sh.id()
			if !yield(chunk.Info{ID: last, Size: sh.Size}, nil) {
				return nil
			}
		}
		if err := rep.err(); err != nil || rep.Last {
			return err
		}
	}
}

func (s *Store) about(id chunk.ID) request {
	return request{Store: s.id, Stripe: id.Stripe, Index: id.Index}
}

// call sends a request with the payload of frame, and returns the answer, its
// payload in frame. frame may be nil where there are no payloads.
func (s *Store) call(ctx context.Context, method string, req request, frame *rpc.Frame) (reply, error) {
	do := s.peer.Bulk
	if frame == nil {
		do = s.peer.Call
		frame = new(rpc.Frame)
		defer frame.Free()
	}
	if err := ctx.Err(); err != nil {
		frame.Free()
		return reply{}, err
	}
	// Whose deadline is first: ours after which the store is lost, or the
	// caller's? The server has the earlier one and may notice before us.
	deadline, ok := ctx.Deadline()
	callers := ok && deadline.Before(time.Now().Add(s.peer.Timeout()))

	out := rpc.Frame{Header: rpc.Encode(req), Payload: frame.Take()}
	var rep reply
	err := do(ctx, Name, method, &out, frame)
	if err == nil {
		err = rpc.Decode(frame.Header, &rep)
	}
	switch {
	case err == nil && rep.Failure != late && rep.Failure != canceled:
		return rep, rep.err()
	case err == nil:
		err = fmt.Errorf("%s: %w", s.peer.Addr(), rep.err())
	}
	if callers && errors.Is(err, context.DeadlineExceeded) {
		return reply{}, context.DeadlineExceeded
	}
	return reply{}, away(ctx, s.id, err)
}
