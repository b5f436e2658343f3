package exchange

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dos/internal/rpc"
	"dos/meta"
)

// The service that an exchange is over connections of package rpc: a stream of who
// calls, and one of who serves.
const (
	serviceName = "dos.exchange"
	callStream  = "Call"
	workStream  = "Work"
)

// openMax bounds how long a stream takes to open.
const openMax = 5 * time.Second

// Service is the exchange for other processes. admit says whether who serves may, by its
// Hello.
func (x *Exchange) Service(admit func(ctx context.Context, hello Message) error) rpc.Service {
	return rpc.Service{Name: serviceName, Streams: map[string]func(*rpc.Stream) error{
		callStream: func(s *rpc.Stream) error {
			conn := &streamConn{stream: s}
			_ = x.Call(conn) // it says that the stream is over
			return nil
		},
		workStream: func(s *rpc.Stream) error {
			conn := &streamConn{stream: s}
			hello, err := conn.Recv()
			if err != nil {
				return nil
			}
			if err := admit(s.Context(), hello); err != nil {
				return conn.Send(failure(Absent, err))
			}
			_ = x.Work(conn, hello)
			return nil
		},
	}}
}

// Local returns the ends of connections of who calls, and of who serves, in the process
// of the exchange. What serves them ends when they are closed.
func (x *Exchange) Local(work bool) Conn {
	here, there := Pipe()
	go func() {
		defer there.Close()
		if !work {
			_ = x.Call(there)
			return
		}
		if hello, err := there.Recv(); err == nil {
			_ = x.Work(there, hello)
		}
	}()
	return here
}

// Dial opens a connection to the exchange of another process, for who serves or who
// calls. ctx bounds the opening.
func Dial(ctx context.Context, to *rpc.Client, work bool) (Conn, error) {
	name := callStream
	if work {
		name = workStream
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	late := time.AfterFunc(openMax, cancel)
	s, err := to.Open(life, serviceName, name)
	late.Stop()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("the exchange at %s: %w: %v", to.Addr(), meta.HostDown, err)
	}
	return &streamConn{stream: s, cancel: cancel}, nil
}

// A streamConn is a Conn over a stream of package rpc.
type streamConn struct {
	stream *rpc.Stream
	cancel func() // nil at the server, where the stream ends with its handler

	mu sync.Mutex // one sends at a time
}

func (c *streamConn) Send(m Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream.Send(&rpc.Frame{Header: rpc.Encode(m), Payload: rpc.Own(m.Data)})
}

func (c *streamConn) Recv() (m Message, err error) {
	var f rpc.Frame
	if err := c.stream.Recv(&f); err != nil {
		return m, err
	}
	defer f.Free()
	if err := rpc.Decode(f.Header, &m); err != nil {
		return m, err
	}
	if n := f.Payload.Len(); n > 0 {
		m.Data = make([]byte, n)
		f.Payload.CopyTo(m.Data)
	}
	return m, nil
}

func (c *streamConn) Close() {
	if c.cancel != nil {
		c.cancel()
	}
}
