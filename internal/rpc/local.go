package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/peer"
)

// localBuffer is how many bytes a socket between processes of one machine holds: a
// piece and more, so that its sender does not wait for its receiver to run.
const localBuffer = 1 << 20

// localName is the socket beside a port's address, for who is on the same machine,
// or rather in its network namespace: the names are abstract (unix(7)), so they end
// with their socket and nobody elsewhere sees them.
func localName(addr net.Addr) string { return "@dos/" + addr.String() }

// listenLocal listens beside tcp.
func listenLocal(tcp net.Addr) (net.Listener, error) {
	return net.Listen("unix", localName(tcp))
}

// dialLocal connects to who listens beside addr on this machine. Anybody may take
// such a name, so who is trusted is who could read our memory anyway: the
// administrator, and ourselves.
func dialLocal(ctx context.Context, addr string) (net.Conn, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", localName(tcp))
	if err != nil {
		return nil, err
	}
	uid, err := ownerOf(conn)
	if err == nil && uid != 0 && uid != uint32(os.Geteuid()) {
		err = fmt.Errorf("rpc: %s belongs to user %d", localName(tcp), uid)
	}
	if err != nil {
		conn.Close() //nolint:errcheck // it was not used
		return nil, err
	}
	return conn, nil
}

// ownerOf returns the user who listened where conn was dialled to.
func ownerOf(conn net.Conn) (uid uint32, err error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("rpc: not a local connection")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// isLocal says that conn does not leave this machine's kernel.
func isLocal(conn net.Conn) bool {
	_, ok := conn.(*net.UnixConn)
	return ok
}

// Local says that the request of ctx came from a process of this machine over a
// connection for bulk calls: its answer may be a FilePart.
func Local(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	return ok && p.Addr.Network() == "unix"
}

// sendFile sends a part of a file. The kernel passes the pages on that it has in
// memory anyway (sendfile(2)), so its bytes are copied once, by who receives them.
func sendFile(conn *net.UnixConn, part FilePart) error {
	to, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	from, err := part.File.SyscallConn()
	if err != nil {
		return err
	}
	off, end := part.Off, part.Off+int64(part.Len)
	var unread error // why the file does not give more
	for off < end && unread == nil {
		var n int
		var unsent error
		if err := to.Write(func(out uintptr) (done bool) {
			unread = from.Control(func(in uintptr) {
				n, unsent = unix.Sendfile(int(out), int(in), &off, int(end-off))
			})
			return unread != nil || unsent != unix.EAGAIN
		}); err != nil {
			return err
		}
		switch {
		case unread != nil, unsent == unix.EINTR:
		case unsent == unix.EPIPE, unsent == unix.ECONNRESET:
			return unsent
		case unsent != nil:
			unread = unsent
		case n == 0:
			unread = io.ErrUnexpectedEOF
		}
	}
	if off == end {
		return nil
	}
	_, err = conn.Write(make([]byte, end-off))
	return err
}

// widen gives a local connection the room that it is to have. Without the rights
// for it, it has what everybody has.
func widen(conn net.Conn) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, localBuffer)
		})
	}
}
