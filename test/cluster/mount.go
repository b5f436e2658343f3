package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

	daemon
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
	p, err := start(m.clock.command(m.host, "dosmount", m.args...), &m.log)
	if err != nil {
		tb.Fatal(err)
	}
	m.proc = p
	if err := p.up("dos: mounted at " + m.Point); err != nil {
		tb.Fatalf("%v\n%s", err, m.log.tail())
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
	if err := p.kill(); err != nil {
		tb.Fatalf("%s after SIGKILL: %v", p, err)
	}
}

// KillAgain kills it and starts it once more at once, as a supervisor does that
// does not wait for what is left of it.
func (m *Mount) KillAgain(tb testing.TB) {
	tb.Helper()
	p := m.proc
	m.signal(tb, syscall.SIGKILL)
	m.Again(tb)
	<-p.done
}

// Cold stops it, empties the kernel's caches and starts it again.
func (m *Mount) Cold(tb testing.TB) {
	tb.Helper()
	m.Stop(tb)
	DropCaches(tb)
	m.Again(tb)
}

// Alive reports whether the process runs.
func (m *Mount) Alive() bool { return m.proc.alive() }

// Log is what it has said so far on standard error.
func (m *Mount) Log() string { return m.log.String() }

// Path joins a path below the mount point.
func (m *Mount) Path(elem ...string) string {
	return filepath.Join(append([]string{m.Point}, elem...)...)
}

func parseStatus(text string) map[string]string {
	status := make(map[string]string)
	for line := range strings.Lines(text) {
		key, val, _ := strings.Cut(strings.TrimSpace(line), " ")
		status[key] = strings.TrimSpace(val)
	}
	return status
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
