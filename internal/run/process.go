package run

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// A Process is a task that was started. Its methods may be called concurrently.
type Process struct {
	host  *Host
	id    string
	began time.Time
	shim  *keptShim
	group *group
	pid   int
	// answered is set when the shim has said what came of its order.
	answered bool
	done     chan struct{}

	mu     sync.Mutex
	killed bool // guarded by mu
	over   bool // the shim is not this task's any more; guarded by mu
	end    End  // guarded by mu until done is closed
}

// PID is the task's first process.
func (p *Process) PID() int { return p.pid }

// Done is closed when nothing of the task is left.
func (p *Process) Done() <-chan struct{} { return p.done }

// End is how the task ended, once Done is closed.
func (p *Process) End() End {
	<-p.done
	return p.end
}

// Extend puts off the hour when the task is killed.
func (p *Process) Extend(until time.Duration) { p.tell(message{Until: until}) }

// Signal sends a signal to all processes of the task.
func (p *Process) Signal(sig syscall.Signal) { p.tell(message{Signal: sig}) }

// Freeze stops all processes of the task, or has them go on.
func (p *Process) Freeze(on bool) { p.tell(message{Freeze: &on}) }

// tellWait is how long a shim may take to read a command. One that does not is
// stopped, and its task is killed by whoever waits for its end.
const tellWait = time.Second

// tell sends a command. It is lost if the task has ended.
func (p *Process) tell(m message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	err := p.shim.host.file.SetWriteDeadline(time.Now().Add(tellWait))
	if err == nil {
		err = p.shim.host.send(m)
	}
	if err != nil {
		slog.Debug("run: a command was not taken", "task", p.id, "err", err)
	}
}

// shimWait is how long a shim has to kill a task before its Host does it: longer
// than it needs to, unless somebody stopped it.
const shimWait = 5 * time.Second

// Kill kills all of the task. It does not wait for its end.
func (p *Process) Kill() {
	p.mu.Lock()
	first := !p.killed
	p.killed = true
	p.mu.Unlock()
	p.tell(message{Kill: true})
	if !first {
		return
	}
	go func() { // ends with the task, or shimWait later
		t := time.NewTimer(shimWait)
		defer t.Stop()
		select {
		case <-p.done:
		case <-t.C:
			p.mu.Lock()
			defer p.mu.Unlock()
			if !p.over {
				_ = p.shim.process.Kill()
			}
		}
	}()
}

// Usage is what the task has used so far.
func (p *Process) Usage() Usage {
	select {
	case <-p.done:
		return p.end.Usage
	default:
	}
	var u Usage
	if p.group != nil {
		u, _ = p.group.usage()
	} else {
		u = sum(below(p.shim.process.Pid))
	}
	u.Wall = time.Since(p.began)
	return u
}

// startWait is how long a shim has to start its program.
const startWait = 30 * time.Second

// started waits for the shim to say that the program runs.
func (p *Process) started() error {
	if err := p.shim.host.file.SetReadDeadline(time.Now().Add(startWait)); err != nil {
		return err
	}
	var n news
	err := p.shim.host.next(&n)
	p.answered = err == nil
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errTrouble, err)
	case n.Final:
		return startError{n.Failed}
	case n.Failed != "":
		return fmt.Errorf("%s", n.Failed)
	}
	p.pid = n.PID
	return p.shim.host.file.SetReadDeadline(time.Time{})
}

// A startError is ErrStart with the shim's words.
type startError struct{ text string }

func (e startError) Error() string { return e.text }
func (e startError) Unwrap() error { return ErrStart }

// drop ends a shim whose program did not start.
func (p *Process) drop() {
	p.host.end(p.shim)
	if !p.answered {
		p.host.strays()
	}
}

// follow waits for the task's end, and tidies up.
func (p *Process) follow() {
	var n news
	err := p.shim.host.next(&n)
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	end := End{Code: n.Code, Signal: n.Signal, Overdue: n.Overdue, Usage: Usage{CPU: n.CPU, Memory: n.Memory}}
	if err != nil || !n.Ended {
		end = End{Lost: true}
		p.host.end(p.shim)
		if p.group != nil {
			for !p.group.kill(killTry) {
				slog.Warn("run: a task's processes do not die", "task", p.id, "processes", len(p.group.pids()))
			}
		}
		p.host.strays()
	} else {
		p.host.keep(p.shim)
	}
	tidy := true
	if p.group != nil {
		u, oom := p.group.usage()
		end.OOM = oom
		if end.Usage.CPU, end.Usage.Memory = max(u.CPU, end.Usage.CPU), u.Memory; u.Memory == 0 {
			end.Usage.Memory = n.Memory
		}
		if err := p.group.remove(); err != nil {
			slog.Warn("run: left for the next start", "task", p.id, "err", err)
			tidy = false
		}
	}
	if tidy {
		if err := os.Remove(p.host.recordPath(p.id)); err != nil {
			slog.Warn("run: a record stays", "task", p.id, "err", err)
		}
	}
	end.Usage.Wall = time.Since(p.began)
	p.mu.Lock()
	end.Killed = p.killed
	p.end = end
	p.mu.Unlock()
	close(p.done)
}
