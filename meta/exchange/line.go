package exchange

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dos/meta"
)

// A Line is a connection of who calls. It carries one call after the other.
type Line struct {
	conn Conn

	mu   sync.Mutex
	seq  uint64 // guarded by mu
	call *Call  // the last that began; guarded by mu
	dead error  // guarded by mu
	done chan struct{}
}

// NewLine returns a line over conn, which it owns.
func NewLine(conn Conn) *Line {
	l := &Line{conn: conn, done: make(chan struct{})}
	go l.run() // it ends with conn, and Close waits for it
	return l
}

// Close breaks the line; a call under way fails.
func (l *Line) Close() {
	l.conn.Close()
	<-l.done
}

// Alive reports whether the line can carry another call.
func (l *Line) Alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead == nil
}

// run receives until the connection ends.
func (l *Line) run() {
	defer close(l.done)
	for {
		m, err := l.conn.Recv()
		l.mu.Lock()
		c := l.call
		if err != nil {
			l.dead = err
		} else if c != nil && m.Seq != c.seq {
			c = nil
		}
		l.mu.Unlock()
		if err != nil {
			if c != nil {
				c.hear(Message{What: Fail, Kind: meta.HostDown, Text: fmt.Sprintf("the exchange cannot be reached any more; whether the call was executed is not known (%v)", err)})
			}
			return
		}
		if c != nil {
			c.hear(m)
		}
	}
}

// A Request is how a call begins.
type Request struct {
	Service  string
	Instance uint64
	By       string        // who calls, for people
	Size     int64         // bytes of the whole; -1: not known
	Data     []byte        // the first of them, at most FirstMax
	Last     bool          // that is all
	Wait     time.Duration // for how long it waits for somebody who is free; less than 0: it only looks
	Timeout  time.Duration // bounds each wait,
	Within   time.Duration // and this the first one
}

// An Answer says what became of the beginning of a call.
type Answer struct {
	What  What // Taken, Busy, Absent or Fail
	Load  int
	Calls int // that the instance was given so far; of Busy
	Err   error
}

// A Call is one that was taken.
type Call struct {
	line   *Line
	seq    uint64
	flow   *flow
	answer chan Message  // the first; of one
	begins chan struct{} // closed when the reply does, or the call is over

	mu      sync.Mutex
	first   bool // it was answered; guarded by mu
	load    int  // guarded by mu
	replied bool // begins is closed; guarded by mu
	over    bool // nothing follows; guarded by mu
}

// Begin asks for a call. If the answer is not Taken, Err says why, and the call was not
// begun unless it is Fail. sent says that the request may have reached anybody.
func (l *Line) Begin(ctx context.Context, r Request) (_ *Call, _ Answer, sent bool) {
	c := &Call{line: l, answer: make(chan Message, 1), begins: make(chan struct{})}
	l.mu.Lock()
	if l.dead != nil {
		err := l.dead
		l.mu.Unlock()
		return nil, Answer{What: Fail, Err: fmt.Errorf("%w: %v", meta.HostDown, err)}, false
	}
	l.seq++
	c.seq = l.seq
	l.call = c
	l.mu.Unlock()
	c.flow = newFlow(More, func(m Message) error {
		m.Seq = c.seq
		return l.conn.Send(m)
	})
	c.flow.timeout, c.flow.late = r.Timeout, func(error) { c.Abort() }
	c.flow.credit -= len(r.Data)
	c.flow.sent = r.Last
	err := l.conn.Send(Message{
		What: Ask, Seq: c.seq, Service: r.Service, Instance: r.Instance, Text: r.By, Size: r.Size + 1, Wait: r.Wait, Data: r.Data, Last: r.Last,
	})
	if err != nil { // then nothing of it was
		return nil, Answer{What: Fail, Err: fmt.Errorf("%w: %v", meta.HostDown, err)}, false
	}
	timer := time.NewTimer(r.Within)
	defer timer.Stop()
	select {
	case m := <-c.answer:
		a := Answer{What: m.What, Load: m.Load, Calls: m.N}
		if m.What != Taken {
			a.Err = m.err()
		}
		return c, a, true
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timer.C:
		err = fmt.Errorf("service %q has not taken the call for %v: %w", r.Service, r.Within, meta.TimedOut)
	}
	c.Abort()
	return nil, Answer{What: Fail, Err: err}, true
}

// hear is what comes for the call.
func (c *Call) hear(m Message) {
	c.mu.Lock()
	first := !c.first
	c.first = true
	c.over = c.over || m.What == Fail || m.What == Busy || m.What == Absent || m.What == Reply && m.Last
	c.load = m.Load
	if (c.over || m.What == Reply) && !c.replied {
		c.replied = true
		close(c.begins)
	}
	c.mu.Unlock()
	if first {
		begins := m
		if m.What == Reply || m.What == Got {
			begins = Message{What: Taken, Load: m.Load}
		}
		c.answer <- begins
	}
	switch m.What {
	case Reply:
		c.flow.came(m.Data, m.Last)
	case Got:
		c.flow.got(m.N)
	case Fail, Busy, Absent:
		c.flow.fail(m.err())
	}
}

// Write sends more of the request; last says that this was all. It returns how much was
// sent.
func (c *Call) Write(ctx context.Context, p []byte, last bool) (int, error) {
	return c.flow.write(ctx, p, last)
}

// Begins is closed when the reply begins, or the call is over.
func (c *Call) Begins() <-chan struct{} { return c.begins }

// Read reads the reply, until io.EOF.
func (c *Call) Read(ctx context.Context, p []byte) (int, error) { return c.flow.read(ctx, p) }

// Load is how many calls the instance had when it spoke last.
func (c *Call) Load() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.load
}

// Over reports whether nothing follows: the line can carry another call.
func (c *Call) Over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// Abort gives the call up: who serves is told, and nothing comes any more.
func (c *Call) Abort() {
	c.mu.Lock()
	over := c.over
	c.over = true
	if !c.replied {
		c.replied = true
		close(c.begins)
	}
	c.mu.Unlock()
	if !over {
		c.flow.fail(errClosed)
		_ = c.flow.send(Message{What: Abort}) // else the connection is gone, and the call with it
	}
}
