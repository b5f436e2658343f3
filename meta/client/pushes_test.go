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
