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
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/exchange"
)

// patience is longer than anything takes that is not meant to hang.
const patience = 20 * time.Second

func TestTargets(t *testing.T) {
	for target, good := range map[string]bool{
		"tcp://h:1": true, "tcp://127.0.0.1:80/": true, "http://h": true, "http://h:8080/a/b?c=d": true, "http://[::1]:80/": true,
		"": false, "h:1": false, "tcp://h": false, "tcp://h:1/path": false, "tcp://h:1?q": false, "http://": false,
		"https://h:1": false, "http://user@h:1": false, "tcp://h:1 x": false,
	} {
		b, err := New(target, 1)
		if (err == nil) != good || err != nil && !errors.Is(err, meta.Invalid) {
			t.Errorf("%q: %v, good %v", target, err, good)
		}
		if b != nil {
			b.Close()
		}
	}
}

func TestFramed(t *testing.T) {
	for line, want := range map[string]struct {
		size int64
		is   bool
		bad  bool
	}{
		"len 5\n": {size: 5, is: true}, "len 0\n": {is: true}, "  len\t7 \n": {size: 7, is: true},
		"len 4611686018427387903\n": {size: 1<<62 - 1, is: true},
		"len 4611686018427387904\n": {is: true, bad: true},
		"len -1\n":                  {is: true, bad: true}, "len x\n": {is: true, bad: true},
		"len\n": {}, "len 5 6\n": {}, "length 5\n": {}, "": {}, "hello\n": {},
	} {
		size, is, err := Framed([]byte(line))
		if size != want.size || is != want.is || (err != nil) != want.bad {
			t.Errorf("%q: %d, %v, %v, want %+v", line, size, is, err, want)
		}
	}
}

// A desk is an exchange with one instance, whose calls go through a Relay.
type desk struct {
	t    *testing.T
	x    exchange.Exchange
	line *exchange.Line
	back atomic.Int64 // calls that the relay gave back, or failed
}

// newDesk has n calls at a time relayed to target.
func newDesk(t *testing.T, target string, n int) (*desk, *Relay) {
	t.Helper()
	b, err := New(target, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	d := &desk{t: t}
	anchor := d.x.Local(true)
	t.Cleanup(anchor.Close)
	if err := exchange.Anchor(anchor, "s", 1); err != nil {
		t.Fatal(err)
	}
	for range n {
		d.serve(b.Serve)
	}
	d.line = exchange.NewLine(d.x.Local(false))
	t.Cleanup(d.line.Close)
	return d, b
}

// serve does one call after the other.
func (d *desk) serve(do func(context.Context, *exchange.Incoming) error) {
	d.t.Helper()
	post, err := exchange.NewPost(d.x.Local(true), "s", 1, true)
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			in, err := post.Next(ctx)
			if err != nil {
				return
			}
			if err := do(ctx, in); err != nil {
				d.back.Add(1)
				_ = in.Fail(err)
			} else if !in.Over() {
				d.t.Error("a call has neither an error nor a reply")
			}
		}
	}()
	d.t.Cleanup(func() { cancel(); post.Close(); <-done })
}

// begin begins a call. If size is less than 0, nobody is told the request's.
func (d *desk) begin(request string, size int64) (*exchange.Call, error) {
	d.t.Helper()
	first := request[:min(len(request), exchange.FirstMax)]
	last := len(first) == len(request)
	c, answer, _ := d.line.Begin(d.t.Context(), exchange.Request{
		Service: "s", Instance: 1, Size: size, Data: []byte(first), Last: last, Wait: patience, Timeout: patience, Within: patience,
	})
	if answer.What != exchange.Taken {
		return nil, answer.Err
	}
	if !last {
		if _, err := c.Write(d.t.Context(), []byte(request[len(first):]), true); err != nil {
			return c, err
		}
	}
	return c, nil
}

// call makes a call, and returns what came of the reply.
func (d *desk) call(request string) (string, error) { return d.callSized(request, int64(len(request))) }

func (d *desk) callSized(request string, size int64) (string, error) {
	d.t.Helper()
	c, err := d.begin(request, size)
	if err != nil {
		return "", err
	}
	defer c.Abort()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	var all []byte
	for buf := make([]byte, 32<<10); ; {
		n, err := c.Read(ctx, buf)
		all = append(all, buf[:n]...)
		if err == io.EOF {
			return string(all), nil
		}
		if err != nil {
			return string(all), err
		}
	}
}

func (d *desk) says(request, want string) {
	d.t.Helper()
	got, err := d.call(request)
	if err != nil || got != want {
		d.t.Errorf("%.40q is answered %.40q (%d bytes), %v, want %.40q (%d)", request, got, len(got), err, want, len(want))
	}
}

func (d *desk) fails(request string, want meta.Kind, text string) {
	d.t.Helper()
	if got, err := d.call(request); !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		d.t.Errorf("%.40q is answered %.40q, %v, want %v with %q", request, got, err, want, text)
	}
}

