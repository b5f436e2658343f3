package trust

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// StandingProto is the protocol (ALPN) by which somebody with a certificate of
// the cluster asks whether it was turned out. A connection that is refused does
// not say why: the reason may be a clock, and passes. Being turned out does not.
//
// The asker sends nothing. It gets one message as with JoinProto, a standing.
const StandingProto = "dos-standing/1"

// standingWait bounds the whole exchange.
const standingWait = 2 * time.Second

type standing struct {
	TurnedOut bool `json:"turned_out"`
}

// TurnedOut asks a machine of the cluster whether the certificate that this
// process shows was revoked.
func (k *Keyring) TurnedOut(ctx context.Context, addr string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, standingWait)
	defer cancel()
	dialer := tls.Dialer{Config: k.ClientConfig("", StandingProto)}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false, fmt.Errorf("asking %s whether this machine was turned out: %w", addr, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // then Close ends it
	defer stop()
	var s standing
	if err := receive(conn, &s); err != nil {
		return false, fmt.Errorf("asking %s whether this machine was turned out: %w", addr, err)
	}
	return s.TurnedOut, nil
}

// ServeStanding answers one who asks. The port has seen its certificate.
func (k *Keyring) ServeStanding(conn net.Conn, cs tls.ConnectionState) error {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(standingWait)); err != nil {
		return err
	}
	return send(conn, standing{TurnedOut: len(cs.PeerCertificates) > 0 && k.isRevoked(serialOf(cs.PeerCertificates[0]))})
}

// mayAsk refuses who never had a certificate of this cluster: not even the
// authority that signed it needs to be trusted still.
func (k *Keyring) mayAsk(cs tls.ConnectionState) error {
	_, err := k.Peer(cs)
	if err != nil && len(cs.PeerCertificates) > 0 && k.isRevoked(serialOf(cs.PeerCertificates[0])) {
		return nil
	}
	return err
}

// Revoked reports whether the certificate that this process shows is good no
// more, as far as it knows.
func (k *Keyring) Revoked() bool { return k.isRevoked(k.Serial()) }

func (k *Keyring) isRevoked(serial string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.revoked[serial]
}
