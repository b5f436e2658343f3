package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/state"
	"dos/meta/trust"
)

// Serve returns the metadata service that executes requests with h.
func Serve(h Handler) rpc.Service { return serveAs(metaName, h) }

// ServeMemory returns the service that executes requests about queues in memory.
func ServeMemory(h Handler) rpc.Service { return serveAs(memoryName, h) }

func serveAs(name string, h Handler) rpc.Service {
	return rpc.Service{
		Name: name,
		Streams: map[string]func(*rpc.Stream) error{
			method: func(s *rpc.Stream) error { return serve(h, s) },
		},
		Calls: map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error){
			callLeader: func(context.Context, *rpc.Frame) (*rpc.Frame, error) {
				return &rpc.Frame{Header: rpc.Encode(leader(h))}, nil
			},
		},
	}
}

func leader(h Handler) (w whereabouts) {
	l, several := h.(Leader)
	if !several {
		return whereabouts{Me: true}
	}
	w.Me, w.Addr = l.Leader()
	return w
}

// serve executes the requests of one stream until the client or the
// connection ends it.
func serve(h Handler, s *rpc.Stream) error {
	// What is still worked on when the stream breaks can no longer be answered.
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	answers := make(chan *rpc.Frame, inFlight)
	sent := make(chan error, 1)
	go func() { sent <- send(s, answers, cancel) }()

	var work errgroup.Group // its functions do not fail
	work.SetLimit(inFlight)
	err := receive(s, func(req request, body []byte) {
		work.Go(func() error {
			answers <- execute(ctx, h, req, body)
			return nil
		})
	})
	if err != nil {
		cancel()
	}
	_ = work.Wait()
	close(answers)
	return errors.Join(err, <-sent)
}

// receive hands each request to begin, which may wait.
func receive(s *rpc.Stream, begin func(req request, body []byte)) error {
	for {
		var frame rpc.Frame
		switch err := s.Recv(&frame); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		var req request
		err := rpc.Decode(frame.Header, &req)
		body := make([]byte, frame.Payload.Len())
		frame.Payload.CopyTo(body)
		frame.Free()
		if err != nil {
			return err
		}
		begin(req, body)
	}
}

// send sends answers until there are no more; once the stream is broken it
// drops them.
func send(s *rpc.Stream, answers <-chan *rpc.Frame, broken func()) (err error) {
	for frame := range answers {
		if err != nil {
			frame.Free()
			continue
		}
		if err = s.Send(frame); err != nil {
			broken()
		}
	}
	return err
}

func execute(ctx context.Context, h Handler, req request, body []byte) *rpc.Frame {
	ctx, cancel := context.WithTimeout(ctx, rpc.DefaultTimeout)
	defer cancel()
	var reply state.Reply
	err := sendable(req.Op)
	if err == nil {
		reply, err = h.Do(ctx, state.Command{Op: req.Op, Session: req.Session, Slot: req.Slot, Seq: req.Seq, Body: body})
	}
	ans := answer{Number: req.Number, Kind: reply.Kind, Text: cut(reply.Text)}
	switch {
	case err != nil:
		ans.Failed, ans.Text = true, cut(err.Error())
		if !errors.As(err, &ans.Kind) {
			ans.Kind = meta.Unavailable
		}
		reply.Body = nil
	case len(reply.Body) > payloadMax:
		ans.Kind = meta.TooLarge
		ans.Text = fmt.Sprintf("operation %#04x: answer of %d bytes, at most %d can be sent", uint16(req.Op), len(reply.Body), payloadMax)
		reply.Body = nil
	}
	return &rpc.Frame{Header: rpc.Encode(ans), Payload: rpc.Own(reply.Body)}
}

// sendable refuses operations that carry a key, whoever asks.
func sendable(op state.Op) error {
	if trust.Secret(op) {
		return fmt.Errorf("operation %#04x is for callers in the member's own process: %w", uint16(op), meta.Permission)
	}
	return nil
}
