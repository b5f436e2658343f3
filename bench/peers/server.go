package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	upLimit   = 30 * time.Second // until a server answers
	downLimit = 10 * time.Second // until one that was told to end has ended
)

// A server is a process that ends with us.
type server struct {
	cmd  *exec.Cmd
	said bytes.Buffer // to be read after done
	done chan struct{}
}

func serve(dir, bin string, args ...string) (*server, error) {
	s := &server{cmd: exec.Command(bin, args...), done: make(chan struct{})}
	s.cmd.Dir = dir
	s.cmd.Stdout, s.cmd.Stderr = &s.said, &s.said
	// It is stopped in order, whatever the terminal says.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // it is told to end by a signal
	}()
	return s, nil
}

func (s *server) stop() error {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case <-s.done:
			return nil
		case <-time.After(downLimit):
		}
	}
	return fmt.Errorf("%s does not end", s.cmd)
}

// await asks a server until it answers.
func (s *server) await(ctx context.Context, ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, upLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		attempt, stop := context.WithTimeout(ctx, time.Second)
		err := ask(attempt)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-s.done:
			return fmt.Errorf("%s has ended:\n%s", s.cmd, s.said.Bytes())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", s.cmd, err)
		case <-tick.C:
		}
	}
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
