package fuse

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
)

// Type is how the mount table calls a mount of dos: `mount -t fuse.dos` lists them.
const Type = "fuse.dos"

// A mounted is one line of /proc/self/mountinfo.
type mounted struct {
	point  string
	device string // major:minor
	fstype string
	source string
}

// Mounted reports whether a mount of dos is at the absolute path point in the
// tree as a process sees it.
func Mounted(pid int, point string) (bool, error) {
	m, ok, err := mountedIn(strconv.Itoa(pid), point)
	return ok && m.fstype == Type, err
}

// mountedAt returns what is mounted at the absolute path point, the uppermost
// if there are several.
func mountedAt(point string) (m mounted, ok bool, err error) { return mountedIn("self", point) }

func mountedIn(process, point string) (m mounted, ok bool, err error) {
	file, err := os.Open("/proc/" + process + "/mountinfo")
	if err != nil {
		return mounted{}, false, err
	}
	defer file.Close()
	all, err := parseMountinfo(file)
	if err != nil {
		return mounted{}, false, err
	}
	for _, each := range all {
		if each.point == point {
			m, ok = each, true
		}
	}
	return m, ok, nil
}

// parseMountinfo reads lines as proc_pid_mountinfo(5) draws them:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// A line that it cannot read it leaves out: the kernel adds fields, never takes any.
func parseMountinfo(r io.Reader) ([]mounted, error) {
	var all []mounted
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // overlay mounts have lines of many paths
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		before, after := strings.Fields(left), strings.Fields(right)
		if !ok || len(before) < 6 || len(after) < 2 {
			continue
		}
		all = append(all, mounted{
			point:  unescape(before[4]),
			device: before[2],
			fstype: after[0],
			source: unescape(after[1]),
		})
	}
	return all, lines.Err()
}

// unescape turns the \ooo of the mount table back into bytes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
