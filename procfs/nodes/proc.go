package nodes

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// ReadProc reads the load and the memory of this machine from the proc file
// system mounted at dir, usually /proc.
func ReadProc(dir string) (Load, Memory, error) {
	loadavg, err1 := os.ReadFile(filepath.Join(dir, "loadavg"))
	meminfo, err2 := os.ReadFile(filepath.Join(dir, "meminfo"))
	self, err3 := os.ReadFile(filepath.Join(dir, "self", "status"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return Load{}, Memory{}, err
	}
	load, err1 := parseLoad(string(loadavg))
	machine, err2 := parseSizes(meminfo, "MemTotal", "MemFree", "MemAvailable")
	ours, err3 := parseSizes(self, "VmRSS")
	if err := errors.Join(err1, err2, err3); err != nil {
		return Load{}, Memory{}, err
	}
	load.CPUs = runtime.NumCPU()
	return load, Memory{Total: machine[0], Free: machine[1], Available: machine[2], Resident: ours[0]}, nil
}

// parseLoad reads a line like "0.20 0.18 0.12 1/80 11206".
func parseLoad(line string) (Load, error) {
	var l Load
	if _, err := fmt.Sscanf(line, "%f %f %f %d/%d", &l.One, &l.Five, &l.Fifteen, &l.Running, &l.Threads); err != nil {
		return Load{}, fmt.Errorf("loadavg %q: %w", strings.TrimSpace(line), err)
	}
	return l, nil
}

// parseSizes reads lines like "MemTotal:  8000000 kB" and returns the sizes
// named, in bytes.
func parseSizes(text []byte, names ...string) ([]int64, error) {
	sizes := make([]int64, len(names))
	found := 0
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		key, rest, _ := strings.Cut(lines.Text(), ":")
		for i, name := range names {
			if key != name {
				continue
			}
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil || kib < 0 || kib > 1<<50 {
				return nil, fmt.Errorf("%s: %q is not a size in kB", name, rest)
			}
			sizes[i] = kib << 10
			found++
		}
	}
	if found < len(names) {
		return nil, fmt.Errorf("not all of %s are there", strings.Join(names, ", "))
	}
	return sizes, nil
}
