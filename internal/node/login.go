package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"dos/internal/admin"
	"dos/internal/admission"
	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta/client"
)

// Login asks for a client's identity with a token (trust.ReadToken), and keeps it
// in a file.
func Login(ctx context.Context, token, name, file string) error {
	t, err := trust.ReadToken(token, os.Stdin)
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
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialWait}, Config: keys.ClientConfig("", protoAdmin)}
	return admin.DialWith(func(ctx context.Context) (net.Conn, error) {
		var failed []error
		for _, addr := range addrs {
			conn, err := dialer.DialContext(ctx, "tcp", addr)
			if err == nil {
				return refusable{conn, identity}, nil
			}
			failed = append(failed, fmt.Errorf("%s: %w", addr, err))
		}
		return nil, errors.Join(failed...)
	}), nil
}

// refusable is a connection that says in words that the other side refused the
// identity, of which TLS 1.3 tells only with the first answer.
type refusable struct {
	net.Conn
	identity string
}

func (c refusable) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	var alert *net.OpError
	if errors.As(err, &alert) && alert.Op == "remote error" {
		err = fmt.Errorf("the cluster refuses the identity in %s: it was revoked or is over; remove it and dosctl login with a new token", c.identity)
	}
	return n, err
}

// freshenWait bounds how long Freshen may take.
const freshenWait = 5 * time.Second

// Freshen renews the identity in a file if it is nearly over, or if another
// authority signs by now.
func Freshen(ctx context.Context, addrs []string, identity string) error {
	ctx, cancel := context.WithTimeout(ctx, freshenWait)
	defer cancel()
	keys, service, err := dialAs(identity, addrs)
	if err != nil {
		return err
	}
	defer service.close()
	authorities := client.Trust{Caller: service.anyone()}.Authorities
	now, err := authorities(ctx, 0)
	if err != nil || keys.Issuer() == now.Signs && !keys.Due(time.Now()) {
		return err
	}
	var offices []*rpc.Client
	for _, addr := range addrs {
		office, err := rpc.Dial(addr, rpc.ClientConfig{TLS: keys.ClientConfig("", protoCalls), Conns: 1})
		if err != nil {
			return err
		}
		defer office.Close()
		offices = append(offices, office)
	}
	return admission.NewKeeper(admission.KeeperConfig{
		Keys: keys, Path: identity, Authorities: authorities,
		Renewer: admission.NewClient(func() []*rpc.Client { return offices }), Log: slog.New(slog.DiscardHandler),
	}).Look(ctx)
}
