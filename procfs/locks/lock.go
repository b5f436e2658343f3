package locks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/named"
	"dos/procfs"
)

// graceTime is how long a wait that was interrupted keeps its place: programs are
// interrupted all the time and go on waiting at once.
const graceTime = time.Second

// A lock is a file that flock(2) locks.
type lock struct {
	room *Room
	name string
}

func lockInfo(name string) procfs.Info {
	return procfs.Info{Name: name, Mode: meta.TypeFile | 0o666}
}

// Blocks says that writing may wait: `acquire` does.
func (l lock) Blocks() {}

// Stat does not say how long the text is: to know that, the lock would have to
// come back from where it is lent to.
func (l lock) Stat(ctx context.Context) (procfs.Info, error) { return lockInfo(path.Base(l.name)), nil }

func (l lock) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	h := &handle{lock: l, by: l.room.who(how.Caller)}
	control, err := procfs.Control{Do: h.do}.Open(ctx, procfs.Open{Write: true})
	if err != nil {
		return nil, err
	}
	h.control = control
	l.room.mu.Lock()
	defer l.room.mu.Unlock()
	l.room.open[l.name]++
	return h, nil
}

// nobodyKnows stands for the command of a process that is gone, so that a line has its words.
const nobodyKnows = "-"

// who describes a caller.
func (r *Room) who(by procfs.Caller) named.Who {
	cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", by.PID))
	text := strings.Map(func(c rune) rune {
		if c <= ' ' {
			return '_'
		}
		return c
	}, cmp.Or(strings.TrimSpace(string(cmd)), nobodyKnows))
	return named.Who{Node: r.node, PID: by.PID, UID: by.UID, Cmd: text[:min(len(text), named.TextMax)]}
}

// stuck reports whether a process that waits cannot go on: one with several threads
// may.
func stuck(pid uint32) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && len(tasks) == 1
}

// claim says how a caller asks.
func claim(by named.Who) client.How {
	return client.How{Who: by, Owner: uint64(by.PID), Stuck: func() bool { return stuck(by.PID) }}
}

// A handle is one open of a lock. flock(2) and `acquire` lock it for the handle.
type handle struct {
	lock    lock
	by      named.Who
	control procfs.Handle

	mu     sync.Mutex
	held   *client.Held // guarded by mu, as all below
	mode   meta.LockMode
	wait   *time.Timer // of a place that nobody waits at just now
	signal *loss
	closed bool

	reading sync.Mutex
	rest    *string // of a text that is being read; guarded by reading
}

func (h *handle) Stream() {}

// Stat is for a lock that is open and nowhere known yet.
func (h *handle) Stat(ctx context.Context) (procfs.Info, error) { return h.lock.Stat(ctx) }

func (h *handle) ReadAt(ctx context.Context, p []byte, _ int64) (int, error) {
	h.reading.Lock()
	defer h.reading.Unlock()
	if err := h.lost(); err != nil {
		return 0, err
	}
	if h.rest == nil {
		info, err := h.lock.room.locks.Status(ctx, h.lock.name)
		if err != nil {
			return 0, stale(err)
		}
		text := Render(info, time.Now())
		h.rest = &text
	}
	if *h.rest == "" {
		h.rest = nil // who reads on reads it anew
		return 0, io.EOF
	}
	n := copy(p, *h.rest)
	*h.rest = (*h.rest)[n:]
	return n, nil
}

// lost says that what the handle had was lost.
func (h *handle) lost() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == nil {
		return nil
	}
	select {
	case <-h.held.Lost():
		return fmt.Errorf("lock %q was lost: %w", h.lock.name, meta.Conflict)
	default:
		return nil
	}
}

func (h *handle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	return h.control.WriteAt(ctx, p, off)
}

func (h *handle) Flush(ctx context.Context, by procfs.Closer) error {
	return h.control.(procfs.Flusher).Flush(ctx, by)
}

