package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
)

// echo answers a frame with itself, a header "fail" with an error; "wait" lasts
// until the caller is gone.
func echo() rpc.Service {
	return rpc.Service{
		Name: "test.echo",
		Calls: map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error){
			"Echo": func(ctx context.Context, req *rpc.Frame) (*rpc.Frame, error) {
				switch string(req.Header) {
				case "fail":
					return nil, errors.New("it failed")
				case "wait":
					<-ctx.Done()
				case "huge":
					return &rpc.Frame{Payload: rpc.Own(make([]byte, rpc.MaxPayload+1))}, nil
				}
				return &rpc.Frame{Header: req.Header, Payload: req.Take()}, nil
			},
		},
		Streams: map[string]func(*rpc.Stream) error{
			"Stream": func(s *rpc.Stream) error {
				for {
					var f rpc.Frame
					if err := s.Recv(&f); err == io.EOF {
						return nil
					} else if err != nil {
						return err
					}
					if err := s.Send(&rpc.Frame{Header: f.Header, Payload: f.Take()}); err != nil {
						return err
					}
				}
			},
		},
	}
}

func call(ctx context.Context, c *rpc.Client, header string, payload []byte) (string, []byte, error) {
	var resp rpc.Frame
	defer resp.Free()
	err := c.Call(ctx, "test.echo", "Echo", &rpc.Frame{Header: []byte(header), Payload: rpc.Copy(payload)}, &resp)
	return string(resp.Header), bytes.Clone(resp.Bytes()), err
}

func start(t *testing.T) (addr string, config rpc.ClientConfig, stop func()) {
	server, client := rpctest.TLS(t)
	l := rpctest.Listen(t)
	stop = rpctest.Serve(t, l, rpc.ServerConfig{TLS: server}, echo())
	return l.Addr().String(), rpc.ClientConfig{TLS: client}, stop
}

func wantOK(t *testing.T, c *rpc.Client) {
	t.Helper()
	if h, p, err := call(t.Context(), c, "hello", []byte("there")); h != "hello" || string(p) != "there" || err != nil {
		t.Errorf("echo = %q, %q, %v", h, p, err)
	}
}

