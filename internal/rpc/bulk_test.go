package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/internal/trust"
)

// A hauler is a machine that serves the same by gRPC and in bulk.
type hauler struct {
	identity func(name string, rights trust.Rights) *trust.Keyring
	keys     *trust.Keyring
	addr     string
	port     *rpc.Port
	stop     func()
	bulk     atomic.Int32 // connections for bulk calls that came
}

type countedListener struct {
	net.Listener
	n *atomic.Int32
}

func (l countedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return conn, err
}

func startHauler(t *testing.T, services ...rpc.Service) *hauler {
	t.Helper()
	h := &hauler{identity: realm(t)}
	h.keys = h.identity("a", trust.Member)
	h.start(t, rpctest.Listen(t), services...)
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *hauler) start(t *testing.T, l net.Listener, services ...rpc.Service) {
	t.Helper()
	h.addr = l.Addr().String()
	protos := []string{rpc.HTTP2, rpc.Bulk}
	h.port = rpc.NewPort(l, h.keys.ServerConfig(protos...), slog.New(slog.DiscardHandler), protos...)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func() error{
		func() error { return h.port.Run(ctx) },
		func() error { return rpc.Serve(ctx, h.port.Listener(rpc.HTTP2), rpc.ServerConfig{}, services...) },
		func() error {
			return rpc.ServeBulk(ctx, countedListener{h.port.Listener(rpc.Bulk), &h.bulk}, services...)
		},
	} {
		wg.Go(func() {
			if err := run(); err != nil {
				t.Error(err)
			}
		})
	}
	h.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
}

// dial returns a client for which gRPC has connected already.
func (h *hauler) dial(t *testing.T, timeout time.Duration) *rpc.Client {
	t.Helper()
	return h.client(t, rpc.ClientConfig{Bulk: true, Timeout: timeout})
}

func (h *hauler) client(t *testing.T, config rpc.ClientConfig) *rpc.Client {
	t.Helper()
	config.TLS, config.Conns = h.identity("client", trust.Admin).ClientConfig("a", rpc.HTTP2), 1
	c := rpctest.Dial(t, h.addr, config)
	if _, _, err := haul(t.Context(), c.Call, "Echo", "", nil); err != nil {
		t.Fatal(err)
	}
	return c
}

type caller func(ctx context.Context, service, method string, req, resp *rpc.Frame) error

func haul(ctx context.Context, call caller, method, header string, payload []byte) (string, []byte, error) {
	var resp rpc.Frame
	if err := call(ctx, "test", method, &rpc.Frame{Header: []byte(header), Payload: rpc.Copy(payload)}, &resp); err != nil {
		return "", nil, err
	}
	defer resp.Free()
	return string(resp.Header), bytes.Clone(resp.Bytes()), nil
}

