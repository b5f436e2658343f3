package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

// StdinPipe is what stdin= says when it is not a file that is read, but what is written
// to ID/stdin.
const StdinPipe = "-"

// stdinEvery is the pause between two looks for more of what is written to a task.
const stdinEvery = 50 * time.Millisecond

// openStdin is a pipe into the task: what is written is kept until the task reads it,
// wherever it runs, and when the writer closes, its end is reached. Its mode lets only
// who runs tasks read it, who passes it on to the task: whoever reads waits for more, or
// reads nothing if the task has no such pipe.
func openStdin(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	t, err := f.now(ctx)
	switch {
	case err != nil:
		return nil, err
	case how.Read && how.Write:
		return nil, fmt.Errorf("stdin is written to: %w", meta.Permission)
	case how.Read:
		return f.readStdin(ctx, t.Owner, how)
	case t.State.Ended():
		return nil, fmt.Errorf("task %v has ended: %w", f.id, meta.Canceled)
	}
	s, err := f.tasks.Spec(ctx, f.id)
	if err != nil {
		return nil, plain(err)
	}
	if s.Stdin != StdinPipe {
		return nil, fmt.Errorf("task %v was not submitted with stdin=%s: %w", f.id, StdinPipe, meta.Canceled)
	}
	ended, err := f.host.Ended(ctx, f.id, Stdin)
	if err == nil && ended {
		err = fmt.Errorf("the standard input of task %v was closed by who wrote to it: %w", f.id, meta.Canceled)
	}
	if err != nil {
		return nil, err
	}
	how.Append = true
	h, err := f.host.Open(ctx, f.id, Stdin, t.Owner, how)
	if err != nil {
		return nil, err
	}
	return &stdinWriter{Handle: h, end: func(ctx context.Context) error { return f.host.End(ctx, f.id, Stdin, t.Owner) }}, nil
}

// A stdinWriter says that nothing more comes when the last descriptor is closed.
type stdinWriter struct {
	procfs.Handle
	end func(ctx context.Context) error
}

// Flush has what was written stored, so that who reads it elsewhere sees it.
func (w *stdinWriter) Flush(ctx context.Context, by procfs.Closer) error {
	if h, ok := w.Handle.(procfs.Flusher); ok {
		return h.Flush(ctx, by)
	}
	return nil
}

func (w *stdinWriter) Close(ctx context.Context) error {
	return errors.Join(w.Handle.Close(ctx), w.end(ctx))
}

// readStdin follows what is written, until that was closed or the task has ended.
func (f file) readStdin(ctx context.Context, owner task.Owner, how procfs.Open) (procfs.Handle, error) {
	s, err := f.tasks.Spec(ctx, f.id)
	switch {
	case err != nil:
		return nil, plain(err)
	case s.Stdin != StdinPipe:
		return procfs.OpenText(how, "")
	}
	h, err := f.host.Open(ctx, f.id, Stdin, owner, procfs.Open{Read: true, Caller: how.Caller})
	if err != nil {
		return nil, err
	}
	var off int64
	buf := make([]byte, procfs.LineMax)
	return procfs.OpenStream(func(ctx context.Context) (string, error) {
		tick := time.NewTicker(stdinEvery)
		defer tick.Stop()
		for {
			ended, err := f.host.Ended(ctx, f.id, Stdin) // before the reading, so that nothing is missed
			switch {
			case ctx.Err() != nil:
				return "", ctx.Err()
			case err != nil:
				return "", err
			}
			n, err := h.ReadAt(ctx, buf, off)
			if n > 0 {
				off += int64(n)
				return string(buf[:n]), nil
			}
			if err != nil && err != io.EOF {
				return "", err
			}
			if t, err := f.now(ctx); ended || errors.Is(err, meta.NotExist) || err == nil && t.State.Ended() {
				return "", io.EOF
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
	}, h.Close), nil
}
