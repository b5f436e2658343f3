package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/meta"
)

// everywhere runs a test in one process and over connections.
func everywhere(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("here", func(t *testing.T) {
		x := new(Exchange)
		test(t, &world{t: t, x: x, open: func(work bool) Conn { return x.Local(work) }})
	})
	t.Run("there", func(t *testing.T) {
		x := new(Exchange)
		l := rpctest.Listen(t)
		rpctest.Serve(t, l, rpc.ServerConfig{Plain: true}, x.Service(func(_ context.Context, hello Message) error {
			if hello.Service == "forbidden" {
				return meta.Permission
			}
			return nil
		}))
		line := rpctest.Dial(t, l.Addr().String(), rpc.ClientConfig{Plain: true})
		test(t, &world{t: t, x: x, open: func(work bool) Conn {
			c, err := Dial(t.Context(), line, work)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}})
	})
}

type world struct {
	t    *testing.T
	x    *Exchange
	open func(work bool) Conn
}

// patience is longer than anything takes that is not meant to hang.
const patience = 20 * time.Second

func (w *world) anchor(number uint64) Conn {
	w.t.Helper()
	c := w.open(true)
	if err := Anchor(c, "s", number); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

func (w *world) post(number uint64) *Post {
	w.t.Helper()
	p, err := NewPost(w.open(true), "s", number, true)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.Close)
	return p
}

func (w *world) next(p *Post) *Incoming {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	in, err := p.Next(ctx)
	if err != nil {
		w.t.Fatalf("waiting for a call: %v", err)
	}
	return in
}

func (w *world) line() *Line {
	l := NewLine(w.open(false))
	w.t.Cleanup(l.Close)
	return l
}

func whole(number uint64, text string) Request {
	return Request{Service: "s", Instance: number, By: "me", Data: []byte(text), Last: true, Size: int64(len(text)), Wait: patience, Timeout: patience, Within: patience}
}

// began is a call that somebody else begins.
type began struct {
	call   *Call
	answer Answer
}

func (w *world) begin(l *Line, r Request) <-chan began {
	c := make(chan began, 1)
	go func() {
		call, answer, _ := l.Begin(w.t.Context(), r)
		c <- began{call, answer}
	}()
	return c
}

func readAll(t *testing.T, read func(context.Context, []byte) (int, error)) (string, error) {
	var b bytes.Buffer
	p := make([]byte, 3000)
	for {
		n, err := read(t.Context(), p)
		b.Write(p[:n])
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
	}
}

// load waits until an instance has so many calls.
func (w *world) load(l *Line, number uint64, want int) {
	w.t.Helper()
	r := whole(number, "")
	r.Wait = -1
	for late := time.Now().Add(patience); ; {
		_, a, _ := l.Begin(w.t.Context(), r)
		if a.What == Busy && a.Load == want {
			return
		}
		if time.Now().After(late) {
			w.t.Fatalf("load is %+v, want %d", a, want)
		}
	}
}

func TestCalls(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.anchor(1)
		p, l := w.post(1), w.line()
		for i := range 3 { // one connection each is enough
			c := w.begin(l, whole(1, fmt.Sprint("request ", i)))
			in := w.next(p)
			if in.By != "me" || in.Size != 9 {
				t.Errorf("by %q, of %d bytes", in.By, in.Size)
			}
			request, err := readAll(t, in.Read)
			if want := fmt.Sprint("request ", i); request != want || err != nil {
				t.Errorf("request %q, %v, want %q", request, err, want)
			}
			if i == 1 {
				_ = in.Fail(fmt.Errorf("no such thing: %w", meta.NotExist))
			} else if err := in.Reply(t.Context(), []byte("reply "+request)); err != nil {
				t.Error(err)
			}
			b := <-c
			if b.answer.What != Taken {
				t.Fatalf("%+v", b.answer)
			}
			reply, err := readAll(t, b.call.Read)
			switch {
			case i == 1 && (!errors.Is(err, meta.NotExist) || err.Error() != "no such thing: does not exist"):
				t.Errorf("%q, %v", reply, err)
			case i != 1 && (reply != "reply "+request || err != nil):
				t.Errorf("reply %q, %v", reply, err)
			}
		}
	})
}

