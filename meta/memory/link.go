package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/queue"
	"dos/meta/state"
)

const (
	serviceName = "dos.memory.follow"
	followName  = "Follow"
	// frameMax and frameBytes bound the commands, and the rows, of one frame.
	frameMax   = 512
	frameBytes = 1 << 20
	// reconnect is the pause before a link that broke is made again.
	reconnect = 50 * time.Millisecond
)

// hello begins a stream: the header of its first frame.
type hello struct {
	Queue uint64         `cbor:"1,keyasint,omitempty"`
	Name  string         `cbor:"2,keyasint,omitempty"`
	Epoch uint64         `cbor:"3,keyasint,omitempty"`
	Begun uint64         `cbor:"4,keyasint,omitempty"`
	Fill  bool           `cbor:"5,keyasint,omitempty"` // rows follow,
	Index uint64         `cbor:"6,keyasint,omitempty"` // as they were after so many commands
	From  meta.SessionID `cbor:"8,keyasint,omitempty"` // the primary
	Time  int64          `cbor:"7,keyasint,omitempty"` // of the last of these
}

// news is a frame from the primary; its commands or rows are the payload.
type news struct {
	Epoch uint64 `cbor:"1,keyasint,omitempty"`
	Index uint64 `cbor:"2,keyasint,omitempty"` // after its commands
	Rows  bool   `cbor:"3,keyasint,omitempty"` // these are rows,
	Last  bool   `cbor:"4,keyasint,omitempty"` // and these all that were left
}

// heard is a frame from the backup: it is there, and has so many commands.
type heard struct {
	Index  uint64 `cbor:"1,keyasint,omitempty"`
	Full   bool   `cbor:"2,keyasint,omitempty"` // it is to get nothing that needs room
	Refuse string `cbor:"3,keyasint,omitempty"` // it does not follow, and why
}

type row struct {
	Key []byte `cbor:"1,keyasint,omitempty"`
	Val []byte `cbor:"2,keyasint,omitempty"`
}

// A link is from a primary to its backup, or to one that is to be. It belongs to its
// unit, whose mutex guards it.
type link struct {
	to     queue.Holder
	inSync bool            // what it has not is not acknowledged
	log    []state.Command // that it may not have yet,
	base   uint64          // of which the first is this and one
	sent   uint64          // how many of all were sent on the stream there is
	full   bool
	lease  time.Duration // when the last frame was sent that was answered
	beats  []time.Duration
	signed chan struct{} // closed at the next answer; nil: nobody waits
	kick   chan struct{} // of one: there is something to send
	ended  chan struct{} // closed when it is not wanted any more
	over   bool
	joins  bool   // it is to be made the backup
	joinAt uint64 // when it has so many
}

func (l *link) add(cmd state.Command) {
	l.log = append(l.log, cmd)
	l.poke()
}

func (l *link) poke() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// beat asks for a sign of life, and returns what tells that one came.
func (l *link) beat() <-chan struct{} {
	if l.signed == nil {
		l.signed = make(chan struct{})
	}
	l.poke()
	return l.signed
}

func (l *link) end() {
	if !l.over {
		l.over = true
		close(l.ended)
		if l.signed != nil {
			close(l.signed)
			l.signed = nil
		}
	}
}

// connect makes a link. u.mu is held.
func (u *unit) connect(to queue.Holder, inSync bool) *link {
	l := &link{to: to, inSync: inSync, base: u.index, sent: u.index, lease: now(), kick: make(chan struct{}, 1), ended: make(chan struct{})}
	u.link = l
	return l
}

// seek looks for a backup if there is none.
func (u *unit) seek(ctx context.Context) {
	h := u.holder
	if h.cfg.Line == nil {
		return
	}
	h.mu.Lock()
	others := queue.Spread(h.others, u.id)
	h.mu.Unlock()
	others = slices.DeleteFunc(others, func(o queue.Holder) bool { return o.Session == h.cfg.Session })
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.role != leading || u.link != nil || len(others) == 0 || now() < u.ready {
		return
	}
	l := u.connect(others[u.tries%len(others)], false)
	u.tries++
	first := hello{Queue: u.id, Name: u.name, Epoch: u.epoch, Begun: u.begun, From: h.cfg.Session, Fill: true, Index: u.index, Time: u.time}
	rows := make([]row, 0, l.base)
	for k, v := range u.store.Changes() {
		rows = append(rows, row{k, v})
	}
	h.start(ctx, func(ctx context.Context) { u.serve(ctx, l, &first, rows) })
}

