package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"dos/internal/run"
)

const (
	// outputRetry is the pause before output that could not be stored is tried again.
	outputRetry = 250 * time.Millisecond
	// pieceSize is how much output is read at once: what a pipe holds.
	pieceSize = 64 << 10
	// keptMax is how much of an output is kept until it is synced, in bytes, and
	// syncEvery how long: little of it is to be written again after a crash.
	keptMax   = 1 << 20
	syncEvery = time.Second
	// fullWait is how long output waits for room on a full disk or in a quota, before it is given up.
	fullWait = 30 * time.Second
	// tailWait is how long after a task's end somebody else may hold its output open.
	tailWait = time.Second
	// restMax is how much of what is in the pipe then is read, in bytes: all that an ordinary user can have it hold.
	restMax = 1 << 20
)

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
		stop := time.AfterFunc(tailWait, one.end)
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
		one.end()
		<-one.done
	}
}

// An output is one of them. What a mount that crashes has not stored yet is lost, so the
// last of it is kept until it is synced, and what is missing is written again.
type output struct {
	tree *tree
	file string
	from *os.File
	left func() time.Duration
	most int64         // that is kept, bytes
	done chan struct{} // closed when all is stored, or given up
	note string        // what was given up, and why; valid after done

	mu     sync.Mutex
	ending bool // no more is waited for; guarded by mu

	to     *os.File
	size   int64  // that was taken
	kept   []byte // not synced
	at     int64  // where kept begins in the file; valid once opened
	opened bool
	sent   int // of kept, to the file that is open
	synced time.Time
	warned bool
}

// end has run take what is there, and wait for no more.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ending = true
	_ = o.from.SetReadDeadline(time.Now())
}

// patience has the next read return after a while, if there is something to sync then.
func (o *output) patience() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ending {
		return
	}
	var until time.Time
	if len(o.kept) > 0 {
		until = o.synced.Add(syncEvery)
	}
	_ = o.from.SetReadDeadline(until)
}

func (o *output) ends() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ending
}

// run stores what comes until its end.
func (o *output) run(ctx context.Context) {
	defer close(o.done)
	defer o.from.Close()
	defer o.close()
	buf := make([]byte, pieceSize)
	rest := restMax
	for {
		o.patience()
		n, err := o.from.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && o.ends() && rest > 0 {
			n, err = o.there(buf)
			rest -= n
		}
		if n > 0 {
			o.take(ctx, buf[:n])
		}
		idle := errors.Is(err, os.ErrDeadlineExceeded) && !o.ends()
		if err == nil && len(o.kept) < keptMax && time.Since(o.synced) < syncEvery {
			continue
		}
		o.insist(ctx, o.sync)
		if err != nil && !idle {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil && o.note == "" {
				o.note = err.Error()
			}
			return
		}
	}
}

// there reads what is in the pipe.
func (o *output) there(buf []byte) (n int, err error) {
	raw, err := o.from.SyscallConn()
	if err != nil {
		return 0, err
	}
	e := raw.Control(func(fd uintptr) { n, err = syscall.Read(int(fd), buf) })
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return 0, os.ErrDeadlineExceeded
	case e != nil || err != nil:
		return 0, errors.Join(e, err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// take stores a piece, as far as output is kept at all.
func (o *output) take(ctx context.Context, piece []byte) {
	if o.note != "" {
		return
	}
	if len(o.kept) == 0 {
		o.synced = time.Now()
	}
	if room := o.most - o.size; int64(len(piece)) > room {
		o.note = fmt.Sprintf("what came after %d bytes is not kept", o.most)
		o.kept = append(append(o.kept, piece[:room]...), "\ndos: "+o.note+"\n"...)
	} else {
		o.kept = append(o.kept, piece...)
	}
	o.size += int64(len(piece))
	o.insist(ctx, o.write)
}

// insist does something with the file, however long the mount is away. Meanwhile the task fills
// the pipe, and then waits.
func (o *output) insist(ctx context.Context, do func() error) {
	var full time.Time
	gone := false
	for len(o.kept) > 0 {
		err := do()
		if err == nil {
			return
		}
		o.close()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, syscall.ENOENT) && o.tree.look() == "":
			if gone {
				o.give("its file is gone")
				return
			}
			gone = true // or the tree came back since: the next time tells
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
			if full.IsZero() {
				full = time.Now()
			}
			if time.Since(full) > fullWait {
				o.give(fmt.Sprintf("what came last is lost: %v", err))
				return
			}
		}
		if !o.warned {
			o.warned = true
			slog.Warn("agent: output waits", "file", o.file, "err", err)
		}
		if pause(ctx, outputRetry) != nil {
			return
		}
	}
}

// give gives up what is not stored, and what is to come.
func (o *output) give(why string) { o.note, o.kept = why, nil }

func (o *output) close() {
	if o.to != nil {
		o.to.Close() // what it has not stored is kept
		o.to = nil
	}
}

var errCutOff = errors.New("the machine is cut off")

// write writes what is kept and was not written yet.
func (o *output) write() error {
	if o.left() <= 0 {
		return errCutOff // the file is another attempt's by now
	}
	if err := o.open(); err != nil {
		return err
	}
	n, err := o.to.Write(o.kept[o.sent:])
	o.sent += n
	return err
}

// sync has all of it stored.
func (o *output) sync() error {
	if o.to == nil || o.sent < len(o.kept) {
		if err := o.write(); err != nil {
			return err
		}
	}
	if err := o.to.Sync(); err != nil {
		return err
	}
	o.at += int64(len(o.kept))
	o.kept, o.sent, o.synced = o.kept[:0], 0, time.Now()
	return nil
}

// open opens the file when there is something to write, and finds out how much of it
// is there.
func (o *output) open() error {
	if o.to != nil {
		return nil
	}
	f, err := os.OpenFile(o.file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if !o.opened {
		o.opened, o.at = true, info.Size()
	}
	o.to, o.sent = f, int(min(max(info.Size()-o.at, 0), int64(len(o.kept))))
	return nil
}
