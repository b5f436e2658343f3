package cluster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a command that was started and that runs on.
type process struct {
	cmd   *exec.Cmd
	first chan string   // its first line of standard output; closed when there is none
	done  chan struct{} // closed when it has ended
	err   error         // how it ended; valid after done
}

func start(cmd *exec.Cmd, log io.Writer) (*process, error) {
	p := &process{
		cmd:   cmd,
		first: make(chan string, 1),
		done:  make(chan struct{}),
	}
	// Its own process group: an interrupt at the terminal is for the test, which
	// then ends the process.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = log
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(stdout)
		if lines.Scan() {
			p.first <- lines.Text()
		}
		close(p.first)
		for lines.Scan() {
			fmt.Fprintln(log, "stdout:", lines.Text())
		}
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// up waits until it prints want as its first line.
func (p *process) up(want string) error {
	select {
	case line, ok := <-p.first:
		switch {
		case !ok:
			<-p.done
			return fmt.Errorf("%s: %w", p, p.err)
		case line != want:
			return fmt.Errorf("%s printed %q, want %q", p, line, want)
		}
		return nil
	case <-time.After(upLimit):
		return fmt.Errorf("%s is not up after %v", p, upLimit)
	}
}

// alive reports whether it runs; nil does not.
func (p *process) alive() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends it as a crash does.
func (p *process) kill() error {
	err := p.end(syscall.SIGKILL, downLimit)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

func (p *process) String() string { return fmt.Sprintf("%s [%d]", p.cmd, p.cmd.Process.Pid) }

// end sends the signal and waits. A process that does not end within limit is
// asked for its stacks and killed.
func (p *process) end(sig os.Signal, limit time.Duration) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
	}
	for _, sig := range []os.Signal{syscall.SIGQUIT, syscall.SIGKILL} {
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-p.done:
			return fmt.Errorf("did not end in %v; ended by %v", limit, sig)
		case <-time.After(killLimit):
		}
	}
	return fmt.Errorf("did not end in %v, nor by SIGKILL", limit)
}

// logBuffer keeps what a process says. It may be used concurrently.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) tail() string {
	s := l.String()
	if len(s) > logTail {
		s = "… " + s[len(s)-logTail:]
	}
	return s
}
