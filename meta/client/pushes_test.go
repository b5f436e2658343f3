package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/queue"
	"dos/meta/state"
)

// newSenders returns a Taker over a connection, with a queue.
func newSenders(t *testing.T) (*client.Taker, *lossy) {
	t.Helper()
	l, id := open(t)
	taker := client.NewTaker(client.Always(client.NewRemote(l, id), id), nil)
	if err := taker.Make(t.Context(), "q", 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	return taker, l
}

// gated lets the first push wait until it is let go, and counts how many there were.
func gated(l *lossy) (open chan struct{}, pushes *atomic.Int32) {
	open, pushes = make(chan struct{}), new(atomic.Int32)
	l.fate = func(cmd state.Command) (bool, bool) {
		if cmd.Op == queue.OpPush && pushes.Add(1) == 1 {
			<-open
		}
		return true, true
	}
	return open, pushes
}

// What several send while a command is under way goes as one, and each hears of its own.
func TestPushesGoTogether(t *testing.T) {
	big := make([]byte, queue.BodyMax+1)
	for _, c := range []struct {
		name   string
		set    queue.Set
		bodies [][]byte // of those who wait for the first one
		pushes int32
		fail   map[int]meta.Kind // who is refused
	}{
		{"all fit", queue.Set{}, [][]byte{[]byte("1"), []byte("2"), []byte("3"), []byte("4")}, 2, nil},
		{"one cannot be sent", queue.Set{}, [][]byte{[]byte("1"), big, []byte("3"), []byte("4")}, 2 + 4, map[int]meta.Kind{1: meta.TooLarge}},
		{"too much for one command", queue.Set{}, [][]byte{big[:queue.BodyMax], []byte("2"), big[:queue.BodyMax]}, 2, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				taker, l := newSenders(t)
				release, pushes := gated(l)
				ids := make([][]uint64, len(c.bodies)+1)
				errs := make([]error, len(c.bodies)+1)
				var wg sync.WaitGroup
				send := func(i int, body []byte) {
					wg.Go(func() {
						ids[i], errs[i] = taker.Push(t.Context(), "q", queue.Message{Body: body})
					})
					synctest.Wait() // so that they come in order
				}
				send(0, []byte("first"))
				for i, body := range c.bodies {
					send(i+1, body)
				}
				close(release)
				wg.Wait()
				if n := pushes.Load(); n != c.pushes {
					t.Errorf("%d commands, want %d", n, c.pushes)
				}
				log, err := taker.Read(t.Context(), queue.Read{Name: "q", Limit: 99})
				if err != nil {
					t.Fatal(err)
				}
				at := make(map[uint64]string)
				for _, m := range log.Messages {
					at[m.Got.Number] = string(m.Got.Body)
				}
				for i, err := range errs[1:] {
					if kind, refused := c.fail[i]; refused {
						if !errors.Is(err, kind) || len(ids[i+1]) > 0 {
							t.Errorf("message %d: %v, %v, want %v", i, ids[i+1], err, kind)
						}
						continue
					}
					if err != nil || len(ids[i+1]) != 1 || at[ids[i+1][0]] != string(c.bodies[i]) {
						t.Errorf("message %d has the ids %v, %v", i, ids[i+1], err)
					}
				}
				if want := len(errs) - len(c.fail); len(at) != want {
					t.Errorf("%d messages, want %d", len(at), want)
				}
			})
		})
	}
}

