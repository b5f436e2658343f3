package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// Conns are TLS connections that are open, so that those of a peer that is not to
// be trusted any more can be found. The zero value has none. Its methods may be
// called concurrently.
type Conns struct {
	mu   sync.Mutex
	open map[*tls.Conn]bool // guarded by mu
}

// Drop closes the connections for which is says so: whoever uses them hears of it.
func (c *Conns) Drop(is func(tls.ConnectionState) bool) {
	c.mu.Lock()
	var list []*tls.Conn
	for conn := range c.open {
		if is(conn.ConnectionState()) {
			list = append(list, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range list {
		conn.NetConn().Close() //nolint:errcheck // whoever reads from it hears of it
	}
}

// add takes a connection that has shaken hands over wire; what it returns is to
// be closed.
func (c *Conns) add(conn *tls.Conn, wire *records) known {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = make(map[*tls.Conn]bool)
	}
	c.open[conn] = true
	wire.shaken = true
	return known{conn, wire, new(sync.Mutex), c}
}

// known is a connection that is among some until it is closed.
type known struct {
	*tls.Conn
	wire    *records
	writing *sync.Mutex
	among   *Conns
}

func (k known) Write(p []byte) (n int, err error) {
	err = k.gather(func() error {
		n, err = k.Conn.Write(p)
		return err
	})
	return n, err
}

// gather sends together what write writes to the connection below.
func (k known) gather(write func() error) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.wire.hold()
	err := write()
	if sent := k.wire.release(); err == nil {
		err = sent
	}
	return err
}

func (k known) Close() error {
	k.forget()
	return k.Conn.Close()
}

func (k known) forget() {
	k.among.mu.Lock()
	defer k.among.mu.Unlock()
	delete(k.among.open, k.Conn)
}

// dialling is how gRPC secures a connection that it has dialled.
type dialling struct {
	credentials.TransportCredentials // of config
	config                           *tls.Config
	among                            *Conns
}

func newDialling(config *tls.Config, among *Conns) dialling {
	config.NextProtos = []string{HTTP2}
	return dialling{credentials.NewTLS(config), config, among}
}

func (d dialling) ClientHandshake(ctx context.Context, _ string, tcp net.Conn) (net.Conn, credentials.AuthInfo, error) {
	wire := newRecords(tcp)
	conn := tls.Client(wire, d.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != HTTP2 {
		return nil, nil, fmt.Errorf("rpc: %v does not speak %s", tcp.RemoteAddr(), HTTP2)
	}
	return d.among.add(conn, wire), secureInfo(state), nil
}

func (d dialling) Clone() credentials.TransportCredentials { return d }

func secureInfo(state tls.ConnectionState) credentials.TLSInfo {
	return credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
}
