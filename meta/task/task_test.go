package task

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/meta"
)

// From submission to the end, each report twice.
func TestLife(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 2)
	id := w.submit("name=a cpu=2 timeout=1m cwd=/x")
	if got := w.is(id, Pending); got.Owner.UID != 7 || !reflect.DeepEqual(got.Owner, user) || got.Name != "a" {
		t.Errorf("%+v", got)
	}
	w.schedule()
	if got := w.is(id, Pending); got.Reason != "begins on n1" {
		t.Error(got.Reason)
	}
	list := w.orders(s)
	if len(list) != 1 || list[0].ID != id || list[0].Number != 1 || list[0].Node != "n1" || !reflect.DeepEqual(list[0].Owner, user) || list[0].Spec.Cwd != "/x" || list[0].Claimed {
		t.Fatalf("%+v", list)
	}
	token := list[0].Token
	if kind := w.report(s, id, token, Ended); kind != meta.Invalid {
		t.Errorf("the end of what was not claimed: %v", kind)
	}
	for _, what := range []What{Claim, Claim, Started, Started} {
		if kind := w.report(s, id, token, what); kind != 0 {
			t.Errorf("report %d: %v", what, kind)
		}
	}
	if got := w.is(id, Running); got.Node != "n1" || got.Claimed == 0 || got.Started == 0 || got.Attempt != 1 {
		t.Errorf("%+v", got)
	}
	w.check()
	w.clock = w.clock.Add(3 * time.Second)
	exit, usage := &Exit{Code: 3}, &Usage{CPU: time.Second, Peak: 1 << 20, Wall: 3 * time.Second}
	for range 2 {
		if kind := w.reportAll(s, Report{ID: id, Token: token, What: Ended, Exit: exit, Usage: usage})[0]; kind != 0 {
			t.Errorf("the end: %v", kind)
		}
	}
	got := w.is(id, Failed)
	if !reflect.DeepEqual(got.Exit, exit) || got.Usage != *usage || got.Ended != meta.At(w.clock) || len(got.Past) != 1 || got.Failures != 1 {
		t.Errorf("%+v", got)
	}
	if kind := w.report(s, id, token, Started); kind != meta.Fenced {
		t.Errorf("a report of an attempt that is over: %v", kind)
	}
	if kind := w.report(s, ID{Job: 99}, token, Claim); kind != meta.Fenced {
		t.Errorf("a report of no task: %v", kind)
	}
	if len(w.orders(s)) != 0 {
		t.Error("there are orders for a task that has ended")
	}
	w.check()
}

// Another session, or an older token, is refused.
func TestFence(t *testing.T) {
	w := newWorld(t)
	s, other := w.offer("n1", 1), w.open()
	id := w.submit("")
	w.schedule()
	token := w.orders(s)[0].Token
	if kind := w.report(other, id, token, Claim); kind != meta.Fenced {
		t.Errorf("another session claims: %v", kind)
	}
	if kind := w.report(s, id, token-1, Claim); kind != meta.Fenced {
		t.Errorf("another token: %v", kind)
	}
	w.claim(s)
	w.end(s)
	if got := w.is(id, Pending); got.Losses != 1 || len(got.Past) != 1 || got.Past[0].Exit != nil || !strings.Contains(got.Reason, "machine n1 was lost") {
		t.Errorf("%+v", got)
	}
	s2 := w.offer("n2", 1)
	w.schedule()
	list := w.orders(s2)
	if len(list) != 1 || list[0].Token <= token || list[0].Number != 2 {
		t.Fatalf("%+v", list)
	}
	if kind := w.report(s2, id, token, Claim); kind != meta.Fenced {
		t.Errorf("the older token: %v", kind)
	}
	w.claim(s2)
	w.finish(s2, id, Exit{})
	w.is(id, Done)
	w.check()
}

// What was assigned and not claimed when the session ends was never lost.
func TestUnclaimed(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	id := w.submit("")
	w.schedule()
	w.end(s)
	if got := w.is(id, Pending); got.Losses != 0 || !strings.Contains(got.Reason, "no node offers") {
		t.Errorf("%+v", got)
	}
	s = w.offer("n1", 1)
	w.schedule()
	must[none](w, s, OpWithdraw, Named{"n1"})
	if got := w.is(id, Pending); got.Losses != 0 || len(w.orders(s)) != 0 {
		t.Errorf("%+v", got)
	}
	w.check()
}

