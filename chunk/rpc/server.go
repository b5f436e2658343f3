package rpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/mem"

	"dos/chunk"
	"dos/internal/rpc"
)

// Serve returns the service of the stores that find knows. find is asked for
// each request, so stores may come and go; it may be called concurrently.
func Serve(find func(chunk.StoreID) (chunk.Store, bool)) rpc.Service {
	calls := make(map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error))
	for name, do := range map[string]func(context.Context, chunk.Store, request, *rpc.Frame) *rpc.Frame{
		"Put":    put,
		"ReadAt": readAt,
		"Stat":   stat,
		"Delete": remove,
		"Usage":  used,
		"Verify": verify,
	} {
		calls[name] = func(ctx context.Context, frame *rpc.Frame) (*rpc.Frame, error) {
			store, req, err := open(find, frame)
			if err != nil {
				return answer(failed(err), nil), nil
			}
			return do(ctx, store, req, frame), nil
		}
	}
	return rpc.Service{
		Name:  Name,
		Calls: calls,
		Streams: map[string]func(*rpc.Stream) error{
			"List": func(s *rpc.Stream) error { return list(find, s) },
		},
	}
}

// open reads a request and finds its store.
func open(find func(chunk.StoreID) (chunk.Store, bool), frame *rpc.Frame) (chunk.Store, request, error) {
	var req request
	if err := rpc.Decode(frame.Header, &req); err != nil {
		return nil, req, err
	}
	store, ok := find(req.Store)
	if !ok {
		return nil, req, fmt.Errorf("%w: no store %d here", chunk.ErrLost, req.Store)
	}
	return store, req, nil
}

func answer(rep reply, payload mem.BufferSlice) *rpc.Frame {
	return &rpc.Frame{Header: rpc.Encode(rep), Payload: payload}
}

func put(ctx context.Context, s chunk.Store, req request, frame *rpc.Frame) *rpc.Frame {
	return answer(failed(s.Put(ctx, req.id(), frame.Bytes())), nil)
}

func readAt(ctx context.Context, s chunk.Store, req request, _ *rpc.Frame) *rpc.Frame {
	if req.Size < 0 || req.Size > chunk.MaxShard {
		return answer(failed(fmt.Errorf("chunk: a read of %d bytes, at most %d are in a shard", req.Size, chunk.MaxShard)), nil)
	}
	if placed := place(ctx, s, req); placed != nil {
		return placed
	}
	payload, p := rpc.Alloc(req.Size)
	n, err := s.ReadAt(ctx, req.id(), p, req.Off)
	if n < len(p) {
		read := mem.BufferSlice{payload[0].Slice(0, n)}
		payload.Free()
		payload = read
	}
	return answer(failed(err), payload)
}

// place answers a read by the file that has the bytes, if it may and can.
func place(ctx context.Context, s chunk.Store, req request) *rpc.Frame {
	placer, ok := s.(chunk.Placer)
	if !ok || !req.Verify || req.Size < placeMin || !rpc.Local(ctx) {
		return nil
	}
	x, err := placer.Place(ctx, req.id(), req.Size, req.Off)
	if err != nil {
		return nil // ReadAt says why
	}
	frame := answer(reply{Sums: x.Sums}, nil)
	frame.File = &rpc.FilePart{File: x.File, Off: x.Off, Len: x.Len}
	return frame
}

func stat(ctx context.Context, s chunk.Store, req request, _ *rpc.Frame) *rpc.Frame {
	info, err := s.Stat(ctx, req.id())
	if err != nil {
		return answer(failed(err), nil)
	}
	return answer(reply{Size: info.Size}, nil)
}

func remove(ctx context.Context, s chunk.Store, req request, _ *rpc.Frame) *rpc.Frame {
	ids := make([]chunk.ID, len(req.Shards))
	for i, sh := range req.Shards {
		ids[i] = sh.id()
	}
	return answer(failed(s.Delete(ctx, ids...)), nil)
}

func used(ctx context.Context, s chunk.Store, _ request, _ *rpc.Frame) *rpc.Frame {
	u, err := s.Usage(ctx)
	if err != nil {
		return answer(failed(err), nil)
	}
	wire := usage(u)
	return answer(reply{Usage: &wire}, nil)
}

func verify(ctx context.Context, s chunk.Store, req request, _ *rpc.Frame) *rpc.Frame {
	scrubber, ok := s.(chunk.Scrubber)
	if !ok {
		return answer(failed(fmt.Errorf("chunk: store %d cannot verify: %w", req.Store, errors.ErrUnsupported)), nil)
	}
	return answer(failed(scrubber.Verify(ctx, req.id())), nil)
}

func list(find func(chunk.StoreID) (chunk.Store, bool), s *rpc.Stream) error {
	var frame rpc.Frame
	if err := s.Recv(&frame); err != nil {
		return err
	}
	frame.Free()
	store, req, err := open(find, &frame)
	if err != nil {
		return s.Send(answer(failed(err), nil))
	}
	var batch []shard
	for info, err := range store.List(s.Context(), req.id()) {
		if err != nil {
			rep := failed(err)
			rep.Shards = batch
			return s.Send(answer(rep, nil))
		}
		batch = append(batch, shard{Stripe: info.ID.Stripe, Index: info.ID.Index, Size: info.Size})
		if len(batch) == listBatch {
			if err := s.Send(answer(reply{Shards: batch}, nil)); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return s.Send(answer(reply{Shards: batch, Last: true}, nil))
}
