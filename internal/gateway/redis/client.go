package redis

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"dos/internal/trust"
)

const (
	// bufferMin is what a client has to read into, always; more comes out of what all
	// clients share.
	bufferMin = 16 << 10
	// pipelineMax bounds the commands that are looked at together.
	pipelineMax = 256
	// flushAt is how many bytes of replies are sent at once.
	flushAt = 64 << 10
	// backlogMax bounds the bytes that a client has not read yet: then it is cut off, as
	// Redis does with subscribers.
	backlogMax = 32 << 20
	// sendWait is how long a client that does not read holds up its own commands,
	// before its replies wait in a backlog. Those who send a long pipeline read nothing
	// until they have sent it all.
	sendWait = 20 * time.Millisecond
	// cutWait is how long a client may not read at all.
	cutWait = 2 * time.Minute
)

// A client is one connection. Its fields belong to the goroutine that serves it, but
// for what mu guards.
type client struct {
	server *Server
	conn   net.Conn
	id     int64
	name   string
	since  time.Time

	in    []byte // the buffer
	r, w  int    // what is in it, and not executed
	frame frame
	need  int // the command that comes has at least so many bytes
	args  [][][]byte
	batch batch
	out   reply

	rights  trust.Rights // what it may do
	secret  string       // the hash of the password that says so
	checked time.Time    // when that was asked for last
	db      int
	tx      *transaction // between MULTI and EXEC
	watched []watch
	topics  map[topic]bool // that it has subscribed
	quit    bool           // once all is sent
	proto   atomic.Int32   // 2 or 3, for those who post

	mu      sync.Mutex
	now     atOnce // guarded by mu
	backlog []byte // what could not be sent yet; guarded by mu
	sending bool   // somebody sends the backlog; guarded by mu
	broken  bool   // nothing can be sent any more; guarded by mu
	senders sync.WaitGroup
}

// serve executes what the client sends until it goes, or ctx ends.
func (c *client) serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	defer func() {
		c.server.hub.leave(c)
		c.server.memory.give(len(c.in) - bufferMin)
		c.cut()
		c.senders.Wait()
	}()
	c.in = make([]byte, bufferMin)
	for !c.quit {
		if err := c.read(); err != nil {
			var wrong protocolError
			if errors.As(err, &wrong) || errors.As(err, new(said)) {
				c.out.fail(err.Error())
				c.flush()
				c.drain()
			}
			return
		}
		if !c.execute(ctx) {
			return
		}
	}
	c.drain()
}

// read reads until there is a whole command.
func (c *client) read() error {
	for {
		have := c.in[c.r:c.w]
		if len(have) >= max(c.need, 1) {
			n, err := c.frame.measure(have)
			if err == nil {
				c.need = 0
				return nil
			}
			if err != errShort {
				return err
			}
			c.need = n
		}
		if err := c.room(); err != nil {
			return err
		}
		n, err := c.conn.Read(c.in[c.w:])
		c.w += n
		if n == 0 && err != nil {
			return err
		}
	}
}

// room makes room in the buffer for the command that comes.
func (c *client) room() error {
	if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	want := bufferMin
	for want < max(c.need, c.w+1) {
		want *= 2
	}
	if want = min(want, commandMax+bufferMin); want == len(c.in) || want < len(c.in) && c.w > 0 {
		return nil
	}
	if !c.server.memory.take(want - len(c.in)) {
		return said(errMemory)
	}
	b := make([]byte, want)
	copy(b, c.in[:c.w])
	c.in = b
	return nil
}

// execute executes all whole commands that are there. It returns false if the
// connection is over.
func (c *client) execute(ctx context.Context) bool {
	for n := 0; c.r < c.w && !c.quit; n++ {
		if n == pipelineMax {
			c.settle(ctx)
			n = 0
		}
		if n == len(c.args) {
			c.args = append(c.args, nil)
		}
		args, size, err := c.frame.split(c.in[c.r:c.w], c.args[n])
		if err == errShort {
			c.need = size
			break
		}
		if err != nil {
			c.settle(ctx)
			c.out.fail(err.Error())
			c.flush()
			c.drain()
			return false
		}
		c.args[n] = args
		c.r += size
		if len(args) > 0 {
			c.do(ctx, args)
		}
		if len(c.out.b) >= flushAt && !c.flush() {
			return false
		}
	}
	c.settle(ctx)
	return c.flush()
}

