package admin

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// A path of over 107 bytes does not fit into a socket's address (unix(7)), but
// one that begins at an open directory does.
func short(path string) (name string, dir *os.File, err error) {
	dir, err = os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), dir, nil
}

// Listen listens on the socket at path, which must not exist. The socket stays
// when the listener is closed: its owner removes it.
func Listen(path string) (net.Listener, error) {
	name, dir, err := short(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

func connect(ctx context.Context, path string) (net.Conn, error) {
	name, dir, err := short(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", name)
}

// Reachable says whether somebody listens on the socket at path.
func Reachable(path string) error {
	conn, err := connect(context.Background(), path)
	if err != nil {
		return err
	}
	return conn.Close()
}
