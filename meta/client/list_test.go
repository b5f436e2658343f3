package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/queue"
)

func newList(t *testing.T) *client.Taker {
	t.Helper()
	service := metatest.NewMemory(node.Machine())
	info, err := client.Session{Caller: client.Direct(service, 0)}.Open(t.Context(), "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	taker := client.NewTaker(client.Always(client.Direct(service, info.ID), info.ID), nil)
	if err := taker.Make(t.Context(), "q", 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	return taker
}

func bodies(list []queue.Got) string {
	var all [][]byte
	for _, m := range list {
		all = append(all, m.Body)
	}
	return string(bytes.Join(all, []byte(" ")))
}

func TestPop(t *testing.T) {
	q := newList(t)
	out, err := q.Append(t.Context(), "q", "side", []byte("a"), []byte("b"), []byte("c"))
	if err != nil || out.Ready != 3 {
		t.Fatalf("%+v, %v", out, err)
	}
	no := errors.New("no")
	if got, err := q.Pop(t.Context(), "q", "me", 2, false, func(list []queue.Got) error {
		if bodies(list) != "a b" || list[0].Key != "side" {
			t.Errorf("offered %s of %q", bodies(list), list[0].Key)
		}
		return no
	}); !errors.Is(err, no) || len(got) > 0 {
		t.Errorf("refused: %v, %v", got, err)
	}
	for _, want := range []string{"a b", "c", ""} {
		if got, err := q.Pop(t.Context(), "q", "me", 2, false, nil); err != nil || bodies(got) != want {
			t.Errorf("%s, %v, want %s", bodies(got), err, want)
		}
	}
	if st, err := q.Status(t.Context(), "q"); err != nil || st.Messages != 0 || st.Depth() != 0 {
		t.Errorf("%+v, %v: what was taken for good is still there", st, err)
	}
	n := 1
	if err := q.Set(t.Context(), queue.Set{Name: "q", Max: &n}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, meta.WouldWait} {
		if _, err := q.Append(t.Context(), "q", "", []byte("x")); !errors.Is(err, want) {
			t.Errorf("message %d: %v, want %v", i, err, want)
		}
	}
	if _, err := q.Append(t.Context(), "q", "", make([]byte, queue.BodyMax+1)); !errors.Is(err, meta.Unsupported) {
		t.Errorf("a large one without stores: %v", err)
	}
}

// Who waits and is interrupted leaves no place, and takes nothing.
func TestPopWaits(t *testing.T) {
	q := newList(t)
	waiters := func(want int64) {
		t.Helper()
		for {
			st, err := q.Status(t.Context(), "q")
			if err != nil {
				t.Fatal(err)
			}
			if st.Groups[0].Waiters == want {
				return
			}
			runtime.Gosched()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan string)
	pop := func(ctx context.Context) {
		got, err := q.Pop(ctx, "q", "me", 1, true, nil)
		done <- fmt.Sprint(bodies(got), " ", err)
	}
	go pop(ctx)
	waiters(1)
	cancel()
	if got := <-done; got != " context canceled" {
		t.Error(got)
	}
	waiters(0)
	go pop(t.Context())
	waiters(1)
	if out, err := q.Append(t.Context(), "q", "", []byte("a")); err != nil || out.Ready != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	if got := <-done; got != "a <nil>" {
		t.Error(got)
	}
}
