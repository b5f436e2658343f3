package named

import (
	"testing"
	"time"

	"dos/meta"
	"dos/meta/state"
)

func TestByID(t *testing.T) {
	w := newWorld(t, 2)
	take := func(s meta.SessionID, number uint64, id string, wait bool) Outcome {
		t.Helper()
		return must[Outcome](w, s, OpAsk, Ask{Name: "x", Claim: Claim{Number: number, Mode: meta.Exclusive, ID: id, TTL: 10 * time.Second, Who: Who{UID: 7}}, Wait: wait, Borrow: true})
	}
	use := func(s meta.SessionID, req ByID) error {
		req.Name = "x"
		_, err := call[Outcome](w, s, OpByID, req)
		return err
	}
	if out := take(1, 1, "job", false); out.Token != 1 {
		t.Fatalf("the first: %+v", out)
	}
	if out := take(2, 1, "other", false); out.Token != 0 || out.Wait {
		t.Errorf("while another has it: %+v", out)
	}
	if out := take(2, 2, "job", false); out.Token != 0 {
		t.Errorf("the same ID once more: %+v", out)
	}
	w.end(1) // it is not the session's
	for range 3 {
		w.pass(8 * time.Second)
		if err := use(2, ByID{ID: "job"}); err != nil {
			t.Fatalf("renewing: %v", err)
		}
	}
	for what, c := range map[string]struct {
		req  ByID
		want error
	}{
		"another's ID":   {ByID{ID: "other", Release: true}, meta.Conflict},
		"no ID":          {ByID{Release: true}, meta.Conflict},
		"another user":   {ByID{ID: "job", Release: true, UID: 8}, meta.Permission},
		"a ttl too long": {ByID{ID: "job", TTL: 2 * TTLMax}, meta.Invalid},
	} {
		if err := use(2, c.req); !is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if out := take(2, 3, "next", true); !out.Wait {
		t.Fatalf("waiting: %+v", out)
	}
	w.pass(11 * time.Second)
	if news := w.news(2, 0); len(news) != 1 || news[0].Number != 3 || news[0].Token != 2 {
		t.Errorf("after the time to live: %+v", news)
	}
	if err := use(2, ByID{ID: "job"}); !is(err, meta.Conflict) {
		t.Errorf("renewing what is over: %v", err)
	}
	if err := use(2, ByID{ID: "next", Release: true, UID: 7}); err != nil {
		t.Error(err)
	}
	if w.status("x").There {
		t.Error("it is there although it is free and has no settings")
	}
}

// After a holder was lost nobody has the lock for a while, if the lock says so.
func TestDelayAndBreak(t *testing.T) {
	w := newWorld(t, 3)
	delay := 10 * time.Second
	must[Outcome](w, 1, OpSet, Set{Name: "x", Delay: &delay})
	w.ask(1, "x", 1, meta.Exclusive, false)
	w.ask(2, "x", 1, meta.Exclusive, true)
	w.end(1)
	if info := w.status("x"); len(info.Lock.Holds) != 0 || info.Lost != 1 {
		t.Errorf("at once: %+v", info)
	}
	w.pass(9 * time.Second)
	if news := w.news(2, 0); len(news) != 0 {
		t.Errorf("too early: %+v", news)
	}
	w.pass(2 * time.Second)
	if news := w.news(2, 0); len(news) != 1 || news[0].Token == 0 {
		t.Fatalf("after the delay: %+v", news)
	}
	w.ask(3, "x", 1, meta.Exclusive, true)
	must[Outcome](w, 3, OpBreak, Named{Name: "x"})
	if news := w.news(2, 1); len(news) != 1 || !news[0].Lost || news[0].Number != 1 {
		t.Errorf("who had it heard %+v", news)
	}
	w.pass(11 * time.Second)
	if err := Check(w.store, "x", 2); !is(err, meta.Conflict) {
		t.Errorf("a change under the token of the grant that was broken: %v", err)
	}
	if news := w.news(3, 0); len(news) != 1 {
		t.Errorf("after the break: %+v", news)
	}
	w.release(2, "x", 1)
	if news := w.news(2, 0); len(news) != 0 {
		t.Errorf("news of what was given up: %+v", news)
	}
}

func TestFence(t *testing.T) {
	w := newWorld(t, 3)
	const opFence = 0x7f00 // of a room that has fences
	state.Handle(w.m, opFence, "test.fence", func(tx *state.Tx, token uint64) (none, error) { return none{}, Fence(tx, "x", token) })
	fence := func(s meta.SessionID, token uint64) error {
		_, err := call[none](w, s, opFence, token)
		return err
	}
	w.ask(1, "x", 1, meta.Exclusive, false)
	if err := fence(1, 1); err != nil {
		t.Fatal(err)
	}
	if err := fence(1, 2); !is(err, meta.Invalid) {
		t.Errorf("a token that was not given: %v", err)
	}
	expect := func(when string, want ...bool) {
		t.Helper()
		for i, ok := range want {
			if err := Admit(w.store, meta.SessionID(i+1), "x", 1); (err == nil) != ok || err != nil && !is(err, meta.Conflict) {
				t.Errorf("%s: a change by session %d: %v", when, i+1, err)
			}
		}
	}
	expect("held by 1", true, false, false)
	w.release(1, "x", 1)
	expect("free, 1 had it", true, false, false)
	if out := must[Outcome](w, 1, OpAsk, Ask{Name: "x", Claim: Claim{Number: 2, Mode: meta.Exclusive}, Borrow: true}); out.Loan != nil {
		t.Error("what a fence names is lent")
	}
	w.release(1, "x", 2)
	w.ask(2, "x", 1, meta.Exclusive, false)
	expect("held by 2", false, true, false)
	if err := Check(w.store, "x", 3); err != nil {
		t.Error(err)
	}
	if err := Check(w.store, "x", 2); !is(err, meta.Conflict) {
		t.Errorf("an older token: %v", err)
	}
	if err := fence(1, 1); !is(err, meta.Conflict) {
		t.Errorf("a fence of an older token: %v", err)
	}
	w.release(2, "x", 1)
	expect("free, 2 had it", false, true, false)
	w.pass(2 * keepTime)
	if !w.status("x").There {
		t.Error("a lock that a fence names is forgotten")
	}
}
