// Package relay passes calls on to servers that know nothing of dos: by HTTP, where a
// call is a POST, or by TCP, where requests and replies follow each other on a
// connection, each of them
//
//	a line: up to LineMax bytes, of which the newline is the last and the only one
//	`len N`, a newline, and N bytes
//
// A request that is a line is sent as one, unless it looks like the other. What cannot
// be connected to is given back, for another instance to do.
package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dos/meta"
	"dos/meta/exchange"
)

// LineMax is how long a request or a reply that is a line may be, in bytes.
const LineMax = 64 << 10

const (
	// dialMax bounds how long a server is dialled.
	dialMax = 5 * time.Second
	// bufferMax bounds a request of unknown length that a tcp server is to be told the
	// length of, in bytes.
	bufferMax = 8 << 20
	// pieceSize is how much of a request or a reply is passed on at once, in bytes.
	pieceSize = 64 << 10
)

// A Relay is the way to one server. Its methods may be called concurrently.
type Relay struct {
	dial  func(ctx context.Context) (net.Conn, error)
	addr  string
	url   string       // of an http server
	http  *http.Client // nil for a tcp server
	slots int

	mu     sync.Mutex
	idle   []*bufConn // connections to a tcp server; guarded by mu
	closed bool       // guarded by mu
}

// bufConn is a connection to a tcp server.
type bufConn struct {
	net.Conn
	in *bufio.Reader
}

// New returns the way to tcp://HOST:PORT or http://HOST:PORT/PATH, for so many calls at
// a time.
func New(target string, workers int) (*Relay, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "tcp" && u.Scheme != "http" {
		return nil, fmt.Errorf("%.80q is not tcp://HOST:PORT or http://HOST:PORT/PATH: %w", target, meta.Invalid)
	}
	b := &Relay{addr: u.Host, slots: workers}
	if u.Port() == "" {
		if u.Scheme == "tcp" {
			return nil, fmt.Errorf("%.80q has no port: %w", target, meta.Invalid)
		}
		b.addr = net.JoinHostPort(u.Hostname(), "80")
	}
	if u.Scheme == "tcp" && strings.Trim(u.Path, "/")+u.RawQuery+u.Fragment != "" {
		return nil, fmt.Errorf("%.80q: a tcp server has no path: %w", target, meta.Invalid)
	}
	dialer := net.Dialer{Timeout: dialMax}
	b.dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", b.addr) }
	if u.Scheme == "http" {
		b.url = target
		b.http = &http.Client{
			Transport: &http.Transport{
				DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return b.dial(ctx) },
				MaxIdleConnsPerHost: workers, IdleConnTimeout: time.Minute, DisableCompression: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return b, nil
}

// Close breaks what is not in use.
func (b *Relay) Close() {
	if b.http != nil {
		b.http.CloseIdleConnections()
	}
	b.mu.Lock()
	idle := b.idle
	b.idle, b.closed = nil, true
	b.mu.Unlock()
	for _, c := range idle {
		c.Close() //nolint:errcheck // nobody uses it
	}
}

// Serve passes a call on. It ends when who called gives up.
func (b *Relay) Serve(ctx context.Context, in *exchange.Incoming) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-in.Gone():
			cancel()
		case <-ctx.Done():
		}
	}()
	if b.http != nil {
		return b.post(ctx, in)
	}
	return b.talk(ctx, in)
}

// unfit gives a call back that cannot be passed on, for another instance to do.
func unfit(in *exchange.Incoming, err error) error {
	err = fmt.Errorf("the registered server does not answer: %w: %v", meta.Refused, err)
	if in.Return(err) {
		return nil
	}
	return err
}

// request is a call's request as an io.Reader.
type request struct {
	ctx context.Context
	in  *exchange.Incoming
}

func (r request) Read(p []byte) (int, error) { return r.in.Read(r.ctx, p) }

// post passes a call on to an http server. It is begun when there is a connection.
func (b *Relay) post(ctx context.Context, in *exchange.Incoming) error {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { in.Accept() }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, io.NopCloser(request{ctx, in}))
	if err != nil {
		return err
	}
	if req.ContentLength = in.Size; in.Size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("X-Dos-Caller", in.By)
	resp, err := b.http.Do(req)
	switch {
	case err != nil && !in.Begun():
		return unfit(in, err)
	case err != nil:
		return fmt.Errorf("the registered server: %w: %v", meta.Protocol, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("the registered server answers %s: %s: %w", resp.Status, bytes.TrimSpace(said), meta.Protocol)
	}
	return pass(ctx, in, resp.Body)
}

// pass makes what r gives the reply.
func pass(ctx context.Context, in *exchange.Incoming, r io.Reader) error {
	buffer := make([]byte, pieceSize)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			if _, err := in.Write(ctx, buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return in.Reply(ctx, nil)
		case err != nil:
			return fmt.Errorf("the registered server's reply: %w: %v", meta.Protocol, err)
		}
	}
}

