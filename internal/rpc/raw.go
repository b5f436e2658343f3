package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Raw answers gRPC clients that know nothing of frames. The methods of its services have
// names that come and go, and a message is the bytes that its sender made of it, whatever
// they are (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
type Raw struct {
	// Services are by name, each a function that answers a call of one of its methods.
	// Its error is what the client is told: a Failure says of what kind.
	Services map[string]func(method string, s *RawStream) error
}

// A Code is a status code of gRPC (https://grpc.io/docs/guides/status-codes/).
type Code = codes.Code

// The codes that are used.
const (
	Aborted           = codes.Aborted
	DeadlineExceeded  = codes.DeadlineExceeded
	InvalidArgument   = codes.InvalidArgument
	NotFound          = codes.NotFound
	PermissionDenied  = codes.PermissionDenied
	ResourceExhausted = codes.ResourceExhausted
	Unavailable       = codes.Unavailable
)

// A Failure is an error with a code.
type Failure struct {
	Code Code
	Text string
}

func (f Failure) Error() string { return f.Text }

// A RawStream is a call: any number of messages in both directions. One goroutine may
// send while another receives.
type RawStream struct{ wire grpc.ServerStream }

// Context ends with the call, at the client's deadline for example.
func (s *RawStream) Context() context.Context { return s.wire.Context() }

// Value is what the client's metadata says under a key, in lower case; "" if nothing.
func (s *RawStream) Value(key string) string {
	if list := metadata.ValueFromIncomingContext(s.wire.Context(), key); len(list) > 0 {
		return list[0]
	}
	return ""
}

// From is where the client is.
func (s *RawStream) From() string {
	if p, ok := peer.FromContext(s.wire.Context()); ok {
		return p.Addr.String()
	}
	return "somewhere"
}

// Recv returns the next message, io.EOF after the last one.
func (s *RawStream) Recv() ([]byte, error) {
	var m rawMessage
	if err := s.wire.RecvMsg(&m); err != nil {
		return nil, err
	}
	return m, nil
}

// Send sends a message, which it keeps.
func (s *RawStream) Send(message []byte) error {
	m := rawMessage(message)
	return s.wire.SendMsg(&m)
}

// A rawMessage passes the codec as it is.
type rawMessage []byte

// handler answers calls of services that are not registered.
func (r *Raw) handler(_ any, wire grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(wire)
	service, method, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	do := r.Services[service]
	if do == nil {
		return status.Errorf(codes.Unimplemented, "there is no service %q here", service)
	}
	err := do(method, &RawStream{wire})
	if f, ok := err.(Failure); ok {
		return status.Error(f.Code, f.Text)
	}
	if _, known := status.FromError(err); !known {
		return status.Error(codes.Unknown, err.Error())
	}
	return err
}
