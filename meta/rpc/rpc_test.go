package rpc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/replica"
	"dos/meta/state"
	"dos/meta/trust"
)

// connect serves h over TLS and returns a client of it.
func connect(t testing.TB, h Handler) *Client {
	server, config := rpctest.TLS(t)
	l := rpctest.Listen(t)
	rpctest.Serve(t, l, rpc.ServerConfig{TLS: server}, Serve(h))
	c := NewClient(dialer(rpc.ClientConfig{TLS: config}), l.Addr().String())
	t.Cleanup(c.Close)
	return c
}

func dialer(c rpc.ClientConfig) func(addr string) (*rpc.Client, error) {
	return func(addr string) (*rpc.Client, error) { return rpc.Dial(addr, c) }
}

func TestConformance(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		metatest.Run(t, func(t *testing.T) client.Sender { return connect(t, metatest.NewMemory(node.Machine())) })
	})
	t.Run("member", func(t *testing.T) {
		metatest.Run(t, func(t *testing.T) client.Sender { return connect(t, single(t)) })
	})
}

func single(t testing.TB) *node.Node {
	n, err := node.Open(replica.Config{Dir: t.TempDir(), ID: "a", Bootstrap: true, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return n
}

// A handlerFunc is a Handler.
type handlerFunc func(ctx context.Context, cmd state.Command) (state.Reply, error)

func (f handlerFunc) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	return f(ctx, cmd)
}

// Every kind arrives as itself with its text, in a reply and as an error.
func TestKinds(t *testing.T) {
	var kind meta.Kind
	var fail bool
	c := connect(t, handlerFunc(func(context.Context, state.Command) (state.Reply, error) {
		if fail {
			return state.Reply{}, fmt.Errorf("it failed: %w", kind)
		}
		return state.Reply{Kind: kind, Text: "it said: " + kind.Error()}, nil
	}))
	for _, kind = range meta.Kinds() {
		fail = false
		reply, err := c.Do(t.Context(), state.Command{Op: 1})
		if err != nil || reply.Kind != kind || !errors.Is(reply.Err(), kind) || reply.Text != "it said: "+kind.Error() {
			t.Errorf("reply of kind %d arrived as %+v, %v", kind, reply, err)
		}
		fail = true
		_, err = c.Do(t.Context(), state.Command{Op: 1})
		if !errors.Is(err, kind) || !strings.Contains(err.Error(), "it failed") {
			t.Errorf("error of kind %d arrived as %v", kind, err)
		}
	}
}

// What a command is made of arrives, and bodies of any size.
func TestCommand(t *testing.T) {
	var got state.Command
	c := connect(t, handlerFunc(func(_ context.Context, cmd state.Command) (state.Reply, error) {
		got = cmd
		switch cmd.Op {
		case 2:
			return state.Reply{Body: make([]byte, payloadMax+1)}, nil
		case 3:
			return state.Reply{}, errors.New("without a kind")
		}
		return state.Reply{Body: cmd.Body}, nil
	}))
	for _, size := range []int{0, 1, 512 << 10, payloadMax} {
		want := state.Command{Op: 0x1234, Session: 1 << 60, Slot: 255, Seq: 1 << 50, Body: make([]byte, size)}
		for i := range want.Body {
			want.Body[i] = byte(i * 7)
		}
		reply, err := c.Do(t.Context(), want)
		if err != nil || string(reply.Body) != string(want.Body) {
			t.Errorf("%d bytes came back as %d, %v", size, len(reply.Body), err)
		}
		if got.Op != want.Op || got.Session != want.Session || got.Slot != want.Slot || got.Seq != want.Seq || string(got.Body) != string(want.Body) {
			t.Errorf("command arrived as %+v", got)
		}
	}
	if _, err := c.Do(t.Context(), state.Command{Op: 1, Body: make([]byte, payloadMax+1)}); !errors.Is(err, meta.TooLarge) {
		t.Errorf("a request too large = %v, want TooLarge", err)
	}
	if reply, err := c.Do(t.Context(), state.Command{Op: 2}); err != nil || reply.Kind != meta.TooLarge {
		t.Errorf("an answer too large = %v, %v, want TooLarge", reply.Kind, err)
	}
	if _, err := c.Do(t.Context(), state.Command{Op: 3}); !errors.Is(err, meta.Unavailable) {
		t.Errorf("an error without a kind = %v, want Unavailable", err)
	}
}

// A slow request does not hold up the others, and one that was given up does
// not disturb them.
func TestManyInFlight(t *testing.T) {
	block := make(chan struct{})
	began := make(chan struct{}, 1)
	c := connect(t, handlerFunc(func(ctx context.Context, cmd state.Command) (state.Reply, error) {
		if cmd.Op == 1 {
			began <- struct{}{}
			<-block
		}
		return state.Reply{Body: cmd.Body}, nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := c.Do(ctx, state.Command{Op: 1})
		gone <- err
	}()
	<-began
	check := func() {
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				want := fmt.Sprint(i)
				if reply, err := c.Do(t.Context(), state.Command{Op: 2, Body: []byte(want)}); err != nil || string(reply.Body) != want {
					t.Errorf("request %s was answered %q, %v", want, reply.Body, err)
				}
			})
		}
		wg.Wait()
	}
	check()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("a request that was given up = %v, want Canceled", err)
	}
	close(block)
	check()
}