// serve sees to a link until it is not wanted any more. A backup that is silent for too
// long is left out.
func (u *unit) serve(ctx context.Context, l *link, first *hello, rows []row) {
	for {
		err := u.converse(ctx, l, first, rows)
		first, rows = nil, nil
		u.mu.Lock()
		silent := now()-l.lease > alone
		if !l.inSync && u.link == l { // it was to be one, and nothing depends on it
			u.link = nil
			l.end()
		}
		over := l.over
		u.mu.Unlock()
		if over || ctx.Err() != nil {
			return
		}
		if silent || errors.Is(err, errCannot) {
			if is, _ := u.rehome(ctx, queue.Holder{}); is {
				u.holder.cfg.Log.Info("memory: the backup of a queue is left out", "queue", u.name, "backup", l.to.Node, "err", err)
				u.single(l)
				return
			}
		}
		pause := time.NewTimer(reconnect)
		select {
		case <-pause.C:
		case <-l.ended:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// single goes on without a link: all that was executed is acknowledged.
func (u *unit) single(l *link) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.link == l && u.role == leading {
		u.link = nil
		l.end()
		u.settled(u.index)
	}
}

// join has the other end of a link made the backup.
func (u *unit) join(ctx context.Context, l *link) {
	for {
		is, err := u.rehome(ctx, l.to)
		switch {
		case is:
			u.holder.cfg.Log.Info("memory: a queue has a backup", "queue", u.name, "backup", l.to.Node)
			return
		case err == nil:
			u.single(l)
			return
		}
		pause := time.NewTimer(reconnect) // nobody knows whether it is
		select {
		case <-pause.C:
		case <-l.ended:
			pause.Stop()
			return
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// errCannot says that a backup cannot go on where it is.
var errCannot = errors.New("the backup does not follow")

// converse speaks with the other end of a link on one stream until that breaks or the
// link is not wanted any more. Without a hello it is one from where the other end is.
func (u *unit) converse(ctx context.Context, l *link, first *hello, rows []row) error {
	line, err := u.holder.cfg.Line(l.to)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(alone, func() { cancel(errors.New("no answer")) })
	defer late.Stop()
	s, err := line.Open(ctx, serviceName, followName)
	if err != nil {
		return err
	}
	if first == nil {
		u.mu.Lock()
		first = &hello{Queue: u.id, Name: u.name, Epoch: u.epoch, Begun: u.begun, From: u.holder.cfg.Session}
		u.mu.Unlock()
	}
	if err := s.Send(&rpc.Frame{Header: rpc.Encode(first)}); err != nil {
		return err
	}
	if first.Fill {
		if err := sendRows(s, first.Epoch, rows, func() { late.Reset(alone) }); err != nil {
			return err
		}
	}
	is, err := receive(s)
	if err != nil {
		return err
	}
	u.mu.Lock()
	if is.Index < l.base || is.Index > l.base+uint64(len(l.log)) {
		u.mu.Unlock()
		return fmt.Errorf("%w: it has %d commands, of those from %d to %d", errCannot, is.Index, l.base, l.base+uint64(len(l.log)))
	}
	l.beats, l.sent = nil, is.Index
	u.mu.Unlock()
	u.hear(ctx, l, is)
	ended := make(chan struct{})
	go func() { // ends with the stream
		defer close(ended)
		for {
			is, err := receive(s)
			if err != nil {
				cancel(err)
				return
			}
			late.Reset(alone)
			u.hear(ctx, l, is)
		}
	}()
	defer func() { // what is heard later would be taken for an answer on the next stream
		cancel(nil)
		<-ended
	}()
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		for more := true; more; {
			var f *rpc.Frame
			if f, more = u.next(l); f == nil {
				return nil
			}
			if err := s.Send(f); err != nil {
				return errors.Join(err, context.Cause(ctx))
			}
		}
		select {
		case <-tick.C:
		case <-l.kick:
		case <-l.ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// next returns the frame with the commands that were not sent yet, if there are not too
// many, and whether there are more. It is nil when the link is over.
func (u *unit) next(l *link) (f *rpc.Frame, more bool) {
	u.mu.Lock()
	if l.over {
		u.mu.Unlock()
		return nil, false
	}
	list := l.log[l.sent-l.base:]
	n, size := 0, 0
	for n < len(list) && n < frameMax && size < frameBytes {
		size += len(list[n].Body)
		n++
	}
	more = n < len(list)
	list = slices.Clone(list[:n])
	l.sent += uint64(n)
	head := news{Epoch: u.epoch, Index: l.sent}
	l.beats = append(l.beats, now())
	u.mu.Unlock()
	f = &rpc.Frame{Header: rpc.Encode(head)}
	if n > 0 {
		f.Payload = rpc.Own(state.Marshal(list))
	}
	return f, more
}

// hear takes in what the other end says.
func (u *unit) hear(ctx context.Context, l *link, is heard) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if l.over || u.role != leading {
		return
	}
	l.full = is.Full
	if len(l.beats) > 0 {
		l.lease, l.beats = l.beats[0], l.beats[1:]
		if l.signed != nil {
			close(l.signed)
			l.signed = nil
		}
	}
	if is.Index > l.base {
		l.log = slices.Clone(l.log[is.Index-l.base:])
		l.base = is.Index
	}
	switch {
	case l.inSync:
		u.settled(is.Index)
	case u.index-is.Index <= frameMax: // what comes now waits for it
		l.inSync, l.joins, l.joinAt = true, true, u.index
	}
	if l.joins && is.Index >= l.joinAt {
		l.joins = false
		u.holder.start(ctx, func(ctx context.Context) { u.join(ctx, l) })
	}
}

// sendRows sends all rows.
func sendRows(s *rpc.Stream, epoch uint64, rows []row, sent func()) error {
	for {
		n, size := 0, 0
		for n < len(rows) && n < frameMax && size < frameBytes {
			size += len(rows[n].Key) + len(rows[n].Val)
			n++
		}
		last := n == len(rows)
		f := &rpc.Frame{Header: rpc.Encode(news{Epoch: epoch, Rows: true, Last: last}), Payload: rpc.Own(state.Marshal(rows[:n]))}
		if err := s.Send(f); err != nil {
			return err
		}
		sent()
		if rows = rows[n:]; last {
			return nil
		}
	}
}

func receive(s *rpc.Stream) (is heard, err error) {
	var f rpc.Frame
	if err := s.Recv(&f); err != nil {
		return is, err
	}
	defer f.Free()
	if err := rpc.Decode(f.Header, &is); err != nil {
		return is, fmt.Errorf("%w: %v", meta.Invalid, err)
	}
	if is.Refuse != "" {
		return is, fmt.Errorf("%w: %s", errCannot, is.Refuse)
	}
	return is, nil
}
