package task

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dos/meta"
)

func TestRights(t *testing.T) {
	w := newWorld(t)
	id := w.submit("hold")
	for _, verb := range []Verb{Cancel, Hold, Release, SetPrio, Requeue, Signal, Freeze, Thaw} {
		wantKind[none](w, 0, OpControl, Control{ID: id, Verb: verb, Number: 1, UID: 1000}, meta.Permission)
	}
	w.is(id, Held)
	must[none](w, 0, OpControl, Control{ID: id, Verb: Cancel, UID: 0})
	w.is(id, Cancelled)
	wantKind[none](w, 0, OpForget, Forget{ID: id, UID: 1000}, meta.Permission)
	must[none](w, 0, OpForget, Forget{ID: id, UID: user.UID})
	wantKind[Task](w, 0, OpGet, Ask{id}, meta.NotExist)
	w.check()
}

// An id that is not there, and what cannot be done, say why.
func TestBadControl(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	done := w.submit("")
	w.schedule()
	w.claim(s)
	w.finish(s, done, Exit{})
	waits := w.submit("hold")
	array := w.submit("hold array=0-3")
	for _, c := range []struct {
		req  Control
		kind meta.Kind
	}{
		{Control{ID: ID{Job: 77}, Verb: Cancel}, meta.NotExist},
		{Control{ID: array.Element(4), Verb: Cancel}, meta.NotExist},
		{Control{ID: done, Verb: Cancel}, meta.Invalid},
		{Control{ID: done, Verb: Hold}, meta.Invalid},
		{Control{ID: done, Verb: 77}, meta.Invalid},
		{Control{ID: waits, Verb: Signal, Number: 10}, meta.Invalid},
		{Control{ID: waits, Verb: Signal, Number: 0}, meta.Invalid},
		{Control{ID: waits, Verb: Signal, Number: 65}, meta.Invalid},
		{Control{ID: waits, Verb: Freeze}, meta.Invalid},
		{Control{ID: waits, Verb: SetPrio, Number: PrioMax + 1}, meta.Invalid},
		{Control{ID: array.Element(1), Verb: SetPrio, Number: 1}, meta.Unsupported},
	} {
		wantKind[none](w, 0, OpControl, c.req, c.kind)
	}
	wantKind[none](w, 0, OpForget, Forget{ID: waits}, meta.Busy)
	wantKind[none](w, 0, OpForget, Forget{ID: array.Element(1)}, meta.Unsupported)
	w.check()
}

func TestHold(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	id := w.submit("")
	w.control(id, Hold, 0)
	w.schedule()
	if got := w.is(id, Held); got.Reason != "held by user 7" || len(w.orders(s)) != 0 {
		t.Errorf("%+v", got)
	}
	w.control(id, Release, 0)
	w.schedule()
	if got := w.claim(s); len(got) != 1 {
		t.Errorf("claimed %v", got)
	}
	w.check()
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	id, next := w.submit(""), w.submit("")
	w.schedule()
	w.claim(s)
	w.control(id, Cancel, 0)
	w.control(next, Cancel, 0)
	w.is(next, Cancelled)
	w.is(id, Running) // until its machine says that nothing of it is left
	list := w.orders(s)
	if len(list) != 1 || len(list[0].Orders) != 1 || list[0].Orders[0].Verb != Cancel || !list[0].Claimed {
		t.Fatalf("%+v", list)
	}
	if kind := w.reportAll(s, Report{ID: id, Token: list[0].Token, What: Obeyed, Order: list[0].Orders[0].Seq})[0]; kind != 0 {
		t.Error(kind)
	}
	if list = w.orders(s); len(list[0].Orders) != 0 {
		t.Errorf("%+v", list)
	}
	w.finish(s, id, Exit{Cause: Killed, Signal: 15})
	if got := w.is(id, Cancelled); got.Reason != "cancelled by user 7" {
		t.Error(got.Reason)
	}
	w.check()
	// It may end with its machine too.
	id = w.submit("retries=5")
	w.schedule()
	w.claim(s)
	w.control(id, Cancel, 9)
	w.end(s)
	w.is(id, Cancelled)
	// And before it was claimed.
	s = w.offer("n1", 1)
	id = w.submit("")
	w.schedule()
	token := w.orders(s)[0].Token
	w.control(id, Cancel, 0)
	w.is(id, Cancelled)
	if kind := w.report(s, id, token, Claim); kind != meta.Fenced {
		t.Errorf("claiming what was cancelled: %v", kind)
	}
	w.check()
}

