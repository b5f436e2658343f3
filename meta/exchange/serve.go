package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"dos/meta"
)

// A Post is a connection of who serves: it waits at an exchange for calls of an
// instance, one at a time.
type Post struct {
	conn   Conn
	offers chan *Incoming // of one
	done   chan struct{}

	mu   sync.Mutex
	now  *Incoming // guarded by mu
	left bool      // Leave was called; guarded by mu
	err  error     // why no call comes any more; guarded by mu
}

// NewPost waits for calls of an instance at the other end of conn, which it owns. If
// wait is not set, and there is no call yet, Next is meta.WouldWait.
func NewPost(conn Conn, service string, instance uint64, wait bool) (*Post, error) {
	hello := Message{What: Hello, Service: service, Instance: instance}
	if !wait {
		hello.Wait = -1
	}
	if err := conn.Send(hello); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %v", meta.HostDown, err)
	}
	p := &Post{conn: conn, offers: make(chan *Incoming, 1), done: make(chan struct{})}
	go p.run() // it ends with conn
	return p, nil
}

// Anchor makes an instance known at the other end of conn, as long as that is there. It
// returns when the exchange has it; Recv of conn then waits for the end.
func Anchor(conn Conn, service string, instance uint64) error {
	err := conn.Send(Message{What: Hello, Service: service, Instance: instance, Anchor: true})
	if err == nil {
		var m Message
		if m, err = conn.Recv(); err == nil && m.What != Accept {
			err = m.err()
		}
	}
	return err
}

// run receives until the connection ends.
func (p *Post) run() {
	defer close(p.done)
	defer p.conn.Close()
	for {
		m, err := p.conn.Recv()
		p.mu.Lock()
		now := p.now
		switch {
		case err != nil:
			p.err = fmt.Errorf("the exchange cannot be reached any more: %w: %v", meta.HostDown, err)
		case m.What == Absent:
			p.err = m.err()
		case m.What == Busy:
			p.err = meta.WouldWait
		}
		over := p.err
		p.mu.Unlock()
		switch {
		case over != nil:
			if now != nil {
				now.flow.fail(over)
			}
			return
		case m.What == Offer:
			p.offered(m)
		case now == nil || m.Seq != now.seq:
		case m.What == More:
			now.flow.came(m.Data, m.Last)
		case m.What == Got:
			now.flow.got(m.N)
		case m.What == Abort:
			now.aborted()
		}
	}
}

func (p *Post) offered(m Message) {
	in := &Incoming{post: p, seq: m.Seq, By: m.Text, Size: m.Size - 1, gone: make(chan struct{})}
	in.flow = newFlow(Reply, func(m Message) error {
		m.Seq = in.seq
		return p.conn.Send(m)
	})
	in.flow.came(m.Data, m.Last)
	p.mu.Lock()
	p.now = in
	left := p.left
	p.mu.Unlock()
	if !left {
		p.offers <- in // it has room: there is one at a time
	}
}