// Under a proxy that cuts connections in the middle of requests each is executed
// exactly once, in the order its caller sent them.
func TestOnceUnderCuts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const bump, open state.Op = 0x0f01, 0x0f02
	type count struct {
		Caller, N int
	}
	// Each caller has a counter, which it asks to go from n to n + 1.
	counts := make(map[int]int)
	m := new(state.Machine)
	state.Handle(m, open, "open", func(*state.Tx, struct{}) (struct{}, error) { return struct{}{}, nil })
	var executed atomic.Int64
	state.Handle(m, bump, "bump", func(_ *state.Tx, req count) (count, error) {
		executed.Add(1)
		if counts[req.Caller] != req.N {
			return count{}, fmt.Errorf("caller %d goes from %d, is at %d: %w", req.Caller, req.N, counts[req.Caller], meta.Conflict)
		}
		counts[req.Caller]++
		return count{req.Caller, counts[req.Caller]}, nil
	})
	service := metatest.NewMemory(m)
	l := rpctest.Listen(t)
	rpctest.Serve(t, l, rpc.ServerConfig{Plain: true}, Serve(service))
	proxy := rpctest.NewProxy(t, l.Addr().String())
	sender := NewClient(dialer(rpc.ClientConfig{Plain: true}), proxy.Addr())
	t.Cleanup(sender.Close)
	remote := client.NewRemote(sender, 1)

	const callers, each, cutEvery = 16, 150, 80
	done := make(chan struct{})
	var cuts int
	var cutter, wg sync.WaitGroup
	cutter.Go(func() { // cuts whenever so many commands more have arrived
		rng := rand.New(rand.NewPCG(seed, 0))
		next := cutEvery
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			if service.Commands() >= next {
				proxy.Cut()
				cuts++
				next += 1 + rng.IntN(2*cutEvery)
			}
		}
	})
	for c := range callers {
		wg.Go(func() {
			for n := range each {
				var got count
				if err := remote.Call(t.Context(), bump, count{c, n}, &got); err != nil || got.N != n+1 {
					t.Errorf("caller %d, request %d = %+v, %v", c, n, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(done)
	cutter.Wait()
	if n := executed.Load(); n != callers*each {
		t.Errorf("%d requests were executed, want %d", n, callers*each)
	}
	if cuts == 0 {
		t.Error("nothing was cut")
	}
	t.Logf("%d cuts, %d commands arrived for %d requests", cuts, service.Commands(), callers*each)
}

// Garbage on the port, in the frames or instead of them, hurts nobody else.
func TestGarbage(t *testing.T) {
	l := rpctest.Listen(t)
	rpctest.Serve(t, l, rpc.ServerConfig{Plain: true}, Serve(metatest.NewMemory(node.Machine())))
	addr := l.Addr().String()
	peer := rpctest.Dial(t, addr, rpc.ClientConfig{Plain: true})
	good := NewClient(dialer(rpc.ClientConfig{Plain: true}), addr)
	t.Cleanup(good.Close)
	alive := func(after string) {
		t.Helper()
		if reply, err := good.Do(t.Context(), state.Command{Op: 0x0241, Body: state.Marshal(struct{}{})}); err != nil || reply.Kind != 0 {
			t.Errorf("after %s: %+v, %v", after, reply, err)
		}
	}
	alive("nothing")
	for what, frame := range map[string]*rpc.Frame{
		"no header":      {},
		"garbage header": {Header: []byte("garbage")},
		"huge header":    {Header: make([]byte, rpc.MaxHeader+1)},
		"huge payload":   {Payload: rpc.Own(make([]byte, rpc.MaxPayload+1))},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := peer.Open(ctx, metaName, method)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Send(frame) // some are refused here already
		var f rpc.Frame
		if err := s.Recv(&f); err == nil {
			t.Errorf("%s was answered with %q", what, f.Header)
		}
		cancel()
		alive(what)
	}
	for _, garbage := range []string{strings.Repeat("\xff", 1<<20), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00", 100)} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		// It may be refused half way: how much was written does not matter.
		_, _ = io.WriteString(conn, garbage)
		conn.Close()
		alive("bytes that are no connection")
	}
}

// A change here is a change of format: numbers may be added, none changed.
func TestGolden(t *testing.T) {
	for _, test := range []struct {
		v    any
		want string
	}{
		{request{Number: 1, Op: 0x102, Session: 3, Slot: 4, Seq: 5}, "a5010102190102030304040505"},
		{answer{Number: 1, Kind: meta.Exist, Text: "t", Failed: true}, "a401010202036174" + "04f5"},
		{whereabouts{Me: true, Addr: "h:1"}, "a201f502" + "63683a31"},
	} {
		if got := hex.EncodeToString(rpc.Encode(test.v)); got != test.want {
			t.Errorf("%+v is\n%s, want\n%s", test.v, got, test.want)
		}
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add(rpc.Encode(request{Number: 1, Op: 0x101, Session: 3, Slot: 4, Seq: 5}), []byte{0xa0})
	f.Add([]byte{0xff}, []byte{0x9f})
	machine := node.Machine()
	f.Fuzz(func(t *testing.T, header, body []byte) {
		var req request
		if rpc.Decode(header, &req) == nil {
			frame := execute(context.Background(), metatest.NewMemory(machine), req, body)
			var ans answer
			if err := rpc.Decode(frame.Header, &ans); err != nil || ans.Number != req.Number {
				t.Errorf("request %+v was answered %+v, %v", req, ans, err)
			}
		}
		var ans answer
		_ = rpc.Decode(header, &ans)
	})
}

func BenchmarkQuery(b *testing.B) {
	c := connect(b, handlerFunc(func(_ context.Context, cmd state.Command) (state.Reply, error) {
		return state.Reply{Body: cmd.Body}, nil
	}))
	body := make([]byte, 100)
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Do(b.Context(), state.Command{Op: 0x40, Body: body}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("64", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := c.Do(context.Background(), state.Command{Op: 0x40, Body: body}); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// What carries a key does not even reach the handler.
func TestSecrets(t *testing.T) {
	c := connect(t, handlerFunc(func(_ context.Context, cmd state.Command) (state.Reply, error) {
		if trust.Secret(cmd.Op) {
			t.Errorf("operation %#04x came over a connection", uint16(cmd.Op))
		}
		return state.Reply{}, nil
	}))
	for _, op := range []state.Op{trust.OpSigner, trust.OpSetAuthorities} {
		if _, err := c.Do(t.Context(), state.Command{Op: op}); !errors.Is(err, meta.Permission) {
			t.Errorf("operation %#04x: %v", uint16(op), err)
		}
	}
	if _, err := c.Do(t.Context(), state.Command{Op: trust.OpAuthorities}); err != nil {
		t.Errorf("the authorities are no secret: %v", err)
	}
}
