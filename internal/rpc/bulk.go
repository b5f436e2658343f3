package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/mem"
)

// Bulk is the protocol (ALPN, RFC 7301) of connections that ServeBulk serves.
const Bulk = "dos-bulk/2"

const (
	// bulkConns bounds a client's connections for bulk calls. What is more than
	// they can carry goes with the other calls.
	bulkConns = 8
	// bulkIdle is how long a connection may be without a call. The client forgets
	// it sooner than the server does.
	bulkIdle = time.Minute
	// lastPiece is how long the rest of an answer may take whose caller has left. He
	// waits for it, for it goes into his memory.
	lastPiece = 20 * time.Millisecond
	// drainMax is how long an answer may take that nobody waits for.
	drainMax = 5 * time.Second
)

// bulkCall is the head of a request, and bulkAnswer that of its answer, on a
// connection for bulk calls.
type bulkCall struct {
	Service string        `cbor:"1,keyasint,omitempty"`
	Method  string        `cbor:"2,keyasint,omitempty"`
	Left    time.Duration `cbor:"3,keyasint,omitempty"` // until the caller gives up, in ns
	Header  []byte        `cbor:"4,keyasint,omitempty"`
	Size    int           `cbor:"5,keyasint,omitempty"` // of the payload, in bytes
}

type bulkAnswer struct {
	Refused string `cbor:"1,keyasint,omitempty"` // why, if it was
	Header  []byte `cbor:"2,keyasint,omitempty"`
	Late    bool   `cbor:"3,keyasint,omitempty"` // the caller's time was over
	Size    int    `cbor:"4,keyasint,omitempty"` // of the payload, in bytes
}

// bulk is the client's side: connections that carry a call each, one after the
// other.
type bulk struct {
	addr   string
	config *tls.Config
	among  *Conns

	mu     sync.Mutex
	open   int         // guarded by mu: of them all
	idle   []*bulkConn // guarded by mu: the one used last is the last
	closed bool        // guarded by mu
}

type bulkConn struct {
	*sealed
	since time.Time // when it became idle
	used  bool      // it has carried a call
}

func newBulk(addr string, config *tls.Config, among *Conns) *bulk {
	config = config.Clone()
	config.NextProtos = []string{Bulk}
	return &bulk{addr: addr, config: config, among: among}
}

// Bulk is Call for what has much payload. With gRPC a byte costs twice as much, for
// it cuts everything into frames of 16 KiB, of which each is copied, and wakes the
// receiver. A service may see a request twice.
//
// The payload of req may be borrowed: nobody reads it once Bulk has returned. If
// resp.Into is set, the payload of the answer is put there, which is cut to it, and
// an answer that has no room is refused.
func (c *Client) Bulk(ctx context.Context, service, method string, req, resp *Frame) error {
	// gRPC knows whether the peer is there, without anybody waiting to find out.
	if c.bulk == nil || c.conns[0].GetState() != connectivity.Ready {
		return c.callInstead(ctx, service, method, req, resp)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for {
		conn, err := c.bulk.take(ctx)
		if conn == nil && err == nil {
			return c.callInstead(ctx, service, method, req, resp)
		}
		began := false
		if err == nil {
			again := conn.used
			began, err = conn.call(ctx, service, method, req, resp)
			if err == errLeft {
				go c.bulk.drain(conn)
			} else {
				c.bulk.give(conn, err)
			}
			if again && err != nil && !began && !isOrderly(err) && ctx.Err() == nil {
				continue // the peer may have closed it long ago
			}
		}
		req.Free()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("rpc: %s: %w", c.addr, context.Cause(ctx))
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrRefused):
			return fmt.Errorf("rpc: %s: %w", c.addr, err)
		}
		return fmt.Errorf("%w: %s: %v", ErrDown, c.addr, err)
	}
}

// callInstead is Bulk by Call.
func (c *Client) callInstead(ctx context.Context, service, method string, req, resp *Frame) error {
	// gRPC may be sending still when the call has failed.
	own := Frame{Header: req.Header, Payload: Copy(req.Bytes())}
	req.Free()
	if err := c.Call(ctx, service, method, &own, resp); err != nil || resp.Into == nil {
		return err
	}
	defer resp.Free()
	if err := resp.fits(resp.Payload.Len()); err != nil {
		return fmt.Errorf("rpc: %s: %w", c.addr, err)
	}
	resp.Into = resp.Into[:resp.Payload.CopyTo(resp.Into)]
	return nil
}

// fits says no to a payload that is larger than what it is to be put into.
func (f *Frame) fits(size int) error {
	if size > len(f.Into) {
		return fmt.Errorf("%w: %d bytes in answer, at most %d were wanted", ErrRefused, size, len(f.Into))
	}
	return nil
}

// take returns a connection, or none if there are as many as may be.
func (b *bulk) take(ctx context.Context) (*bulkConn, error) {
	b.mu.Lock()
	var stale []*bulkConn
	for len(b.idle) > 0 && time.Since(b.idle[0].since) > bulkIdle {
		stale = append(stale, b.idle[0])
		b.idle = b.idle[1:]
		b.open--
	}
	if last := len(b.idle) - 1; last >= 0 {
		conn := b.idle[last]
		b.idle = b.idle[:last]
		b.mu.Unlock()
		closeAll(stale)
		return conn, nil
	}
	b.mu.Unlock()
	closeAll(stale)
	return b.another(ctx)
}

// another returns a new connection, or none if there are as many as may be.
func (b *bulk) another(ctx context.Context) (*bulkConn, error) {
	b.mu.Lock()
	may := b.open < bulkConns && !b.closed
	if may {
		b.open++
	}
	b.mu.Unlock()
	if !may {
		return nil, nil
	}
	conn, err := b.dial(ctx)
	if err != nil {
		b.mu.Lock()
		b.open--
		b.mu.Unlock()
	}
	return conn, err
}