// Much data goes through in both directions at once, no faster than it is consumed.
func TestStreams(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.anchor(1)
		p, l := w.post(1), w.line()
		const size = 5 << 20
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{}).Read(data)
		r := whole(1, string(data[:FirstMax]))
		r.Last, r.Size = false, size
		c := w.begin(l, r)
		in := w.next(p)
		in.Accept()
		b := <-c
		// Nobody reads, so the writer stops at the window.
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		n, err := b.call.Write(ctx, data[FirstMax:], true)
		if n != Window-FirstMax || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%d bytes were sent, %v; want %d", n, err, Window-FirstMax)
		}
		var g sync.WaitGroup
		g.Go(func() { // echoes
			p := make([]byte, 10000)
			for {
				n, err := in.Read(t.Context(), p)
				if n > 0 {
					if _, err := in.Write(t.Context(), p[:n]); err != nil {
						t.Error(err)
						return
					}
				}
				if err == io.EOF {
					break
				} else if err != nil {
					t.Error(err)
					return
				}
			}
			if err := in.Reply(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
		g.Go(func() {
			if _, err := b.call.Write(t.Context(), data[FirstMax+n:], true); err != nil {
				t.Error(err)
			}
		})
		reply, err := readAll(t, b.call.Read)
		if err != nil || reply != string(data) {
			t.Errorf("%d bytes came back, %v", len(reply), err)
		}
		g.Wait()
	})
}

func TestBusy(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.anchor(1)
		l := w.line()
		hasty := whole(1, "x")
		hasty.Wait = 0
		if _, a, _ := l.Begin(t.Context(), hasty); a.What != Busy {
			t.Errorf("without a server: %+v", a)
		}
		short := whole(1, "x")
		short.Wait = 10 * time.Millisecond
		if _, a, _ := l.Begin(t.Context(), short); a.What != Busy {
			t.Errorf("without a server for a while: %+v", a)
		}
		p := w.post(1)
		c := w.begin(l, whole(1, "x"))
		in := w.next(p)
		in.Accept()
		if b := <-c; b.answer.What != Taken {
			t.Fatalf("%+v", b.answer)
		}
		other := w.line()
		if _, a, _ := other.Begin(t.Context(), hasty); a.What != Busy || a.Load != 1 || a.Calls != 1 {
			t.Errorf("with a busy server: %+v", a)
		}
		// Who waits comes after, in order.
		first, second := w.line(), w.line()
		c1 := w.begin(first, whole(1, "1"))
		w.load(other, 1, 2)
		c2 := w.begin(second, whole(1, "2"))
		w.load(other, 1, 3)
		for i, c := range []<-chan began{c1, c2} {
			if err := in.Reply(t.Context(), []byte("done")); err != nil {
				t.Fatal(err)
			}
			in = w.next(p)
			request, err := in.ReadAll(t.Context(), 10)
			if want := fmt.Sprint(i + 1); string(request) != want || err != nil {
				t.Errorf("%q, %v, want %q", request, err, want)
			}
			in.Accept()
			<-c
		}
		// A server that does not wait.
		q, err := NewPost(w.open(true), "s", 1, false)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		if _, err := q.Next(t.Context()); !errors.Is(err, meta.WouldWait) {
			t.Errorf("%v", err)
		}
	})
}

func TestAbsent(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		l := w.line()
		if _, a, _ := l.Begin(t.Context(), whole(1, "x")); a.What != Absent || !errors.Is(a.Err, meta.Refused) {
			t.Errorf("%+v", a)
		}
		if _, err := w.post(1).Next(t.Context()); !errors.Is(err, meta.Refused) {
			t.Errorf("a server of no instance: %v", err)
		}
		a := w.anchor(1)
		p := w.post(1)
		in := w.begin(l, whole(1, "x"))
		served := w.next(p)
		served.Accept()
		<-in
		waits := w.begin(w.line(), whole(1, "y"))
		w.load(w.line(), 1, 2)
		a.Close()
		if b := <-waits; b.answer.What != Absent {
			t.Errorf("who waited: %+v", b.answer)
		}
		// What is under way goes on, and then the server hears of it.
		if err := served.Reply(t.Context(), []byte("z")); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := p.Next(ctx); !errors.Is(err, meta.Refused) {
			t.Errorf("a server whose instance is gone: %v", err)
		}
	})
}

func TestAdmission(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		if t.Name() == "TestAdmission/here" {
			return // who is in the process is not asked
		}
		if err := Anchor(w.open(true), "forbidden", 1); !errors.Is(err, meta.Permission) {
			t.Errorf("%v", err)
		}
	})
}

