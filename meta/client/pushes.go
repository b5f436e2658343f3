package client

import (
	"context"
	"errors"
	"runtime"

	"dos/meta"
	"dos/meta/queue"
)

// Push is that of Queues. What several threads send to a queue while a command of one
// of them is under way goes as one command after it, so that many who each wait for
// their own message share the commits. It is executed once however often it is sent,
// and each hears of its own messages alone.
func (t *Taker) Push(ctx context.Context, name string, list ...queue.Message) ([]uint64, error) {
	return t.pushBy(ctx, name, list, t.together)
}

// A line is who sends to one queue.
type line struct {
	waiting []*push // not sent yet, the first one first
}

// A push is the messages of one thread.
type push struct {
	req   queue.Push
	size  int // bytes of the bodies
	heard chan heard
}

// heard is what the one who sends says to another: how that one's messages fared, or
// that it is its turn to send, or that it has to send them by itself.
type heard struct {
	out         queue.Pushed
	err         error
	turn, alone bool
}

// together sends messages with those of others. The first who comes sends; when it is
// done the next one does who waits, so nobody sends for others for long.
func (t *Taker) together(ctx context.Context, req queue.Push) (queue.Pushed, error) {
	p := &push{req: req, heard: make(chan heard, 1)}
	for _, m := range req.Messages {
		if len(m.Stripes) > 0 { // they are the sender's own, for better or worse
			return t.push(ctx, req)
		}
		p.size += len(m.Body)
	}
	t.mu.Lock()
	l, sending := t.lines[req.Name]
	if !sending {
		l = new(line)
		t.lines[req.Name] = l
	}
	l.waiting = append(l.waiting, p)
	t.mu.Unlock()
	if sending {
		h := <-p.heard
		if h.alone {
			return t.push(ctx, req)
		}
		if !h.turn {
			return h.out, h.err
		}
	}
	// Those who were answered together come back together: they are about to run.
	runtime.Gosched()
	t.mu.Lock()
	batch, all := l.gather()
	t.mu.Unlock()
	out, err := t.push(ctx, all)
	t.mu.Lock()
	var unsent []*push
	if errors.Is(err, meta.TimedOut) { // nobody waits for longer than Patience
		unsent, l.waiting = l.waiting, nil
	}
	if len(l.waiting) > 0 {
		l.waiting[0].heard <- heard{turn: true}
	} else {
		delete(t.lines, req.Name)
	}
	t.mu.Unlock()
	for _, each := range unsent {
		each.heard <- heard{err: err}
	}
	mine := share(batch, out, err)
	for i, each := range batch[1:] {
		each.heard <- mine[i+1]
	}
	if mine[0].alone {
		return t.push(ctx, req)
	}
	return mine[0].out, mine[0].err
}

// gather takes the first of those who wait, and of the others as many as go with it.
func (l *line) gather() (batch []*push, all queue.Push) {
	size := 0
	for _, p := range l.waiting {
		size += p.size
		if len(batch) > 0 && (len(all.Messages)+len(p.req.Messages) > queue.PushMax || size > queue.PushBytes) {
			break
		}
		batch = append(batch, p)
		messages := append(all.Messages, p.req.Messages...)
		all = p.req
		all.Messages = messages
	}
	l.waiting = l.waiting[len(batch):]
	return batch, all
}

// share says to each of a batch how its messages fared: the first ones found room. A
// command that fails changes nothing, and where one message may be why, for all, each
// is to send its own.
func share(batch []*push, out queue.Pushed, err error) []heard {
	list := make([]heard, len(batch))
	alone := len(batch) > 1 && (errors.Is(err, meta.Invalid) || errors.Is(err, meta.TooLarge) || errors.Is(err, meta.Quota))
	ids := out.IDs
	for i, p := range batch {
		n := min(len(p.req.Messages), len(ids))
		list[i] = heard{out: queue.Pushed{IDs: ids[:n:n], Queue: out.Queue}, err: err, alone: alone}
		ids = ids[n:]
	}
	return list
}
