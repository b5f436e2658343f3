package run

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A keptShim is a shim as its Host has it. To start one takes longer than most of what else a
// short task needs, so one that has no task any more is kept for the next.
type keptShim struct {
	process *os.Process
	started uint64 // proc.started of it
	host    *peer
	expire  *time.Timer // ends it, unless it is used before
}

const (
	// idleMax bounds the shims without a task, some MiB each: as many as end and begin at once.
	idleMax = 16
	// idleFor is how long one is kept.
	idleFor = 30 * time.Second
)

// shim returns a shim without a task.
func (h *Host) shim() (*keptShim, error) {
	for {
		h.mu.Lock()
		n := len(h.idle)
		if n == 0 {
			h.mu.Unlock()
			return h.fork()
		}
		s := h.idle[n-1]
		h.idle = h.idle[:n-1]
		h.mu.Unlock()
		s.expire.Stop()
		if s.host.silent() {
			return s, nil
		}
		h.end(s) // somebody killed it
	}
}

// keep keeps a shim that has no task any more.
func (h *Host) keep(s *keptShim) {
	h.mu.Lock()
	full := h.closed || len(h.idle) >= idleMax
	if !full {
		s.expire = time.AfterFunc(idleFor, func() {
			h.mu.Lock()
			i := slices.Index(h.idle, s)
			if i >= 0 {
				h.idle = slices.Delete(h.idle, i, i+1)
			}
			h.mu.Unlock()
			if i >= 0 {
				h.end(s)
			}
		})
		h.idle = append(h.idle, s)
	}
	h.mu.Unlock()
	if full {
		h.end(s)
	}
}

// fork starts a shim.
func (h *Host) fork() (*keptShim, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTrouble, err)
	}
	s := &keptShim{host: newPeer(os.NewFile(uintptr(pair[0]), "shim"))}
	theirs := os.NewFile(uintptr(pair[1]), "host")
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		s.host.file.Close()
		return nil, err
	}
	defer null.Close()
	h.starting.RLock()
	defer h.starting.RUnlock()
	s.process, err = os.StartProcess("/proc/self/exe", []string{shimName}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, os.Stderr, theirs}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		s.host.file.Close()
		return nil, fmt.Errorf("%w: %w", errTrouble, err)
	}
	h.mu.Lock()
	h.shims[s.process.Pid] = true
	h.mu.Unlock()
	is, ok := stat(s.process.Pid)
	if !ok {
		h.end(s)
		return nil, fmt.Errorf("%w: the shim is gone", errTrouble)
	}
	s.started = is.started
	return s, nil
}

// end ends a shim that nobody uses.
func (h *Host) end(s *keptShim) {
	s.host.file.Close()
	_ = s.process.Kill()
	_, _ = s.process.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.shims, s.process.Pid)
}

// strays kills the processes that became this one's children when their shim was
// killed.
func (h *Host) strays() {
	h.starting.Lock() // no shim is on its way
	defer h.starting.Unlock()
	self := os.Getpid()
	for began := time.Now(); time.Since(began) < killTry; time.Sleep(killPause) {
		var stray []int
		h.mu.Lock()
		for _, p := range processes() {
			if p.parent == self && !h.shims[p.pid] {
				stray = append(stray, p.pid)
			}
		}
		h.mu.Unlock()
		if len(stray) == 0 {
			return
		}
		for _, pid := range stray {
			signalAll(append(pids(below(pid)), pid), syscall.SIGKILL)
			var status syscall.WaitStatus
			_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		}
	}
}