// flush sends the replies.
func (c *client) flush() bool {
	b := c.out.b
	if len(b) == 0 {
		return true
	}
	c.out.b = b[:0]
	if cap(b) > 4*flushAt {
		c.out.b = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return false
	}
	if !c.sending {
		if b = b[c.now.write(b):]; len(b) == 0 {
			return true
		}
		c.conn.SetWriteDeadline(time.Now().Add(sendWait))
		n, err := c.conn.Write(b)
		c.conn.SetWriteDeadline(time.Time{})
		if err == nil {
			return true
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			c.broken = true
			return false
		}
		b = b[n:]
	}
	return c.later(b)
}

// post sends what comes unasked. It does not wait; any goroutine may call it.
func (c *client) post(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.broken && !c.later(b) {
		c.conn.Close() // it does not read: its goroutine sees that
	}
}

// later has the backlog sent, with b at its end. mu is held.
func (c *client) later(b []byte) bool {
	if len(c.backlog)+len(b) > backlogMax || !c.server.memory.take(len(b)) {
		c.broken = true
		return false
	}
	c.backlog = append(c.backlog, b...)
	if !c.sending {
		c.sending = true
		c.senders.Add(1)
		go c.send()
	}
	return true
}

// send sends the backlog.
func (c *client) send() {
	defer c.senders.Done()
	for {
		c.mu.Lock()
		b := c.backlog
		c.backlog = nil
		if len(b) == 0 || c.broken {
			c.sending = false
			c.server.memory.give(len(b))
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		c.conn.SetWriteDeadline(time.Now().Add(cutWait))
		_, err := c.conn.Write(b)
		c.conn.SetWriteDeadline(time.Time{})
		c.server.memory.give(len(b))
		if err != nil {
			c.mu.Lock()
			c.broken = true
			c.mu.Unlock()
			c.conn.Close()
		}
	}
}

// drain waits until the backlog is sent. Nothing more comes unasked.
func (c *client) drain() {
	c.server.hub.leave(c)
	c.senders.Wait()
}

// cut ends the connection.
func (c *client) cut() {
	c.mu.Lock()
	c.broken = true
	c.mu.Unlock()
	c.conn.Close()
}

// while does something that may take long, and interrupts it when the client goes.
// What the client sends meanwhile is kept for later.
func (c *client) while(ctx context.Context, do func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.flush()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c.w < len(c.in) {
			n, err := c.conn.Read(c.in[c.w:])
			c.w += n
			if err != nil {
				cancel()
				return
			}
		}
	}()
	do(ctx)
	c.conn.SetReadDeadline(time.Unix(1, 0))
	<-done
	c.conn.SetReadDeadline(time.Time{})
}

// atOnce writes what a connection has room for, without the timer that a deadline is.
type atOnce struct {
	conn syscall.RawConn // nil: what there is has none
	b    []byte
	n    int
	try  func(fd uintptr) bool // write's, so that it is made once
}

func newAtOnce(conn net.Conn) (w atOnce) {
	if c, is := conn.(syscall.Conn); is {
		w.conn, _ = c.SyscallConn() // nil if it fails
	}
	return w
}

// write returns how much it has written. What went wrong the next Write says.
func (w *atOnce) write(b []byte) int {
	if w.conn == nil {
		return 0
	}
	if w.try == nil {
		w.try = func(fd uintptr) bool {
			n, err := syscall.Write(int(fd), w.b)
			if err == nil {
				w.n = n
			}
			return true
		}
	}
	w.b, w.n = b, 0
	w.conn.Write(w.try) //nolint:errcheck // then it has written nothing
	w.b = nil
	return w.n
}
