package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"dos/internal/relay"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/exchange"
	"dos/procfs"
)

// unreadMax bounds the replies of one descriptor that were not read.
const unreadMax = 64

// openCall opens a handle by which calls are made, one after the other.
func openCall(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	if !how.Write {
		return procfs.OpenText(how, "") // so that grep -r passes by
	}
	by := fmt.Sprintf("uid %d pid %d at %s", how.Caller.UID, how.Caller.PID, f.room.node)
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h := &callHandle{
		file: f, reads: how.Read, how: client.Calling{Fresh: true, By: by}, cancel: cancel,
		writing: make(chan struct{}, 1), reading: make(chan struct{}, 1),
	}
	h.spawn = func(do func(context.Context)) { h.calls.Go(func() { do(life) }) }
	return h, nil
}

// A callHandle takes requests, lines or `len N` and N bytes, and gives the replies in
// that order. A request is sent when the one before is replied to. A write returns when
// somebody has taken its requests or, where nobody reads the replies, when they are
// over, so that errors reach the shell. If it is interrupted before, which is no change
// of mind (a shell is whenever one of its children ends), the call goes on, and who
// reads the reply, or closes, hears of errors.
type callHandle struct {
	file   file
	reads  bool
	how    client.Calling
	spawn  func(func(context.Context)) // has something go on until Close
	cancel context.CancelFunc
	calls  sync.WaitGroup

	writing chan struct{} // a turn
	part    []byte        // of a line; owned by whose turn it is, as the next
	left    int64         // bytes of a request that are to come
	now     *reply        // to that; nil: it is not begun
	failed  error         // what the last write would have said, had it not been short

	reading chan struct{} // a turn
	mu      sync.Mutex
	replies []*reply // the one that is read first; guarded by mu
}

// A reply is that to a request that was written.
type reply struct {
	taken chan struct{} // closed when the next two are set
	conv  *client.Conversation
	err   error // it was not taken

	over    chan struct{} // where nobody reads: closed when the next is set
	outcome error
}

func (h *callHandle) Stream() {}

