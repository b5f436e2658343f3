// Package cluster starts and stops the commands of dos as processes, for tests
// that use them as a user does: an embedded cluster and its mount, or a cluster
// of machines, each with a network address of its own, and mounts of it.
// Whatever happens to the tests, nothing that they mounted and no machine that
// they started stays: a guard process outlives them and clears it.
//
// It knows what the commands print and which signals end them, and nothing of
// what is inside.
package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// BinEnv names a directory of commands that are built already; without it
// Main builds them from the checkout.
const BinEnv = "DOS_TEST_BIN"

// commands are built for the tests.
var commands = []string{"dosmount", "dosd", "dosctl"}

// guard waits for the end of the tests, then clears what they left. Its
// arguments are the directory below which they worked, and how the names of
// their network namespaces begin.
const guard = `cat >/dev/null
for p in /proc/[0-9]*; do
	case $(tr '\0' ' ' <"$p/cmdline" 2>/dev/null) in *"$1/"*) kill -9 "${p#/proc/}" ;; esac
done
while read -r _ at _; do
	case $at in "$1"/*) umount -l "$at" 2>/dev/null || fusermount3 -uz "$at" 2>/dev/null ;; esac
done </proc/self/mounts
for n in /run/netns/"$2"*; do
	[ ! -e "$n" ] || ip netns del "${n##*/}"
done
rm -rf --one-file-system "$1"
`

// Main is what TestMain calls: it gives the tests a directory of their own
// for everything temporary, builds the commands, runs the tests, and clears up,
// also when they are killed. It returns the exit status.
func Main(m *testing.M) int {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/cluster:", err)
		return 1
	}
	return code
}

func run(m *testing.M) (code int, err error) {
	if err := sweepNetworks(); err != nil {
		return 1, err
	}
	base, err := os.MkdirTemp("", "dos-test-")
	if err != nil {
		return 1, err
	}
	// Others than the owner must reach the mounts below.
	if err := os.Chmod(base, 0o755); err != nil {
		return 1, err
	}
	g := exec.Command("/bin/sh", "-c", guard, "guard", base, fmt.Sprint(nsPrefix, os.Getpid(), "-"))
	g.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	alive, err := g.StdinPipe()
	if err == nil {
		err = g.Start()
	}
	if err != nil {
		return 1, errors.Join(err, os.RemoveAll(base))
	}
	defer func() {
		err = errors.Join(err, alive.Close(), g.Wait())
	}()
	if err := os.Setenv("TMPDIR", base); err != nil {
		return 1, err
	}
	if os.Getenv(BinEnv) == "" {
		bin := filepath.Join(base, "bin")
		if err := build(bin); err != nil {
			return 1, err
		}
		if err := os.Setenv(BinEnv, bin); err != nil {
			return 1, err
		}
	}
	return m.Run(), nil
}

func build(bin string, flags ...string) error {
	args := append([]string{"build", "-o", bin + "/"}, flags...)
	for _, c := range commands {
		args = append(args, "dos/cmd/"+c)
	}
	out, err := exec.Command("go", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Bin is the path of a command.
func Bin(name string) string { return filepath.Join(os.Getenv(BinEnv), name) }

// Dir returns a new directory whose path is short enough for a socket below it.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "t")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// packages says in which of Debian's packages a tool is, where the name is another.
var packages = map[string]string{
	"fusermount3":     "fuse3",
	"setfattr":        "attr",
	"getfacl":         "acl",
	"mkfs.ext4":       "e2fsprogs",
	"ip":              "iproute2",
	"nsenter":         "util-linux",
	"losetup":         "mount",
	"unshare":         "util-linux",
	"setpriv":         "util-linux",
	"redis-cli":       "redis-tools",
	"redis-benchmark": "redis-tools",
}

// Need skips the test when one of the tools is not installed, with a line
// that says how to get it.
func Need(tb testing.TB, tools ...string) {
	tb.Helper()
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			p := packages[t]
			if p == "" {
				p = t
			}
			tb.Skipf("%s is not installed (apt-get install %s)", t, p)
		}
	}
}

// NeedRoot skips the test for ordinary users.
func NeedRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("only root can do this")
	}
}

// NeedFuse skips the test when nothing can be mounted here.
func NeedFuse(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 { // fusermount3 opens the device too, with the user's rights
		Need(tb, "fusermount3")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		tb.Skipf("FUSE is not available: %v", err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
}

// Mounted reports whether something is mounted at point, also when the server
// behind it is dead.
func Mounted(point string) (bool, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == point {
			return true, nil
		}
	}
	return false, nil
}

// Detach takes the mount at point out of the tree, whoever still uses it.
func Detach(point string) error {
	if os.Geteuid() == 0 {
		return os.NewSyscallError("umount2", unix.Unmount(point, unix.MNT_DETACH))
	}
	out, err := exec.Command("fusermount3", "-u", "-z", point).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// DropCaches empties the kernel's page, entry and inode caches, if it may.
func DropCaches(tb testing.TB) {
	tb.Helper()
	unix.Sync()
	f, err := os.OpenFile("/proc/sys/vm/drop_caches", os.O_WRONLY, 0)
	if errors.Is(err, os.ErrPermission) {
		return
	}
	if err == nil {
		_, err = io.WriteString(f, "3")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		tb.Fatal(err)
	}
}
