package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/state"
)

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestTakeAndSettle(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	w.push("q", "a", "b", "c", "d")
	first := w.take(s, "q", "", 2)
	want(t, "first", bodies(first.Messages), "[a b]")
	second := w.take(s, "q", "", 5)
	want(t, "second", bodies(second.Messages), "[c d]")
	if got := w.take(s, "q", "", 1); got.Claim != 0 || got.Place != 0 {
		t.Errorf("taking from an empty queue: %+v", got)
	}
	// What comes back is at the head.
	w.settle(s, "q", first.Claim, Nack)
	w.settle(s, "q", second.Claim, Ack)
	again := w.take(s, "q", "", 5)
	want(t, "again", bodies(again.Messages), "[a/2 b/2]")
	w.settle(s, "q", again.Claim, Return)
	again = w.take(s, "q", "", 1)
	want(t, "returned", bodies(again.Messages), "[a/2]")
	w.settle(s, "q", again.Claim, Ack)
	if st := must[Settled](w, s, OpSettle, Settles{[]Settle{{Name: "q", Claim: again.Claim}}}); st.Stale != 1 {
		t.Errorf("acknowledging again: %+v", st)
	}
	w.check()
	if st := w.status("q"); st.Depth() != 1 || st.Messages != 1 || st.Groups[0].Done != 3 {
		t.Errorf("status %+v", st)
	}
}

func TestClaimEnds(t *testing.T) {
	w := newWorld(t)
	s, other := w.open(), w.open()
	w.make("q")
	w.push("q", "a", "b")
	c := w.take(s, "q", "", 1)
	w.take(other, "q", "", 1)
	w.end(other)
	want(t, "of the dead session", bodies(w.take(s, "q", "", 1).Messages), "[b/2]")
	must[Settled](w, s, OpSettle, Settles{[]Settle{{Name: "q", Claim: c.Claim, What: Extend, Time: time.Minute}}})
	w.pass(AckDefault)
	want(t, "after ack seconds", bodies(w.take(s, "q", "", 2).Messages), "[b/3]")
	w.pass(AckDefault)
	want(t, "of the extended claim", bodies(w.take(s, "q", "", 2).Messages), "[a/2 b/4]")
	w.check()
}

func TestWaiters(t *testing.T) {
	w := newWorld(t)
	s, other := w.open(), w.open()
	w.make("q")
	line := func(s meta.SessionID) uint64 {
		return must[Taken](w, s, OpTake, Take{Name: "q", Max: 1, Wait: true}).Place
	}
	ask := func(s meta.SessionID, place uint64) string {
		got, err := call[Waiting](w, s, OpAwait, Await{Session: s, Queue: w.status("q").ID, Place: place})
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%v %s", got.Still, bodies(got.Taken.Messages))
	}
	one, two, three, four := line(s), line(other), line(s), line(s)
	if got := w.take(s, "q", "", 1); got.Claim != 0 {
		t.Errorf("took %+v before those who wait", got)
	}
	w.push("q", "a")
	want(t, "one", ask(s, one), "false [a]")
	want(t, "two", ask(other, two), "true []")
	must[none](w, s, OpLeave, Leave{Name: "q", Place: three})
	w.end(other)
	w.push("q", "b")
	want(t, "four", ask(s, four), "false [b]")
	// One who leaves when the message is his already leaves it as it was.
	must[none](w, s, OpLeave, Leave{Name: "q", Place: four})
	want(t, "b", bodies(w.take(s, "q", "", 1).Messages), "[b]")
	want(t, "gone", ask(s, four), `queue.await: queue "q": place 4: does not exist`)
	w.check()
}