// take takes a turn, as long as it can be waited for.
func take(ctx context.Context, turn chan struct{}) error {
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WriteAt executes what is written as it comes. If not all of it could be, but some was,
// the rest comes again, and gets the error.
func (h *callHandle) WriteAt(ctx context.Context, p []byte, _ int64) (n int, err error) {
	if err := take(ctx, h.writing); err != nil {
		return 0, err
	}
	defer func() { <-h.writing }()
	if err := h.failed; err != nil {
		h.failed = nil
		return 0, err
	}
	for n < len(p) {
		k, err := h.write(ctx, p[n:])
		n += k
		switch {
		case err != nil && n == 0:
			return 0, err
		case err != nil:
			if !errors.Is(err, context.Canceled) {
				h.failed = err
			}
			return n, nil
		}
	}
	return n, nil
}

// write executes the beginning of p.
func (h *callHandle) write(ctx context.Context, p []byte) (int, error) {
	if h.left > 0 {
		return h.body(ctx, p[:min(int64(len(p)), h.left)])
	}
	end := bytes.IndexByte(p, '\n') + 1
	if end == 0 {
		if len(h.part)+len(p) > relay.LineMax {
			return 0, fmt.Errorf("a line of more than %d bytes: %w", relay.LineMax, meta.TooLong)
		}
		h.part = append(h.part, p...)
		return len(p), nil
	}
	if len(h.part)+end > relay.LineMax {
		return 0, fmt.Errorf("a line of more than %d bytes: %w", relay.LineMax, meta.TooLong)
	}
	line := append(bytes.Clone(h.part), p[:end]...)
	if size, is, err := relay.Framed(line); is {
		if err == nil && size > 0 {
			h.left = size
		} else if err == nil {
			_, err = h.begin(ctx, nil, true, 0)
		}
		if err == nil {
			h.part = nil
		}
		return done(end, err)
	}
	_, err := h.begin(ctx, line, true, int64(len(line)))
	h.part = nil
	return done(end, err)
}

func done(n int, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return n, nil
}

// body sends some of a request that is longer than a line.
func (h *callHandle) body(ctx context.Context, p []byte) (n int, err error) {
	if h.now == nil {
		first := p[:min(len(p), exchange.FirstMax)]
		last := int64(len(first)) == h.left
		r, err := h.begin(ctx, bytes.Clone(first), last, h.left)
		if err != nil {
			h.left = 0 // the rest is none of it
			return 0, err
		}
		if h.left -= int64(len(first)); !last {
			h.now = r
		}
		return len(first), nil
	}
	r := h.now
	select {
	case <-r.taken:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	last := int64(len(p)) == h.left
	if err = r.err; err == nil {
		n, err = r.conv.Write(ctx, p, last)
	}
	h.left -= int64(n)
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
	case err != nil:
		h.left, h.now = 0, nil
		h.drop(r)
	case h.left == 0:
		if h.now = nil; !h.reads {
			h.spawn(func(life context.Context) { r.finish(life) })
			return n, h.outcome(ctx, r)
		}
	}
	return n, err
}

// begin sends a request when the one before is replied to.
func (h *callHandle) begin(ctx context.Context, data []byte, last bool, size int64) (*reply, error) {
	r := &reply{taken: make(chan struct{}), over: make(chan struct{})}
	h.mu.Lock()
	var before *reply
	if n := len(h.replies); n >= unreadMax {
		h.mu.Unlock()
		return nil, fmt.Errorf("%d replies were not read: %w", n, meta.TooLarge)
	} else if n > 0 {
		before = h.replies[n-1]
	}
	h.replies = append(h.replies, r)
	h.mu.Unlock()
	h.spawn(func(life context.Context) {
		r.begin(life, before, func() (*client.Conversation, error) {
			return h.file.room.dialer.Open(life, h.file.service, data, last, size, h.how)
		})
		if last && !h.reads {
			r.finish(life)
		}
	})
	select {
	case <-r.taken:
	case <-ctx.Done():
		return r, nil
	}
	if r.err != nil {
		h.drop(r)
		return nil, r.err
	}
	if last && !h.reads {
		return r, h.outcome(ctx, r)
	}
	return r, nil
}

// begin opens a call when the one before it is replied to.
func (r *reply) begin(ctx context.Context, before *reply, open func() (*client.Conversation, error)) {
	defer close(r.taken)
	if before != nil {
		<-before.taken
		if before.err == nil {
			select {
			case <-before.conv.Begins():
			case <-ctx.Done():
			}
		}
	}
	r.conv, r.err = open()
}

// finish waits until a call is over whose reply nobody reads.
func (r *reply) finish(ctx context.Context) {
	defer close(r.over)
	if r.err != nil {
		r.outcome = r.err
		return
	}
	defer r.conv.Close()
	var buffer [4096]byte
	for r.outcome == nil {
		_, r.outcome = r.conv.Read(ctx, buffer[:])
	}
	if r.outcome == io.EOF {
		r.outcome = nil
	}
}

// outcome waits for that of a call whose reply nobody reads.
func (h *callHandle) outcome(ctx context.Context, r *reply) error {
	select {
	case <-r.over:
		h.drop(r)
		return r.outcome
	case <-ctx.Done():
		return nil
	}
}

// drop forgets a reply.
func (h *callHandle) drop(r *reply) {
	h.mu.Lock()
	h.replies = slices.DeleteFunc(h.replies, func(one *reply) bool { return one == r })
	h.mu.Unlock()
	if r.err == nil {
		r.conv.Close()
	}
}

// first is the reply that is read first; nil if there is none.
func (h *callHandle) first() *reply {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.replies) == 0 {
		return nil
	}
	return h.replies[0]
}

// ReadAt gives what comes of the replies. It is at the end when all are read.
func (h *callHandle) ReadAt(ctx context.Context, p []byte, _ int64) (n int, err error) {
	if err := take(ctx, h.reading); err != nil {
		return 0, err
	}
	defer func() { <-h.reading }()
	for r := h.first(); r != nil; r = h.first() {
		select {
		case <-r.taken:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if err = r.err; err == nil {
			n, err = r.conv.Read(ctx, p)
		}
		if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return n, err
		}
		if h.drop(r); err != io.EOF {
			return 0, err
		}
	}
	return 0, io.EOF
}

// Flush executes a line without its newline when the opener closes, and waits for the
// calls whose replies nobody reads.
func (h *callHandle) Flush(ctx context.Context, by procfs.Closer) error {
	if err := take(ctx, h.writing); err != nil {
		return err
	}
	defer func() { <-h.writing }()
	switch {
	case by.Killed && (by.Opener || by.Wrote):
		h.part = nil
		return nil
	case !by.Opener:
		return nil
	}
	if line := h.part; len(line) > 0 {
		h.part = nil
		if _, err := h.begin(ctx, line, true, int64(len(line))); err != nil {
			return err
		}
	}
	for r := h.first(); r != nil && !h.reads && r != h.now; r = h.first() {
		if err := h.outcome(ctx, r); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// Close gives up what was not read.
func (h *callHandle) Close(context.Context) error {
	h.cancel()
	h.calls.Wait()
	for r := h.first(); r != nil; r = h.first() {
		h.drop(r)
	}
	return nil
}
