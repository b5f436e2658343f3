package queues

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/queue"
	"dos/meta/txn"
	"dos/procfs"
)

// A world is the directory over a service in memory.
type world struct {
	t       *testing.T
	service client.Sender
	stay    client.Stay
	taker   *client.Taker
	root    procfs.Dir
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, service: metatest.NewMemory(node.Machine())}
	w.stay = w.open()
	w.taker = client.NewTaker(w.stay, nil)
	w.root = New(w.taker, "here")
	return w
}

// open opens a session.
func (w *world) open() client.Stay {
	w.t.Helper()
	info, err := (client.Session{Caller: client.Direct(w.service, 0)}).Open(w.t.Context(), "test", "", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return client.Always(client.Direct(w.service, info.ID), info.ID)
}

func (w *world) make(name string, mode uint32, bodies ...string) {
	w.t.Helper()
	err := w.taker.Make(w.t.Context(), name, mode, alice.UID, alice.GID)
	for _, b := range bodies {
		if err == nil {
			_, err = w.taker.Push(w.t.Context(), name, queue.Message{Body: []byte(b)})
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// take takes a message for a process.
func (w *world) take(by procfs.Caller, name, group string) *client.Reader {
	w.t.Helper()
	r, _, err := w.taker.Take(w.t.Context(), name, group, "test", process(by), false)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

var (
	alice = procfs.Caller{UID: 7, GID: 8, PID: 70}
	twin  = procfs.Caller{UID: 7, GID: 8, PID: 71} // another process of hers
	bob   = procfs.Caller{UID: 9, GID: 9, PID: 90}
	lost  = procfs.Caller{UID: 7, GID: 8} // whose process nobody knows
)

// parsed is a step as package kv makes it of a line.
func parsed(verb, object, data string) *txn.Step {
	return &txn.Step{Verb: verb, Args: []string{object}, Data: []byte(data)}
}

func TestAckStep(t *testing.T) {
	w := newWorld(t)
	w.make("q", 0o755, "a", "b", "c", "d")
	if err := w.taker.MakeGroup(t.Context(), "q", "g"); err != nil {
		t.Fatal(err)
	}
	if err := w.taker.Seek(t.Context(), queue.Seek{Name: "q", Group: "g", First: true}); err != nil {
		t.Fatal(err)
	}
	one := w.take(alice, "q", "")   // 1
	w.take(twin, "q", "")           // 2
	w.take(twin, "q", "")           // 3
	given := w.take(alice, "q", "") // 4
	if err := given.Do(t.Context(), queue.Nack, 0); err != nil {
		t.Fatal(err)
	}
	w.take(bob, "q", "g") // 1, of another group
	steps := Steps{w.taker}
	for _, c := range []struct {
		by           procfs.Caller
		object, data string
		want         string // the number of the message
		err          error
	}{
		{alice, "q", "", "1", nil},
		{alice, "q", " 1 ", "1", nil},
		{alice, "q", "2", "2", nil}, // of her other process
		{alice, "q", "4", "", meta.Fenced},
		{twin, "q", "", "", meta.Invalid}, // which?
		{twin, "q", "3", "3", nil},
		{lost, "q", "", "", meta.Fenced},
		{lost, "q", "3", "3", nil},
		{bob, "q", "", "", meta.Fenced},
		{bob, "q", "1", "", meta.Fenced},
		{bob, "q/groups/g", "", "1", nil},
		{bob, "q/groups/none", "", "", meta.Fenced},
		{procfs.Caller{PID: 1}, "q", "2", "2", nil},
		{alice, "q", "x", "", meta.Invalid},
		{alice, "q", "0", "", meta.Invalid},
		{alice, "none", "", "", meta.Fenced},
	} {
		s := parsed("ack", c.object, c.data)
		err := steps.Ack(t.Context(), c.by, s)
		switch {
		case c.err != nil:
			if !errors.Is(err, c.err) {
				t.Errorf("%v: ack %s %s: %v, want %v", c.by, c.object, c.data, err, c.err)
			}
		case err != nil || len(s.Args) != 3 || s.Args[0] != "q" || s.Args[2] != c.want:
			t.Errorf("%v: ack %s %s: %v, %v; want message %s", c.by, c.object, c.data, s, err, c.want)
		}
	}

	// What is committed is not to be settled again.
	s := parsed("ack", "q", "")
	if err := steps.Ack(t.Context(), alice, s); err != nil {
		t.Fatal(err)
	}
	if _, err := (client.KV{Caller: w.stay}).Commit(t.Context(), []txn.Step{*s}); err != nil {
		t.Fatal(err)
	}
	steps.Acked(*s)
	if err := steps.Ack(t.Context(), alice, parsed("ack", "q", "")); !errors.Is(err, meta.Fenced) {
		t.Errorf("acknowledged twice: %v", err)
	}
	if err := one.Close(t.Context(), true); err != nil {
		t.Errorf("closing what a transaction acknowledged: %v", err)
	}
}

func TestSendSteps(t *testing.T) {
	w := newWorld(t)
	w.make("q", 0o710)
	steps := Steps{w.taker}
	do := map[string]func(context.Context, procfs.Caller, *txn.Step) error{"push": steps.Push, "send": steps.Send}
	var list []txn.Step
	for _, c := range []struct {
		by   procfs.Caller
		verb string
		data string
		want error
	}{
		{alice, "push", "key=k plain", nil},
		{bob, "push", "x", meta.Permission},
		{procfs.Caller{UID: 10, GID: 8}, "push", "of the group", nil},
		{alice, "send", "key=k prio=3 with a key", nil},
		{bob, "send", "x", meta.Permission},
		{alice, "send", "prio=10 x", meta.Invalid},
		{alice, "send", "token=l:1 x", meta.Invalid},
	} {
		s := parsed(c.verb, "q", c.data)
		err := do[c.verb](t.Context(), c.by, s)
		if !errors.Is(err, c.want) || err != nil && c.want == nil {
			t.Errorf("%v: %s %s: %v, want %v", c.by, c.verb, c.data, err, c.want)
		} else if err == nil {
			list = append(list, *s)
		}
	}
	if err := steps.Push(t.Context(), alice, parsed("push", "none", "x")); !errors.Is(err, meta.NotExist) {
		t.Errorf("a queue that is not there: %v", err)
	}
	if _, err := (client.KV{Caller: w.stay}).Commit(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	log, err := w.taker.Read(t.Context(), queue.Read{Name: "q", Limit: 9})
	got := ""
	for _, m := range log.Messages {
		got += fmt.Sprintf("%s|%s|%d\n", m.Got.Body, m.Got.Key, m.Got.Priority)
	}
	if want := "key=k plain||0\nof the group||0\nwith a key|k|3\n"; got != want || err != nil {
		t.Errorf("sent %q, %v, want %q", got, err, want)
	}
}
