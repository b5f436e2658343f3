package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"dos/internal/admin"
	"dos/internal/trust"
)

// Login asks for a client's identity with a token, and keeps it in a file.
func Login(ctx context.Context, token, name, file string) error {
	t, err := trust.ParseToken(token)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is there already: remove it, or name another with --identity (%w)", file, os.ErrExist)
	}
	// Before the token is used up:
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	credentials, _, err := trust.Join(ctx, t, name, false)
	if err != nil {
		return err
	}
	return trust.Save(file, credentials)
}

// DialCluster prepares the way to the administration of a cluster: the first of
// the machines that answers is asked.
func DialCluster(addrs []string, identity string) (*admin.Client, error) {
	keys, err := openIdentity(identity)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no identity in %s: dosctl login makes it with a token that dosctl token create --client prints", identity)
	}
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialWait}, Config: keys.ClientConfig("", protoAdmin)}
	return admin.DialWith(func(ctx context.Context) (net.Conn, error) {
		var failed []error
		for _, addr := range addrs {
			conn, err := dialer.DialContext(ctx, "tcp", addr)
			if err == nil {
				return conn, nil
			}
			failed = append(failed, fmt.Errorf("%s: %w", addr, err))
		}
		return nil, errors.Join(failed...)
	}), nil
}