// conn returns a connection to a tcp server.
func (b *Relay) conn(ctx context.Context) (*bufConn, error) {
	b.mu.Lock()
	if last := len(b.idle) - 1; last >= 0 {
		c := b.idle[last]
		b.idle = b.idle[:last]
		b.mu.Unlock()
		if c.quiet() {
			return c, nil
		}
		c.Close() //nolint:errcheck // the server has closed it, or says what nobody asked
		return b.conn(ctx)
	}
	b.mu.Unlock()
	conn, err := b.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &bufConn{Conn: conn, in: bufio.NewReaderSize(conn, pieceSize)}, nil
}

// quiet reports whether the other side has neither closed a connection nor said
// anything on it.
func (c *bufConn) quiet() bool {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok || c.in.Buffered() > 0 {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	var heard error
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, heard = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true
	})
	return err == nil && errors.Is(heard, unix.EAGAIN)
}

// talk passes a call on to a tcp server.
func (b *Relay) talk(ctx context.Context, in *exchange.Incoming) error {
	c, err := b.conn(ctx)
	if err != nil {
		return unfit(in, err)
	}
	defer context.AfterFunc(ctx, func() { c.Close() })() //nolint:errcheck // whoever uses it hears of it
	if err = b.exchange(ctx, c, in); err != nil {
		c.Close() //nolint:errcheck // it is of no use
		return err
	}
	b.mu.Lock()
	keep := !b.closed && len(b.idle) < b.slots
	if keep {
		b.idle = append(b.idle, c)
	}
	b.mu.Unlock()
	if !keep {
		c.Close() //nolint:errcheck // nobody uses it
	}
	return nil
}

func (b *Relay) exchange(ctx context.Context, c *bufConn, in *exchange.Incoming) error {
	if err := sendRequest(ctx, c, in); err != nil {
		return err
	}
	line, err := c.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return fmt.Errorf("the registered server's line is longer than %d bytes: %w", pieceSize, meta.Protocol)
	case err != nil:
		return fmt.Errorf("the registered server closed without a reply: %w: %v", meta.Protocol, err)
	}
	size, is, err := Framed(line)
	switch {
	case err != nil:
		return fmt.Errorf("the registered server says %.80q: %w", line, meta.Protocol)
	case !is:
		return in.Reply(ctx, bytes.Clone(line))
	}
	if err := copyN(ctx, size, c.in, func(p []byte) error {
		_, err := in.Write(ctx, p)
		return err
	}); err != nil {
		return fmt.Errorf("the registered server's reply: %w: %v", meta.Protocol, err)
	}
	return in.Reply(ctx, nil)
}

// sendRequest sends a request as a line if it is one, else with its length before it.
func sendRequest(ctx context.Context, c *bufConn, in *exchange.Incoming) error {
	r := request{ctx, in}
	size := in.Size
	var head []byte
	if size < 0 || size <= LineMax {
		bound := int64(bufferMax)
		var err error
		if head, err = io.ReadAll(io.LimitReader(r, bound+1)); err != nil {
			return err
		}
		if int64(len(head)) > bound {
			return fmt.Errorf("a request of unknown length is more than %d bytes: %w", bufferMax, meta.TooLarge)
		}
		size = int64(len(head))
	}
	line := len(head) > 0 && bytes.IndexByte(head, '\n') == len(head)-1
	if _, is, _ := Framed(head); !line || is {
		if _, err := fmt.Fprintf(c, "len %d\n", size); err != nil {
			return fmt.Errorf("the registered server: %w: %v", meta.Protocol, err)
		}
	}
	if _, err := c.Write(head); err != nil {
		return fmt.Errorf("the registered server: %w: %v", meta.Protocol, err)
	}
	if left := size - int64(len(head)); left > 0 {
		return copyN(ctx, left, r, func(p []byte) error {
			_, err := c.Write(p)
			return err
		})
	}
	return nil
}

// copyN passes on n bytes of r.
func copyN(ctx context.Context, n int64, r io.Reader, pass func([]byte) error) error {
	buffer := make([]byte, pieceSize)
	for n > 0 && ctx.Err() == nil {
		k, err := r.Read(buffer[:min(n, pieceSize)])
		if k > 0 {
			if err := pass(buffer[:k]); err != nil {
				return err
			}
			n -= int64(k)
		}
		if n > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if n > 0 && err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Framed reads `len N`, after which so many bytes are the request, or the reply.
func Framed(line []byte) (size int64, is bool, err error) {
	words := bytes.Fields(line)
	if len(words) != 2 || string(words[0]) != "len" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(string(words[1]), 10, 62)
	if err != nil {
		return 0, true, fmt.Errorf("%.80q: a number of bytes is needed: %w", line, meta.Invalid)
	}
	return int64(n), true, nil
}
