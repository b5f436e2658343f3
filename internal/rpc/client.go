package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// ClientConfig says how to reach a peer. Zero fields mean the defaults beside them.
type ClientConfig struct {
	// TLS is required, except for unix sockets and when Plain is set.
	TLS   *tls.Config
	Plain bool // no TLS; for tests
	// Among is where the connections are put while they are open; nowhere.
	Among *Conns
	// Conns is the number of connections to the peer; 2. One alone tops out at
	// the speed of one core.
	Conns int
	// Bulk says that the peer serves bulk calls. It needs TLS.
	Bulk bool
	// Warm is how many connections for bulk calls are made as soon as the peer is
	// there, rather than when they are needed: shaking hands takes longer than what
	// is asked.
	Warm int
	// Timeout bounds each call whose context has no earlier deadline, and each
	// wait for the next frame of an answer; DefaultTimeout.
	Timeout time.Duration
}

// A Client is a peer that calls can be made to. Its methods may be called
// concurrently. Connections are made when they are needed and made again when
// they break; a call never waits for a peer that does not answer to dialling.
type Client struct {
	addr    string
	timeout time.Duration
	conns   []*grpc.ClientConn
	next    atomic.Uint32
	bulk    *bulk // nil: there is none
	warming context.CancelFunc
}

// Dial returns a client of the peer at addr, HOST:PORT or unix:PATH. It does
// not connect yet. The caller must Close it.
func Dial(addr string, c ClientConfig) (*Client, error) {
	if c.Conns == 0 {
		c.Conns = 2
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	client := &Client{addr: addr, timeout: c.Timeout}
	path, unix := strings.CutPrefix(addr, "unix:")
	creds := insecure.NewCredentials()
	switch {
	case c.TLS != nil:
		config := modern(c.TLS)
		if host, _, err := net.SplitHostPort(addr); err == nil && config.ServerName == "" {
			config.ServerName = host
		}
		if c.Among == nil {
			c.Among = new(Conns)
		}
		creds = newDialling(config, c.Among)
		if c.Bulk {
			client.bulk = newBulk(addr, config, c.Among)
		}
	case !c.Plain && !unix:
		return nil, fmt.Errorf("rpc: %s: dialling needs TLS", addr)
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		var d net.Dialer
		if unix {
			return d.DialContext(ctx, "unix", path)
		}
		return d.DialContext(ctx, "tcp", addr)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dial),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}),
			grpc.MaxCallRecvMsgSize(maxFrame),
			grpc.MaxCallSendMsgSize(maxFrame),
		),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
		grpc.WithReadBufferSize(0), // see records
		experimental.WithBufferPool(&pool),
		grpc.WithWriteBufferSize(buffer),
		grpc.WithMaxHeaderListSize(MaxHeader),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepTime, Timeout: keepTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: retryMax},
			MinConnectTimeout: handshake,
		}),
		grpc.WithDisableRetry(), // a request may be executed twice; who may resend it is decided above
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableHealthCheck(),
		grpc.WithNoProxy(),
	}
	if c.TLS == nil {
		options = append(options, grpc.WithAuthority("dos")) // with TLS it is the server's name
	}
	for range c.Conns {
		conn, err := grpc.NewClient("passthrough:///peer", options...)
		if err != nil {
			client.Close()
			return nil, fmt.Errorf("rpc: %s: %w", addr, err)
		}
		client.conns = append(client.conns, conn)
	}
	var ctx context.Context
	ctx, client.warming = context.WithCancel(context.Background())
	if client.bulk != nil && c.Warm > 0 {
		go client.warm(ctx, c.Warm)
	}
	return client, nil
}

// warm makes n connections for bulk calls when the peer is there.
func (c *Client) warm(ctx context.Context, n int) {
	for state := c.conns[0].GetState(); state != connectivity.Ready; state = c.conns[0].GetState() {
		if !c.conns[0].WaitForStateChange(ctx, state) {
			return
		}
	}
	var made []*bulkConn
	for range n {
		conn, err := c.bulk.another(ctx)
		if conn == nil || err != nil {
			break // who needs one sees for himself
		}
		made = append(made, conn)
	}
	for _, conn := range made {
		c.bulk.give(conn, nil)
	}
}

// Addr is the address that was dialled.
func (c *Client) Addr() string { return c.addr }

// Timeout bounds each call whose context has no earlier deadline.
func (c *Client) Timeout() time.Duration { return c.timeout }

// Close breaks all connections; calls under way fail.
func (c *Client) Close() {
	if c.warming != nil {
		c.warming()
	}
	if c.bulk != nil {
		c.bulk.close()
	}
	for _, conn := range c.conns {
		conn.Close() //nolint:errcheck // it only says that it was closed before
	}
}

// conn returns the connections in turn. The first call makes the first one, which
// tells Bulk whether the peer is there.
func (c *Client) conn() *grpc.ClientConn {
	return c.conns[(c.next.Add(1)-1)%uint32(len(c.conns))]
}

// Call sends req, whose payload it gives away, and fills resp, which the caller must free.
func (c *Client) Call(ctx context.Context, service, method string, req, resp *Frame) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err := c.conn().Invoke(ctx, "/"+service+"/"+method, req, resp)
	req.Free() // what the transport did not take
	if err != nil {
		resp.Free()
		return explain(context.Cause(ctx), c.addr, err)
	}
	return nil
}

// Open begins a stream, which ends with ctx: the caller must cancel it.
func (c *Client) Open(ctx context.Context, service, method string) (*Stream, error) {
	desc := &grpc.StreamDesc{StreamName: method, ServerStreams: true, ClientStreams: true}
	s, err := c.conn().NewStream(ctx, desc, "/"+service+"/"+method)
	if err != nil {
		return nil, explain(context.Cause(ctx), c.addr, err)
	}
	return &Stream{wire: s, peer: c.addr, over: func() error { return context.Cause(ctx) }}, nil
}

// explain turns what gRPC says into one of our errors, or into the cause why the
// caller ended the call, if it did.
func explain(cause error, peer string, err error) error {
	if cause != nil {
		return fmt.Errorf("rpc: %s: %w", peer, cause)
	}
	s, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("%w: %s: %v", ErrDown, peer, err)
	}
	switch s.Code() {
	case codes.Unavailable, codes.Aborted:
		return fmt.Errorf("%w: %s: %s", ErrDown, peer, s.Message())
	case codes.DeadlineExceeded: // the server's clock was first
		return fmt.Errorf("rpc: %s: %w", peer, context.DeadlineExceeded)
	case codes.Canceled: // not by us: the connection was closed
		return fmt.Errorf("%w: %s: %s", ErrDown, peer, s.Message())
	}
	return fmt.Errorf("%w: %s: %s", ErrRefused, peer, s.Message())
}

// Down reports whether err says that the way to the peer is broken, or that it
// did not answer in time.
func Down(err error) bool {
	return errors.Is(err, ErrDown) || errors.Is(err, context.DeadlineExceeded)
}
