package cache

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	"dos/internal/rpc"
	"dos/meta"
)

// waitingMax bounds the requests of one stream that wait for something.
const waitingMax = 1024

// Service is the service by which others reach this process's entries. find returns the
// Holder of the moment, nil if there is none.
func Service(find func() *Holder) rpc.Service {
	streams := map[string]func(*rpc.Stream) error{
		streamWatch: func(s *rpc.Stream) error { return serveWatch(find, s) },
	}
	for _, name := range []string{streamRead, streamWrite, streamCopy} {
		streams[name] = func(s *rpc.Stream) error { return serve(find, s, name) }
	}
	return rpc.Service{Name: serviceName, Streams: streams}
}

// serve executes the requests of one stream until the other end or the connection ends it.
func serve(find func() *Holder, s *rpc.Stream, name string) error {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	by := newParty()
	defer by.end()
	answers := make(chan []answer, frameMax)
	sent := make(chan error, 1)
	go func() { sent <- sendAnswers(s, answers, cancel) }()
	var slow errgroup.Group // its functions do not fail
	slow.SetLimit(waitingMax)
	err := receiveRequests(s, func(list []request) {
		h := find()
		out := make([]answer, 0, len(list))
		size := 0
		for i := range list {
			req := &list[i]
			a, done := moved(), true
			switch {
			case req.Op.stream() != name:
				a = answer{Kind: meta.Permission, Text: "cache: not by this stream"}
			case h != nil:
				a, done = h.quick(by, req)
			}
			if !done {
				slow.Go(func() error {
					a := h.do(ctx, by, req)
					a.Number = req.Number
					answers <- []answer{a}
					return nil
				})
				continue
			}
			a.Number = req.Number
			out = append(out, a)
			if size += len(a.Value); size > frameBytes {
				answers <- out
				out, size = nil, 0
			}
		}
		if len(out) > 0 {
			answers <- out
		}
	})
	cancel()
	by.end()
	_ = slow.Wait()
	close(answers)
	return errors.Join(err, <-sent)
}

func receiveRequests(s *rpc.Stream, execute func([]request)) error {
	for {
		var f rpc.Frame
		switch err := s.Recv(&f); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		list, err := decode[request](&f)
		if err != nil {
			return err
		}
		execute(list)
	}
}

// sendAnswers sends answers until there are no more, as many in one frame as there are;
// once the stream is broken it drops them.
func sendAnswers(s *rpc.Stream, answers <-chan []answer, broken func()) (err error) {
	for list := range answers {
		size := 0
		for _, a := range list {
			size += len(a.Value)
		}
	more:
		for len(list) < frameMax && size < frameBytes {
			select {
			case next, ok := <-answers:
				if !ok {
					break more
				}
				list = append(list, next...)
				for _, a := range next {
					size += len(a.Value)
				}
			default:
				break more
			}
		}
		if err != nil {
			continue
		}
		if err = s.Send(encode(list)); err != nil {
			broken()
		}
	}
	return err
}

// A wanted bucket is what a stream Watch begins with, in the header.
type wanted struct {
	Bucket     uint64 `cbor:"1,keyasint,omitempty"`
	Generation uint64 `cbor:"2,keyasint,omitempty"`
}

// serveWatch tells what happens in a bucket.
func serveWatch(find func() *Holder, s *rpc.Stream) error {
	var f rpc.Frame
	if err := s.Recv(&f); err != nil {
		return err
	}
	f.Free()
	var what wanted
	if err := rpc.Decode(f.Header, &what); err != nil {
		return err
	}
	h := find()
	if h == nil {
		return errors.New("cache: nothing is held here")
	}
	w, err := h.watch(what)
	if err != nil {
		return err
	}
	defer w.close()
	if err := s.Send(encode([]Event{})); err != nil { // it has begun
		return err
	}
	for {
		list, err := w.next(s.Context())
		if err != nil {
			return err
		}
		if err := s.Send(encode(list)); err != nil {
			return err
		}
	}
}
