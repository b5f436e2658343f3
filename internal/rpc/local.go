package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
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