// A talker is a tcp server: answer does one call on a connection, false closes that.
type talker struct {
	addr  string
	conns atomic.Int64 // that there were
	gone  chan error   // how each ended
}

func newTalker(t *testing.T, answer func(in *bufio.Reader, out net.Conn) bool) *talker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &talker{addr: l.Addr().String(), gone: make(chan error, 100)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			go func() {
				in := bufio.NewReader(conn)
				for answer(in, conn) {
				}
				conn.Close()
				s.gone <- nil
			}()
		}
	}()
	return s
}

// echo answers with what it was sent, as it was: a line, or framed.
func echo(in *bufio.Reader, out net.Conn) bool {
	line, err := in.ReadString('\n')
	if err != nil {
		return false
	}
	size, is, _ := Framed([]byte(line))
	if !is {
		fmt.Fprintf(out, "line %s", line)
		return true
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(in, body); err != nil {
		return false
	}
	body = append([]byte("framed "), body...)
	fmt.Fprintf(out, "len %d\n%s", len(body), body)
	return true
}

// A request that is a line goes as one, any other with its length, and connections are
// kept.
func TestTCP(t *testing.T) {
	s := newTalker(t, echo)
	d, _ := newDesk(t, "tcp://"+s.addr, 1)
	d.says("hello\n", "line hello\n")
	d.says("", "framed ")
	d.says("no newline", "framed no newline")
	d.says("two\nlines\n", "framed two\nlines\n")
	d.says("len 5\n", "framed len 5\n") // it would look like the beginning of another one
	d.says("len of it\n", "line len of it\n")
	long := strings.Repeat("x", LineMax-1) + "\n"
	d.says(long[:LineMax-6]+"\n", "line "+long[:LineMax-6]+"\n") // the reply is a line of LineMax
	large := strings.Repeat("0123456789abcde\n", 600<<10)        // more than any window
	d.says(large, "framed "+large)
	for _, size := range []int{1, exchange.FirstMax + 1, bufferMax} {
		if got, err := d.callSized(large[:size], -1); err != nil || got != "framed "+large[:size] {
			t.Errorf("a request of %d bytes whose length nobody knows: %d bytes, %v", size, len(got), err)
		}
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections for one call at a time, want 1", n)
	}
	if _, err := d.callSized(large[:bufferMax+1], -1); !errors.Is(err, meta.TooLarge) {
		t.Errorf("a request of unknown length of more than %d bytes: %v", bufferMax, err)
	}
	d.says("and on\n", "line and on\n")
}

// What is no proper reply is an error of the protocol, and the connection is not used again.
func TestTCPBadReplies(t *testing.T) {
	for name, test := range map[string]struct{ reply, text string }{
		"nothing":             {"", "closed without a reply"},
		"half a line":         {"hal", "closed without a reply"},
		"a line without end":  {strings.Repeat("x", LineMax+1), "longer than"},
		"a length that is no": {"len many\n", "len many"},
		"a reply that is cut": {"len 10\nhalf", "reply"},
		"nothing of a length": {"len 10\n", "reply"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTalker(t, func(in *bufio.Reader, out net.Conn) bool {
				if _, err := in.ReadString('\n'); err == nil {
					io.WriteString(out, test.reply)
				}
				return false
			})
			d, _ := newDesk(t, "tcp://"+s.addr, 1)
			d.fails("hello\n", meta.Protocol, test.text)
			d.fails("again\n", meta.Protocol, test.text)
			if n := s.conns.Load(); n != 2 {
				t.Errorf("%d connections for 2 calls that failed", n)
			}
		})
	}
}

// A connection on which the server has closed, or spoken, between two calls is not used
// for another one.
func TestTCPIdle(t *testing.T) {
	for _, extra := range []string{"", "nobody asked\n"} {
		s := newTalker(t, func(in *bufio.Reader, out net.Conn) bool {
			if _, err := in.ReadString('\n'); err != nil {
				return false
			}
			io.WriteString(out, "ok\n"+extra)
			return extra != "" // else it closes after each reply
		})
		d, b := newDesk(t, "tcp://"+s.addr, 1)
		for i := range 5 {
			d.says("hello\n", "ok\n")
			for end := time.Now().Add(patience); extra == "" && !hasQuit(b); {
				if time.Now().After(end) {
					t.Fatalf("call %d: the end of the connection does not come", i)
				}
			}
		}
		if n := s.conns.Load(); n != 5 {
			t.Errorf("%d connections, want one for each of 5 calls (%q)", n, extra)
		}
	}
}

// hasQuit reports whether the server has ended the connection that is kept.
func hasQuit(b *Relay) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.idle) == 0 || !b.idle[len(b.idle)-1].quiet()
}