func TestAttempts(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	two, dead := 2, "graves"
	must[none](w, 0, OpSet, Set{Name: "q", Attempts: &two})
	w.push("q", "a")
	for range 2 {
		w.settle(s, "q", w.take(s, "q", "", 1).Claim, Nack)
	}
	if st := w.status("q"); st.Dead != 1 || st.Messages != 0 {
		t.Errorf("status %+v", st)
	}
	list := must[Letters](w, 0, OpDead, Dead{Name: "q", Limit: 10})
	if len(list.List) != 1 || string(list.List[0].Got.Body) != "a" || list.List[0].Got.Attempt != 2 {
		t.Errorf("dead %+v", list)
	}
	wantKind[none](w, 0, OpRemove, Named{"q"}, meta.Busy)
	must[none](w, 0, OpBury, Bury{"q", 1})
	wantKind[none](w, 0, OpBury, Bury{"q", 1}, meta.NotExist)
	must[none](w, 0, OpSet, Set{Name: "q", Dead: &dead})
	w.make("graves")
	line := must[Taken](w, s, OpTake, Take{Name: "graves", Max: 1, Wait: true}).Place
	w.push("q", "b")
	w.settle(s, "q", w.take(s, "q", "", 1).Claim, Discard)
	got := must[Waiting](w, s, OpAwait, Await{Session: s, Queue: w.status("graves").ID, Place: line})
	want(t, "who waits for dead ones", bodies(got.Taken.Messages), "[b]")
	must[none](w, 0, OpRemove, Named{"q"})
	w.check()
}

func TestDelay(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Body: []byte("late"), Delay: time.Minute}, {Body: []byte("soon")}}})
	c := w.take(s, "q", "", 5)
	want(t, "at once", bodies(c.Messages), "[soon]")
	must[Settled](w, s, OpSettle, Settles{[]Settle{{Name: "q", Claim: c.Claim, What: Nack, Time: 10 * time.Second}}})
	want(t, "too early", bodies(w.take(s, "q", "", 5).Messages), "[]")
	w.pass(10 * time.Second)
	want(t, "after its delay", bodies(w.take(s, "q", "", 5).Messages), "[soon/2]")
	w.pass(50 * time.Second)
	want(t, "in a minute", bodies(w.take(s, "q", "", 5).Messages), "[soon/3 late]")
	w.check()
}

func TestPriority(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	by := ByPri
	must[none](w, 0, OpSet, Set{Name: "q", Order: &by})
	for i, b := range []string{"a", "b", "c", "d"} {
		must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Body: []byte(b), Priority: uint8(i % 2 * 9)}}})
	}
	c := w.take(s, "q", "", 3)
	want(t, "taken", bodies(c.Messages), "[b d a]")
	w.settle(s, "q", c.Claim, Nack)
	want(t, "again", bodies(w.take(s, "q", "", 9).Messages), "[b/2 d/2 a/2 c]")
	fifo := FIFO
	wantKind[none](w, 0, OpSet, Set{Name: "q", Order: &fifo}, meta.Busy)
	wantKind[none](w, 0, OpSeek, Seek{Name: "q", First: true}, meta.Unsupported)
	w.check()
}

func TestOrderByKey(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	by := ByKey
	must[none](w, 0, OpSet, Set{Name: "q", Order: &by})
	for _, b := range []string{"x1", "x2", "y1", "-", "x3"} {
		must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Body: []byte(b), Key: strings.Trim(b[:1], "-")}}})
	}
	a := w.take(s, "q", "", 9)
	want(t, "one of each key", bodies(a.Messages), "[x1 y1 -]")
	// Of a key that is to come later nobody gets a later one.
	must[Settled](w, s, OpSettle, Settles{[]Settle{{Name: "q", Claim: a.Claim, Numbers: []uint64{1}, What: Nack, Time: time.Second}}})
	want(t, "while x1 is delayed", bodies(w.take(s, "q", "", 9).Messages), "[]")
	w.pass(time.Second)
	b := w.take(s, "q", "", 9)
	want(t, "x1 again", bodies(b.Messages), "[x1/2]")
	w.settle(s, "q", b.Claim, Ack)
	want(t, "then x2", bodies(w.take(s, "q", "", 9).Messages), "[x2]")
	w.check()
}

// A long run of messages that are passed over does not make one command long, and
// whoever waits behind them gets his.
func TestPassOver(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	by := ByKey
	must[none](w, 0, OpSet, Set{Name: "q", Order: &by})
	many := make([]Message, PushMax)
	for i := range many {
		many[i] = Message{Body: []byte("x"), Key: "x"}
	}
	for range 3 {
		must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: many})
	}
	must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Body: []byte("y"), Key: "y"}}})
	w.take(s, "q", "", 1)
	place := must[Taken](w, s, OpTake, Take{Name: "q", Max: 1, Wait: true}).Place
	if place == 0 {
		t.Fatal("got one at once")
	}
	for n := 0; w.due().Tick; n++ {
		if n == 10 {
			t.Fatal("there is no end to it")
		}
		must[More](w, 0, OpTick, Bound{Limit: 8})
	}
	got := must[Waiting](w, s, OpAwait, Await{Session: s, Queue: w.status("q").ID, Place: place})
	want(t, "who waited", bodies(got.Taken.Messages), "[y]")
	w.check()
}