func (b *bulk) dial(ctx context.Context) (*bulkConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialMax)
	defer cancel()
	if local, err := dialLocal(ctx, b.addr); err == nil {
		if conn, err := b.secure(ctx, local); err == nil {
			return conn, nil
		}
	}
	var d net.Dialer
	tcp, err := d.DialContext(ctx, "tcp", b.addr)
	if err != nil {
		return nil, err
	}
	watch(tcp)
	return b.secure(ctx, tcp)
}

// secure shakes hands over conn, which it owns.
func (b *bulk) secure(ctx context.Context, below net.Conn) (*bulkConn, error) {
	wire := newRecords(below)
	conn := tls.Client(wire, b.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		below.Close() //nolint:errcheck // it was not used
		return nil, err
	}
	known := b.among.add(conn, wire)
	secure, err := known.seal(true)
	if err != nil {
		known.Close() //nolint:errcheck // it was not used
		return nil, err
	}
	return &bulkConn{sealed: secure}, nil
}

// give takes a connection back after a call that ended with err.
func (b *bulk) give(conn *bulkConn, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil && !isOrderly(err) || b.closed || conn.worn() {
		b.open--
		conn.Close() //nolint:errcheck // nobody uses it any more
		return
	}
	conn.since, conn.used = time.Now(), true
	b.idle = append(b.idle, conn)
}

func closeAll(conns []*bulkConn) {
	for _, conn := range conns {
		conn.Close() //nolint:errcheck // nobody uses it any more
	}
}

// close closes what is idle; calls under way end by themselves.
func (b *bulk) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.open -= len(b.idle)
	closeAll(b.idle)
	b.idle = nil
}

// orderly is why a call has failed whose connection is as good as before.
type orderly struct{ error }

func (o orderly) Unwrap() error { return o.error }

func isOrderly(err error) bool {
	var o orderly
	return errors.As(err, &o)
}

// A stage is how far a call has come.
type stage int32

const (
	sending   stage = iota // the request leaves
	waiting                // it has left, nothing of an answer has come
	receiving              // the answer arrives
)

// errLeft says that the caller does not wait for the answer any more, and that
// nothing of it has been read.
var errLeft = errors.New("rpc: the caller has left")

// call makes a call. began says that some of an answer came. It keeps the payload
// of req.
func (c *bulkConn) call(ctx context.Context, service, method string, req, resp *Frame) (began bool, err error) {
	var now atomic.Int32 // a stage
	left := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(left)
		last := time.Unix(1, 0)
		if stage(now.Load()) == receiving {
			last = time.Now().Add(lastPiece)
		}
		c.conn.SetDeadline(last) //nolint:errcheck // then it is broken already
	})
	defer func() {
		if stop() {
			return
		}
		<-left
		c.conn.SetDeadline(time.Time{}) //nolint:errcheck // then it is broken already
		switch {
		case err == nil || isOrderly(err): // it has come to its end all the same
		case stage(now.Load()) == waiting && errors.Is(err, os.ErrDeadlineExceeded):
			err = errLeft
		default:
			err = context.Cause(ctx)
		}
	}()
	payload := req.Bytes()
	head := bulkCall{Service: service, Method: method, Header: req.Header, Size: len(payload)}
	if deadline, ok := ctx.Deadline(); ok {
		head.Left = time.Until(deadline)
	}
	if err := c.send(Encode(head), payload); err != nil {
		return false, err
	}
	now.Store(int32(waiting))
	if err := c.await(); err != nil {
		return false, err
	}
	now.Store(int32(receiving))
	return true, c.receive(resp)
}

// receive takes the answer to a call.
func (s *sealed) receive(resp *Frame) error {
	text, _, err := s.receiveHead()
	if err != nil {
		return err
	}
	var answer bulkAnswer
	if err := Decode(text, &answer); err != nil {
		return err
	}
	if resp.Into != nil {
		if err := resp.fits(answer.Size); err != nil {
			return err
		}
		resp.Into = resp.Into[:answer.Size]
		err = s.receivePayload(resp.Into)
	} else {
		resp.Payload, err = s.takePayload(answer.Size)
	}
	if err != nil {
		return err
	}
	switch {
	case answer.Late:
		err = context.DeadlineExceeded
	case answer.Refused != "":
		err = fmt.Errorf("%w: %s", ErrRefused, answer.Refused)
	}
	if err != nil {
		resp.Free()
		return orderly{err}
	}
	resp.Header = answer.Header
	return nil
}

// drain takes back a connection whose caller has left, once the answer has come that
// nobody wants: reading it costs less than shaking hands again.
func (b *bulk) drain(conn *bulkConn) {
	var answer Frame
	conn.conn.SetDeadline(time.Now().Add(drainMax)) //nolint:errcheck // then it is broken already
	err := conn.receive(&answer)
	answer.Free()
	if err == nil || isOrderly(err) {
		err = conn.conn.SetDeadline(time.Time{})
	}
	b.give(conn, err)
}

// takePayload is receivePayload into memory of the pool.
func (s *sealed) takePayload(size int) (mem.BufferSlice, error) {
	if size < 0 || size > MaxPayload {
		return nil, fmt.Errorf("%w: a payload of %d bytes, at most %d are allowed", ErrRefused, size, MaxPayload)
	}
	if size == 0 {
		return nil, nil
	}
	payload, b := Alloc(size)
	if err := s.receivePayload(b); err != nil {
		payload.Free()
		return nil, err
	}
	return payload, nil
}
