package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dos/internal/run"
)

const (
	// lookEvery is how often it is looked whether the mount is there, and hangs how
	// long it may take to say so.
	lookEvery = 500 * time.Millisecond
	hangs     = 3 * time.Second
	// outputRetry is the pause before output that could not be stored is tried again.
	outputRetry = 250 * time.Millisecond
	// pieceSize is how much output is read at once: what a pipe holds.
	pieceSize = 64 << 10
	// fullWait is how long output waits for room on a full disk or in a quota, before it is given up.
	fullWait = 30 * time.Second
	// tailWait is how long after a task's end somebody else may hold its output open.
	tailWait = time.Second
)

// A tree is the machine's mount.
type tree struct {
	mount string
	is    func() error // says why it is not there

	mu      sync.Mutex
	why     string        // it is not there; "": it is; guarded by mu
	changed chan struct{} // closed when why changes; guarded by mu
}

func newTree(mount string, is func() error) *tree {
	if is == nil {
		is = func() error { return mounted(filepath.Join(mount, tasks)) }
	}
	return &tree{mount: mount, is: is, why: "it is not known yet whether the tree is mounted", changed: make(chan struct{})}
}

// tasks is the directory of the tree that only a mount has.
const tasks = "tasks"

// mounted says why a directory is not one of a mount.
func mounted(dir string) error {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	if err == nil && st.Type != unix.FUSE_SUPER_MAGIC {
		err = errors.New("nothing is mounted")
	}
	return err
}

// away says why the mount is not there, "" if it is, and when that changes.
func (t *tree) away() (changed <-chan struct{}, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed, t.why
}

// await returns when the mount is there.
func (t *tree) await(ctx context.Context) error {
	for {
		changed, why := t.away()
		if why == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *tree) set(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why != why {
		t.why = why
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

// look says why the mount is not there.
func (t *tree) look() string {
	if err := t.is(); err != nil {
		return fmt.Sprintf("the tree is away from %s: %v", t.mount, err)
	}
	return ""
}

// run looks at the mount until ctx ends. One that hangs may hold the goroutine that looks.
func (t *tree) run(ctx context.Context) error {
	answer := make(chan string, 1)
	for {
		go func() { answer <- t.look() }() // it ends with the mount, if not before
		hang := time.NewTimer(hangs)
	wait:
		for {
			select {
			case why := <-answer:
				t.set(why)
				break wait
			case <-hang.C:
				t.set("the tree at " + t.mount + " does not answer")
			case <-ctx.Done():
				hang.Stop()
				return nil
			}
		}
		hang.Stop()
		if pause(ctx, lookEvery) != nil {
			return nil
		}
	}
}

// outputs are the two outputs of an attempt, on their way into the tree.
type outputs struct {
	list   []*output
	theirs []*os.File // the task's ends, until it has them
	cancel context.CancelFunc
}

// outputs prepares them, and has the task write to them.
func (t *tree) outputs(ctx context.Context, of *attempt, s *run.Spec) (*outputs, error) {
	ctx, cancel := context.WithCancel(ctx)
	o := &outputs{cancel: cancel}
	for name, end := range map[string]**os.File{"stdout": &s.Stdout, "stderr": &s.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			o.abandon()
			return nil, err
		}
		one := &output{tree: t, file: filepath.Join(t.mount, tasks, of.is.ID.String(), name), from: r, done: make(chan struct{}), left: of.agent.cfg.Left, most: of.agent.cfg.OutputMax}
		o.list, o.theirs, *end = append(o.list, one), append(o.theirs, w), w
		go one.run(ctx) // ends with the task's output; finish and abandon wait for it
	}
	return o, nil
}

// begun lets go of the task's ends: it has them, or has not begun.
func (o *outputs) begun() {
	for _, f := range o.theirs {
		f.Close()
	}
	o.theirs = nil
}

// finish returns when all is stored that the task wrote, and says what was not.
func (o *outputs) finish(ctx context.Context) (note string) {
	defer o.cancel()
	for _, one := range o.list {
		// Somebody may hold the pipe whom the task passed it on to. What is in it is all the same.
		stop := time.AfterFunc(tailWait, func() { _ = one.from.SetReadDeadline(time.Now()) })
		<-one.done
		stop.Stop()
		if one.note != "" {
			note = filepath.Base(one.file) + ": " + one.note
		}
	}
	return note
}

// abandon gives up what is not stored.
func (o *outputs) abandon() {
	o.begun()
	o.cancel()
	for _, one := range o.list {
		_ = one.from.SetReadDeadline(time.Now())
		<-one.done
	}
}

// An output is one of them.
type output struct {
	tree *tree
	file string
	from *os.File
	left func() time.Duration
	most int64         // that is kept, bytes
	done chan struct{} // closed when all is stored, or given up
	note string        // what was given up, and why; valid after done

	to   *os.File
	size int64 // that was stored
}

// run stores what comes until its end.
func (o *output) run(ctx context.Context) {
	defer close(o.done)
	defer o.from.Close()
	defer func() {
		if o.to != nil {
			if err := o.to.Close(); err != nil && o.note == "" {
				o.note = err.Error()
			}
		}
	}()
	buf := make([]byte, pieceSize)
	for {
		n, err := o.from.Read(buf)
		piece := buf[:n]
		if over := o.size + int64(n) - o.most; over > 0 && o.note == "" {
			o.note = fmt.Sprintf("what came after %d bytes is not kept", o.most)
			piece = append(piece[:max(int64(n)-over, 0)], "\ndos: "+o.note+"\n"...)
			o.store(ctx, piece)
		} else if o.note == "" {
			o.store(ctx, piece)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil && o.note == "" {
				o.note = err.Error()
			}
			return
		}
	}
}

// store appends a piece, however long the mount is away. Meanwhile the task fills
// the pipe, and then waits.
func (o *output) store(ctx context.Context, piece []byte) {
	var full time.Time
	for len(piece) > 0 {
		err := o.open()
		if err == nil {
			var n int
			if o.left() <= 0 {
				err = errors.New("the machine is cut off")
			} else if n, err = o.to.Write(piece); n > 0 {
				o.size += int64(n)
				piece = piece[n:]
				full = time.Time{}
			}
		}
		if err == nil {
			continue
		}
		if o.to != nil {
			o.to.Close()
			o.to = nil
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, syscall.ENOENT) && o.tree.look() == "":
			o.note = "its file is gone"
			return
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
			if full.IsZero() {
				full = time.Now()
			}
			if time.Since(full) > fullWait {
				o.note = fmt.Sprintf("what came after %d bytes is lost: %v", o.size, err)
				return
			}
		}
		if pause(ctx, outputRetry) != nil {
			return
		}
	}
}

// open opens the file when there is something to write.
func (o *output) open() (err error) {
	if o.to == nil {
		o.to, err = os.OpenFile(o.file, os.O_WRONLY|os.O_APPEND, 0)
	}
	return err
}
