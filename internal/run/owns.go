package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ownsTries is how often it is looked again who the parents of a process are, if one of them
// ended meanwhile.
const ownsTries = 8

// Owns reports whether a process, given by one of its threads, may be one of what the Host of a
// directory has started, or the Host itself, which is the process host. Who is not
// found any more may have been. It is for other processes than the Host.
func Owns(dir string, host, thread int) bool {
	at, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false // there is no Host
	}
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", thread))
	if err != nil || bytes.Contains(group, []byte("/"+groupName(at)+"/")) {
		return true
	}
	records := recordsIn(at)
	for range ownsTries {
		if below, known := belowOf(host, records, thread); known {
			return below || marks(records, thread)
		}
	}
	return true
}

// recordsIn reads the records of a Host. One that cannot be read is of what has just ended, or
// not begun: a record is there for as long as what it tells of.
func recordsIn(dir string) (list []record) {
	files, _ := filepath.Glob(filepath.Join(dir, "*"+recordSuffix))
	for _, f := range files {
		var r record
		if text, err := os.ReadFile(f); err == nil && json.Unmarshal(text, &r) == nil {
			list = append(list, r)
		}
	}
	return list
}

// belowOf reports whether a process is the Host, a shim, or below one of them. known is false if
// it cannot be told.
func belowOf(host int, records []record, thread int) (below, known bool) {
	id, ok := processOf(thread)
	for id > 1 && ok {
		var is proc
		if is, ok = stat(id); !ok {
			break
		}
		if id == host {
			return true, true
		}
		for _, r := range records {
			if r.Shim == id && r.Started == is.started {
				return true, true
			}
		}
		id = is.parent
	}
	return false, ok
}

// processOf is the process of a thread.
func processOf(thread int) (id int, ok bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return 0, false
	}
	_, rest, _ := strings.Cut(string(status), "\nTgid:")
	line, _, _ := strings.Cut(rest, "\n")
	id, err = strconv.Atoi(strings.TrimSpace(line))
	return id, err == nil
}

// marks reports whether a process has the environment of a task: so those are known without
// cgroups who are below nobody any more, for their shim was killed.
func marks(records []record, thread int) bool {
	if len(records) == 0 {
		return false
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", thread))
	if err != nil {
		return !errors.Is(err, os.ErrPermission) // who is somebody else than we are is not of ours
	}
	for _, r := range records {
		if r.Mark != "" && strings.Contains("\x00"+string(env), "\x00"+r.Mark+"\x00") {
			return true
		}
	}
	return false
}
