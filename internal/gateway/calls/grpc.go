package calls

import (
	"context"
	"errors"
	"fmt"
	"io"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/exchange"
)

const (
	// wholeName has a method for each service, /dos.rpc/SVC, which takes one message and
	// answers one: what bytes they are is between the client and who serves.
	wholeName = "dos.rpc"
	// streamName has the same methods for what is larger, or comes bit by bit: the request is
	// all messages that the client sends, and the reply comes in messages as it is written.
	streamName = "dos.rpc.stream"

	// userKey and timeoutKey are of the metadata: who calls, and another timeout than the
	// service's, as with HTTP. The deadline of a call is kept besides.
	userKey, timeoutKey = "dos-user", "dos-timeout"

	// replyMax bounds a reply that is one message: more a client of gRPC does not take
	// unless it has said so.
	replyMax = 4 << 20
)

// GRPC serves calls to whoever gets here and may.
func GRPC(c Calls, named Named, may func(context.Context) error) *rpc.Raw {
	g := grpc{c, named, may}
	return &rpc.Raw{Services: map[string]func(string, *rpc.RawStream) error{
		wholeName:  func(method string, s *rpc.RawStream) error { return failed(g.whole(method, s)) },
		streamName: func(method string, s *rpc.RawStream) error { return failed(g.stream(method, s)) },
	}}
}

type grpc struct {
	calls Calls
	named Named
	may   func(context.Context) error
}

// codesOf are those of kinds; what is not there is Aborted: who served failed or was lost.
var codesOf = map[meta.Kind]rpc.Code{
	meta.NotExist:    rpc.NotFound,
	meta.Invalid:     rpc.InvalidArgument,
	meta.NameTooLong: rpc.InvalidArgument,
	meta.Permission:  rpc.PermissionDenied,
	meta.TooLarge:    rpc.ResourceExhausted,
	meta.Refused:     rpc.Unavailable,
	meta.Unavailable: rpc.Unavailable,
	meta.TimedOut:    rpc.DeadlineExceeded,
}

func failed(err error) error {
	if err == nil {
		return nil
	}
	f := rpc.Failure{Code: rpc.Aborted, Text: err.Error()}
	var kind meta.Kind
	if errors.As(err, &kind) {
		if code, ok := codesOf[kind]; ok {
			f.Code = code
		}
	}
	return f
}

// how is how the client of s calls a service, if it may.
func (g grpc) how(name string, s *rpc.RawStream) (client.Calling, error) {
	if err := g.may(s.Context()); err != nil {
		return client.Calling{}, fmt.Errorf("%w: %w", err, meta.Permission)
	}
	return calling(s.Context(), g.calls, g.named, name, s.Value(userKey), s.Value(timeoutKey), "grpc from "+s.From())
}

func (g grpc) whole(name string, s *rpc.RawStream) error {
	how, err := g.how(name, s)
	if err != nil {
		return err
	}
	request, err := s.Recv()
	if err == nil {
		if _, err = s.Recv(); err == nil {
			return fmt.Errorf("more than one message: they are taken at %s: %w", streamName, meta.Invalid)
		}
	}
	if err != io.EOF {
		return err
	}
	ctx := s.Context()
	first := request[:min(len(request), exchange.FirstMax)]
	rest := request[len(first):]
	talk, err := g.calls.Open(ctx, name, first, len(rest) == 0, int64(len(request)), how)
	if err != nil {
		return err
	}
	defer talk.Close()
	sent := make(chan struct{})
	go func() { // a server may reply before it has read all
		defer close(sent)
		if len(rest) > 0 {
			_, _ = talk.Write(ctx, rest, true) // reading says why
		}
	}()
	defer func() { talk.Abort(); <-sent }()
	reply := make([]byte, 0, exchange.FirstMax)
	buffer := make([]byte, exchange.FirstMax)
	for {
		n, err := talk.Read(ctx, buffer)
		if err == io.EOF {
			return s.Send(reply)
		}
		if err != nil {
			return err
		}
		if reply = append(reply, buffer[:n]...); len(reply) > replyMax {
			return fmt.Errorf("a reply of more than %d bytes: %s has it in pieces: %w", replyMax, streamName, meta.TooLarge)
		}
	}
}

func (g grpc) stream(name string, s *rpc.RawStream) error {
	how, err := g.how(name, s)
	if err != nil {
		return err
	}
	ctx := s.Context()
	talk, err := g.calls.Open(ctx, name, nil, false, -1, how)
	if err != nil {
		return err
	}
	defer talk.Close()
	defer talk.Abort()
	go func() { // it ends with the call, which is over when this function has returned
		for {
			message, err := s.Recv()
			if err != nil && err != io.EOF {
				talk.Abort()
				return
			}
			// A server may reply before it has read all.
			if _, e := talk.Write(ctx, message, err == io.EOF); e != nil || err == io.EOF {
				return
			}
		}
	}()
	for {
		buffer := make([]byte, exchange.FirstMax)
		n, err := talk.Read(ctx, buffer)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(buffer[:n]); err != nil {
			return err
		}
	}
}
