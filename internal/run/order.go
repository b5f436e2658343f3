package run

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// Host and shim speak over a socket, a line of JSON a message. The Host sends an
// order, with the task's files, then commands, and another order when the task has ended; the
// shim sends news.

// An order is what a shim is to start.
type order struct {
	Argv  []string
	Env   []string
	Dir   string
	User  *User
	Until time.Duration
	// Script is set if the last of the files is the program's text.
	Script bool
	Group  groupPaths
	// Bare are limits for each process, where there are no cgroups for them.
	Bare Limits
}

// A message is an order, or changes what runs. Fields that are not set change nothing.
type message struct {
	Order  *order         `json:",omitempty"`
	Until  time.Duration  `json:",omitempty"`
	Signal syscall.Signal `json:",omitempty"`
	Freeze *bool          `json:",omitempty"`
	Kill   bool           `json:",omitempty"`

	files []*os.File // that came with it
}

// News are what the shim says: that the task has started or not, and how it ended.
type news struct {
	PID     int    `json:",omitempty"`
	Failed  string `json:",omitempty"`
	Final   bool   // trying again would not help
	Ended   bool   `json:",omitempty"`
	Code    int
	Signal  syscall.Signal
	Overdue bool
	CPU     time.Duration // of what ended
	Memory  int64         // of the largest process, bytes
}

const (
	// controlFD is a shim's end of the socket.
	controlFD = 3
	// taskScriptFD is where the task finds its script. Whatever runs it opens it there.
	taskScriptFD = 3
)

// interpreter is the program that runs a script, as execve(2) has it: what
// the first line names, with at most one argument.
func interpreter(script []byte) ([]string, error) {
	line, _, _ := bytes.Cut(script, []byte("\n"))
	text, named := strings.CutPrefix(string(line), "#!")
	if !named {
		return []string{"/bin/sh"}, nil
	}
	name, arg, _ := strings.Cut(strings.TrimSpace(text), " ")
	argv := []string{name}
	if arg = strings.TrimSpace(arg); arg != "" {
		argv = append(argv, arg)
	}
	if !path.IsAbs(name) {
		return nil, fmt.Errorf("%w: the interpreter %q of the first line is not a path from /", ErrStart, name)
	}
	return argv, nil
}

// within is the command that runs argv with the limits for each process. The
// shell sets them on itself: that needs no rights over another user's process.
func (l Limits) within(argv []string) []string {
	text := ""
	if l.Memory > 0 {
		text += fmt.Sprintf("ulimit -v %d || exit 126; ", (l.Memory+1023)>>10)
	}
	if l.Processes > 0 { // shells differ in the letter
		text += fmt.Sprintf("ulimit -u %d 2>/dev/null || ulimit -p %[1]d || exit 126; ", l.Processes)
	}
	if text == "" {
		return argv
	}
	return append([]string{"/bin/sh", "-c", text + `exec "$@"`, "sh"}, argv...)
}