func TestCall(t *testing.T) {
	addr, config, _ := start(t)
	c := rpctest.Dial(t, addr, config)
	big := bytes.Repeat([]byte("0123456789abcdef"), rpc.MaxPayload/16)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for _, payload := range [][]byte{nil, big[:1], big[:5000], big[:1<<20], big} {
				h, p, err := call(t.Context(), c, strings.Repeat("h", i), payload)
				if err != nil || len(h) != i || !bytes.Equal(p, payload) {
					t.Errorf("echo of %d bytes = %q, %d bytes, %v", len(payload), h, len(p), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestErrors(t *testing.T) {
	addr, config, stop := start(t)
	c := rpctest.Dial(t, addr, config)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for _, test := range []struct {
		name   string
		ctx    context.Context
		header string
		size   int
		want   error
		text   string
	}{
		{"refused by the service", t.Context(), "fail", 0, rpc.ErrRefused, "it failed"},
		{"request too large", t.Context(), "x", rpc.MaxPayload + 1, rpc.ErrRefused, "at most"},
		{"answer too large", t.Context(), "huge", 0, rpc.ErrRefused, "at most"},
		{"canceled", canceled, "x", 0, context.Canceled, addr},
		{"late", short, "wait", 0, context.DeadlineExceeded, addr},
	} {
		_, _, err := call(test.ctx, c, test.header, make([]byte, test.size))
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v, want %v with %q", test.name, err, test.want, test.text)
		}
		wantOK(t, c)
	}
	var resp rpc.Frame
	if err := c.Call(t.Context(), "test.echo", "Nothing", new(rpc.Frame), &resp); !errors.Is(err, rpc.ErrRefused) {
		t.Errorf("unknown method: %v, want ErrRefused", err)
	}
	impatient := config
	impatient.Timeout = 20 * time.Millisecond
	if _, _, err := call(t.Context(), rpctest.Dial(t, addr, impatient), "wait", nil); !rpc.Down(err) {
		t.Errorf("no answer within the client's timeout: %v, want it to be down", err)
	}
	stop()
	if _, _, err := call(t.Context(), c, "x", nil); !errors.Is(err, rpc.ErrDown) || !strings.Contains(err.Error(), addr) {
		t.Errorf("nobody there: %v, want ErrDown with the address", err)
	}
}

func TestStream(t *testing.T) {
	addr, config, stop := start(t)
	c := rpctest.Dial(t, addr, config)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := c.Open(ctx, "test.echo", "Stream")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		want := bytes.Repeat([]byte{byte(i)}, i*1000)
		if err := s.Send(&rpc.Frame{Header: []byte{byte(i)}, Payload: rpc.Copy(want)}); err != nil {
			t.Fatal(err)
		}
		var f rpc.Frame
		if err := s.Recv(&f); err != nil || f.Header[0] != byte(i) || !bytes.Equal(f.Bytes(), want) {
			t.Fatalf("frame %d: %v", i, err)
		}
		f.Free()
	}
	stop() // does not wait for streams
	var f rpc.Frame
	if err := s.Recv(&f); !errors.Is(err, rpc.ErrDown) {
		t.Errorf("Recv when the server has stopped: %v, want ErrDown", err)
	}
	if err := s.Send(&rpc.Frame{}); err == nil {
		t.Error("Send when the server has stopped succeeded")
	}
}

// A server that stops answers what it is at.
func TestStop(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	l := rpctest.Listen(t)
	stop := rpctest.Serve(t, l, rpc.ServerConfig{Plain: true}, rpc.Service{
		Name: "test.slow",
		Calls: map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error){
			"Slow": func(context.Context, *rpc.Frame) (*rpc.Frame, error) {
				close(began)
				<-goOn
				return &rpc.Frame{Header: []byte("done")}, nil
			},
		},
	})
	c := rpctest.Dial(t, l.Addr().String(), rpc.ClientConfig{Plain: true})
	answered := make(chan error, 1)
	go func() {
		var resp rpc.Frame
		err := c.Call(t.Context(), "test.slow", "Slow", new(rpc.Frame), &resp)
		if err == nil && string(resp.Header) != "done" {
			err = errors.New(string(resp.Header))
		}
		answered <- err
	}()
	<-began
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	close(goOn)
	if err := <-answered; err != nil {
		t.Errorf("a call under way when the server stopped: %v", err)
	}
	<-stopped
}

// A connection that breaks is made again; what waited on it fails.
func TestCut(t *testing.T) {
	addr, config, _ := start(t)
	proxy := rpctest.NewProxy(t, addr)
	c := rpctest.Dial(t, proxy.Addr(), config)
	wantOK(t, c)
	for range 3 {
		s := established(t, c)
		failed := make(chan error, 1)
		go func() { failed <- s.Recv(new(rpc.Frame)) }()
		proxy.Cut()
		if err := <-failed; !errors.Is(err, rpc.ErrDown) {
			t.Errorf("a stream whose connection was cut: %v, want ErrDown", err)
		}
		again(t, c)
	}
}

// established opens a stream that has reached the server: one that has not is
// moved to a new connection when its own is cut, and lives on. A connection
// whose end has not been noticed yet is tried again.
func established(t *testing.T, c *rpc.Client) *rpc.Stream {
	t.Helper()
	for {
		s, err := c.Open(t.Context(), "test.echo", "Stream")
		if err == nil {
			err = s.Send(&rpc.Frame{Header: []byte("x")})
		}
		if err == nil {
			err = s.Recv(new(rpc.Frame))
		}
		if err == nil {
			return s
		}
		if !errors.Is(err, rpc.ErrDown) || t.Context().Err() != nil {
			t.Fatalf("a stream cannot be opened: %v", err)
		}
	}
}

// again calls until the connection is back.
func again(t *testing.T, c *rpc.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, _, err := call(ctx, c, "x", nil)
		if err == nil {
			return
		}
		if !errors.Is(err, rpc.ErrDown) {
			t.Fatalf("the connection does not come back: %v", err)
		}
	}
}

func TestTLSRequired(t *testing.T) {
	l := rpctest.Listen(t)
	if err := rpc.Serve(t.Context(), l, rpc.ServerConfig{}, echo()); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("served without TLS: %v", err)
	}
	if _, err := rpc.Dial("127.0.0.1:1", rpc.ClientConfig{}); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("dialled without TLS: %v", err)
	}
	addr, _, _ := start(t)
	_, stranger := rpctest.TLS(t) // of another authority
	for name, config := range map[string]rpc.ClientConfig{
		"stranger": {TLS: stranger},
		"plain":    {Plain: true},
		"old":      {TLS: &tls.Config{RootCAs: stranger.RootCAs, MaxVersion: tls.VersionTLS12}},
	} {
		if _, _, err := call(t.Context(), rpctest.Dial(t, addr, config), "x", nil); err == nil {
			t.Errorf("%s: was served", name)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	rpctest.Serve(t, l, rpc.ServerConfig{}, echo())
	wantOK(t, rpctest.Dial(t, "unix:"+path, rpc.ClientConfig{}))
}

// What is not a frame hurts nobody else.
func TestGarbage(t *testing.T) {
	l := rpctest.Listen(t)
	rpctest.Serve(t, l, rpc.ServerConfig{Plain: true}, echo())
	addr := l.Addr().String()
	c := rpctest.Dial(t, addr, rpc.ClientConfig{Plain: true})
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, garbage := range []string{
		"",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		strings.Repeat("\x00", 1<<20),
		preface,
		preface + strings.Repeat("\xff", 1<<20),
		preface + settings + "\xff\xff\xff\x00\x00\x00\x00\x00\x01", // 16 MiB of data on no stream
		preface + settings + "\x00\x00\x04\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff",
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		// It may be refused half way: how much was written does not matter.
		_, _ = io.WriteString(conn, garbage)
		conn.Close()
		wantOK(t, c)
	}
}
