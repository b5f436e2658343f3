package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// No namespace has a clock of its own that tells the time of day, and programs
// in Go ask the kernel without a library that could be replaced. So a command
// whose clock is wrong is built from our sources as they are, and a copy of the
// standard library's time.Now that adds the seconds of the variable clockEnv.
const (
	clockEnv = "DOS_TEST_CLOCK"
	clockNow = "sec, nsec, mono := runtimeNow()\n"
	clockAdd = clockNow + "\tsec += skew\n"
	clockVar = `package time

import "syscall"

var skew = func() (n int64) {
	text, _ := syscall.Getenv("` + clockEnv + `")
	for i := range text {
		if c := text[i]; c != '-' {
			n = 10*n + int64(c-'0')
		}
	}
	if text != "" && text[0] == '-' {
		n = -n
	}
	return n
}()
`
)

// A Clock is how a machine's clock is set. Nil is one that is right.
type Clock struct {
	bin  string
	fast time.Duration
}

// Clocks builds the commands anew, and returns what makes clocks that are fast by
// so much, or slow if it is negative. It takes some minutes for the first time.
func Clocks(tb testing.TB) func(fast time.Duration) *Clock {
	tb.Helper()
	dir := Dir(tb)
	out, err := exec.CommandContext(tb.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		tb.Fatalf("go env: %v", err)
	}
	lib := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	text, err := os.ReadFile(filepath.Join(lib, "time.go"))
	if err != nil {
		tb.Fatal(err)
	}
	// In the first place, which is Now.
	now := strings.Replace(string(text), clockNow, clockAdd, 1)
	if now == string(text) {
		tb.Fatalf("time.Now of this version of Go does not have %q", clockNow)
	}
	replace := make(map[string]string)
	for name, text := range map[string]string{"time.go": now, "skew.go": clockVar} {
		replace[filepath.Join(lib, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, "overlay")
	if err := os.WriteFile(path, overlay, 0o644); err != nil {
		tb.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	if err := build(bin, "-overlay", path); err != nil {
		tb.Fatal(err)
	}
	return func(fast time.Duration) *Clock { return &Clock{bin, fast} }
}

// command is a command at a place, by this clock.
func (c *Clock) command(h *host, name string, args ...string) *exec.Cmd {
	if c == nil {
		return h.command(Bin(name), args...)
	}
	cmd := h.command(filepath.Join(c.bin, name), args...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", clockEnv, int64(c.fast/time.Second)))
	return cmd
}
