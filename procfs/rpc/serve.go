package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"dos/meta"
	"dos/meta/client"
	"dos/procfs"
)

// openServe waits for a call.
func openServe(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	wait := !how.Nonblock
	if f.patient {
		if f.patience <= 0 {
			wait = false
		} else {
			bound, cancel := context.WithTimeout(ctx, f.patience)
			defer cancel()
			ctx = bound
		}
	}
	in, err := f.room.server.Next(ctx, f.service, client.Who{UID: how.Caller.UID, PID: how.Caller.PID}, wait)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, meta.TimedOut
	case err != nil:
		return nil, err
	}
	return &serveHandle{in: in, reading: make(chan struct{}, 1), writing: make(chan struct{}, 1)}, nil
}

// A serveHandle has a call: reading it gives the request, writing it the reply, and
// closing it ends that. One that nobody has seen, because its opener was interrupted, is
// given back.
type serveHandle struct {
	in               *client.Served
	reading, writing chan struct{} // turns

	mu     sync.Mutex
	closed bool // somebody closed a descriptor; guarded by mu
	killed bool // a signal killed who served; guarded by mu
}

func (h *serveHandle) Stream() {}

func (h *serveHandle) ReadAt(ctx context.Context, p []byte, _ int64) (int, error) {
	if err := take(ctx, h.reading); err != nil {
		return 0, err
	}
	defer func() { <-h.reading }()
	return h.in.Read(ctx, p)
}

func (h *serveHandle) WriteAt(ctx context.Context, p []byte, _ int64) (int, error) {
	if err := take(ctx, h.writing); err != nil {
		return 0, err
	}
	defer func() { <-h.writing }()
	n, err := h.in.Write(ctx, p)
	if n > 0 {
		return n, nil // the rest comes again, and gets the error
	}
	return 0, err
}

func (h *serveHandle) Flush(_ context.Context, by procfs.Closer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.killed = h.killed || by.Killed && (by.Opener || by.Wrote)
	return nil
}

func (h *serveHandle) Close(ctx context.Context) (err error) {
	h.mu.Lock()
	closed, killed := h.closed, h.killed
	h.mu.Unlock()
	switch {
	case !closed && !h.in.Begun() && h.in.Return(nil):
	case killed:
		err = h.in.Fail(fmt.Errorf("who served was killed: %w", meta.Protocol))
	case !h.in.Replied():
		err = h.in.Fail(fmt.Errorf("who served closed without a reply: %w", meta.Protocol))
	default:
		err = h.in.Reply(ctx, nil)
	}
	h.in.Done(killed)
	return err
}
