package rpc

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/peer"
)

// ServeBulk serves the calls of the services to those who make them with Bulk. l
// is a Port's listener of that protocol. It ends with ctx, as Serve does.
func ServeBulk(ctx context.Context, l net.Listener, services ...Service) error {
	s := bulkServer{services: make(map[string]Service)}
	for _, service := range services {
		s.services[service.Name] = service
	}
	stop := context.AfterFunc(ctx, func() { l.Close() }) //nolint:errcheck // Accept says so
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close() //nolint:errcheck // nobody was served
			}
			return nil
		case err != nil:
			return fmt.Errorf("rpc: serving %v: %w", l.Addr(), err)
		}
		a, ok := conn.(admitted)
		if !ok {
			panic(fmt.Sprintf("rpc: bulk calls on a listener of %T", l))
		}
		wg.Go(func() { s.serve(ctx, a) })
	}
}

type bulkServer struct {
	services map[string]Service
}

// serve answers one call after the other, until ctx ends or the peer goes.
func (s bulkServer) serve(ctx context.Context, a admitted) {
	conn, err := a.seal(false)
	if err != nil {
		a.port.log.Warn("rpc: a connection was refused", "from", a.RemoteAddr().String(), "protocol", Bulk, "err", err)
		a.Close() //nolint:errcheck // nobody was served
		return
	}
	defer conn.Close() //nolint:errcheck // nobody is served any more
	watch(conn.conn)
	// The call under way is answered still.
	stop := context.AfterFunc(ctx, func() { conn.conn.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // then it is broken already
	defer stop()
	// What is under way may go on for a moment when ctx ends.
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()
	calls = peer.NewContext(calls, &peer.Peer{Addr: a.RemoteAddr(), AuthInfo: secureInfo(a.ConnectionState())})
	for !conn.worn() {
		conn.conn.SetReadDeadline(time.Now().Add(2 * bulkIdle)) //nolint:errcheck // reading says so
		if ctx.Err() != nil {
			return
		}
		call, req, err := conn.request()
		if err != nil {
			return
		}
		answer, resp := s.answer(calls, call, req)
		req.Free()
		conn.conn.SetWriteDeadline(time.Now().Add(DefaultTimeout)) //nolint:errcheck // writing says so
		err = conn.reply(answer, resp)
		resp.Free()
		if err != nil {
			return
		}
	}
}

// reply sends an answer.
func (s *sealed) reply(answer bulkAnswer, resp *Frame) error {
	payload := resp.Bytes()
	if resp.File == nil {
		answer.Size = len(payload)
		return s.send(Encode(answer), payload)
	}
	conn, ok := s.conn.(*net.UnixConn)
	if !ok || resp.File.Len > MaxPayload {
		return s.send(Encode(bulkAnswer{Refused: "the answer is in a file"}), nil)
	}
	answer.Size = resp.File.Len
	if err := s.send(Encode(answer), nil); err != nil {
		return err
	}
	return sendFile(conn, *resp.File)
}

// request returns the next request, as the service sees it, and whom it is for.
func (s *sealed) request() (call bulkCall, req *Frame, err error) {
	head, _, err := s.receiveHead()
	if err != nil {
		return bulkCall{}, nil, err
	}
	if err := Decode(head, &call); err != nil {
		return bulkCall{}, nil, err
	}
	payload, err := s.takePayload(call.Size)
	return call, &Frame{Header: call.Header, Payload: payload}, err
}

// answer executes a request. The payload of resp is the answer's.
func (s bulkServer) answer(ctx context.Context, call bulkCall, req *Frame) (answer bulkAnswer, resp *Frame) {
	none := new(Frame)
	do := s.services[call.Service].Calls[call.Method]
	if do == nil {
		return bulkAnswer{Refused: fmt.Sprintf("there is no %s of %s", call.Method, call.Service)}, none
	}
	ctx, cancel := context.WithTimeout(ctx, min(max(call.Left, 0), DefaultTimeout))
	defer cancel()
	resp, err := do(ctx, req)
	switch {
	case err == nil:
		return bulkAnswer{Header: resp.Header}, resp
	case ctx.Err() == context.DeadlineExceeded:
		return bulkAnswer{Late: true}, none
	}
	return bulkAnswer{Refused: err.Error()}, none
}