// Of what goes together as much is sent as there is room for; the others wait, or are
// refused, each one by itself.
func TestPushesFull(t *testing.T) {
	for _, full := range []queue.Full{queue.Block, queue.Reject} {
		synctest.Test(t, func(t *testing.T) {
			taker, l := newSenders(t)
			most := 3
			if err := taker.Set(t.Context(), queue.Set{Name: "q", Max: &most, Full: &full}); err != nil {
				t.Fatal(err)
			}
			release, _ := gated(l)
			var sent, refused atomic.Int32
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					switch _, err := taker.Push(t.Context(), "q", queue.Message{Body: []byte("x")}); {
					case err == nil:
						sent.Add(1)
					case errors.Is(err, meta.Quota):
						refused.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			close(release)
			if full == queue.Reject {
				wg.Wait()
				if sent.Load() != 3 || refused.Load() != 3 {
					t.Errorf("%d sent and %d refused, want 3 and 3", sent.Load(), refused.Load())
				}
				return
			}
			r := taker.Open("q", "", "test")
			for n := range 6 {
				if _, err := r.Next(t.Context(), true); err != nil {
					t.Fatalf("message %d: %v", n, err)
				}
			}
			wg.Wait()
			if sent.Load() != 6 {
				t.Errorf("%d sent, want 6", sent.Load())
			}
			if err := r.Close(t.Context(), true); err != nil {
				t.Error(err)
			}
		})
	}
}

// Over a line that loses requests and answers each message is there once, and those of
// each thread in order.
func TestPushesOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		const threads, each = 8, 60
		taker, l := newSenders(t)
		random := rand.New(rand.NewPCG(seed, 0))
		var mu sync.Mutex
		pushes := 0
		l.fate = func(cmd state.Command) (bool, bool) {
			if cmd.Op != queue.OpPush {
				return true, true
			}
			mu.Lock()
			defer mu.Unlock()
			pushes++
			arrives := random.IntN(4) > 0
			return arrives, arrives && random.IntN(4) > 0
		}
		var wg sync.WaitGroup
		for i := range threads {
			wg.Go(func() {
				for n := range each {
					if _, err := taker.Push(t.Context(), "q", queue.Message{Body: fmt.Appendf(nil, "%d %d", i, n)}); err != nil {
						t.Errorf("message %d of %d: %v", n, i, err)
					}
				}
			})
		}
		wg.Wait()
		var next [threads]int
		log, err := taker.Read(t.Context(), queue.Read{Name: "q", Limit: queue.ListMax})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range log.Messages {
			var i, n int
			if _, err := fmt.Sscan(string(m.Got.Body), &i, &n); err != nil || n != next[i] {
				t.Fatalf("message %q, %v, want number %d of %d", m.Got.Body, err, next[i], i)
			}
			next[i]++
		}
		if len(log.Messages) != threads*each {
			t.Errorf("%d messages, want %d", len(log.Messages), threads*each)
		}
		if pushes >= threads*each {
			t.Errorf("%d commands for %d messages: nothing went together", pushes, threads*each)
		}
	})
}

// While the service is away each who sends hears of it when its Patience is over, those
// too who waited for the one before them.
func TestPushesGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taker, l := newSenders(t)
		l.fate = func(state.Command) (bool, bool) { return false, false }
		ctx, cancel := context.WithTimeout(t.Context(), client.Patience*3/2)
		defer cancel()
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := taker.Push(t.Context(), "q", queue.Message{Body: []byte("x")}); !errors.Is(err, meta.TimedOut) {
					t.Errorf("the service is away: %v", err)
				}
			})
		}
		wg.Wait()
		if ctx.Err() != nil {
			t.Errorf("somebody waited for more than %v", client.Patience*3/2)
		}
		l.fate = func(state.Command) (bool, bool) { return true, true }
		if _, err := taker.Push(t.Context(), "q", queue.Message{Body: []byte("x")}); err != nil {
			t.Errorf("the service is back: %v", err)
		}
	})
}

// ops counts commands about queues, and holds the first one of one kind back.
func ops(l *lossy, hold state.Op) (open chan struct{}, count func(state.Op) int) {
	open = make(chan struct{})
	var mu sync.Mutex
	seen := make(map[state.Op]int)
	l.fate = func(cmd state.Command) (bool, bool) {
		mu.Lock()
		seen[cmd.Op]++
		first := cmd.Op == hold && seen[cmd.Op] == 1
		mu.Unlock()
		heldBack(cmd)
		if first {
			<-open
		}
		return true, true
	}
	return open, func(op state.Op) int {
		mu.Lock()
		defer mu.Unlock()
		return seen[op]
	}
}

// heldBack holds the question of who waits back, which this service does not.
func heldBack(cmd state.Command) {
	if cmd.Op == queue.OpAwait {
		time.Sleep(10 * time.Millisecond)
	}
}