func TestSignals(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	id := w.submit("")
	w.schedule()
	w.claim(s)
	seen := must[Orders](w, s, OpOrders, Seen{Session: s}).Version
	for i := range OrdersMax {
		w.control(id, Signal, 1+i%3)
	}
	wantKind[none](w, 0, OpControl, Control{ID: id, Verb: Signal, Number: 1}, meta.Busy)
	w.control(id, Freeze, 0)
	out := must[Orders](w, s, OpOrders, Seen{Session: s, Version: seen})
	if len(out.Attempts) != 1 || len(out.Attempts[0].Orders) != OrdersMax || !out.Attempts[0].Frozen || out.Attempts[0].Orders[1].Number != 2 {
		t.Fatalf("%+v", out)
	}
	if again := must[Orders](w, s, OpOrders, Seen{Session: s, Version: out.Version}); len(again.Attempts) != 0 {
		t.Errorf("%+v", again)
	}
	if got := w.get(id); got.Frozen {
		t.Error("it is frozen before it is")
	}
	w.report(s, id, out.Attempts[0].Token, Frozen)
	if got := w.get(id); !got.Frozen {
		t.Error("it is not frozen")
	}
	w.control(id, Thaw, 0)
	if out := w.orders(s); out[0].Frozen {
		t.Errorf("%+v", out)
	}
	w.control(id, Cancel, 0) // which is never one too many
	if out := w.orders(s)[0].Orders; out[len(out)-1].Verb != Cancel {
		t.Errorf("%+v", out)
	}
	w.check()
}

func TestRequeue(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	id := w.submit("")
	w.schedule()
	w.claim(s)
	w.control(id, Requeue, 0)
	w.finish(s, id, Exit{Signal: 15})
	w.is(id, Pending)
	w.schedule()
	w.claim(s)
	w.finish(s, id, Exit{Code: 1})
	w.is(id, Failed)
	w.control(id, Requeue, 0)
	if got := w.is(id, Pending); got.Failures != 0 {
		t.Errorf("%+v", got)
	}
	w.schedule()
	w.claim(s)
	w.finish(s, id, Exit{})
	if got := w.is(id, Done); got.Attempt != 3 || len(got.Past) != 3 {
		t.Errorf("%+v", got)
	}
	w.check()
}

func TestPrio(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	a, b := w.submit(""), w.submit("")
	w.control(b, SetPrio, 5)
	w.schedule()
	if got := w.claim(s); !slices.Equal(got, []ID{b}) {
		t.Errorf("claimed %v", got)
	}
	if got := w.get(a); got.Reason != "cpu: 1 wanted, 0 free on best node n1" {
		t.Error(got.Reason)
	}
	w.check()
}

func TestArray(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 4)
	id := w.submit("array=0-9%2 name=a")
	reduce := w.submit(fmt.Sprintf("after=ok:%v", id))
	for next := 0; next < 10; next += 2 {
		w.schedule()
		if got := w.claim(s); !slices.Equal(got, []ID{id.Element(next), id.Element(next + 1)}) {
			t.Fatalf("claimed %v at %d", got, next)
		}
		if got := w.get(id.Element(9)); next < 8 && !strings.Contains(got.Reason, "2 of its elements run, as many as may") {
			t.Error(got.Reason)
		}
		w.check()
		w.is(id, Running)
		w.finish(s, id.Element(next), Exit{})
		w.finish(s, id.Element(next+1), Exit{})
	}
	if got := w.is(id, Done); got.Elements[Done] != 10 {
		t.Errorf("%+v", got)
	}
	w.schedule()
	if got := w.claim(s); !slices.Equal(got, []ID{reduce}) {
		t.Errorf("claimed %v", got)
	}
	var list []ID
	for _, one := range must[Listed](w, 0, OpList, List{Name: "a", Limit: 100}).Tasks {
		list = append(list, one.ID)
	}
	if len(list) != 11 || list[0] != id || list[10] != id.Element(9) {
		t.Errorf("%v", list)
	}
	must[none](w, 0, OpForget, Forget{ID: id})
	wantKind[Task](w, 0, OpGet, Ask{id.Element(3)}, meta.NotExist)
	w.schedule()
	if n := w.count(key('t', id.Job)); n != 0 {
		t.Errorf("%d rows are left of an array that was forgotten", n)
	}
	w.check()
}

