package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
	"dos/meta/call"
	"dos/meta/client"
	"dos/meta/exchange"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/state"
)

// ways leads to exchanges in this process, of which some are cut off.
type ways struct {
	mu    sync.Mutex
	there map[string]*exchange.Exchange // guarded by mu
	own   string
}

func (w *ways) Open(_ context.Context, at call.Instance, work bool) (exchange.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.there[at.At]
	if x == nil {
		return nil, fmt.Errorf("%q: %w", at.At, meta.HostDown)
	}
	return x.Local(work), nil
}

func (w *ways) Where(_ context.Context, not string) (string, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.own != "" {
		return w.own, "", nil
	}
	for name := range w.there {
		if name != not {
			return name, "", nil
		}
	}
	return "", "", meta.HostDown
}

// rpcWorld is machines with a server each, and one that calls.
type rpcWorld struct {
	t      *testing.T
	meta   *metatest.Memory
	all    map[string]*exchange.Exchange
	dialer *client.Dialer
	reach  *ways // the dialer's
}

func newRPCWorld(t *testing.T) *rpcWorld {
	w := &rpcWorld{t: t, meta: metatest.NewMemory(node.Machine()), all: make(map[string]*exchange.Exchange)}
	w.reach = &ways{there: make(map[string]*exchange.Exchange)}
	w.dialer = client.NewDialer(client.Direct(w.meta, 0), w.reach, "test")
	t.Cleanup(w.dialer.Close)
	if err := w.dialer.Make(t.Context(), call.Make{Name: "s", Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	return w
}

// server runs one on a machine, until it is stopped.
func (w *rpcWorld) server(machine string) (s *client.Server, stop func()) {
	w.t.Helper()
	x := new(exchange.Exchange)
	w.all[machine], w.reach.there[machine] = x, x
	info, err := client.Session{Caller: client.Direct(w.meta, 0)}.Open(w.t.Context(), "test", machine, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	s = client.NewServer(client.Always(client.Direct(w.meta, info.ID), info.ID), &ways{there: w.all, own: machine}, machine)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		_ = s.Run(ctx)
		close(done)
	}()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return s, stop
}

func (w *rpcWorld) start(s *client.Server, n int, do client.Handler) *client.Started {
	w.t.Helper()
	started, err := s.Start(w.t.Context(), "s", client.Who{}, n, do)
	if err != nil {
		w.t.Fatal(err)
	}
	return started
}

func upper(ctx context.Context, in *exchange.Incoming) error {
	request, err := in.ReadAll(ctx, 64<<20)
	if err != nil {
		return err
	}
	return in.Reply(ctx, bytes.ToUpper(request))
}

func TestRPC(t *testing.T) {
	w := newRPCWorld(t)
	if _, err := w.dialer.Call(t.Context(), "none", nil); !errors.Is(err, meta.NotExist) {
		t.Errorf("no service: %v", err)
	}
	if _, err := w.dialer.Call(t.Context(), "s", nil); !errors.Is(err, meta.Refused) {
		t.Errorf("nobody serves: %v", err)
	}
	s, _ := w.server("a")
	started := w.start(s, 2, upper)
	for _, request := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("abc"), 1<<20)} {
		reply, err := w.dialer.Call(t.Context(), "s", request)
		if err != nil || !bytes.Equal(reply, bytes.ToUpper(request)) {
			t.Errorf("%d bytes are answered by %d, %v", len(request), len(reply), err)
		}
	}
	started.Stop()
	if _, err := w.dialer.Call(t.Context(), "s", nil); !errors.Is(err, meta.Refused) {
		t.Errorf("nobody serves any more: %v", err)
	}
	w.start(s, 1, func(context.Context, *exchange.Incoming) error { return fmt.Errorf("mine: %w", meta.NotEmpty) })
	if _, err := w.dialer.Call(t.Context(), "s", nil); !errors.Is(err, meta.NotEmpty) {
		t.Errorf("who served fails: %v", err)
	}
}

