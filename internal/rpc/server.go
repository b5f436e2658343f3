package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// A Service is a table of methods by name. It is served under its own name,
// so one port can serve several.
type Service struct {
	Name string
	// Calls answer one frame with one frame. The request is freed when the
	// function returns; the answer is given away. An error is ErrRefused for
	// the caller; what a service means to be told goes into the answer's header.
	Calls map[string]func(ctx context.Context, req *Frame) (*Frame, error)
	// Streams exchange any number of frames, until the function returns.
	Streams map[string]func(s *Stream) error
}

// ServerConfig says how to serve.
type ServerConfig struct {
	// TLS is required, except on unix sockets, with a Port's listener, and when
	// Plain is set.
	TLS *tls.Config
	// Plain says that connections need no TLS here: for tests.
	Plain bool
	// Raw answers what is asked of services that are none of ours; optional.
	Raw *Raw
}

// Serve serves the services on l until ctx ends, and then returns nil. It
// closes l. Calls under way then may take a moment longer, streams are cut. When
// it returns, no handler runs any more.
func Serve(ctx context.Context, l net.Listener, c ServerConfig, services ...Service) error {
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(maxFrame),
		grpc.MaxSendMsgSize(maxFrame),
		grpc.MaxConcurrentStreams(streams),
		grpc.InitialWindowSize(window),
		grpc.InitialConnWindowSize(window),
		grpc.ReadBufferSize(0), // see records
		experimental.BufferPool(&pool),
		grpc.WriteBufferSize(buffer),
		grpc.MaxHeaderListSize(MaxHeader),
		grpc.ConnectionTimeout(handshake),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepTime, Timeout: keepTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepTime / 2, PermitWithoutStream: true}),
	}
	if c.Raw != nil {
		options = append(options, grpc.UnknownServiceHandler(c.Raw.handler))
	}
	_, ofPort := l.(*queue)
	switch {
	case ofPort:
		options = append(options, grpc.Creds(secured{credentials.NewTLS(nil)}))
	case c.TLS != nil:
		options = append(options, grpc.Creds(credentials.NewTLS(modern(c.TLS))))
	case !c.Plain && l.Addr().Network() != "unix":
		l.Close() //nolint:errcheck // it has served nobody
		return fmt.Errorf("rpc: %v: serving needs TLS", l.Addr())
	}
	server := grpc.NewServer(options...)
	var under underway
	for _, s := range services {
		server.RegisterService(s.desc(&under), nil)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		server.Stop()
		return fmt.Errorf("rpc: serving %v: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		server.GracefulStop()
	}()
	slow := time.AfterFunc(grace, server.Stop)
	under.end()
	// Streams have no end of their own: they are cut once the last answers of
	// calls have had their time to leave.
	flush := time.NewTimer(linger)
	select {
	case <-drained:
	case <-flush.C:
	}
	flush.Stop()
	server.Stop()
	slow.Stop()
	<-drained
	<-served
	return nil
}

// underway lets the calls under way end and no further one begin.
type underway struct {
	sync.RWMutex      // a call holds it for reading
	ended        bool // guarded by RWMutex
}

func (u *underway) end() {
	u.Lock()
	defer u.Unlock()
	u.ended = true
}

// modern returns c with nothing older than TLS 1.3.
func modern(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS13)
	return c
}

func (s Service) desc(under *underway) *grpc.ServiceDesc {
	d := &grpc.ServiceDesc{ServiceName: s.Name}
	for name, call := range s.Calls {
		d.Methods = append(d.Methods, grpc.MethodDesc{
			MethodName: name,
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var req Frame
				if err := decode(&req); err != nil {
					return nil, err
				}
				defer req.Free()
				under.RLock()
				defer under.RUnlock()
				if under.ended {
					return nil, status.Error(codes.Unavailable, "the server is stopping")
				}
				resp, err := call(ctx, &req)
				if err != nil {
					return nil, status.Error(codes.InvalidArgument, err.Error())
				}
				return resp, nil
			},
		})
	}
	for name, run := range s.Streams {
		d.Streams = append(d.Streams, grpc.StreamDesc{
			StreamName:    name,
			ServerStreams: true,
			ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				err := run(&Stream{wire: stream})
				if _, ours := status.FromError(err); err != nil && !ours {
					return status.Error(codes.InvalidArgument, err.Error())
				}
				return err
			},
		})
	}
	return d
}

// A Stream is one long call: any number of frames in both directions. One
// goroutine may send while another receives.
type Stream struct {
	wire wire
	peer string       // at a client: whom its errors name
	over func() error // at a client: why its caller ended it, if it did
}

type wire interface {
	Context() context.Context
	SendMsg(m any) error
	RecvMsg(m any) error
}

// Context ends with the stream.
func (s *Stream) Context() context.Context { return s.wire.Context() }

// Send sends f and gives its payload away. It returns when the frame is on its
// way, or waits for the receiver to take what was sent before. After an error
// the stream is dead.
func (s *Stream) Send(f *Frame) error {
	err := s.wire.SendMsg(f)
	f.Free() // what the transport did not take
	if errors.Is(err, io.EOF) && s.peer != "" {
		// The stream has failed; why is what Recv would say.
		return fmt.Errorf("%w: %s: stream is over", ErrDown, s.peer)
	}
	return s.explain(err)
}

// Recv waits for the next frame, which the caller must free. It returns io.EOF
// when the other side has ended the stream in order.
func (s *Stream) Recv(f *Frame) error {
	err := s.wire.RecvMsg(f)
	if err == io.EOF {
		return io.EOF
	}
	return s.explain(err)
}

func (s *Stream) explain(err error) error {
	if err == nil || s.peer == "" {
		return err // at a server the status says it all
	}
	return explain(s.over(), s.peer, err)
}