// What was not begun is done by another one; what was, or may have been, is not.
func TestGivenBack(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.anchor(1)
		l := w.line()
		for name, back := range map[string]func(p *Post, in *Incoming){
			"returned": func(_ *Post, in *Incoming) { in.Return(nil) },
			"left":     func(p *Post, _ *Incoming) { p.Leave() },
		} {
			p := w.post(1)
			c := w.begin(l, whole(1, name))
			back(p, w.next(p))
			if name == "returned" {
				p.Leave()
			}
			q := w.post(1)
			in := w.next(q)
			if request, err := in.ReadAll(t.Context(), 100); string(request) != name || err != nil {
				t.Errorf("%s: %q, %v", name, request, err)
			}
			_ = in.Reply(t.Context(), []byte("ok"))
			if b := <-c; b.answer.What != Taken {
				t.Errorf("%s: %+v", name, b.answer)
			}
			q.Leave()
		}
		for _, c := range []struct {
			name string
			back func(p *Post, in *Incoming)
			what What
			kind meta.Kind
		}{
			{"unfit", func(_ *Post, in *Incoming) { in.Return(fmt.Errorf("no room: %w", meta.NoSpace)) }, Absent, meta.NoSpace},
			{"lost before", func(p *Post, _ *Incoming) { p.Close() }, Fail, meta.HostDown},
			{"lost", func(p *Post, in *Incoming) { in.Accept(); p.Close() }, Taken, meta.HostDown},
			{"left", func(p *Post, in *Incoming) { in.Accept(); p.Leave() }, Taken, meta.Protocol},
		} {
			p := w.post(1)
			began := w.begin(l, whole(1, c.name))
			c.back(p, w.next(p))
			b := <-began
			if b.answer.What != c.what {
				t.Errorf("%s: %+v", c.name, b.answer)
			}
			if err := b.answer.Err; c.what != Taken && !errors.Is(err, c.kind) {
				t.Errorf("%s: %v", c.name, err)
			}
			if c.what == Taken {
				if _, err := readAll(t, b.call.Read); !errors.Is(err, c.kind) {
					t.Errorf("%s: %v, want %v", c.name, err, c.kind)
				}
			}
			if p.Leave(); c.name == "unfit" {
				w.load(l, 1, 0)
			}
		}
	})
}

// Who called is gone, and who serves hears of it, and serves the next one.
func TestGone(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.anchor(1)
		p := w.post(1)
		for _, how := range []string{"aborts", "dies", "is late"} {
			l := w.line()
			r := whole(1, "x")
			if how == "is late" {
				r.Timeout = 50 * time.Millisecond
			}
			c := w.begin(l, r)
			in := w.next(p)
			in.Accept()
			b := <-c
			switch how {
			case "aborts":
				b.call.Abort()
			case "dies":
				l.Close()
			default:
				if _, err := b.call.Read(t.Context(), make([]byte, 1)); !errors.Is(err, meta.TimedOut) {
					t.Errorf("%v", err)
				}
			}
			select {
			case <-in.Gone():
			case <-time.After(patience):
				t.Fatalf("who called %s, and who serves does not hear of it", how)
			}
			if _, err := in.Write(t.Context(), []byte("reply")); !errors.Is(err, meta.Canceled) {
				t.Errorf("who called %s: %v", how, err)
			}
			if err := in.Reply(t.Context(), []byte("reply")); !errors.Is(err, meta.Canceled) {
				t.Errorf("who called %s: %v", how, err)
			}
		}
		c := w.begin(w.line(), whole(1, "after"))
		if request, err := w.next(p).ReadAll(t.Context(), 100); string(request) != "after" || err != nil {
			t.Errorf("%q, %v", request, err)
		}
		_ = c
		// Who gives up while he waits is passed over.
		ctx, cancel := context.WithCancel(t.Context())
		l := w.line()
		ended := make(chan Answer, 1)
		go func() {
			_, a, _ := l.Begin(ctx, whole(1, "never"))
			ended <- a
		}()
		look := w.line()
		w.load(look, 1, 2)
		cancel()
		if a := <-ended; !errors.Is(a.Err, context.Canceled) {
			t.Errorf("%+v", a)
		}
		w.load(look, 1, 1)
	})
}

