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
)

// inBackground is set in the environment of the process that background starts.
const inBackground = "DOSMOUNT_BACKGROUND"

func isBackground() bool { return os.Getenv(inBackground) != "" }

// background runs the same command in a session of its own and returns once
// that has mounted or failed. A Go program cannot fork, so it is started anew.
// Its log goes to DIR/dosmount.log.
func background(ctx context.Context, c *config, stdout, stderr io.Writer) error {
	if err := os.MkdirAll(c.data, 0o700); err != nil {
		return err
	}
	logName := filepath.Join(c.data, "dosmount.log")
	log, err := os.OpenFile(logName, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	end, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"--data", c.data}
	if len(c.cluster) > 0 {
		args = []string{"--cluster", strings.Join(c.cluster, ","), "--identity", c.identity}
	}
	if c.code != "" {
		args = append(args, "--ec", c.code)
	}
	if c.subtree != "" {
		args = append(args, "--subtree", c.subtree)
	}
	if len(c.options) > 0 {
		args = append(args, "-o", strings.Join(c.options, ","))
	}
	if c.debug != "" {
		args = append(args, "--debug", c.debug)
	}
	cmd := exec.Command(self, append(args, c.mountPoint)...)
	cmd.Args[0] = "dosmount"
	cmd.Env = append(os.Environ(), inBackground+"=1")
	cmd.Dir = "/"
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stopped := context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })
	line, err := bufio.NewReader(said).ReadString('\n')
	if err == nil && stopped() {
		fmt.Fprint(stdout, line)
		return cmd.Process.Release()
	}
	status := cmd.Wait() // it ended before it was mounted; its last line says why
	if why := lastLine(logName, end); why != "" {
		return errors.New(strings.TrimPrefix(why, "dosmount: "))
	}
	return fmt.Errorf("ended before it was mounted: %v", status)
}

func lastLine(name string, from int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return ""
	}
	last := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		last = lines.Text()
	}
	return last
}