// A call goes to who is free.
func TestRPCBalance(t *testing.T) {
	w := newRPCWorld(t)
	a, _ := w.server("a")
	b, _ := w.server("b")
	hold, held := make(chan struct{}), make(chan string, 10)
	slow := func(name string) client.Handler {
		return func(ctx context.Context, in *exchange.Incoming) error {
			in.Accept()
			held <- name
			<-hold
			return in.Reply(ctx, []byte(name))
		}
	}
	w.start(a, 4, slow("a"))
	w.start(b, 4, slow("b"))
	var g sync.WaitGroup
	count := map[string]int{}
	for range 8 {
		g.Go(func() {
			if _, err := w.dialer.Call(t.Context(), "s", nil); err != nil {
				t.Error(err)
			}
		})
		count[<-held]++
	}
	if count["a"] != 4 || count["b"] != 4 {
		t.Errorf("of 8 calls went %v", count)
	}
	// All are busy: one more waits, for a time.
	short, late := 50*time.Millisecond, new(bool)
	if err := w.dialer.Set(t.Context(), call.Set{Name: "s", Timeout: &short}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.dialer.Open(t.Context(), "s", nil, true, 0, client.Calling{Fresh: true}); !errors.Is(err, meta.TimedOut) {
		t.Errorf("all are busy: %v, %v", err, *late)
	}
	close(hold)
	g.Wait()
	count = map[string]int{}
	for _, balance := range []call.Balance{call.RoundRobin, call.Random} {
		if err := w.dialer.Set(t.Context(), call.Set{Name: "s", Balance: &balance}); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			c, err := w.dialer.Open(t.Context(), "s", nil, true, 0, client.Calling{Fresh: true})
			if err != nil {
				t.Fatal(err)
			}
			count[<-held]++
			c.Close()
		}
		if count["a"] == 0 || count["b"] == 0 || balance == call.RoundRobin && max(count["a"], count["b"]) > 25 { // one that is not ready again yet is passed over
			t.Errorf("by %s: %v", call.Balances[balance], count)
		}
	}
}

// What cannot be reached, or says that it is not fit, is passed over; what may have been
// begun is not sent again.
func TestRPCPassedOver(t *testing.T) {
	w := newRPCWorld(t)
	a, _ := w.server("a")
	b, _ := w.server("b")
	c, _ := w.server("c")
	w.start(a, 1, func(_ context.Context, in *exchange.Incoming) error {
		in.Return(fmt.Errorf("not now: %w", meta.Refused))
		return nil
	})
	w.start(b, 1, upper)
	w.start(c, 1, upper)
	w.reach.mu.Lock()
	delete(w.reach.there, "b")
	w.reach.mu.Unlock()
	for range 20 {
		if reply, err := w.dialer.Call(t.Context(), "s", []byte("x")); string(reply) != "X" || err != nil {
			t.Errorf("%q, %v", reply, err)
		}
	}
	// Without retries, the first failure is the last; then it is passed over.
	none, balance := 0, call.RoundRobin
	if err := w.dialer.Set(t.Context(), call.Set{Name: "s", Retries: &none, Balance: &balance}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.dialer.Call(t.Context(), "s", []byte("x")); err != nil {
		t.Errorf("with the bad ones known: %v", err)
	}
	var begun atomic.Int32
	d, _ := w.server("d")
	w.start(d, 4, func(context.Context, *exchange.Incoming) error {
		begun.Add(1)
		return nil // without a reply
	})
	failed := int32(0)
	for range 40 {
		if _, err := w.dialer.Open(t.Context(), "s", nil, true, 0, client.Calling{Fresh: true}); errors.Is(err, meta.Protocol) {
			failed++
		} else if err != nil {
			t.Error(err)
		}
	}
	if n := begun.Load(); n == 0 || n < failed {
		t.Errorf("%d calls were begun, %d failed", n, failed)
	}
}

// When the machine where a server waits is gone, it waits elsewhere.
func TestRPCElsewhere(t *testing.T) {
	w := newRPCWorld(t)
	x, y := new(exchange.Exchange), new(exchange.Exchange)
	info, err := client.Session{Caller: client.Direct(w.meta, 0)}.Open(t.Context(), "test", "m", 0)
	if err != nil {
		t.Fatal(err)
	}
	mine := &ways{there: map[string]*exchange.Exchange{"x": x}}
	conns := &closing{ways: mine}
	s := client.NewServer(client.Always(client.Direct(w.meta, info.ID), info.ID), conns, "m")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = s.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	w.start(s, 3, upper)
	w.reach.there = map[string]*exchange.Exchange{"x": x, "y": y}
	if _, err := w.dialer.Call(t.Context(), "s", nil); err != nil {
		t.Fatal(err)
	}
	mine.mu.Lock()
	mine.there = map[string]*exchange.Exchange{"y": y}
	mine.mu.Unlock()
	conns.cut()
	for late := time.Now().Add(10 * time.Second); ; {
		if st, err := w.dialer.Status(t.Context(), "s"); err != nil {
			t.Fatal(err)
		} else if len(st.Instances) == 1 && st.Instances[0].At == "y" {
			break
		}
		if time.Now().After(late) {
			t.Fatal("it does not wait elsewhere")
		}
		time.Sleep(time.Millisecond) // between two looks
	}
	for late := time.Now().Add(10 * time.Second); ; {
		reply, err := w.dialer.Call(t.Context(), "s", []byte("x"))
		if string(reply) == "X" {
			break
		}
		if time.Now().After(late) {
			t.Fatalf("%q, %v", reply, err)
		}
	}
}

// closing can cut all connections.
type closing struct {
	*ways
	mu   sync.Mutex
	open []exchange.Conn // guarded by mu
}

func (c *closing) Open(ctx context.Context, at call.Instance, work bool) (exchange.Conn, error) {
	conn, err := c.ways.Open(ctx, at, work)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.open = append(c.open, conn)
	}
	return conn, err
}