func TestFull(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	three, reject, old := 3, Reject, DropOld
	must[none](w, 0, OpSet, Set{Name: "q", Max: &three})
	four := make([]Message, 4)
	wantKind[Pushed](w, 0, OpPush, Push{Name: "q", Messages: four}, meta.Quota) // they never fit
	if got := must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: four, Part: true}).IDs; len(got) != 3 {
		t.Errorf("of four %v were pushed", got)
	}
	if got := w.push("q", "x"); len(got) != 0 {
		t.Errorf("pushed %v to a full queue", got)
	}
	fits := func() bool { return must[Space](w, 0, OpRoom, Fit{w.status("q").ID, 1}).Fits }
	if fits() {
		t.Error("one more fits")
	}
	w.settle(s, "q", w.take(s, "q", "", 1).Claim, Ack)
	if !fits() {
		t.Error("nothing fits after one was settled")
	}
	w.push("q", "d")
	must[none](w, 0, OpSet, Set{Name: "q", Full: &reject})
	wantKind[Pushed](w, 0, OpPush, Push{Name: "q", Messages: four[:1]}, meta.Quota)
	must[none](w, 0, OpPurge, Named{"q"})
	must[none](w, 0, OpSet, Set{Name: "q", Full: &old})
	w.push("q", "a", "b", "c")
	w.take(s, "q", "", 1)
	w.push("q", "d")
	want(t, "without the oldest", bodies(w.take(s, "q", "", 9).Messages), "[c d]")
	if got := w.push("q", "e"); len(got) != 0 || w.status("q").Dropped != 1 {
		t.Errorf("pushed %v although all are out; status %+v", got, w.status("q"))
	}
	w.check()
}

func TestGroups(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	week := 7 * 24 * time.Hour
	must[none](w, 0, OpSet, Set{Name: "q", KeepFor: &week})
	w.push("q", "a", "b")
	w.pass(time.Second)
	half := meta.At(w.clock)
	must[none](w, 0, OpMakeGroup, Grouped{"q", "g"})
	w.push("q", "c", "d")
	take := func(group string) string {
		c := w.take(s, "q", group, 9)
		if c.Claim != 0 {
			w.settle(s, "q", c.Claim, Ack)
		}
		return bodies(c.Messages)
	}
	want(t, "default", take(""), "[a b c d]")
	want(t, "g", take("g"), "[c d]")
	for _, at := range []struct {
		seek Seek
		want string
	}{
		{Seek{First: true}, "[a b c d]"}, {Seek{Number: 2}, "[b c d]"}, {Seek{Time: half}, "[c d]"}, {Seek{Last: true}, "[]"}, {Seek{Number: 99}, "[]"},
	} {
		at.seek.Name, at.seek.Group = "q", "g"
		held := w.take(s, "q", "g", 1) // forgotten
		must[none](w, 0, OpSeek, at.seek)
		if held.Claim != 0 {
			if st := must[Settled](w, s, OpSettle, Settles{[]Settle{{Name: "q", Claim: held.Claim}}}); st.Stale != 1 {
				t.Errorf("a claim survived the seek: %+v", st)
			}
		}
		w.check()
		want(t, fmt.Sprintf("%+v", at.seek), take("g"), at.want)
	}
	if st := w.status("q"); st.Messages != 4 || st.Depth() != 0 {
		t.Errorf("kept: %+v", st)
	}
	must[none](w, 0, OpSeek, Seek{Name: "q", Group: "g", First: true})
	w.pass(week)
	if st := w.status("q"); st.Messages != 4 {
		t.Errorf("g has not settled them, and there are %d", st.Messages)
	}
	must[none](w, 0, OpRemoveGroup, Grouped{"q", "g"})
	if st := w.status("q"); st.Messages != 0 {
		t.Errorf("after a week: %+v", st)
	}
	// Without the default group nothing waits for it.
	must[none](w, 0, OpRemoveGroup, Grouped{"q", ""})
	w.push("q", "e")
	must[none](w, 0, OpMakeGroup, Grouped{"q", ""})
	want(t, "the default group, made again", take(""), "[]")
	w.sweep(3)
	w.check()
}