func (h *handle) Close(ctx context.Context) error {
	err := h.control.Close(ctx)
	r := h.lock.room
	h.mu.Lock()
	held := h.held
	h.held, h.closed = nil, true
	h.signal.end()
	h.mu.Unlock()
	if held != nil {
		if e := held.Unlock(ctx); err == nil {
			err = e
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[h.lock.name]--; r.open[h.lock.name] == 0 {
		delete(r.open, h.lock.name)
	}
	return err
}

// Lock is procfs.Locker's.
func (h *handle) Lock(ctx context.Context, mode meta.LockMode, wait bool) error {
	held, pending, err := h.take(mode)
	switch {
	case err != nil:
		return err
	case held != nil && !pending: // it was something else, or is to be nothing
		if err := held.Unlock(ctx); err != nil {
			return err
		}
		held = nil
	}
	if mode == meta.Unlocked {
		return nil
	}
	how := claim(h.by)
	how.Shared = mode == meta.Shared
	if held == nil {
		ask := h.lock.room.locks.Claim
		if !wait {
			ask = h.lock.room.locks.TryLock
		}
		if held, err = ask(ctx, h.lock.name, how); err != nil {
			return stale(err)
		}
	} else if !wait && held.Waits() {
		return h.give(held, mode, meta.Busy)
	}
	return h.give(held, mode, stale(held.Wait(ctx)))
}

// take takes out of the handle what it has. pending says that it may go on with
// that: it has what is wanted, or waits for it.
func (h *handle) take(mode meta.LockMode) (held *client.Held, pending bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held = h.held
	if held == nil {
		return nil, false, nil
	}
	select {
	case <-held.Lost():
		if mode != meta.Unlocked {
			return nil, false, fmt.Errorf("lock %q was lost; open it anew: %w", h.lock.name, meta.Conflict)
		}
	default:
	}
	h.held = nil
	h.signal.watch(nil)
	if h.wait != nil {
		h.wait.Stop()
		h.wait = nil
	}
	return held, mode == h.mode, nil
}

// give puts a claim into the handle, where err says that it was not waited for to
// the end: then it keeps its place for a while.
func (h *handle) give(held *client.Held, mode meta.LockMode, err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.held != nil || err != nil && !errors.Is(err, context.Canceled) {
		h.mu.Unlock()
		e := held.Unlock(context.Background()) // it is tried until it is done
		h.mu.Lock()
		return errors.Join(err, e)
	}
	h.held, h.mode = held, mode
	if err != nil {
		h.wait = time.AfterFunc(graceTime, func() { h.abandon(held) })
	} else {
		h.signal.watch(held)
	}
	return err
}

// abandon gives up a place that nobody came back to.
func (h *handle) abandon(held *client.Held) {
	h.mu.Lock()
	if h.held != held || h.wait == nil {
		h.mu.Unlock()
		return
	}
	h.held, h.wait = nil, nil
	h.mu.Unlock()
	_ = held.Unlock(context.Background()) // it is tried until it is done
}

// A loss is the signal that a process asked for.
type loss struct {
	process int // a pidfd
	signal  unix.Signal
	stop    chan struct{} // closed when what is watched is not of interest any more
}

func newLoss(pid uint32, s unix.Signal) (*loss, error) {
	fd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, meta.Unsupported)
	}
	return &loss{process: fd, signal: s}, nil
}

// watch sends the signal when what is held is lost. Nil is nothing, now.
func (l *loss) watch(held *client.Held) {
	if l == nil {
		return
	}
	if l.stop != nil {
		close(l.stop)
		l.stop = nil
	}
	if held == nil {
		return
	}
	stop := make(chan struct{})
	l.stop = stop
	go func() { // ends with the next watch
		select {
		case <-held.Lost():
			_ = unix.PidfdSendSignal(l.process, l.signal, nil, 0) // it may be gone
		case <-stop:
		}
	}()
}

func (l *loss) end() {
	if l != nil {
		l.watch(nil)
		unix.Close(l.process)
	}
}
