package rpc

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// HTTP2 is the protocol (ALPN, RFC 7301) of connections that Serve serves.
const HTTP2 = "h2"

// http1 is the protocol of connections that name none.
const http1 = "http/1.1"

// handshakes bounds the connections of a port that have not said yet who they
// are. Further ones wait to be accepted.
const handshakes = 1024

// A Port is one address that serves several protocols over TLS: each connection
// goes to the listener of the protocol that it asked for when it was made. Who
// is admitted is the TLS configuration's to say.
type Port struct {
	tcp    net.Listener
	config *tls.Config
	log    *slog.Logger
	queues map[string]*queue
	conns  Conns // admitted and open
}

// NewPort serves l, which Run closes. config must name the protocols (NextProtos)
// that a client may choose from; protos are those that have a listener here.
func NewPort(l net.Listener, config *tls.Config, log *slog.Logger, protos ...string) *Port {
	p := &Port{tcp: l, config: config, log: log, queues: make(map[string]*queue)}
	for _, proto := range protos {
		p.queues[proto] = &queue{port: p, conns: make(chan net.Conn), closed: make(chan struct{})}
	}
	return p
}

// Addr is the address that is listened on.
func (p *Port) Addr() net.Addr { return p.tcp.Addr() }

// Listener accepts the connections of a protocol, as *tls.Conn that have shaken
// hands. Once it is closed, connections of the protocol are refused.
func (p *Port) Listener(proto string) net.Listener { return p.queues[proto] }

// Run accepts connections until ctx ends, then closes them all. It returns an
// error if the port fails before.
func (p *Port) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.tcp.Close() }) //nolint:errcheck // Accept says so
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.Drop(func(tls.ConnectionState) bool { return true })
	for _, q := range p.queues {
		defer q.Close() //nolint:errcheck // it has none
	}
	accept := acceptor{p, &wg, make(chan struct{}, handshakes)}
	if local, err := listenLocal(p.Addr()); err != nil {
		p.log.Info("rpc: processes of this machine will connect as others do", "err", err)
	} else {
		wg.Go(func() { accept.run(ctx, local) }) //nolint:errcheck // it ends when local does
		defer local.Close()                      //nolint:errcheck // Accept says so
	}
	return accept.run(ctx, p.tcp)
}

// An acceptor is what a Port's listeners have in common while it runs.
type acceptor struct {
	*Port
	greetings *sync.WaitGroup
	slots     chan struct{} // bounds them
}

// run greets who comes to l until ctx ends or l fails.
func (a acceptor) run(ctx context.Context, l net.Listener) error {
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close() //nolint:errcheck // nobody was served
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("rpc: %v: %w", l.Addr(), err)
		case err != nil: // too many open files, or the peer is gone already
			a.log.Warn("rpc: accepting a connection", "err", err)
			pause(ctx, retryMin)
			continue
		}
		select {
		case a.slots <- struct{}{}:
		case <-ctx.Done():
			conn.Close() //nolint:errcheck // nobody was served
			return nil
		}
		a.greetings.Go(func() {
			defer func() { <-a.slots }()
			a.greet(ctx, conn)
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// greet shakes hands and hands the connection over.
func (p *Port) greet(ctx context.Context, tcp net.Conn) {
	deadline, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	wire := newRecords(tcp)
	conn := tls.Server(wire, p.config)
	if err := conn.HandshakeContext(deadline); err != nil {
		tcp.Close() //nolint:errcheck // nobody was served
		if ctx.Err() == nil {
			p.log.Warn("rpc: a connection was refused", "from", tcp.RemoteAddr().String(), "err", err)
		}
		return
	}
	q := p.queues[cmp.Or(conn.ConnectionState().NegotiatedProtocol, http1)]
	if q == nil {
		conn.Close() //nolint:errcheck // nobody was served
		return
	}
	accepted := admitted{p.conns.add(conn, wire), p}
	select {
	case q.conns <- accepted:
	case <-q.closed:
		accepted.Close() //nolint:errcheck // nobody was served
	case <-ctx.Done():
		accepted.Close() //nolint:errcheck // nobody was served
	}
}

// Drop closes the connections for which is says so: those of a peer that is not
// to be trusted any more.
func (p *Port) Drop(is func(tls.ConnectionState) bool) { p.conns.Drop(is) }

// admitted is a connection that came by a port.
type admitted struct {
	known
	port *Port
}

// queue is the listener of one protocol.
type queue struct {
	port   *Port
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.port.Addr() }

// secured is how gRPC is told of a connection that a Port has admitted.
type secured struct {
	credentials.TransportCredentials
}

func (secured) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	a, ok := conn.(admitted)
	if !ok {
		return nil, nil, errors.New("rpc: not a connection of a Port")
	}
	return conn, secureInfo(a.ConnectionState()), nil
}

func (s secured) Clone() credentials.TransportCredentials { return s }

// PeerState is the TLS state of the connection that a call came over. ok is false
// if it came over none.
func PeerState(ctx context.Context) (state tls.ConnectionState, ok bool) {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return state, false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	return info.State, ok
}