// Who does not keep to the rules fails, and nobody else.
func TestRules(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.anchor(1)
		p := w.post(1)
		bad := w.open(false)
		defer bad.Close()
		for _, m := range []Message{
			{What: More, Seq: 9, Data: []byte("x")}, {What: Got, N: -5}, {What: Abort, Seq: 1}, {What: 99}, {What: Offer}, {What: Taken},
			{What: Ask, Seq: 1, Instance: 1, Size: 1 << 40, Wait: patience, Data: []byte("x")},
		} {
			if err := bad.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		in := w.next(p)
		in.Accept()
		if m, err := bad.Recv(); err != nil || m.What != Taken {
			t.Fatalf("%+v, %v", m, err)
		}
		for range 20 {
			if err := bad.Send(Message{What: More, Seq: 1, Data: make([]byte, pieceMax)}); err != nil {
				t.Fatal(err)
			}
		}
		for over := false; !over; {
			in.flow.mu.Lock()
			over = in.flow.err != nil
			in.flow.mu.Unlock()
		}
		got, err := readAll(t, in.Read)
		if !errors.Is(err, meta.Protocol) || len(got) > Window+2*pieceMax {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		_ = in.Fail(err)
		// Asking while a call is under way gives that up.
		for seq := range uint64(2) {
			if err := bad.Send(Message{What: Ask, Seq: 10 + seq, Instance: 1, Size: 2, Wait: patience, Data: []byte{byte('0' + seq)}, Last: true}); err != nil {
				t.Fatal(err)
			}
			if seq == 0 {
				in = w.next(p)
			}
		}
		<-in.Gone()
		_ = in.Reply(t.Context(), nil)
		in = w.next(p)
		if request, err := in.ReadAll(t.Context(), 9); string(request) != "1" || err != nil {
			t.Errorf("%q, %v", request, err)
		}
		_ = in.Reply(t.Context(), []byte("fine"))
		for {
			m, err := bad.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if m.Seq == 11 && m.What == Reply {
				break
			}
		}
	})
}

// Callers and servers come, give up and die at random: no call is executed twice, and
// each that gets a reply gets its own.
func TestDisturbed(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	everywhere(t, func(t *testing.T, w *world) {
		const callers, servers, calls = 8, 4, 150
		w.anchor(1)
		var executed [callers * calls]atomic.Int32
		ctx, stop := context.WithCancel(t.Context())
		var work, ask sync.WaitGroup
		for n := range servers {
			work.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(n)))
				for ctx.Err() == nil {
					p, err := NewPost(w.open(true), "s", 1, true)
					if err != nil {
						t.Error(err)
						return
					}
					for r.IntN(10) > 0 {
						in, err := p.Next(ctx)
						if err != nil {
							break
						}
						if r.IntN(5) == 0 && in.Return(nil) {
							continue
						}
						request, err := in.ReadAll(ctx, 100)
						if err != nil {
							_ = in.Fail(err)
							continue
						}
						var id int
						fmt.Sscan(string(request), &id)
						executed[id].Add(1)
						if r.IntN(20) == 0 {
							break // with the call
						}
						_ = in.Reply(ctx, request)
					}
					if r.IntN(2) == 0 {
						p.Leave()
					} else {
						p.Close()
					}
				}
			})
		}
		var replied atomic.Int32
		for n := range callers {
			ask.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(100+n)))
				l := NewLine(w.open(false))
				for i := range calls {
					id := fmt.Sprint(n*calls + i)
					req := whole(1, id)
					patient, cancel := ctx, context.CancelFunc(func() {})
					if r.IntN(10) == 0 {
						patient, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(2000))*time.Microsecond)
					}
					c, a, _ := l.Begin(patient, req)
					if a.What == Taken {
						if reply, err := readAll(t, c.Read); err == nil && reply != id {
							t.Errorf("call %s is answered %q", id, reply)
						} else if err == nil {
							replied.Add(1)
						}
					}
					if cancel(); r.IntN(30) == 0 {
						l.Close()
						l = NewLine(w.open(false))
					}
				}
				l.Close()
			})
		}
		ask.Wait()
		stop()
		work.Wait()
		for id := range executed {
			if n := executed[id].Load(); n > 1 {
				t.Errorf("call %d was executed %d times", id, n)
			}
		}
		if n := replied.Load(); n < callers*calls/2 {
			t.Errorf("%d of %d calls were replied to", n, callers*calls)
		}
		// Nothing is left of them.
		for late := time.Now().Add(patience); ; {
			w.x.mu.Lock()
			in := w.x.instances[1]
			left := len(in.idle) + len(in.waiting) + in.busy
			w.x.mu.Unlock()
			if left == 0 {
				break
			}
			if time.Now().After(late) {
				t.Fatalf("%d are left", left)
			}
			time.Sleep(time.Millisecond) // between two looks
		}
	})
}