func TestKeepBytes(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	ten := int64(10)
	must[none](w, 0, OpSet, Set{Name: "q", KeepBytes: &ten})
	for i := range 9 {
		w.push("q", fmt.Sprintf("m%d", i))
	}
	if st := w.status("q"); st.Messages != 9 {
		t.Errorf("nobody has settled them, and there are %d", st.Messages)
	}
	w.settle(s, "q", w.take(s, "q", "", 8).Claim, Ack)
	st := w.status("q")
	if st.Bytes != 10 || st.First != 5 || st.Begin != 12 || st.End != 27 {
		t.Errorf("status %+v", st)
	}
	log := must[Log](w, 0, OpRead, Read{Name: "q", Byte: 16, Limit: 2})
	if len(log.Messages) != 2 || !log.More || log.Messages[0].Got.Number != 6 || log.Messages[0].Byte != 15 {
		t.Errorf("log from byte 16: %+v", log)
	}
	log = must[Log](w, 0, OpRead, Read{Name: "q", From: 9, Limit: 2})
	if len(log.Messages) != 1 || log.More || string(log.Messages[0].Got.Body) != "m8" {
		t.Errorf("log from 9: %+v", log)
	}
	log = must[Log](w, 0, OpRead, Read{Name: "q", Limit: 9, Undone: true})
	if len(log.Messages) != 1 || log.Messages[0].Got.Number != 9 {
		t.Errorf("not settled: %+v", log)
	}
	w.check()
}

func TestExpire(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	must[none](w, 0, OpMakeGroup, Grouped{"q", "g"})
	short := func(b string) {
		must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Body: []byte(b), Expires: time.Minute}}})
	}
	short("a")
	w.push("q", "b")
	short("c")
	c := w.take(s, "q", "g", 1)
	must[Settled](w, s, OpSettle, Settles{[]Settle{{Name: "q", Claim: c.Claim, What: Extend, Time: time.Hour}}})
	w.pass(time.Minute)
	w.check()
	want(t, "default", bodies(w.take(s, "q", "", 9).Messages), "[b]")
	w.settle(s, "q", c.Claim, Nack) // it is too old to come again
	want(t, "g", bodies(w.take(s, "q", "g", 9).Messages), "[b]")
	w.check()
}

func TestDedup(t *testing.T) {
	w := newWorld(t)
	w.make("q")
	send := func(id string) []uint64 {
		return must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Dedup: id}}}).IDs
	}
	want(t, "ids", fmt.Sprint(send("x"), send("y"), send("x")), "[1] [2] [1]")
	w.pass(DedupKeep)
	want(t, "later", fmt.Sprint(send("x")), "[3]")
}

func TestPause(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	yes, no := true, false
	must[none](w, 0, OpSet, Set{Name: "q", Paused: &yes})
	w.push("q", "a")
	place := must[Taken](w, s, OpTake, Take{Name: "q", Max: 1, Wait: true}).Place
	must[none](w, 0, OpSet, Set{Name: "q", Paused: &no})
	got := must[Waiting](w, s, OpAwait, Await{Session: s, Queue: w.status("q").ID, Place: place})
	want(t, "after resume", bodies(got.Taken.Messages), "[a]")
	w.check()
}

func TestPurge(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	w.push("q", "a", "b", "c")
	must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Delay: time.Minute}}})
	c := w.take(s, "q", "", 2)
	must[Settled](w, s, OpSettle, Settles{[]Settle{{Name: "q", Claim: c.Claim, Numbers: []uint64{1}, What: Discard}}})
	wantKind[none](w, 0, OpRemove, Named{"q"}, meta.Busy)
	must[none](w, 0, OpPurge, Named{"q"})
	w.check()
	place := must[Taken](w, s, OpTake, Take{Name: "q", Max: 1, Wait: true}).Place
	w.push("q", "d")
	got := must[Waiting](w, s, OpAwait, Await{Session: s, Queue: w.status("q").ID, Place: place})
	want(t, "after purge", bodies(got.Taken.Messages), "[d]")
	w.settle(s, "q", place, Ack)
	must[none](w, 0, OpRemove, Named{"q"})
	w.sweep(2)
	w.pass(time.Hour)
	for k := range w.store.Scan([]byte("8"), []byte("9")) {
		if string(k) != "8c" {
			t.Errorf("left: %q", k)
		}
	}
}

