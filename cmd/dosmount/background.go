package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inBackground is set in the environment of the process that background starts.
const inBackground = "DOSMOUNT_BACKGROUND"

func isBackground() bool { return os.Getenv(inBackground) != "" }

// background runs the same command line in a session of its own and returns
// once that has mounted or failed. A Go program cannot fork, so it is started
// anew. Until it has mounted, what it says is kept in memory: a start that is
// refused touches nothing.
func background(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fd, err := unix.MemfdCreate("dosmount", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("going to the background: %w", err)
	}
	said := os.NewFile(uintptr(fd), "dosmount")
	defer said.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Args = args
	cmd.Env = append(os.Environ(), inBackground+"=1")
	cmd.Stderr = said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	up, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stopped := context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })
	line, err := bufio.NewReader(up).ReadString('\n')
	if err == nil && stopped() {
		fmt.Fprint(stdout, line)
		return cmd.Process.Release()
	}
	status := cmd.Wait() // it ended before it was mounted
	all, err := io.ReadAll(io.NewSectionReader(said, 0, maxSaid))
	if err != nil {
		return err
	}
	if why, ok := strings.CutPrefix(lastLine(string(all)), "dosmount: "); ok {
		return errors.New(why)
	}
	stderr.Write(all)
	return fmt.Errorf("ended before it was mounted: %v", status)
}

// maxSaid is more than a start says before it has mounted, in bytes.
const maxSaid = 1 << 20

func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// settle is called by the process in the background once it has mounted: from
// then on it logs to DIR/dosmount.log, where what it has said so far goes too,
// and keeps no directory busy. With no room for a log it goes on without one.
func settle(data string) error {
	early, err := unix.Dup(int(os.Stderr.Fd()))
	if err != nil {
		return err
	}
	said := os.NewFile(uintptr(early), "dosmount")
	defer said.Close()
	// A mount of a cluster has nothing else there.
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(data, logName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		if log, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
			return err
		}
	}
	defer log.Close()
	if err := unix.Dup3(int(log.Fd()), int(os.Stderr.Fd()), 0); err != nil {
		return err
	}
	if _, err := io.Copy(log, io.NewSectionReader(said, 0, maxSaid)); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return os.Chdir("/")
}

const logName = "dosmount.log"
