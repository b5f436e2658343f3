package queue

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/state"
	"dos/meta/txn"
)

// step is `VERB ARGUMENT… | DATA`.
func step(text string) txn.Step {
	args, data, _ := strings.Cut(text, " | ")
	words := strings.Fields(args)
	return txn.Step{Verb: words[0], Args: words[1:], Data: []byte(data)}
}

func newTransactions(t *testing.T) *world {
	w := newWorld(t)
	txn.Register(w.m, Verbs)
	return w
}

func (w *world) commit(s meta.SessionID, steps ...txn.Step) ([]string, error) {
	w.t.Helper()
	out, err := call[txn.Committed](w, s, txn.OpCommit, txn.Commit{Steps: steps})
	return out.Answers, err
}

func TestTransaction(t *testing.T) {
	w := newTransactions(t)
	a, b := w.open(), w.open()
	w.make("in")
	w.make("out")
	w.push("in", "job", "next")
	c := w.take(a, "in", "", 2)
	ack := func(n int) txn.Step { return step(fmt.Sprintf("ack in %d %d", c.Claim, n)) }

	// What is not the session's, or not of the claim, fails all of it.
	for _, test := range []struct {
		by   meta.SessionID
		step txn.Step
		want error
	}{
		{b, ack(1), meta.Fenced},
		{a, ack(3), meta.Fenced},
		{a, step(fmt.Sprintf("ack in %d 1", c.Claim+1)), meta.Fenced},
		{a, step("ack none 1 1"), meta.NotExist},
		{a, step("ack in 1"), meta.Invalid},
		{a, step("ack in x 1"), meta.Invalid},
		{a, step("ack in 1 -1"), meta.Invalid},
		{a, step("push"), meta.Invalid},
		{a, step("push none | x"), meta.NotExist},
		{a, step("push in out | x"), meta.Invalid},
		{a, step("push out | " + strings.Repeat("x", BodyMax+1)), meta.TooLarge},
		{a, step("send out | x"), meta.Invalid},
		{a, txn.Step{Verb: "send", Args: []string{"out"}, Data: state.Marshal(Message{Priority: Priorities})}, meta.Invalid},
	} {
		if _, err := w.commit(test.by, step("push out | first"), test.step); !errors.Is(err, test.want) {
			t.Errorf("%.80v: %v, want %v", test.step, err, test.want)
		}
	}
	want(t, "sent by what failed", fmt.Sprint(w.status("out").Messages), "0")

	answers, err := w.commit(a, ack(1), step("push out | one"), step("push out | two"))
	want(t, "answers", fmt.Sprintf("%q %v", answers, err), `["" "1" "2"] <nil>`)
	if _, err := w.commit(a, ack(1)); !errors.Is(err, meta.Fenced) {
		t.Errorf("once more: %v", err)
	}
	want(t, "out", bodies(w.take(b, "out", "", 9).Messages), "[one two]")
	want(t, "in", fmt.Sprint(w.status("in").Depth()), "1")

	// A claim has run out when its time is over, whether that was noticed or not.
	w.clock = w.clock.Add(AckDefault)
	if _, err := w.commit(a, ack(2)); !errors.Is(err, meta.Fenced) {
		t.Errorf("too late: %v", err)
	}
	w.pass(0)
	want(t, "back", bodies(w.take(b, "in", "", 9).Messages), "[next/2]")
	if _, err := w.commit(a, ack(2)); !errors.Is(err, meta.Fenced) {
		t.Errorf("much too late: %v", err)
	}
}

// A transaction gives who waits what it sends, and nothing of one that fails.
func TestTransactionWaiters(t *testing.T) {
	w := newTransactions(t)
	a := w.open()
	w.make("q")
	waits := must[Taken](w, a, OpTake, Take{Name: "q", Max: 1, Wait: true})
	await := Await{Session: a, Queue: waits.Queue, Place: waits.Place}
	if _, err := w.commit(0, step("push q | x"), step("push none | x")); !errors.Is(err, meta.NotExist) {
		t.Error(err)
	}
	want(t, "it waits", fmt.Sprint(must[Waiting](w, 0, OpAwait, await).Still), "true")
	if _, err := w.commit(0, step("push q | x")); err != nil {
		t.Error(err)
	}
	want(t, "it has", bodies(must[Waiting](w, 0, OpAwait, await).Taken.Messages), "[x]")
}

func TestTransactionFull(t *testing.T) {
	for full, want := range map[Full]error{Block: meta.WouldWait, Reject: meta.Quota, DropOld: nil} {
		w := newTransactions(t)
		most := 1
		w.make("q")
		w.make("log")
		must[none](w, 0, OpSet, Set{Name: "q", Max: &most, Full: &full})
		w.push("q", "old")
		_, err := w.commit(0, step("push log | x"), step("push q | new"))
		if !errors.Is(err, want) || err != nil && want == nil {
			t.Errorf("full %d: %v, want %v", full, err, want)
		}
		if n := w.status("log").Messages; (n == 0) != (want != nil) {
			t.Errorf("full %d: %d messages are sent beside", full, n)
		}
	}
}

// What is sent again by its deduplication id is no failure.
func TestTransactionDedup(t *testing.T) {
	w := newTransactions(t)
	w.make("q")
	send := txn.Step{Verb: "send", Args: []string{"q"}, Data: state.Marshal(Message{Body: []byte("x"), Dedup: "id", Delay: time.Minute})}
	for range 2 {
		answers, err := w.commit(0, send)
		want(t, "answers", fmt.Sprintf("%q %v", answers, err), `["1"] <nil>`)
	}
	want(t, "sent", fmt.Sprint(w.status("q").Delayed), "1")
}