// Who called gives up: the server's connection ends, and the next call has another one.
func TestGivenUp(t *testing.T) {
	began, over := make(chan struct{}, 10), make(chan struct{}, 10)
	tcp := newTalker(t, func(in *bufio.Reader, out net.Conn) bool {
		line, err := in.ReadString('\n')
		if err != nil || line == "quick\n" {
			io.WriteString(out, "done\n")
			return err == nil
		}
		began <- struct{}{}
		if _, err = in.ReadByte(); err != nil {
			over <- struct{}{}
		}
		return false
	})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if line, _ := io.ReadAll(r.Body); string(line) == "quick\n" {
			io.WriteString(w, "done\n")
			return
		}
		began <- struct{}{}
		<-r.Context().Done()
		over <- struct{}{}
	}))
	t.Cleanup(web.Close)
	for _, target := range []string{"tcp://" + tcp.addr, web.URL} {
		d, _ := newDesk(t, target, 1)
		d.says("quick\n", "done\n")
		c, err := d.begin("slow\n", 5)
		if err != nil {
			t.Fatal(err)
		}
		await(t, began)
		c.Abort()
		await(t, over)
		d.says("quick\n", "done\n")
	}
}

func await(t *testing.T, c chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal("it does not come")
	}
}

// nobody is an address at which nobody listens.
func nobody(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A call for a server that cannot be connected to is given back, not begun: who called
// may have another instance do it.
func TestUnfit(t *testing.T) {
	for _, scheme := range []string{"tcp://", "http://"} {
		d, _ := newDesk(t, scheme+nobody(t), 1)
		for range 3 {
			c, answer, _ := d.line.Begin(t.Context(), exchange.Request{Service: "s", Instance: 1, Last: true, Wait: patience, Timeout: patience, Within: patience})
			if answer.What != exchange.Absent || !errors.Is(answer.Err, meta.Refused) || !strings.Contains(answer.Err.Error(), "does not answer") {
				t.Errorf("%s: %v, %v", scheme, answer.What, answer.Err)
			}
			if c != nil {
				c.Abort()
			}
		}
		if n := d.back.Load(); n != 0 {
			t.Errorf("%s: %d of 3 calls failed, and were not given back", scheme, n)
		}
	}
}

func TestHTTP(t *testing.T) {
	var conns atomic.Int64
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		switch r.URL.Path {
		case "/fail":
			http.Error(w, "no such picture", http.StatusNotFound)
		case "/away":
			http.Redirect(w, r, "/up", http.StatusTemporaryRedirect)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		default:
			fmt.Fprintf(w, "%s %s %s %d: %s", r.Method, r.URL, r.Header.Get("Content-Type"), r.ContentLength, bytes.ToUpper(body))
		}
	}))
	web.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	web.Start()
	t.Cleanup(web.Close)
	d, _ := newDesk(t, web.URL+"/up?x=1", 1)
	const head = "POST /up?x=1 application/octet-stream "
	d.says("hello\n", head+"6: HELLO\n")
	d.says("", head+"0: ")
	large := strings.Repeat("0123456789abcde\n", 200<<10)
	d.says(large, fmt.Sprintf("%s%d: %s", head, len(large), strings.ToUpper(large)))
	if got, err := d.callSized("who knows", -1); err != nil || got != head+"-1: WHO KNOWS" {
		t.Errorf("a request whose length nobody knows: %q, %v", got, err)
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for one call at a time, want 1", n)
	}
	for path, want := range map[string]string{"/fail": "404 Not Found: no such picture", "/away": "307", "/cut": "reply"} {
		d, _ := newDesk(t, web.URL+path, 1)
		d.fails("hello\n", meta.Protocol, want)
	}
	d, _ = newDesk(t, web.URL+"/empty", 1)
	d.says("hello\n", "")
}

// So many calls at a time as there are workers, on so many connections; what is not in use
// ends with the relay.
func TestWorkers(t *testing.T) {
	const n = 4
	inside := make(chan struct{}, n)
	hold := make(chan struct{})
	s := newTalker(t, func(in *bufio.Reader, out net.Conn) bool {
		line, err := in.ReadString('\n')
		if err != nil {
			return false
		}
		inside <- struct{}{}
		<-hold
		io.WriteString(out, line)
		return true
	})
	d, b := newDesk(t, "tcp://"+s.addr, n)
	results := make(chan error, n)
	for i := range n {
		line := exchange.NewLine(d.x.Local(false))
		t.Cleanup(line.Close)
		go func() {
			one := &desk{t: t, line: line}
			want := fmt.Sprintf("call %d\n", i)
			got, err := one.call(want)
			if err == nil && got != want {
				err = fmt.Errorf("%q is answered %q", want, got)
			}
			results <- err
		}()
	}
	for range n {
		await(t, inside)
	}
	close(hold)
	for range n {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if got := s.conns.Load(); got != n {
		t.Errorf("%d connections for %d calls at a time", got, n)
	}
	b.Close()
	for range n {
		select {
		case <-s.gone:
		case <-time.After(patience):
			t.Fatal("a connection outlives the relay")
		}
	}
}
