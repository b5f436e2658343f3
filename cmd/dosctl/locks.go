package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"dos/internal/node"
)

// lockVerbs are about named locks.
var lockVerbs = []verb{
	{name: "lock status", args: []string{"NAME"}, run: lockStatus},
	{name: "lock", args: []string{"NAME", "--", "COMMAND…"}, rest: 2, flags: []string{"shared"}, run: lock},
}

// tokenEnv names the variable in which a command finds the token of its lock.
const tokenEnv = "DOS_LOCK_TOKEN"

// errStatus is the exit status of a command.
type errStatus int

func (e errStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// at decides which dos is meant: a cluster, or one that is mounted here.
func (c *command) at(ctx context.Context) (point string, err error) {
	if c.mount != "" {
		return c.mount, nil
	}
	if err := c.resolve(ctx); err != nil || len(c.cluster) > 0 {
		return "", err
	}
	return node.MountPoint(c.data)
}

// lock runs a command with a lock held, and ends as the command does.
func lock(ctx context.Context, c command) error {
	point, err := c.at(ctx)
	if err != nil {
		return err
	}
	do := func(ctx context.Context, token uint64) error {
		return c.execute(ctx, os.Stdin, c.args[1:], tokenEnv+"="+strconv.FormatUint(token, 10))
	}
	if point == "" {
		return node.Locked(ctx, c.cluster, c.identity, c.args[0], c.flags.shared, do)
	}
	return lockAt(ctx, filepath.Join(point, "locks", c.args[0]), c.flags.shared, do)
}

// execute runs a command. When ctx ends, because the lock is lost or somebody
// interrupts, it is told to end.
func (c command) execute(ctx context.Context, in io.Reader, args []string, env ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, c.out, c.errout
	cmd.Env = append(os.Environ(), env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if s := exit.Sys().(syscall.WaitStatus); s.Signaled() {
		return errStatus(128 + int(s.Signal())) // as shells say it
	}
	return errStatus(exit.ExitCode())
}

// lockAt takes a lock by its file in a mount.
func lockAt(ctx context.Context, path string, shared bool, do func(context.Context, uint64) error) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	for err = unix.EINTR; err == unix.EINTR && ctx.Err() == nil; {
		err = unix.Flock(int(f.Fd()), how)
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", path, err)
	}
	if _, err := f.WriteString("onloss TERM\n"); err != nil {
		return err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	return do(ctx, tokenOf(string(text)))
}

// tokenOf finds the token of this process in the text of a lock.
func tokenOf(text string) (token uint64) {
	mine := false
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case key == "holder":
			mine = strings.Contains(value, fmt.Sprintf(" pid %d ", os.Getpid()))
		case key == "token" && mine:
			token, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return token
}

func lockStatus(ctx context.Context, c command) error {
	point, err := c.at(ctx)
	if err != nil {
		return err
	}
	var text string
	if point == "" {
		text, err = node.LockStatus(ctx, c.cluster, c.identity, c.args[0])
	} else {
		var b []byte
		b, err = os.ReadFile(filepath.Join(point, "locks", c.args[0]))
		text = string(b)
		if errors.Is(err, os.ErrNotExist) {
			text, err = "state free\n", nil
		}
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(c.out, text)
	return err
}