func TestBad(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.make("q")
	long := strings.Repeat("x", NameMax+1)
	for _, name := range []string{"", ".", "..", ".x", "a/b", "a\x00"} {
		wantKind[none](w, 0, OpMake, Make{Name: name}, meta.Invalid)
	}
	wantKind[none](w, 0, OpMake, Make{Name: long}, meta.NameTooLong)
	wantKind[none](w, 0, OpMake, Make{Name: "q"}, meta.Exist)
	wantKind[none](w, 0, OpRemove, Named{"p"}, meta.NotExist)
	wantKind[Pushed](w, 0, OpPush, Push{Name: "q"}, meta.Invalid)
	wantKind[Pushed](w, 0, OpPush, Push{Name: "p", Messages: []Message{{}}}, meta.NotExist)
	wantKind[Pushed](w, 0, OpPush, Push{Name: "q", Messages: make([]Message, PushMax+1)}, meta.Invalid)
	wantKind[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Body: make([]byte, BodyMax+1)}}}, meta.TooLarge)
	wantKind[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Key: long}}}, meta.TooLarge)
	wantKind[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Priority: Priorities}}}, meta.Invalid)
	wantKind[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{Delay: -1}}}, meta.Invalid)
	wantKind[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{}}, Token: &Token{"x", 17}}, meta.Conflict)
	must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{{}}, Token: &Token{"x", 18}})
	big := make([]Message, 17)
	for i := range big {
		big[i].Body = make([]byte, BodyMax)
	}
	wantKind[Pushed](w, 0, OpPush, Push{Name: "q", Messages: big}, meta.TooLarge)
	wantKind[Taken](w, 0, OpTake, Take{Name: "q", Max: 1}, meta.Invalid)
	wantKind[Taken](w, s, OpTake, Take{Name: "q", Max: TakeMax + 1}, meta.Invalid)
	wantKind[Taken](w, s, OpTake, Take{Name: "q", Group: "g", Max: 1}, meta.NotExist)
	wantKind[Taken](w, s, OpTake, Take{Name: "q", Max: 1, Token: &Token{"x", 17}}, meta.Conflict)
	one := []Message{{}}
	wantKind[Passed](w, s, OpPass, Pass{Name: "q", Push: Push{Messages: one, Token: &Token{"x", 17}}}, meta.Conflict)
	wantKind[Passed](w, s, OpPass, Pass{Name: "q", Push: Push{Messages: one}, Takes: []Take{{Max: 1, Token: &Token{"x", 17}}}}, meta.Conflict)
	wantKind[Settled](w, s, OpSettle, Settles{[]Settle{{Name: "q", What: Discard + 1}}}, meta.Invalid)
	wantKind[none](w, 0, OpSeek, Seek{Name: "q"}, meta.Invalid)
	self, bad := "q", -1
	wantKind[none](w, 0, OpSet, Set{Name: "q", Dead: &self}, meta.Invalid)
	wantKind[none](w, 0, OpSet, Set{Name: "q", Max: &bad}, meta.Invalid)
	wantKind[none](w, 0, OpMakeGroup, Grouped{"q", ".g"}, meta.Invalid)
	wantKind[none](w, 0, OpMakeGroup, Grouped{"q", ""}, meta.Exist)
	wantKind[none](w, 0, OpRemoveGroup, Grouped{"q", "g"}, meta.NotExist)
	wantKind[More](w, 0, OpTick, Bound{}, meta.Invalid)
	if err := (Room{}).check(nil, &Token{Lock: "x"}); !strings.Contains(err.Error(), meta.Unsupported.Error()) {
		t.Errorf("without a fence: %v", err)
	}
	w.check()
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	for _, n := range []string{"b", "a", "c"} {
		w.make(n)
	}
	got := must[Names](w, 0, OpList, List{Limit: 2})
	want(t, "names", fmt.Sprint(got.Names, got.More), "[a b] true")
	got = must[Names](w, 0, OpList, List{After: "b", Limit: 2})
	want(t, "names after b", fmt.Sprint(got.Names, got.More), "[c] false")
	must[none](w, 0, OpRemove, Named{"b"})
	w.sweep(1)
	if _, _, ok := first(w.store, []byte("8z"), state.After([]byte("8z"))); ok {
		t.Error("there is something left to sweep")
	}
}