// One element fails and is tried again, one is held, one cancelled, and what comes after
// one of them need not wait for the others.
func TestElements(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 10)
	id := w.submit("array=0-3 retries=1 hold")
	w.control(id.Element(1), Hold, 0)
	w.control(id.Element(2), Cancel, 0)
	after := w.submit(fmt.Sprintf("after=any:%v_2,ok:%v_0", id, id))
	w.check()
	w.control(id, Release, 0)
	w.schedule() // it releases its elements too
	if got := w.claim(s); !slices.Equal(got, []ID{id.Element(0), id.Element(1), id.Element(3)}) {
		t.Fatalf("claimed %v", got)
	}
	w.finish(s, id.Element(0), Exit{})
	w.finish(s, id.Element(3), Exit{Code: 1})
	w.schedule()
	if got := w.claim(s); !slices.Equal(got, []ID{after}) {
		t.Fatalf("claimed %v", got)
	}
	w.check()
	w.pass(RetryMin)
	if got := w.claim(s); !slices.Equal(got, []ID{id.Element(3)}) {
		t.Fatalf("claimed %v", got)
	}
	w.finish(s, id.Element(3), Exit{Code: 1})
	w.control(id, Cancel, 0)
	w.schedule()
	w.finish(s, id.Element(1), Exit{Signal: 15})
	w.is(id.Element(1), Cancelled)
	if got := w.is(id, Failed); got.Elements[Failed] != 1 || got.Elements[Cancelled] != 2 || got.Elements[Done] != 1 {
		t.Errorf("%+v", got)
	}
	w.control(id, Requeue, 0)
	w.schedule()
	if got := w.claim(s); len(got) != 4 {
		t.Errorf("claimed %v", got)
	}
	w.check()
}

// What was never begun of an array that was cancelled can come back.
func TestBringBack(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	id := w.submit("array=0-4")
	w.schedule()
	w.claim(s)
	w.control(id, Cancel, 0)
	w.is(id.Element(3), Cancelled)
	w.schedule()
	w.finish(s, id.Element(0), Exit{Signal: 15})
	if got := w.is(id, Cancelled); got.Elements[Cancelled] != 5 {
		t.Errorf("%+v", got)
	}
	w.check()
	w.control(id, Requeue, 0)
	w.check()
	w.schedule()
	for i := range 5 {
		if got := w.claim(s); !slices.Equal(got, []ID{id.Element(i)}) {
			t.Fatalf("claimed %v", got)
		}
		w.finish(s, id.Element(i), Exit{})
		w.schedule()
	}
	w.is(id, Done)
	w.check()
}

// One element comes back before the others, and is not forgotten with them.
func TestBringBackTwice(t *testing.T) {
	w := newWorld(t)
	id := w.submit("array=0-4")
	w.control(id, Cancel, 0)
	w.control(id.Element(3), Requeue, 0)
	w.is(id, Pending)
	w.check()
	w.control(id, Requeue, 0)
	w.schedule()
	w.check()
	if got := w.begun(w.offer("n1", 5)); len(got) != 5 {
		t.Errorf("began %v", got)
	}
	w.check()
}

// A job whose turn cannot come any more takes its array's elements with it.
func TestUnmetArray(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	first := w.submit("")
	id := w.submit(fmt.Sprintf("array=0-9 after=ok:%v", first))
	w.control(id.Element(4), Hold, 0)
	w.schedule()
	w.claim(s)
	w.finish(s, first, Exit{Code: 1})
	w.schedule()
	if got := w.is(id, Cancelled); got.Elements[Cancelled] != 10 || !strings.Contains(got.Reason, "cannot be") {
		t.Errorf("%+v", got)
	}
	w.is(id.Element(4), Cancelled)
	w.is(id.Element(5), Cancelled)
	w.check()
	for _, one := range []ID{id, id.Element(4), id.Element(5)} {
		if err := wantKind[none](w, 0, OpControl, Control{ID: one, Verb: Requeue}, meta.Invalid); !strings.Contains(err.Error(), "cannot be") {
			t.Error(err)
		}
	}
	w.control(first, Requeue, 0)
	w.control(id, Requeue, 0) // what it came after may end well yet
	w.check()
	if got := w.begun(s); !slices.Equal(got, []ID{first}) {
		t.Errorf("began %v", got)
	}
	w.finish(s, first, Exit{})
	if got := w.begun(s); !slices.Equal(got, []ID{id.Element(0)}) {
		t.Errorf("began %v", got)
	}
	w.check()
}