func (c *closing) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.Close()
	}
}

// Next has one call at a time, and its instance outlives it for a moment only.
func TestRPCNext(t *testing.T) {
	w := newRPCWorld(t)
	s, _ := w.server("a")
	if _, err := s.Next(t.Context(), "s", client.Who{}, false); !errors.Is(err, meta.WouldWait) {
		t.Errorf("%v", err)
	}
	if _, err := s.Next(t.Context(), "none", client.Who{}, true); !errors.Is(err, meta.NotExist) {
		t.Errorf("no service: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx, "s", client.Who{}, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	replies := make(chan string, 1)
	go func() {
		for {
			reply, err := w.dialer.Call(t.Context(), "s", []byte("x"))
			if errors.Is(err, meta.Refused) {
				continue
			}
			replies <- fmt.Sprint(string(reply), err)
			return
		}
	}()
	in, err := s.Next(t.Context(), "s", client.Who{UID: 5, PID: 6}, true)
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Reply(t.Context(), []byte("y"))
	in.Done(true)
	if got := <-replies; got != "y<nil>" {
		t.Error(got)
	}
	for late := time.Now().Add(10 * time.Second); ; {
		st, err := w.dialer.Status(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Instances) == 0 {
			break
		}
		if time.Now().After(late) {
			t.Fatalf("%+v", st)
		}
	}
}

// A stalled service does not answer as long as somebody has it.
type stalled struct {
	client.Sender
	turn chan struct{} // has room for one
}

func (s *stalled) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	return s.Sender.Do(ctx, cmd)
}

// Who serves one call after the other, and cannot come back because the metadata service does
// not answer, was there all the time when it does; and not if he does not come then.
func TestRPCLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRPCWorld(t)
		slow := &stalled{Sender: w.meta, turn: make(chan struct{}, 1)}
		x := new(exchange.Exchange)
		w.reach.there["a"] = x
		info, err := client.Session{Caller: client.Direct(w.meta, 0)}.Open(t.Context(), "test", "a", 0)
		if err != nil {
			t.Fatal(err)
		}
		s := client.NewServer(client.Always(client.Direct(slow, info.ID), info.ID), &ways{there: w.reach.there, own: "a"}, "a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		serve := func() {
			reply := make(chan error)
			go func() {
				_, err := w.dialer.Call(t.Context(), "s", []byte("x"))
				for errors.Is(err, meta.Refused) {
					time.Sleep(time.Millisecond)
					_, err = w.dialer.Call(t.Context(), "s", []byte("x"))
				}
				reply <- err
			}()
			in, err := s.Next(t.Context(), "s", client.Who{}, true)
			if err != nil {
				t.Fatal(err)
			}
			_ = in.Reply(t.Context(), []byte("y"))
			in.Done(false)
			if err := <-reply; err != nil {
				t.Error(err)
			}
		}
		number := func() uint64 {
			t.Helper()
			st, err := w.dialer.Status(t.Context(), "s")
			if err != nil || len(st.Instances) > 1 {
				t.Fatalf("%+v, %v", st, err)
			}
			if len(st.Instances) == 0 {
				return 0
			}
			return st.Instances[0].Number
		}
		serve()
		first := number()
		for _, away := range []time.Duration{500 * time.Millisecond, 1400 * time.Millisecond} {
			time.Sleep(away)
			serve()
			if got := number(); got != first {
				t.Errorf("after %v it is instance %d, and was %d", away, got, first)
			}
		}
		slow.turn <- struct{}{}
		time.Sleep(10 * time.Second)
		if got := number(); got != first {
			t.Errorf("while nobody could come it is instance %d, and was %d", got, first)
		}
		<-slow.turn
		time.Sleep(200 * time.Millisecond)
		serve()
		if got := number(); got != first {
			t.Errorf("when all answers again it is instance %d, and was %d", got, first)
		}
		time.Sleep(2 * time.Second)
		if got := number(); got != 0 {
			t.Errorf("when nobody has come, instance %d is there", got)
		}
		serve()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.dialer.Close()
	})
}

func TestMay(t *testing.T) {
	s := call.Service{UID: 1, GID: 2, Mode: 0o731}
	for _, c := range []struct {
		uid, gid, want uint32
		may            bool
	}{
		{0, 9, 3, true}, {1, 9, 3, true}, {1, 9, 7, true}, {5, 2, 3, true}, {5, 2, 4, false}, {5, 9, 1, true}, {5, 9, 3, false},
	} {
		if err := client.May(s, c.uid, c.gid, c.want); (err == nil) != c.may {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
