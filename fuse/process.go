package fuse

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// The kernel names callers by the number of their thread, as seen from where the
// mount was made; 0 is one that is not seen from there.

// processOf returns the process that a thread belongs to, 0 if nobody knows.
func processOf(thread uint32) uint32 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if thread == 0 || err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(status, []byte("\nTgid:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	id, _ := strconv.ParseUint(string(bytes.TrimSpace(line)), 10, 32)
	return uint32(id)
}

// killed reports whether a thread that is in a system call of ours is ending
// because of a signal. The kernel sets the exit code of a thread, the same for
// all of its process, before it closes its files; one that lives has 0. Those
// who may not look at the process read 0 too: root may.
func killed(thread uint32) bool {
	code, _ := strconv.Atoi(string(statField(thread, exitCode)))
	const signal = 0x7f // as in wait(2)
	return code&signal != 0
}

// parentOf returns the parent of a process, 0 if nobody knows.
func parentOf(process uint32) uint32 {
	id, _ := strconv.ParseUint(string(statField(process, parent)), 10, 32)
	return uint32(id)
}

// Fields of /proc/N/stat as proc(5) counts them. The second is the name of the
// program in parentheses, which may contain anything.
const (
	parent   = 4
	exitCode = 52
)

func statField(id uint32, field int) []byte {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return nil
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const first = 3 // the one behind the name
	if field-first >= len(fields) {
		return nil
	}
	return fields[field-first]
}