// What is sent, what is asked for and what is acknowledged while a command is under way
// go as one, and who asks gets what was sent with it. Who gets nothing then waits at the
// service only when nobody sends any more.
func TestSendersAndTakersGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taker, l := newSenders(t)
		release, count := ops(l, queue.OpPush)
		var wg sync.WaitGroup
		push := func(body string) {
			wg.Go(func() {
				if _, err := taker.Push(t.Context(), "q", queue.Message{Body: []byte(body)}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		var got [2]chan string
		var readers [2]*client.Reader
		next := func(i int) {
			wg.Go(func() {
				m, err := readers[i].Next(t.Context(), true)
				if err != nil {
					t.Error(err)
				}
				got[i] <- string(m.Body)
			})
			synctest.Wait()
		}
		push("0")
		for i := range readers {
			got[i], readers[i] = make(chan string, 1), taker.Open("q", "", "test")
			next(i)
		}
		push("1")
		push("2")
		close(release)
		for i, want := range []string{"0", "1", "2"} {
			if is := <-got[0]; is != want {
				t.Fatalf("the first who asks has %q, want %q", is, want)
			}
			if i < 2 {
				next(0)
			}
		}
		synctest.Wait()
		if p, all, takes := count(queue.OpPush), count(queue.OpPass), count(queue.OpTake); p != 1 || all != 1 || takes != 1 {
			t.Errorf("%d pushes, %d of all, %d takes, want 1, 1, and 1 of who waits", p, all, takes)
		}
		push("3")
		if is := <-got[1]; is != "3" {
			t.Errorf("who waits has %q", is)
		}
		next(0)
		if st, err := taker.Status(t.Context(), "q"); err != nil || st.Groups[0].Out != 1 {
			t.Errorf("%+v, %v, want one out: what was acknowledged went with what was asked for", st.Groups, err)
		}
		push("4")
		<-got[0]
		wg.Wait()
	})
}

// Who does not wait any more takes nothing: not while it waits for its turn, nor when the
// command that it is part of finds nothing. What that finds it has.
func TestTakersLeave(t *testing.T) {
	for _, c := range []struct {
		name  string
		hold  state.Op // of what is under way when it leaves
		found bool
	}{
		{"before its turn", queue.OpPush, false},
		{"with nothing", queue.OpPass, false},
		{"with a message", queue.OpPass, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				taker, l := newSenders(t)
				paused := !c.found
				if err := taker.Set(t.Context(), queue.Set{Name: "q", Paused: &paused}); err != nil {
					t.Fatal(err)
				}
				release, count := ops(l, c.hold)
				first, _ := gate(l, queue.OpPush, c.hold == queue.OpPass)
				var wg sync.WaitGroup
				push := func() {
					wg.Go(func() {
						if _, err := taker.Push(t.Context(), "q", queue.Message{Body: []byte("x")}); err != nil {
							t.Error(err)
						}
					})
					synctest.Wait()
				}
				push()
				push()
				ctx, leave := context.WithCancelCause(t.Context())
				r := taker.Open("q", "", "test")
				over := make(chan error, 1)
				wg.Go(func() {
					_, err := r.Next(ctx, true)
					over <- err
				})
				synctest.Wait()
				close(first) // now both are under way, if that is to be
				synctest.Wait()
				why := errors.New("gone")
				leave(why)
				synctest.Wait()
				close(release)
				wg.Wait()
				if err := <-over; c.found != (err == nil) || !c.found && !errors.Is(err, why) {
					t.Errorf("who left heard %v", err)
				}
				if c.hold == queue.OpPass && count(queue.OpPass) != 1 {
					t.Errorf("%d commands sent and took, want 1", count(queue.OpPass))
				}
				out := 0
				if c.found {
					out = 2
				}
				st, err := taker.Status(t.Context(), "q")
				if err != nil || int(st.Groups[0].Out) != out {
					t.Errorf("%+v, %v, want %d out", st.Groups, err, out)
				}
				if _, err := taker.Push(t.Context(), "q", queue.Message{Body: []byte("y")}); err != nil {
					t.Errorf("pushing after it: %v", err)
				}
			})
		})
	}
}

// gate holds the first command of a kind back, before what was there already, if it is to.
func gate(l *lossy, op state.Op, is bool) (open chan struct{}, fate func(state.Command) (bool, bool)) {
	open, fate = make(chan struct{}), l.fate
	var seen atomic.Int32
	if is {
		l.fate = func(cmd state.Command) (bool, bool) {
			if cmd.Op == op && seen.Add(1) == 1 {
				<-open
			}
			return fate(cmd)
		}
	}
	return open, fate
}

// Over a line that loses requests and answers, those who send and those who take at once
// pass each message once.
func TestPassedOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		const threads, each = 6, 40
		taker, l := newSenders(t)
		random := rand.New(rand.NewPCG(seed, 0))
		var mu sync.Mutex
		all := 0
		l.fate = func(cmd state.Command) (bool, bool) {
			heldBack(cmd)
			mu.Lock()
			defer mu.Unlock()
			if cmd.Op == queue.OpPass {
				all++
			}
			arrives := random.IntN(5) > 0
			return arrives, arrives && random.IntN(5) > 0
		}
		ctx, done := context.WithCancel(t.Context())
		var senders, takers sync.WaitGroup
		times := make(map[string]int) // guarded by mu
		for i := range threads {
			senders.Go(func() {
				for n := range each {
					if _, err := taker.Push(t.Context(), "q", queue.Message{Body: fmt.Appendf(nil, "%d %d", i, n)}); err != nil {
						t.Errorf("message %d of %d: %v", n, i, err)
					}
				}
			})
			takers.Go(func() {
				r := taker.Open("q", "", "test")
				for {
					m, err := r.Next(ctx, true)
					if ctx.Err() != nil {
						break
					}
					if err != nil {
						t.Error(err)
						break
					}
					mu.Lock()
					times[string(m.Body)]++
					if len(times) == threads*each {
						done()
					}
					mu.Unlock()
				}
				if err := r.Close(t.Context(), true); err != nil {
					t.Error(err)
				}
			})
		}
		senders.Wait()
		takers.Wait()
		done()
		for body, n := range times {
			if n != 1 {
				t.Errorf("message %q came %d times", body, n)
			}
		}
		if len(times) != threads*each || all == 0 {
			t.Errorf("%d messages came, want %d; %d commands sent and took", len(times), threads*each, all)
		}
	})
}
