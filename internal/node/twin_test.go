package node

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dos/chunk"
	"dos/meta"
)

// A copy of a machine's data directory does not start while the machine runs, nor
// does the machine while the copy runs. One that has moved does.
func TestTwin(t *testing.T) {
	a := machineConfig(t, "a")
	a.Bootstrap, a.Code = true, chunk.Code{K: 1, M: 2}
	first := startMachine(t, a)
	b := machineConfig(t, "b")
	b.Join = first.token(t, "b")
	second := startMachine(t, b)
	c := machineConfig(t, "c")
	c.Join = first.token(t, "c")
	startMachine(t, c)
	whole := func() { eventually(t, "whole cluster", func() error { return first.whole(t.Context(), 3) }) }
	at := func(addr string) {
		eventually(t, "machine b at "+addr, func() error {
			if at := second.registeredAddr(first.fleet.Map()); at != addr {
				return errors.New("it is at " + at)
			}
			return nil
		})
	}
	whole()
	second.stop()
	twin := b
	twin.Data, twin.Listen = filepath.Join(t.TempDir(), "copy"), freeAddr(t)
	if out, err := exec.Command("cp", "-a", b.Data, twin.Data).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	second = startMachine(t, b)
	whole()
	refused := func(c MachineConfig, at string) {
		t.Helper()
		m, err := openMachine(t.Context(), c)
		if err == nil {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err = errors.Join(m.run(ctx), m.close())
		}
		if !errors.Is(err, meta.Conflict) || !strings.Contains(err.Error(), "machine b runs at "+at) || strings.Contains(err.Error(), "\n") {
			t.Errorf("a twin of what runs at %s: %v", at, err)
		}
	}
	refused(twin, b.Listen)
	second.stop()

	moved := startMachine(t, twin)
	at(twin.Listen)
	refused(b, twin.Listen)
	moved.stop()
	startMachine(t, b)
	at(b.Listen)
	whole()
}