// Next waits for a call.
func (p *Post) Next(ctx context.Context) (*Incoming, error) {
	select {
	case in := <-p.offers:
		return in, nil
	case <-p.done:
		select {
		case in := <-p.offers:
			return in, nil
		default:
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return nil, p.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Leave waits for no more calls: one that was offered and not begun goes to somebody
// else.
func (p *Post) Leave() {
	p.mu.Lock()
	left, now := p.left, p.now
	p.left = true
	p.mu.Unlock()
	if !left {
		if now != nil && now.Begun() {
			_ = now.Fail(fmt.Errorf("who served went away without a reply: %w", meta.Protocol)) // if there was none
		}
		if p.conn.Send(Message{What: Bye}) != nil {
			p.conn.Close()
		} // else the exchange ends the connection
	}
}

// Close breaks the connection.
func (p *Post) Close() {
	p.conn.Close()
	<-p.done
}

// An Incoming is a call that is served. It is begun with the first Read or Write, or
// Accept; until then it can be given back.
type Incoming struct {
	By   string // who calls, for people
	Size int64  // bytes of the request; -1: not known

	post *Post
	seq  uint64
	flow *flow
	gone chan struct{} // closed when nobody waits for the reply any more

	mu     sync.Mutex
	begun  bool // it cannot be given back; guarded by mu
	told   bool // and the exchange knows; guarded by mu
	wrote  bool // guarded by mu
	over   bool // guarded by mu
	lapsed bool // gone is closed; guarded by mu
}

// Accept begins the call.
func (in *Incoming) Accept() {
	in.mu.Lock()
	told := in.told
	in.begun, in.told = true, true
	in.mu.Unlock()
	if !told {
		_ = in.flow.send(Message{What: Accept}) // else the call fails
	}
}

// Read reads the request, until io.EOF.
func (in *Incoming) Read(ctx context.Context, p []byte) (int, error) {
	in.Accept()
	return in.flow.read(ctx, p)
}

// whole returns the request if it came as a whole with the offer, and begins the call. The
// reply, which is to come soon, tells the exchange that.
func (in *Incoming) whole() (data []byte, is bool) {
	in.mu.Lock()
	in.begun = true
	in.mu.Unlock()
	in.flow.mu.Lock()
	defer in.flow.mu.Unlock()
	switch {
	case !in.flow.eof || len(in.flow.in) > 1 || in.flow.err != nil:
		return nil, false
	case len(in.flow.in) == 1:
		data = in.flow.in[0]
	}
	in.flow.in = nil
	return data, true
}

// Write sends some of the reply. It returns how much was sent.
func (in *Incoming) Write(ctx context.Context, p []byte) (int, error) {
	in.mu.Lock()
	in.begun = true
	in.wrote = in.wrote || len(p) > 0
	in.mu.Unlock()
	return in.flow.write(ctx, p, false)
}

// Reply sends p, which it keeps, as the whole reply or the rest of it.
func (in *Incoming) Reply(ctx context.Context, p []byte) error {
	if !in.end() {
		return nil
	}
	if len(p) <= FirstMax {
		in.flow.mu.Lock()
		err := in.flow.err
		fits := in.flow.credit >= len(p)
		in.flow.mu.Unlock()
		if err != nil {
			return errors.Join(err, in.flow.send(failure(Fail, err)))
		}
		if fits {
			return in.flow.send(Message{What: Reply, Data: p, Last: true})
		}
	}
	if _, err := in.flow.write(ctx, p, true); err != nil {
		_ = in.flow.send(failure(Fail, err))
		return err
	}
	return nil
}

// end notes that the last word is said; false if it was before.
func (in *Incoming) end() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.over {
		return false
	}
	in.over, in.begun = true, true
	return true
}

// Fail says why there is no reply, unless that was said, or there was one.
func (in *Incoming) Fail(err error) error {
	if !in.end() {
		return nil
	}
	return in.flow.send(failure(Fail, err))
}

// Over reports whether the last word is said.
func (in *Incoming) Over() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.over
}

// ReadAll returns the whole request, which is at most max bytes long.
func (in *Incoming) ReadAll(ctx context.Context, max int) ([]byte, error) {
	if data, is := in.whole(); is {
		return data, nil
	}
	data := make([]byte, 0, FirstMax)
	for {
		n, err := in.Read(ctx, data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case err == io.EOF:
			return data, nil
		case err != nil:
			return nil, err
		case len(data) > max:
			return nil, fmt.Errorf("a request of more than %d bytes: %w", max, meta.TooLarge)
		case len(data) == cap(data):
			data = append(data, 0)[:len(data)]
		}
	}
}

// Return gives the call back, if it was not begun. why, if it is not nil, says that
// this instance is not fit for it now.
func (in *Incoming) Return(why error) bool {
	in.mu.Lock()
	if in.begun || in.over {
		in.mu.Unlock()
		return false
	}
	in.over = true
	in.mu.Unlock()
	m := Message{What: Return}
	if why != nil {
		m = failure(Return, why)
	}
	return in.flow.send(m) == nil
}

// Replied reports whether any of the reply was written.
func (in *Incoming) Replied() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.wrote
}

// Begun reports whether the call was begun.
func (in *Incoming) Begun() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.begun
}

// Gone is closed when nobody waits for the reply any more.
func (in *Incoming) Gone() <-chan struct{} { return in.gone }

// aborted is for a call that nobody waits for any more. The exchange waits for a last
// word all the same, before it offers the next one.
func (in *Incoming) aborted() {
	// Whoever hears that it is gone cannot write any more.
	in.flow.fail(fmt.Errorf("who called does not wait for the reply any more: %w", meta.Canceled))
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.lapsed {
		in.lapsed = true
		close(in.gone)
	}
}
