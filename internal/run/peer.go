package run

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A peer is the other end of the socket between a Host and a shim. One goroutine may receive
// while others, in turn, send.
type peer struct {
	file  *os.File
	lines *bufio.Scanner
	came  []*os.File // with what was read, and not taken yet
}

const (
	// maxMessage bounds a message: an order has an environment and arguments, which the kernel bounds by a few MiB.
	maxMessage = 8 << 20
	// maxFiles is how many files come with a message at most.
	maxFiles = 4
)

// newPeer takes over a socket, which is non-blocking.
func newPeer(f *os.File) *peer {
	p := &peer{file: f}
	p.lines = bufio.NewScanner(p)
	p.lines.Buffer(nil, maxMessage)
	return p
}

// send sends one message, and files with it, which stay open.
func (p *peer) send(m any, files ...*os.File) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd())) // which makes it one that blocks, as programs expect
		}
		n, err := p.pass(line, unix.UnixRights(fds...))
		runtime.KeepAlive(files)
		if err != nil {
			return err
		}
		line = line[n:]
	}
	_, err = p.file.Write(line)
	return err
}

// pass sends the beginning of a message, and descriptors with it.
func (p *peer) pass(data, rights []byte) (n int, err error) {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	e := raw.Write(func(fd uintptr) bool {
		n, err = unix.SendmsgN(int(fd), data, rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	return n, errors.Join(e, err)
}

// next receives one message.
func (p *peer) next(into any) error {
	if !p.lines.Scan() {
		if err := p.lines.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	return json.Unmarshal(p.lines.Bytes(), into)
}

// take returns the files that came with the message that was received last.
func (p *peer) take() []*os.File {
	list := p.came
	p.came = nil
	return list
}

// Read is for the scanner.
func (p *peer) Read(b []byte) (n int, err error) {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	var got int
	e := raw.Read(func(fd uintptr) bool {
		n, got, _, _, err = unix.Recvmsg(int(fd), b, rights, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if err = errors.Join(e, err); err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:got])
	for _, m := range messages {
		fds, e := unix.ParseUnixRights(&m)
		err = errors.Join(err, e)
		for _, fd := range fds {
			p.came = append(p.came, os.NewFile(uintptr(fd), "passed on"))
		}
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// silent reports whether the other end is there and has said nothing.
func (p *peer) silent() bool {
	quiet := false
	control(p.file, func(fd int) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		quiet = n == 0 && err == nil
	})
	return quiet
}
