// Package exchange hands calls over, in memory, between who calls a service and who
// serves it. Both come to an Exchange, that of some machine, over connections: who
// serves waits there, one connection for each call that it can do at a time, and who
// calls names an instance. What an instance is, and at which exchange it waits, is in
// package call; this package knows neither the metadata service nor files.
//
// # The conversation
//
// A connection carries messages: frames of package rpc, whose header is the CBOR of a
// Message and whose payload is its Data. One that calls makes one call after the other:
//
//	caller     Ask, then More … until one is Last; Abort gives up
//	exchange   Busy (nobody is free, and Wait is over), Absent (not here, or not fit):
//	           the call was not begun. Or Taken, Reply … until one is Last; Fail
//
// and one that serves:
//
//	server     Hello, once: it waits for calls of an instance. Reply … until one is Last;
//	           Fail; Accept says that the call is begun, which Reply and Fail say too.
//	           Return gives a call back that was not begun, and Bye does and ends it all
//	exchange   Offer, then More … until one is Last; Abort: nobody waits for the reply
//
// A Hello that is an Anchor waits for no calls: an instance is there as long as its
// anchor. Without it who serves would be gone between two calls.
//
// A call that was Offered and given back is offered to another. If the connection of
// who serves breaks, nobody knows whether the call was begun, and it fails.
//
// Got says how many bytes of the Data were consumed. Nobody sends more than Window
// bytes beyond that, so an exchange holds no more of a call; the Data of Ask and Offer
// is at most FirstMax bytes, and what follows an Ask waits for Taken. Seq numbers the
// calls of a connection; what is of another call than the one under way is late, and
// is passed over.
package exchange

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"dos/meta"
)

const (
	// Window bounds what is under way of a request, and of a reply, in bytes.
	Window = 1 << 20
	// FirstMax bounds what goes with the first message, in bytes.
	FirstMax = 64 << 10
	// pieceMax bounds one message, in bytes.
	pieceMax = 128 << 10
	// textMax bounds a text that people read, in bytes.
	textMax = 1 << 10
)

// What a message says.
type What uint8

const (
	_ What = iota
	Ask
	More
	Got
	Abort
	Busy
	Absent
	Taken
	Reply
	Fail
	Hello
	Accept
	Return
	Bye
	Offer
)

// A Message is one in either direction.
type Message struct {
	What     What   `cbor:"1,keyasint,omitempty"`
	Seq      uint64 `cbor:"2,keyasint,omitempty"`
	Service  string `cbor:"3,keyasint,omitempty"` // of Ask and Hello
	Instance uint64 `cbor:"4,keyasint,omitempty"` // of Ask and Hello
	Anchor   bool   `cbor:"5,keyasint,omitempty"` // of Hello
	// Wait is for how long an Ask waits to be offered; less than 0: it is not, and Busy
	// says how it is. A Hello with less than 0 does not wait.
	Wait time.Duration `cbor:"6,keyasint,omitempty"`
	Size int64         `cbor:"7,keyasint,omitempty"` // of Ask and Offer: the bytes of the whole request and one; 0: not known
	Last bool          `cbor:"8,keyasint,omitempty"` // no Data follows
	N    int           `cbor:"9,keyasint,omitempty"` // of Got: bytes; of Busy: calls that were begun so far
	Kind meta.Kind     `cbor:"10,keyasint,omitempty"`
	Text string        `cbor:"11,keyasint,omitempty"` // of Fail and Absent: why; of Ask and Offer: who calls
	Load int           `cbor:"12,keyasint,omitempty"` // to who calls: the calls of the instance that wait or are under way
	Data []byte        `cbor:"-"`                     // given away
}

// err is why a call failed.
func (m Message) err() error {
	kind := m.Kind
	if kind == 0 {
		kind = meta.Protocol
	}
	return &Error{Kind: kind, Text: m.Text}
}

// An Error is why a call failed, as the other side says it.
type Error struct {
	Kind meta.Kind
	Text string
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Kind.Error()
	}
	return e.Text
}

func (e *Error) Unwrap() error { return e.Kind }

// failure is the message that says why a call fails.
func failure(what What, err error) Message {
	m := Message{What: what, Kind: meta.Protocol}
	var kind meta.Kind
	switch {
	case errors.As(err, &kind):
		m.Kind = kind
	case errors.Is(err, context.DeadlineExceeded):
		m.Kind = meta.TimedOut
	case errors.Is(err, context.Canceled):
		m.Kind = meta.Canceled
	}
	m.Text = err.Error()
	m.Text = m.Text[:min(len(m.Text), textMax)]
	return m
}

// A Conn carries messages. Send may be called concurrently with itself and with Recv,
// and Close with both; after Close they fail. Neither waits for the other side to take
// what was sent, as long as that keeps to the Window.
type Conn interface {
	Send(Message) error
	Recv() (Message, error)
	Close()
}

// Pipe returns the two ends of a connection within a process.
func Pipe() (Conn, Conn) {
	a, b := newQueue(), newQueue()
	return &end{in: a, out: b}, &end{in: b, out: a}
}

type end struct{ in, out *queue }

func (e *end) Send(m Message) error   { return e.out.put(m) }
func (e *end) Recv() (Message, error) { return e.in.take() }
func (e *end) Close()                 { e.in.close(); e.out.close() }

// A queue is one direction of a pipe.
type queue struct {
	mu     sync.Mutex
	some   sync.Cond
	list   []Message // guarded by mu
	closed bool      // guarded by mu
}

func newQueue() *queue {
	q := new(queue)
	q.some.L = &q.mu
	return q
}

func (q *queue) put(m Message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return io.ErrClosedPipe
	}
	q.list = append(q.list, m)
	q.some.Signal()
	return nil
}

// take gives what was sent before it was closed too.
func (q *queue) take() (Message, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.list) == 0 {
		if q.closed {
			return Message{}, io.EOF
		}
		q.some.Wait()
	}
	m := q.list[0]
	q.list[0] = Message{}
	q.list = q.list[1:]
	return m, nil
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Broadcast()
}
