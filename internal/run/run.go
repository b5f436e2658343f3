// Package run starts programs on this machine and keeps hold of all that comes
// of them. It knows nothing of dos: a task is an ID, a program, a user, limits and
// an hour.
//
// # Who is above whom
//
//	Host (the process that calls Open)
//	└── shim        one a task at a time: this program again, under another name
//	    └── task    a session and process group of its own, as its user
//	        └── …   whatever it starts
//
// The shim is the parent of last resort (PR_SET_CHILD_SUBREAPER) of everything
// that its task starts, however it forks: it reaps what dies, and the task is over only
// when there is nothing left. When the task's first process has ended, what it left
// behind is killed. A shim without a task waits a while for another. When the Host dies
// the shim's connection ends, and it kills all; when the shim dies, the task's first
// process is killed by the kernel (PR_SET_PDEATHSIG) and the rest becomes the Host's,
// which kills it.
//
// A task lives until an hour by the clock of package boottime, which its Host puts
// off (Extend). The shim looks to it, so that a Host which stands still does
// not keep its tasks alive.
//
// # What holds a task
//
// Cgroups, version 1 or 2, whatever the machine has and lets us use, count and
// limit a task's cpu, memory and processes, freeze it, and know all its processes.
// Without them, memory and the number of processes are limited for each process (setrlimit(2)), and
// processes are found by their parents. Limits says which.
//
// # What is left after a crash
//
// Each task has a file in the directory of its Host from before it starts until
// after it has ended. Open kills all that these files name: a new Host begins on
// an empty machine.
package run

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// A Spec says what to run.
type Spec struct {
	ID string // unique among what runs: letters, digits, '-', '_', '.'

	// Argv is the program, found in the Env's PATH, and its arguments. Or Script is a text: what its
	// first line names after "#!" runs it, else /bin/sh.
	Argv   []string
	Script []byte

	Env  []string // NAME=VALUE, all of it
	Dir  string   // where it starts; /
	User *User    // nil: whoever this process is

	// Mark is an entry of Env that nothing else on the machine has. By it processes
	// are found that got away from a Host without cgroups. May be empty.
	Mark string

	Stdin, Stdout, Stderr *os.File // nil: /dev/null. Start does not close them.

	Limits Limits
	Until  time.Duration // of boottime.Now: when it is killed, see Process.Extend
}

// A User is whom a task runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Umask    uint32
}

// Limits are what a task may use. Zero is no limit.
type Limits struct {
	CPU       float64 // processors
	Memory    int64   // bytes
	Processes int64   // at once, threads too
}

// Usage is what a task has used.
type Usage struct {
	CPU    time.Duration // of all its processes
	Memory int64         // the most at once, bytes; without cgroups that of the largest process
	Wall   time.Duration
}

// An End is how a task ended.
type End struct {
	Code   int            // of the first process, if Signal is 0
	Signal syscall.Signal // that killed the first process, else 0
	// OOM is set if some of the task was killed because it had no memory left, Overdue
	// if its hour had come, Killed if Kill was called, Lost if its shim died: then
	// Code and Signal mean nothing.
	OOM, Overdue, Killed, Lost bool
	Usage                      Usage
}

func (e End) String() string {
	text := fmt.Sprintf("exit %d", e.Code)
	if e.Signal != 0 {
		text = "signal " + e.Signal.String()
	}
	for _, also := range []struct {
		is   bool
		text string
	}{{e.OOM, "out of memory"}, {e.Overdue, "overdue"}, {e.Killed, "killed"}, {e.Lost, "lost"}} {
		if also.is {
			text += ", " + also.text
		}
	}
	return text
}

// ErrStart is why a program could not be started: it is not there, its user may
// not run it, or not go where it is to start. Trying again does not help.
var ErrStart = errors.New("cannot start")

func (s *Spec) check() error {
	switch {
	case s.ID == "" || strings.Trim(s.ID, ".") == "" || len(s.ID) > maxID:
		return fmt.Errorf("%w: bad id %q", ErrStart, s.ID)
	case (len(s.Argv) == 0) == (len(s.Script) == 0):
		return fmt.Errorf("%w: either a program or a script", ErrStart)
	}
	for _, r := range s.ID {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r) {
			return fmt.Errorf("%w: bad id %q", ErrStart, s.ID)
		}
	}
	for _, text := range append(append([]string{s.Dir}, s.Argv...), s.Env...) {
		if strings.ContainsRune(text, 0) {
			return fmt.Errorf("%w: a zero byte in %q", ErrStart, text)
		}
	}
	return nil
}

// maxID leaves room for a suffix in a file's name.
const maxID = 200
