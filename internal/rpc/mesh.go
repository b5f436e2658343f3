package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dialMax bounds how long a machine is dialled: packets to one that is gone
	// get no answer, and it is found sooner by dialling again.
	dialMax = 2 * time.Second
	// unheard is how long what was sent may be without an acknowledgement by the
	// other machine's kernel before a connection counts as broken.
	unheard = 3 * time.Second
)

// keepAlive finds peers that are gone while nothing is sent to them.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

// A Mesh is a protocol that machines of a cluster speak among themselves over
// plain connections: it accepts those that a Port has for it and dials the others
// by name. A connection whose other end is gone breaks within seconds.
type Mesh struct {
	net.Listener
	proto string
	c     MeshConfig
	conns Conns // that were dialled and are open
}

// MeshConfig says who belongs to a Mesh.
type MeshConfig struct {
	// Client is how the machine of a name is reached by a protocol; who answers is
	// checked by it.
	Client func(machine string, protos ...string) *tls.Config
	// Admit says whether the peer of a connection may be part of the mesh.
	Admit func(tls.ConnectionState) error
}

// Mesh returns the mesh of a protocol that the port has a listener of.
func (p *Port) Mesh(proto string, c MeshConfig) *Mesh {
	return &Mesh{Listener: p.Listener(proto), proto: proto, c: c}
}

// Accept returns the next connection of a machine that is admitted.
func (m *Mesh) Accept() (net.Conn, error) {
	for {
		conn, err := m.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a, ok := conn.(admitted)
		if !ok {
			panic(fmt.Sprintf("rpc: a mesh on a listener of %T", conn))
		}
		if err := m.c.Admit(a.ConnectionState()); err != nil {
			a.port.log.Warn("rpc: a connection was refused", "from", a.RemoteAddr().String(), "protocol", m.proto, "err", err)
			conn.Close() //nolint:errcheck // nobody was served
			continue
		}
		watch(a.wire.Conn)
		return conn, nil
	}
}

// Dial connects to a machine.
func (m *Mesh) Dial(machine, addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), min(timeout, dialMax))
	defer cancel()
	var d net.Dialer
	tcp, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %s at %s: %v", ErrDown, machine, addr, err)
	}
	wire := newRecords(tcp)
	conn := tls.Client(wire, m.c.Client(machine, m.proto))
	if err := conn.HandshakeContext(ctx); err != nil {
		tcp.Close() //nolint:errcheck // it was not used
		return nil, fmt.Errorf("%w: %s at %s: %w", ErrDown, machine, addr, err)
	}
	watch(tcp)
	return m.conns.add(conn, wire), nil
}

// Drop closes the dialled connections for which is says so; those that were
// accepted are the port's to drop.
func (m *Mesh) Drop(is func(tls.ConnectionState) bool) { m.conns.Drop(is) }

// watch makes the kernel give up on a peer that is gone. It cannot fail on a TCP
// connection that is open; on one that has just broken it does not matter.
func watch(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(keepAlive)
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unheard.Milliseconds()))
		})
	}
}