// echoes answers what it is asked, who asks, or not at all before it is let go.
func echoes(keys func() *trust.Keyring, let chan struct{}) rpc.Service {
	return rpc.Service{Name: "test", Calls: map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error){
		"Echo": func(_ context.Context, req *rpc.Frame) (*rpc.Frame, error) {
			return &rpc.Frame{Header: req.Header, Payload: rpc.Copy(req.Bytes())}, nil
		},
		"Who": func(ctx context.Context, _ *rpc.Frame) (*rpc.Frame, error) {
			state, ok := rpc.PeerState(ctx)
			if !ok {
				return nil, errors.New("nobody")
			}
			peer, err := keys().Peer(state)
			return &rpc.Frame{Header: []byte(peer.Name)}, err
		},
		"Refuse": func(context.Context, *rpc.Frame) (*rpc.Frame, error) { return nil, errors.New("not today") },
		"Wait": func(ctx context.Context, _ *rpc.Frame) (*rpc.Frame, error) {
			select {
			case <-let:
				return &rpc.Frame{Header: []byte("late")}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}}
}

func TestBulk(t *testing.T) {
	var h *hauler
	h = startHauler(t, echoes(func() *trust.Keyring { return h.keys }, nil))
	c := h.dial(t, 0)
	for _, size := range []int{0, 1, 4096, 1 << 20, rpc.MaxPayload} {
		want := bytes.Repeat([]byte{7}, size)
		if header, got, err := haul(t.Context(), c.Bulk, "Echo", "h", want); err != nil || header != "h" || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %q, %d bytes, %v", size, header, len(got), err)
		}
	}
	if name, _, err := haul(t.Context(), c.Bulk, "Who", "", nil); err != nil || name != "client" {
		t.Errorf("who asks is %q, %v", name, err)
	}
	for _, method := range []string{"Refuse", "Nothing"} {
		if _, _, err := haul(t.Context(), c.Bulk, method, "", nil); !errors.Is(err, rpc.ErrRefused) {
			t.Errorf("%s: %v", method, err)
		}
	}
	if _, _, err := haul(t.Context(), c.Bulk, "Echo", "", make([]byte, rpc.MaxPayload+1)); !errors.Is(err, rpc.ErrRefused) {
		t.Errorf("more than a payload has: %v", err)
	}
	if _, _, err := haul(t.Context(), c.Bulk, "Echo", "", []byte("x")); err != nil {
		t.Error(err)
	}
	// One after the other they need one connection; the one too large has cost one.
	if n := h.bulk.Load(); n > 2 {
		t.Errorf("%d connections were made", n)
	}
	var wg sync.WaitGroup
	for i := range 64 { // more than there may be connections
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte(i)}, 100_000)
			for range 10 {
				if _, got, err := haul(t.Context(), c.Bulk, "Echo", "", want); err != nil || !bytes.Equal(got, want) {
					t.Errorf("one of many: %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	if n := h.bulk.Load(); n < 2 || n > 10 {
		t.Errorf("%d connections for many calls at once", n)
	}
}

// TestBulkEnds: a caller that gives up is not held, and what it waited for does
// not come to the next.
func TestBulkEnds(t *testing.T) {
	let := make(chan struct{})
	h := startHauler(t, echoes(nil, let))
	c := h.dial(t, time.Second)
	if _, _, err := haul(t.Context(), c.Bulk, "Wait", "", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("longer than a call may take: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	if _, _, err := haul(ctx, c.Bulk, "Wait", "", nil); !errors.Is(err, why) {
		t.Errorf("given up: %v", err)
	}
	close(let)
	for range 20 {
		if header, _, err := haul(t.Context(), c.Bulk, "Echo", "mine", nil); err != nil || header != "mine" {
			t.Fatalf("%q, %v", header, err)
		}
	}
}

// TestBulkRestart: connections that have died while nobody used them cost no call.
func TestBulkRestart(t *testing.T) {
	let := make(chan struct{})
	close(let)
	service := echoes(nil, let)
	h := startHauler(t, service)
	c := h.dial(t, 5*time.Second)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, _, err := haul(t.Context(), c.Bulk, "Echo", "", make([]byte, 1<<20)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.stop()
	if _, _, err := haul(t.Context(), c.Bulk, "Echo", "", nil); !errors.Is(err, rpc.ErrDown) {
		t.Errorf("nobody serves: %v", err)
	}
	l, err := net.Listen("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	h.start(t, l, service)
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, _, err := haul(t.Context(), c.Call, "Echo", "", nil)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for i := range 8 {
		if _, _, err := haul(t.Context(), c.Bulk, "Echo", "", []byte("x")); err != nil {
			t.Errorf("call %d after a restart: %v", i, err)
		}
	}
}

// TestBulkDropped: whoever is turned out is turned out here too.
func TestBulkDropped(t *testing.T) {
	let := make(chan struct{})
	defer close(let)
	h := startHauler(t, echoes(nil, let))
	c := h.dial(t, 10*time.Second)
	failed := make(chan error, 1)
	go func() {
		_, _, err := haul(t.Context(), c.Bulk, "Wait", "", nil)
		failed <- err
	}()
	for h.bulk.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	h.port.Drop(func(tls.ConnectionState) bool { return true })
	if err := <-failed; !errors.Is(err, rpc.ErrDown) {
		t.Errorf("a call over a dropped connection: %v", err)
	}
}

// TestBulkGarbage: what is no message ends its connection, and nothing else.
func TestBulkGarbage(t *testing.T) {
	h := startHauler(t, echoes(nil, nil))
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\n\r\n",
		"\xff\xff\xff\xff and more",
		"\x00\x00\x00\x05hello, but sealed by nobody",
		"\x00\x00\x00\x00................",
	} {
		for _, byTLS := range []bool{false, true} {
			conn, err := tls.Dial("tcp", h.addr, h.identity("client", trust.Admin).ClientConfig("a", rpc.Bulk))
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			var wire net.Conn = conn
			if !byTLS {
				wire = conn.NetConn()
			}
			if _, err := io.WriteString(wire, garbage); err != nil {
				t.Error(err)
			}
			if text, err := io.ReadAll(conn.NetConn()); len(text) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%q was answered: %q, %v", garbage, text, err)
			}
			conn.NetConn().Close()
		}
	}
	if _, _, err := haul(t.Context(), h.dial(t, 0).Bulk, "Echo", "", nil); err != nil {
		t.Error(err)
	}
}

// TestBulkInto: an answer comes where it is wanted, and not where it has no room.
func TestBulkInto(t *testing.T) {
	h := startHauler(t, echoes(nil, nil))
	c := h.dial(t, 0)
	for name, call := range map[string]caller{"bulk": c.Bulk, "instead": h.client(t, rpc.ClientConfig{}).Bulk} {
		into := func(room int) ([]byte, error) {
			p := make([]byte, room)
			resp := rpc.Frame{Into: p}
			err := call(t.Context(), "test", "Echo", &rpc.Frame{Payload: rpc.Own([]byte("payload"))}, &resp)
			resp.Free()
			if err == nil && (len(resp.Into) > room || &resp.Into[0] != &p[0]) {
				t.Errorf("%s: it is elsewhere", name)
			}
			return resp.Into, err
		}
		for _, room := range []int{7, 100} {
			if got, err := into(room); string(got) != "payload" || err != nil {
				t.Errorf("%s: into %d bytes: %q, %v", name, room, got, err)
			}
		}
		if _, err := into(6); !errors.Is(err, rpc.ErrRefused) {
			t.Errorf("%s: without room: %v", name, err)
		}
	}
}

// TestBulkLeft: whose caller leaves loses no connection, and what he asked for is
// nobody's answer.
func TestBulkLeft(t *testing.T) {
	const rounds = 30
	h := startHauler(t, echoes(nil, make(chan struct{})))
	c := h.dial(t, 5*time.Second)
	for i := range rounds {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if header, _, err := haul(ctx, c.Bulk, "Wait", "", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%q, %v", header, err)
		}
		cancel()
		if header, _, err := haul(t.Context(), c.Bulk, "Echo", "mine", nil); err != nil || header != "mine" {
			t.Fatalf("%d: %q, %v", i, header, err)
		}
	}
	if made := h.bulk.Load(); made > rounds/2 {
		t.Errorf("%d connections for %d calls that were left", made, rounds)
	}
}

// TestBulkLeftLate: the same while the answer arrives. It goes on into the caller's
// memory for as long as he waits for it, and no longer.
func TestBulkLeftLate(t *testing.T) {
	const size = 4 << 20
	service := echoes(nil, nil)
	service.Calls["Large"] = func(context.Context, *rpc.Frame) (*rpc.Frame, error) {
		return &rpc.Frame{Payload: rpc.Own(bytes.Repeat([]byte{7}, size))}, nil
	}
	h := startHauler(t, service)
	c := h.dial(t, 5*time.Second)
	for i := range 200 {
		into := make([]byte, size)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
		left := c.Bulk(ctx, "test", "Large", new(rpc.Frame), &rpc.Frame{Into: into})
		cancel()
		copy(into, make([]byte, size))
		if header, _, err := haul(t.Context(), c.Bulk, "Echo", "mine", nil); err != nil || header != "mine" {
			t.Fatalf("after %v: %q, %v", left, header, err)
		}
		if len(bytes.TrimLeft(into, "\x00")) > 0 {
			t.Fatal("an answer came after its call had returned")
		}
	}
}

func TestWarm(t *testing.T) {
	h := startHauler(t, echoes(nil, nil))
	h.client(t, rpc.ClientConfig{Bulk: true, Warm: 2})
	for h.bulk.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
}
