package fuse

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// The kernel names callers by the number of their thread, as seen from where the
// mount was made; 0 is one that is not seen from there.

// A thread is what /proc/N/status says of one.
type thread struct {
	process uint32 // that it belongs to; 0 if nobody knows
	parent  uint32 // of the process
	ends    bool   // it has no memory any more
}

func threadOf(id uint32) thread {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", id))
	if id == 0 || err != nil {
		return thread{}
	}
	return thread{
		process: number(status, "\nTgid:"),
		parent:  number(status, "\nPPid:"),
		ends:    !bytes.Contains(status, []byte("\nVmSize:")),
	}
}

func number(status []byte, key string) uint32 {
	_, rest, _ := bytes.Cut(status, []byte(key))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, _ := strconv.ParseUint(string(bytes.TrimSpace(line)), 10, 32)
	return uint32(n)
}

// killed reports whether a thread that ends, and waits for us meanwhile, does so
// because of a signal. The kernel sets its exit code, the same for all of its
// process, before it closes its files. Those who may not look at the process read
// 0: root may. It must not be asked of a thread that lives: while it is in execve,
// which closes files too, whoever reads its stat waits until that is over, which
// waits for us.
func killed(id uint32) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return false
	}
	// The second field, the name of the program, is in parentheses and may contain
	// anything; the last is the exit code as in wait(2).
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) == 0 {
		return false
	}
	code, _ := strconv.Atoi(string(fields[len(fields)-1]))
	const signal = 0x7f
	return code&signal != 0
}
