package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/queue"
)

func openSession(t testing.TB, n *Node) meta.SessionID {
	t.Helper()
	info, err := (client.Session{Caller: n}).Open(t.Context(), "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return info.ID
}

func consumer(n *Node, id meta.SessionID) *client.Consumer {
	return client.NewConsumer(client.Always(n.Session(id), id), "q", "", "test")
}

// Who waits is told, in the order of coming, and not by asking again and again.
func TestQueueWait(t *testing.T) {
	n := start(t, t.TempDir())
	ctx := t.Context()
	id := openSession(t, n)
	q := client.Queues{Caller: n.Session(id)}
	if err := q.Make(ctx, "q", 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	const waiters = 5
	got := make(chan string, waiters)
	var wg sync.WaitGroup
	for i := range waiters {
		wg.Go(func() {
			taken, err := consumer(n, id).Take(ctx, 1)
			if err != nil || len(taken.Messages) != 1 {
				t.Errorf("waiter %d: %+v, %v", i, taken, err)
				return
			}
			got <- fmt.Sprint(i, string(taken.Messages[0].Body))
		})
		for { // until it stands in line
			moved := n.replica.Moved()
			if st, err := q.Status(ctx, "q"); err != nil || st.Groups[0].Waiters == int64(i+1) {
				break
			}
			<-moved
		}
	}
	for i := range waiters {
		if _, err := q.Push(ctx, "q", queue.Message{Body: []byte(fmt.Sprint(":", i))}); err != nil {
			t.Fatal(err)
		}
		if one, want := <-got, fmt.Sprint(i, ":", i); one != want {
			t.Errorf("got %s, want %s", one, want)
		}
	}
	wg.Wait()
}

// An interrupted wait takes nothing and keeps its place until it is closed.
func TestQueueInterrupt(t *testing.T) {
	n := start(t, t.TempDir())
	id := openSession(t, n)
	q := client.Queues{Caller: n.Session(id)}
	if err := q.Make(t.Context(), "q", 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	first, second := consumer(n, id), consumer(n, id)
	for _, c := range []*client.Consumer{first, second} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := c.Take(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a wait that is interrupted: %v", err)
		}
		cancel()
	}
	if _, err := q.Push(t.Context(), "q", queue.Message{Body: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	taken, err := second.Take(t.Context(), 1)
	if err != nil || len(taken.Messages) != 1 || taken.Messages[0].Attempt != 1 {
		t.Errorf("the second in line: %+v, %v", taken, err)
	}
}

// What is due is done when it is, and a full queue lets its senders wait.
func TestQueueTime(t *testing.T) {
	n := start(t, t.TempDir())
	ctx := t.Context()
	id := openSession(t, n)
	q := client.Queues{Caller: n.Session(id)}
	if err := q.Make(ctx, "q", 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	one, ack := 1, 100*time.Millisecond
	if err := q.Set(ctx, queue.Set{Name: "q", Max: &one, Ack: &ack}); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Push(ctx, "q", queue.Message{Body: []byte("a"), Delay: ack}); err != nil {
		t.Fatal(err)
	}
	c := consumer(n, id)
	taken, err := c.Take(ctx, 1)
	if err != nil || string(taken.Messages[0].Body) != "a" {
		t.Fatalf("the delayed message: %+v, %v", taken, err)
	}
	long := time.Minute
	if err := q.Set(ctx, queue.Set{Name: "q", Ack: &long}); err != nil {
		t.Fatal(err)
	}
	again, err := c.Take(ctx, 1)
	if err != nil || again.Messages[0].Attempt != 2 {
		t.Fatalf("the message that was not acknowledged in time: %+v, %v", again, err)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := q.Push(ctx, "q", queue.Message{Body: []byte("b")})
		sent <- err
	}()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.Take(short, 1, queue.Settle{Name: "q", Claim: taken.Claim}); err == nil {
		t.Fatal("the claim that was over acknowledged something")
	}
	select {
	case err := <-sent:
		t.Fatalf("pushed to a full queue: %v", err)
	default:
	}
	if taken, err = c.Take(ctx, 1, queue.Settle{Name: "q", Claim: again.Claim}); err != nil || string(taken.Messages[0].Body) != "b" {
		t.Fatalf("after one was acknowledged: %+v, %v", taken, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
