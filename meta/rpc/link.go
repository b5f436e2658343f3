package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/state"
)

// A link is one stream to one member, with the requests that wait for an
// answer on it. Its goroutines, one that sends, one that receives and its client's
// watch, end when it is closed.
type link struct {
	out   chan *rpc.Frame
	dead  chan struct{} // closed when the stream is of no more use
	ended sync.WaitGroup
	stop  context.CancelCauseFunc // ends the stream

	received atomic.Uint64 // answers that came

	mu      sync.Mutex
	number  uint64                   // of the last request; guarded by mu
	waiting map[uint64]chan<- result // each with room for its answer; guarded by mu
	why     error                    // the link is dead; guarded by mu
}

// A result is an answer with its body.
type result struct {
	state.Reply
	Failed bool
}

// errSilent says that nothing at all came from the member while a request
// waited for its answer until its time was over.
var errSilent = errors.New("no sign of life")

func dial(ctx context.Context, member *rpc.Client, service string) (*link, error) {
	// The stream outlives the request that it is made for.
	sctx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	released := context.AfterFunc(ctx, func() { stop(context.Cause(ctx)) })
	stream, err := member.Open(sctx, service, method)
	if !released() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		stop(err)
		return nil, err
	}
	l := &link{
		out:     make(chan *rpc.Frame),
		dead:    make(chan struct{}),
		stop:    stop,
		waiting: make(map[uint64]chan<- result),
	}
	l.ended.Add(2)
	go func() {
		defer l.ended.Done()
		l.send(stream)
	}()
	go func() {
		defer l.ended.Done()
		l.close(l.receive(stream))
	}()
	return l, nil
}

// close makes the link dead; the first reason stays.
func (l *link) close(why error) {
	l.mu.Lock()
	first := l.why == nil
	if first {
		l.why = why
	}
	l.mu.Unlock()
	if first {
		close(l.dead)
		l.stop(why)
	}
}

// wait waits for the link's goroutines.
func (l *link) wait() { l.ended.Wait() }

func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// progress says how many answers came, and whether a request waits for one.
func (l *link) progress() (received uint64, waiting bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.received.Load(), len(l.waiting) > 0
}

func (l *link) do(ctx context.Context, cmd state.Command) (result, error) {
	answered := make(chan result, 1)
	l.mu.Lock()
	l.number++
	number := l.number
	l.waiting[number] = answered
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, number)
		l.mu.Unlock()
	}()
	before := l.received.Load()
	frame := &rpc.Frame{
		Header:  rpc.Encode(request{Number: number, Op: cmd.Op, Session: cmd.Session, Slot: cmd.Slot, Seq: cmd.Seq}),
		Payload: rpc.Own(cmd.Body),
	}
	out := l.out
	for {
		select {
		case out <- frame:
			out = nil
		case res := <-answered:
			return res, nil
		case <-l.dead:
			select {
			case res := <-answered: // it came first
				return res, nil
			default:
				return result{}, l.reason()
			}
		case <-ctx.Done():
			if l.received.Load() == before && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return result{}, errSilent
			}
			return result{}, context.Cause(ctx)
		}
	}
}

func (l *link) send(stream *rpc.Stream) {
	for {
		select {
		case frame := <-l.out:
			if err := stream.Send(frame); errors.Is(err, rpc.ErrRefused) {
				l.close(err)
			} else if err != nil {
				return // receive says why
			}
		case <-l.dead:
			return
		}
	}
}

// receive hands answers to those who wait until the stream breaks, and says why it did.
func (l *link) receive(stream *rpc.Stream) error {
	for {
		var frame rpc.Frame
		if err := stream.Recv(&frame); err == io.EOF {
			return fmt.Errorf("%w: the member ended the stream", rpc.ErrDown)
		} else if err != nil {
			return err
		}
		var ans answer
		err := rpc.Decode(frame.Header, &ans)
		body := make([]byte, frame.Payload.Len())
		frame.Payload.CopyTo(body)
		frame.Free()
		if err != nil {
			return err
		}
		l.received.Add(1)
		l.mu.Lock()
		waiter := l.waiting[ans.Number]
		delete(l.waiting, ans.Number)
		l.mu.Unlock()
		if waiter == nil {
			continue // it was given up
		}
		res := result{Reply: state.Reply{Kind: ans.Kind, Text: ans.Text, Body: body}, Failed: ans.Failed}
		if res.Failed && res.Kind == 0 {
			res.Kind = meta.Unavailable
		}
		waiter <- res
	}
}
