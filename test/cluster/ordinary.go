package cluster

import (
	"context"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

// Nobody is the id of a user and of a group without rights.
const Nobody = 65534

// ordinary gives its command a /dev/fuse that everybody may open, as most
// machines have it, whatever this one has, and drops all rights. It works in
// a mount namespace of its own, which ends with the command.
const ordinary = `set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
id=$2
shift 2
exec setpriv --reuid "$id" --regid "$id" --clear-groups -- "$@"
`

// Ordinary returns a command that runs as Nobody. Only root can run it; the
// test is skipped where that is not the case or not possible.
func Ordinary(ctx context.Context, tb testing.TB, name string, args ...string) *exec.Cmd {
	tb.Helper()
	NeedRoot(tb)
	Need(tb, "setpriv", "mount", "fusermount3")
	all := append([]string{"-c", ordinary, "ordinary", Dir(tb), strconv.Itoa(Nobody), name}, args...)
	cmd := exec.CommandContext(ctx, "/bin/sh", all...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}
