package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// upLimit bounds the time from start to usable: recovery after a crash
	// reads logs and segments, and the machine may be busy.
	upLimit = 2 * time.Minute
	// downLimit bounds a clean stop, which writes out what is buffered.
	downLimit = time.Minute
	// killLimit is how long a process that was asked for its stacks has to
	// print them.
	killLimit = 5 * time.Second
	// pollEvery is how often a condition outside this process is looked at.
	pollEvery = 50 * time.Millisecond
	// logTail is how much of a process's log a failed test prints, in bytes.
	logTail = 16 << 10
)

// A Mount is a dosmount with its embedded cluster. Its methods are for the
// test's goroutine alone.
type Mount struct {
	Point string // where it is mounted
	Data  string // its --data

	args []string
	proc *process // the last one started; nil after Stop and Kill
	log  logBuffer
}

// Start mounts an embedded cluster whose data is in data, which may be new,
// and returns when the mount is usable. It is stopped when the test ends.
func Start(tb testing.TB, data string, flags ...string) *Mount {
	tb.Helper()
	m := &Mount{Point: filepath.Join(Dir(tb), "m"), Data: data}
	m.args = append(append([]string{"--data", data}, flags...), m.Point)
	tb.Cleanup(func() { m.cleanup(tb) })
	m.Again(tb)
	return m
}

// Again runs the same command once more, after Stop or Kill.
func (m *Mount) Again(tb testing.TB) {
	tb.Helper()
	p, err := start(m.args, &m.log)
	if err != nil {
		tb.Fatal(err)
	}
	m.proc = p
	want := "dos: mounted at " + m.Point
	select {
	case line, ok := <-p.first:
		if !ok {
			<-p.done
			tb.Fatalf("%s: %v\n%s", p, p.err, m.log.tail())
		}
		if line != want {
			tb.Fatalf("%s printed %q, want %q", p, line, want)
		}
	case <-time.After(upLimit):
		tb.Fatalf("%s is not up after %v", p, upLimit)
	}
}

// Stop ends it as SIGTERM does and checks that it ended well: exit status 0
// and nothing mounted any more.
func (m *Mount) Stop(tb testing.TB) {
	tb.Helper()
	p := m.proc
	m.proc = nil
	if err := p.end(syscall.SIGTERM, downLimit); err != nil {
		tb.Fatalf("%s after SIGTERM: %v\n%s", p, err, m.log.tail())
	}
	if on, err := Mounted(m.Point); on || err != nil {
		tb.Fatalf("%s is still mounted after a clean stop (%v)", m.Point, err)
	}
}

// Kill ends it as a crash does. What it had mounted stays behind, dead.
func (m *Mount) Kill(tb testing.TB) {
	tb.Helper()
	p := m.proc
	m.proc = nil
	var exit *exec.ExitError
	if err := p.end(syscall.SIGKILL, downLimit); err != nil && !errors.As(err, &exit) {
		tb.Fatalf("%s after SIGKILL: %v", p, err)
	}
}

// Pause stops the process where it is, as a machine that hangs does, until Resume.
func (m *Mount) Pause(tb testing.TB) {
	tb.Helper()
	m.signal(tb, syscall.SIGSTOP)
}

// Resume ends a Pause.
func (m *Mount) Resume(tb testing.TB) {
	tb.Helper()
	m.signal(tb, syscall.SIGCONT)
}

func (m *Mount) signal(tb testing.TB, sig os.Signal) {
	tb.Helper()
	if err := m.proc.cmd.Process.Signal(sig); err != nil {
		tb.Fatalf("%s: %v: %v", m.proc, sig, err)
	}
}

// Cold stops it, empties the kernel's caches and starts it again.
func (m *Mount) Cold(tb testing.TB) {
	tb.Helper()
	m.Stop(tb)
	DropCaches(tb)
	m.Again(tb)
}

// PID is the process's id.
func (m *Mount) PID() int { return m.proc.cmd.Process.Pid }

// Alive reports whether the process runs.
func (m *Mount) Alive() bool {
	if m.proc == nil {
		return false
	}
	select {
	case <-m.proc.done:
		return false
	default:
		return true
	}
}

// Log is what it has said so far on standard error.
func (m *Mount) Log() string { return m.log.String() }

// Path joins a path below the mount point.
func (m *Mount) Path(elem ...string) string {
	return filepath.Join(append([]string{m.Point}, elem...)...)
}

// Status reads cluster/status: lines of a key and a value. Of a key that
// stands more than once it has the last.
func (m *Mount) Status() (map[string]string, error) {
	b, err := os.ReadFile(m.Path("cluster", "status"))
	if err != nil {
		return nil, err
	}
	status := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		key, val, _ := strings.Cut(strings.TrimSpace(line), " ")
		status[key] = strings.TrimSpace(val)
	}
	return status, nil
}

// Health reads cluster/health: ok, or what is wrong.
func (m *Mount) Health() (string, error) {
	b, err := os.ReadFile(m.Path("cluster", "health"))
	return strings.TrimSpace(string(b)), err
}

// AwaitHealth waits until the first word of cluster/health is the one given.
func (m *Mount) AwaitHealth(tb testing.TB, word string, limit time.Duration) {
	tb.Helper()
	Await(tb, limit, func() error {
		if !m.Alive() {
			tb.Fatalf("dosmount ended\n%s", m.log.tail())
		}
		health, err := m.Health()
		if first, _, _ := strings.Cut(health, " "); err == nil && first != word {
			err = fmt.Errorf("health is %q, want %q", health, word)
		}
		return err
	})
}

// Await calls cond until it returns nil, and fails the test with its last
// error after limit.
func Await(tb testing.TB, limit time.Duration, cond func() error) {
	tb.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(pollEvery) {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("after %v: %v", limit, err)
		}
	}
}

func (m *Mount) cleanup(tb testing.TB) {
	if p := m.proc; p != nil {
		if err := p.end(syscall.SIGTERM, downLimit); err != nil {
			tb.Errorf("%s at the end of the test: %v", p, err)
		}
	}
	if on, err := Mounted(m.Point); err != nil {
		tb.Error(err)
	} else if on {
		if err := Detach(m.Point); err != nil {
			tb.Error(err)
		}
	}
	if tb.Failed() {
		tb.Logf("log of dosmount %s:\n%s", strings.Join(m.args, " "), m.log.tail())
	}
}

// A Result is how a command ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Run runs a command to its end.
func Run(tb testing.TB, name string, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), upLimit)
	defer cancel()
	return runToEnd(ctx, tb, exec.CommandContext(ctx, name, args...))
}

// RunOrdinary runs a command to its end as Nobody.
func RunOrdinary(tb testing.TB, name string, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), upLimit)
	defer cancel()
	return runToEnd(ctx, tb, Ordinary(ctx, tb, name, args...))
}

func runToEnd(ctx context.Context, tb testing.TB, cmd *exec.Cmd) Result {
	tb.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		tb.Fatalf("%s: %v (%v)\n%s", cmd, err, ctx.Err(), stderr.String())
	}
	return Result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// process is a dosmount that was started.
type process struct {
	cmd   *exec.Cmd
	first chan string   // its first line of standard output; closed when there is none
	done  chan struct{} // closed when it has ended
	err   error         // how it ended; valid after done
}

func start(args []string, log io.Writer) (*process, error) {
	p := &process{
		cmd:   exec.Command(Bin("dosmount"), args...),
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