// A task that takes down each machine it runs on does not take down all.
func TestLost(t *testing.T) {
	w := newWorld(t)
	id := w.submit("retries=2")
	for range LossesMax + 1 {
		w.is(id, Pending)
		s := w.offer("n1", 1)
		w.schedule()
		if got := w.claim(s); len(got) != 1 {
			t.Fatalf("claimed %v", got)
		}
		w.end(s)
	}
	if got := w.is(id, Lost); got.Failures != 0 || len(got.Past) != PastMax {
		t.Errorf("%+v", got)
	}
	w.check()
}

func TestRetry(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	id := w.submit("retries=2")
	for i := range 3 {
		if got := w.claim(s); len(got) != 0 {
			t.Fatalf("claimed %v too early", got)
		}
		w.pass(RetryMin << max(0, i-1))
		if got := w.claim(s); len(got) != 1 {
			t.Fatalf("attempt %d: claimed %v", i, got)
		}
		w.finish(s, id, Exit{Signal: 9})
		w.schedule()
		if i < 2 {
			if got := w.is(id, Pending); !strings.Contains(got.Reason, "attempt") || !strings.Contains(got.Reason, "waits until") {
				t.Error(got.Reason)
			}
		}
	}
	if got := w.is(id, Failed); got.Failures != 3 || got.Attempt != 3 || got.Exit.Status() != 137 {
		t.Errorf("%+v", got)
	}
	w.check()
}

func TestAt(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	id := w.submit("at=+1h")
	w.pass(time.Hour - time.Second)
	if got := w.is(id, Pending); !strings.Contains(got.Reason, "waits until") || len(w.orders(s)) != 0 {
		t.Errorf("%+v", got)
	}
	w.pass(time.Second)
	if got := w.claim(s); len(got) != 1 {
		t.Errorf("claimed %v", got)
	}
}

// A task that is repeated begins when its time comes, and not again while it runs.
func TestEvery(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 1)
	id := w.submit("every=10m")
	for i := range 3 {
		w.schedule()
		if got := w.claim(s); len(got) != 1 {
			t.Fatalf("run %d: claimed %v", i, got)
		}
		w.pass(time.Minute)
		w.finish(s, id, Exit{Code: i})
		if got := w.is(id, Pending); span(meta.At(w.clock), got.Due) != 9*time.Minute || got.Exit.Code != i {
			t.Errorf("run %d: due in %v, %+v", i, span(meta.At(w.clock), got.Due), got.Exit)
		}
		w.pass(9 * time.Minute)
	}
	w.claim(s)
	w.pass(25 * time.Minute)
	w.finish(s, id, Exit{})
	if got := w.get(id); span(meta.At(w.clock), got.Due) != 5*time.Minute {
		t.Errorf("after a run that took too long it is due in %v", span(meta.At(w.clock), got.Due))
	}
	w.control(id, Cancel, 0)
	w.is(id, Cancelled)
	w.check()
}

func TestAfter(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 8)
	first, second := w.submit(""), w.submit("")
	ok := w.submit(fmt.Sprintf("after=ok:%v,any:%v", first, second))
	fail := w.submit(fmt.Sprintf("after=fail:%v", first))
	chain := w.submit(fmt.Sprintf("after=ok:%v", fail))
	any := w.submit(fmt.Sprintf("after=any:%v", chain))
	w.schedule()
	if got := w.claim(s); !slices.Equal(got, []ID{first, second}) {
		t.Fatalf("claimed %v", got)
	}
	if got := w.is(ok, Pending); got.Reason != fmt.Sprintf("waits for %v, %v to end", first, second) {
		t.Error(got.Reason)
	}
	w.finish(s, first, Exit{})
	w.schedule()
	if got := w.is(fail, Cancelled); !strings.Contains(got.Reason, "is done") {
		t.Error(got.Reason)
	}
	w.is(chain, Cancelled)
	w.is(ok, Pending)
	if got := w.claim(s); !slices.Equal(got, []ID{any}) {
		t.Errorf("claimed %v", got)
	}
	w.finish(s, second, Exit{Code: 1})
	w.schedule()
	if got := w.claim(s); !slices.Equal(got, []ID{ok}) {
		t.Errorf("claimed %v", got)
	}
	late := w.submit(fmt.Sprintf("after=ok:%v", second))
	w.is(late, Cancelled)
	soon := w.submit(fmt.Sprintf("after=fail:%v", second))
	w.schedule()
	if got := w.claim(s); !slices.Equal(got, []ID{soon}) {
		t.Errorf("claimed %v", got)
	}
	spec := NewSpec()
	spec.Script, spec.After = []byte("x"), []Dep{{ID: ID{Job: 999}}}
	if err := wantKind[Submitted](w, 0, OpSubmit, Submit{Specs: []Spec{spec}}, meta.Invalid); !strings.Contains(err.Error(), "999") {
		t.Error(err)
	}
	w.check()
}
