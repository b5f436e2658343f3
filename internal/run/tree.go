package run

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A proc is a process as /proc/PID/stat shows it.
type proc struct {
	pid, parent int
	dead        bool   // a zombie
	started     uint64 // clock ticks since the machine was started
	ticks       uint64 // of cpu time, its own
	pages       int64  // resident
}

// stat reads one process. The name, which may have anything in it, ends at the last
// parenthesis.
func stat(pid int) (p proc, ok bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return p, false
	}
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return p, false
	}
	f := strings.Fields(string(text[end+1:])) // f[0] is field 3 of proc_pid_stat(5)
	if len(f) < 22 {
		return p, false
	}
	p.pid = pid
	p.dead = f[0] == "Z" || f[0] == "X"
	p.parent, _ = strconv.Atoi(f[1])
	user, _ := strconv.ParseUint(f[11], 10, 64)
	system, _ := strconv.ParseUint(f[12], 10, 64)
	p.ticks = user + system
	p.started, _ = strconv.ParseUint(f[19], 10, 64)
	p.pages, _ = strconv.ParseInt(f[21], 10, 64)
	return p, true
}

// processes lists all processes of the machine that we see.
func processes() []proc {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	list := make([]proc, 0, len(dirs))
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if p, ok := stat(pid); ok {
			list = append(list, p)
		}
	}
	return list
}

// below lists the descendants of a process, zombies aside.
func below(root int) []proc {
	all := processes()
	children := make(map[int][]proc)
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []proc
	for next := []int{root}; len(next) > 0; {
		pid := next[0]
		next = next[1:]
		for _, c := range children[pid] {
			next = append(next, c.pid)
			if !c.dead {
				found = append(found, c)
			}
		}
	}
	return found
}

func pids(list []proc) []int {
	out := make([]int, len(list))
	for i, p := range list {
		out[i] = p.pid
	}
	return out
}

// marked lists the processes that were started with an entry in their environment.
func marked(entry string) []int {
	if entry == "" {
		return nil
	}
	var found []int
	for _, p := range processes() {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		if err == nil && !p.dead && strings.Contains("\x00"+string(env), "\x00"+entry+"\x00") {
			found = append(found, p.pid)
		}
	}
	return found
}

// ticksPerSecond is what the kernel counts cpu time in for /proc, on all Linux.
const ticksPerSecond = 100

// sum is what processes use now.
func sum(list []proc) (u Usage) {
	page := int64(os.Getpagesize())
	for _, p := range list {
		u.CPU += time.Duration(p.ticks) * time.Second / ticksPerSecond
		u.Memory += p.pages * page
	}
	return u
}

// signalAll sends a signal to each; who is gone meanwhile is gone.
func signalAll(list []int, sig syscall.Signal) {
	for _, pid := range list {
		_ = syscall.Kill(pid, sig)
	}
}

// killPause is between two looks at what is being killed: a process takes a moment to die.
const killPause = 2 * time.Millisecond
