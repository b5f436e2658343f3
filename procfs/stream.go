package procfs

import (
	"context"
	"errors"
	"strings"

	"dos/meta"
)

// A Next waits for what comes next and returns it: one line or several, each
// with its newline. io.EOF ends the stream.
type Next func(ctx context.Context) (string, error)

// Stream is a file of lines that come one after the other (class X). It is not
// listed, because reading it waits. Each open calls follow and reads what the
// Next that it returns gives.
func Stream(name string, follow func(context.Context) (Next, error)) File {
	return &streamFile{name, follow}
}

type streamFile struct {
	name   string
	follow func(context.Context) (Next, error)
}

func (f *streamFile) called() string { return f.name }
func (f *streamFile) Unlisted()      {}

func (f *streamFile) Stat(context.Context) (Info, error) {
	return Info{Name: f.name, Mode: meta.TypeFile | 0o444}, nil
}

func (f *streamFile) Open(ctx context.Context, how Open) (Handle, error) {
	if how.Write {
		return nil, meta.Permission
	}
	next, err := f.follow(ctx)
	if err != nil {
		return nil, err
	}
	return OpenStream(next, nil), nil
}

// OpenStream opens what next gives. end, if it is set, is called when the last
// descriptor is closed.
func OpenStream(next Next, end func(ctx context.Context) error) Handle {
	return &streamHandle{next: next, end: end, turn: newTurn()}
}

// A streamHandle is a Streamer. Programs may share it: they take turns, and one
// that is interrupted while it waits for its turn or for a line loses nothing.
type streamHandle struct {
	next Next
	end  func(ctx context.Context) error
	turn turn
	rest string // came and was not read yet; owned by whose turn it is
}

func (h *streamHandle) Stream() {}

// ReadAt returns as many whole lines as are there and fit into p, or a part of one.
func (h *streamHandle) ReadAt(ctx context.Context, p []byte, _ int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := h.turn.take(ctx); err != nil {
		return 0, err
	}
	defer h.turn.pass()
	for h.rest == "" {
		text, err := h.next(ctx)
		if err != nil {
			return 0, err
		}
		h.rest = text
	}
	n := min(len(p), len(h.rest))
	if n < len(h.rest) {
		if last := strings.LastIndexByte(h.rest[:n], '\n'); last >= 0 {
			n = last + 1
		}
	}
	copy(p, h.rest[:n])
	h.rest = h.rest[n:]
	return n, nil
}

func (h *streamHandle) WriteAt(context.Context, []byte, int64) (int, error) {
	return 0, meta.Permission
}

func (h *streamHandle) Close(ctx context.Context) error {
	if h.end == nil {
		return nil
	}
	return h.end(ctx)
}

// A Following is what a stream does that takes lines too.
type Following struct {
	Next Next
	// Do executes a line, never while Next runs.
	Do  func(ctx context.Context, line string) error
	End func(ctx context.Context) error // if set, called when the last descriptor is closed
}

// Open opens the stream.
func (f Following) Open(how Open) (Handle, error) {
	stream := &streamHandle{next: f.Next, end: f.End, turn: newTurn()}
	h := &followHandle{streamHandle: stream}
	h.lines = lines{turn: stream.turn, do: one(f.Do)}
	if !how.Write {
		return stream, nil
	}
	return h, nil
}

type followHandle struct {
	*streamHandle
	commands
}

func (h *followHandle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	return h.commands.WriteAt(ctx, p, off)
}

func (h *followHandle) Close(ctx context.Context) error {
	return errors.Join(h.commands.Close(ctx), h.streamHandle.Close(ctx))
}
