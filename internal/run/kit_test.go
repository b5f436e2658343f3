package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dos/internal/boottime"
)

// The test's program is also a host, for tests that kill one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "host" {
		hostMain(os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

// forever is an hour that no test lives to see.
func forever() time.Duration { return boottime.Now() + time.Hour }

// hostMain is a Host with one task: DIR bare|cgroups ID SCRIPT. It says so when the task runs.
func hostMain(args []string) {
	h, err := Open(context.Background(), Config{Dir: args[0], Bare: args[1] == "bare"})
	if err == nil {
		mark := "DOS_TOKEN=" + args[2]
		_, err = h.Start(Spec{ID: args[2], Script: []byte(args[3]), Env: []string{mark, "PATH=" + os.Getenv("PATH")}, Mark: mark, Until: boottime.Now() + hostTasks})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("started")
	select {}
}

// hostTasks is how long the task of a host in a process of its own may run.
const hostTasks = 6 * time.Second

// each runs a test with cgroups and without.
func each(t *testing.T, test func(t *testing.T, h *Host)) {
	for _, bare := range []bool{false, true} {
		name := "cgroups"
		if bare {
			name = "bare"
		}
		t.Run(name, func(t *testing.T) { test(t, openHost(t, bare)) })
	}
}

func openHost(t testing.TB, bare bool) *Host {
	t.Helper()
	h, err := Open(t.Context(), Config{Dir: t.TempDir(), Bare: bare})
	if err != nil {
		t.Fatal(err)
	}
	if !bare && h.Lacks() != "" {
		t.Skip("needs cgroups, and lacks", h.Lacks())
	}
	t.Cleanup(func() { removeAll(t, h) })
	return h
}

// removeAll holds a Host to having left nothing behind, and closes it.
func removeAll(t testing.TB, h *Host) {
	if ids := h.groups.tasksOf(); len(ids) > 0 {
		t.Errorf("cgroups are left: %v", ids)
	}
	if left, _ := filepath.Glob(filepath.Join(h.cfg.Dir, "*")); len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	for _, dir := range h.groups.base {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// A ran is a task with its output.
type ran struct {
	*Process
	out *os.File
}

func begin(t testing.TB, h *Host, s Spec) ran {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	if s.ID == "" {
		s.ID = "t1"
	}
	if s.Until == 0 {
		s.Until = forever()
	}
	if s.Stdout == nil {
		s.Stdout, s.Stderr = out, out
	}
	s.Env = append(s.Env, "PATH="+os.Getenv("PATH"))
	p, err := h.Start(s)
	if err != nil {
		t.Fatalf("%s%q: %v", s.Script, s.Argv, err)
	}
	t.Cleanup(func() { p.Kill(); <-p.Done() })
	return ran{p, out}
}

func (r ran) text(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(r.out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// await waits until a task has written a line that begins so, and returns the rest of it.
func (r ran) await(t testing.TB, prefix string) string {
	t.Helper()
	var rest string
	eventually(t, "a line "+prefix, func() bool {
		for line := range strings.Lines(r.text(t)) {
			var ok bool
			if rest, ok = strings.CutPrefix(line, prefix); ok && strings.HasSuffix(line, "\n") {
				rest = strings.TrimSpace(rest)
				return true
			}
		}
		return false
	})
	return rest
}

func (r ran) number(t testing.TB, prefix string) int {
	t.Helper()
	n, err := strconv.Atoi(r.await(t, prefix))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (r ran) wait(t testing.TB) End {
	t.Helper()
	select {
	case <-r.Done():
	case <-time.After(time.Minute): // of a machine that is busy
		t.Fatalf("the task does not end; it said:\n%s", r.text(t))
	}
	return r.End()
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: it does not come", what)
		}
	}
}

// lives reports whether a process is there and no zombie.
func lives(pid int) bool {
	p, ok := stat(pid)
	return ok && !p.dead
}

// A separate host is one in a process of its own.
type separate struct {
	*exec.Cmd
	dir  string
	bare string
}

func separateHost(t *testing.T, dir string, bare bool, id, script string) separate {
	t.Helper()
	s := separate{dir: dir, bare: "cgroups"}
	if bare {
		s.bare = "bare"
	}
	s.Cmd = exec.Command("/proc/self/exe", "host", dir, s.bare, id, script)
	out, err := s.StdoutPipe()
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Process.Kill(); _ = s.Wait() })
	line := make([]byte, 1024)
	n, err := out.Read(line)
	if got := strings.TrimSpace(string(line[:n])); err != nil && !errors.Is(err, io.EOF) || got != "started" {
		t.Fatalf("the host said %q, %v", got, err)
	}
	return s
}

// shim is the shim of the one task of the host, as its record says.
func (s separate) shim(t *testing.T, id string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, id+recordSuffix))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(text, []byte(`"Shim":`))
	var pid int
	if _, err := fmt.Sscanf(string(after), "%d", &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

func needRoot(t testing.TB) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
}
