package procfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"dos/meta"
)

// A Take is what a take file does (class T): opening it waits until there is
// something and takes it, reading gives it, and closing ends the taking. An open
// with O_NONBLOCK does not wait. A node that is a Take's should be Unlisted.
type Take struct {
	// Take waits until there is something, or, if wait is false, is
	// meta.WouldWait. It takes nothing if it returns an error; when ctx ends
	// between, it gives back.
	Take func(ctx context.Context, wait bool) (Taken, error)
	// Patience bounds the waiting: see Patience. Nil: it waits until ctx ends.
	Patience *time.Duration
}

// Taken is what was taken. It is there to be read as a file of exact size, or, if
// it has more than one line, as a stream: a shell's read reads a seekable file
// ahead and seeks back, and nobody could tell how much the program got.
type Taken struct {
	Data string
	// Do, if set, executes the lines that are written.
	Do func(ctx context.Context, line string) error
	// End is called once, when the last descriptor is closed. had says that every
	// byte was read, that who then closed is known, and that no signal killed it:
	// whatever it was taken for is done.
	End func(ctx context.Context, had bool) error
}

// Patience reads the suffix of a name: `pop@5s` is `pop` with a patience of 5 s, and
// `pop@0` does not wait. Without a suffix there is none.
func Patience(name string) (base string, patience *time.Duration, err error) {
	base, suffix, has := strings.Cut(name, "@")
	if !has {
		return name, nil, nil
	}
	d, err := Duration(suffix)
	if err != nil {
		return "", nil, fmt.Errorf("%q: %w", name, err)
	}
	return base, &d, nil
}

// Open takes something.
func (t Take) Open(ctx context.Context, how Open) (Handle, error) {
	wait := !how.Nonblock
	if t.Patience != nil {
		if *t.Patience <= 0 {
			wait = false
		} else {
			bound, cancel := context.WithTimeout(ctx, *t.Patience)
			defer cancel()
			ctx = bound
		}
	}
	taken, err := t.Take(ctx, wait)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, meta.TimedOut
	case err != nil:
		return nil, err
	case !how.Write && strings.Count(strings.TrimSuffix(taken.Data, "\n"), "\n") == 0:
		return newTakeHandle(taken), nil
	}
	return &takeStream{takeHandle: newTakeHandle(taken)}, nil
}

// A takeHandle is a plain file of exact size.
type takeHandle struct {
	commands
	taken Taken

	mu   sync.Mutex
	read int  // bytes from the beginning that were read without a gap; guarded by mu
	all  bool // every byte was read; guarded by mu
	// closed says that somebody closed it since it was read last, and killed that
	// a signal killed one of those, or that nobody knows; guarded by mu
	closed, killed bool
}

func newTakeHandle(taken Taken) *takeHandle {
	h := &takeHandle{taken: taken}
	do := taken.Do
	if do == nil {
		do = func(context.Context, string) error { return meta.Permission }
	}
	h.lines = lines{do: one(do), turn: newTurn()}
	return h
}

func (h *takeHandle) Size() int64 { return int64(len(h.taken.Data)) }

func (h *takeHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := strings.NewReader(h.taken.Data).ReadAt(p, off)
	if off <= int64(h.read) {
		h.read = max(h.read, int(off)+n)
	}
	h.all = h.read == len(h.taken.Data)
	h.closed, h.killed = false, false
	return n, err
}

// Flush remembers who closed. What that means is known when nobody can read any
// more, in Close.
func (h *takeHandle) Flush(ctx context.Context, by Closer) error {
	h.mu.Lock()
	h.closed = true
	h.killed = h.killed || by.Killed || !by.Known
	h.mu.Unlock()
	return h.commands.Flush(ctx, by)
}

func (h *takeHandle) Close(ctx context.Context) error {
	err := h.commands.Close(ctx)
	h.mu.Lock()
	had := h.all && h.closed && !h.killed
	h.mu.Unlock()
	if h.taken.End == nil {
		return err
	}
	return errors.Join(err, h.taken.End(ctx, had))
}

// A takeStream gives the same without offsets.
type takeStream struct {
	*takeHandle
	cursor sync.Mutex
	off    int64 // guarded by cursor
}

func (h *takeStream) Stream() {}

func (h *takeStream) ReadAt(ctx context.Context, p []byte, _ int64) (int, error) {
	h.cursor.Lock()
	defer h.cursor.Unlock()
	n, err := h.takeHandle.ReadAt(ctx, p, h.off)
	h.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}
