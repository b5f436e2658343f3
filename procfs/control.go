package procfs

import (
	"context"

	"dos/meta"
)

// A Control is what a control file does (class C): each line that is written is a
// command, executed inside the write(2) that brings its newline. A last line
// without one is executed when the opener closes. Several lines in one write are
// executed in order; at the first that fails the write is short, and the retry of
// the rest gets the errno. Lines that are blank or begin with # mean nothing.
// `>`, `>>` and `>|` are alike.
type Control struct {
	// Settings is what reading gives, as lines of a key and a value. Nil: it
	// cannot be read.
	Settings func(ctx context.Context) (string, error)
	// Do executes a line. It may wait: see Blocker.
	Do func(ctx context.Context, line string) error
	// Batch is there instead of Do where many lines cost less than each by itself.
	// It executes them in order, and returns how many it did, and why not the next.
	Batch func(ctx context.Context, lines []string) (done int, err error)
	// Verbatim says that each line counts, whatever it begins with.
	Verbatim bool
	// End, if set, is called when the last descriptor is closed.
	End func(ctx context.Context) error
}

// Open opens the control file.
func (c Control) Open(ctx context.Context, how Open) (Handle, error) {
	text := ""
	if how.Read {
		if c.Settings == nil {
			return nil, meta.Permission
		}
		var err error
		if text, err = c.Settings(ctx); err != nil {
			return nil, err
		}
	}
	do := c.Batch
	if c.Do != nil {
		do = one(c.Do)
	}
	if !how.Write && c.End == nil {
		return textHandle(text), nil
	}
	h := &controlHandle{cursor: cursor{rest: text}, end: c.End}
	h.lines = lines{do: do, verbatim: c.Verbatim, turn: newTurn()}
	return h, nil
}

// A controlHandle can be written. What is read has a cursor of its own: a
// descriptor that is read and written has one offset for both.
type controlHandle struct {
	cursor
	commands
	end func(ctx context.Context) error
}

func (h *controlHandle) Stream() {}

func (h *controlHandle) ReadAt(_ context.Context, p []byte, _ int64) (int, error) { return h.read(p) }

func (h *controlHandle) Close(ctx context.Context) error {
	err := h.commands.Close(ctx)
	if h.end != nil {
		if e := h.end(ctx); err == nil {
			err = e
		}
	}
	return err
}

// commands is the part of a handle that takes lines.
type commands struct {
	lines lines
}

func (c *commands) WriteAt(ctx context.Context, p []byte, _ int64) (int, error) {
	return c.lines.write(ctx, p)
}

func (c *commands) Flush(ctx context.Context, by Closer) error {
	switch {
	case by.Killed && (by.Opener || by.Wrote):
		return c.lines.drop(ctx) // it may have meant to go on
	case by.Opener:
		return c.lines.finish(ctx)
	}
	return nil
}

func (c *commands) Close(ctx context.Context) error { return c.lines.finish(ctx) }
