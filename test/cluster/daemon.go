package cluster

import (
	"os"
	"syscall"
	"testing"
)

// A daemon is what a Machine and a Mount have in common: a process that is started
// again and again, somewhere.
type daemon struct {
	args  []string
	clock *Clock
	host  *host    // where on a network it runs; nil: on none of its own
	proc  *process // the last one started; nil after Stop and Kill
	log   logBuffer
}

// Pause stops the process where it is, as a machine that hangs does, until Resume.
func (d *daemon) Pause(tb testing.TB) {
	tb.Helper()
	d.signal(tb, syscall.SIGSTOP)
}

// Resume ends a Pause.
func (d *daemon) Resume(tb testing.TB) {
	tb.Helper()
	d.signal(tb, syscall.SIGCONT)
}

// Cut takes the cable of its machine out: what it sends and what is sent to it
// vanishes. It must be on a network.
func (d *daemon) Cut(tb testing.TB) {
	tb.Helper()
	d.host.cut(tb)
}

// Heal ends a Cut.
func (d *daemon) Heal(tb testing.TB) {
	tb.Helper()
	d.host.heal(tb)
}

// PID is the process's id.
func (d *daemon) PID() int { return d.proc.cmd.Process.Pid }

func (d *daemon) signal(tb testing.TB, sig os.Signal) {
	tb.Helper()
	if err := d.proc.cmd.Process.Signal(sig); err != nil {
		tb.Fatalf("%s: %v: %v", d.proc, sig, err)
	}
}
