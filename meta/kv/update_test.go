package kv

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dos/meta"
)

func (w *world) update(steps ...Step) []Outcome {
	w.t.Helper()
	return must[Updated](w, 1, OpUpdate, Update{Table: "t", Steps: steps, Mode: 0o640, UID: 7}).Outcomes
}

func (w *world) value(key string) (string, Entry) {
	w.t.Helper()
	e := must[Found](w, 0, OpGets, Gets{Table: "t", Keys: []string{key}, Data: true}).Entries[0]
	return string(e.Data), e
}

// A lock as people make it of a key: only who took it gives it back or has it longer.
func TestUpdateLock(t *testing.T) {
	w := newWorld(t, 1)
	w.make("t")
	lock := func(who string, d time.Duration) Step {
		return Step{Do: Write, Key: "lock", Data: []byte(who), If: Absent, TTL: d}
	}
	mine := func(s Step, who string) Step {
		s.Key, s.If, s.Match = "lock", Equal, []byte(who)
		return s
	}
	expect := func(what string, got []Outcome, want ...Why) {
		t.Helper()
		for i, o := range got {
			if i >= len(want) || o.Why != want[i] {
				t.Fatalf("%s: %+v, want %v", what, got, want)
			}
		}
	}
	expect("both take it", w.update(lock("a", time.Second), lock("b", time.Second)), Fine, NotSo)
	began := w.now
	expect("b gives it back", w.update(mine(Step{Do: Remove}, "b")), NotSo)
	expect("b has it longer", w.update(mine(Step{Do: Time, TTL: time.Hour}, "b")), NotSo)
	expect("a has it longer", w.update(mine(Step{Do: Time, TTL: time.Minute, Clock: More}, "a")), Fine)
	if _, e := w.value("lock"); e.Expires != meta.At(began.Add(time.Minute+time.Second)) {
		t.Errorf("it goes at %v, want a minute and a second after %v", e.Expires, began)
	}
	// Its time is over, and nobody has sent Expire yet.
	w.now = w.now.Add(2 * time.Minute)
	expect("b takes it after a", w.update(lock("b", time.Second)), Fine)
	expect("a comes too late", w.update(mine(Step{Do: Remove}, "a"), mine(Step{Do: Time, TTL: time.Hour}, "a")), NotSo, NotSo)
	expect("b gives it back", w.update(mine(Step{Do: Remove}, "b"), lock("a", 0)), Fine, Fine)
	if val, e := w.value("lock"); val != "a" || e.Expires != 0 || e.Mode != 0o640 || e.UID != 7 {
		t.Errorf("%q %+v", val, e)
	}
}

func TestUpdateFails(t *testing.T) {
	w := newWorld(t, 1)
	w.make("t")
	w.put("t", "k", "1")
	w.put("t", "d/x", "1")
	must[none](w, 1, OpStage, Stage{Number: 9, Data: []byte("large")})
	write := Step{Do: Write, Key: "k", Data: []byte("2")}
	big := Step{Do: Look, Key: "big", Tell: true}
	w.update(Step{Do: Write, Key: "big", Data: make([]byte, InlineMax)})
	for name, c := range map[string]struct {
		req  Update
		want error
	}{
		"no steps":       {Update{}, meta.Invalid},
		"too many":       {Update{Steps: make([]Step, StepsMax+1)}, meta.Invalid},
		"no table":       {Update{Table: "u", Steps: []Step{write}}, meta.NotExist},
		"a directory":    {Update{Steps: []Step{write, {Do: Write, Key: "d"}}}, meta.IsDir},
		"below a value":  {Update{Steps: []Step{write, {Do: Add, Key: "k/x"}}}, meta.NotDir},
		"no act":         {Update{Steps: []Step{write, {Do: Append + 1, Key: "x"}}}, meta.Invalid},
		"a past time":    {Update{Steps: []Step{write, {Do: Time, Key: "k", TTL: -1}}}, meta.Invalid},
		"too large":      {Update{Steps: []Step{write, {Do: Write, Key: "x", Data: make([]byte, InlineMax+1)}}}, meta.Invalid},
		"too much":       {Update{Steps: slices.Repeat([]Step{{Do: Write, Key: "x", Data: make([]byte, InlineMax)}}, 3)}, meta.TooLarge},
		"must":           {Update{Steps: []Step{write, {Key: "k", If: Version, Version: 1000, Must: true}}}, meta.Conflict},
		"others' parts":  {Update{Steps: []Step{write, {Do: Write, Key: "x", Blob: &Blob{1, 8, 5}}}}, meta.Invalid},
		"whole and much": {Update{Whole: true, Steps: []Step{write, big, big, big, big}}, meta.TooLarge},
	} {
		if c.req.Table == "" {
			c.req.Table = "t"
		}
		if _, err := call[Updated](w, 1, OpUpdate, c.req); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if val, _ := w.value("k"); val != "1" {
			t.Fatalf("%s: it wrote %q all the same", name, val)
		}
	}
	// What tells much is answered in parts, and does no more than it says.
	out := w.update(big, big, big, write)
	if val, _ := w.value("k"); len(out) != 3 || val != "1" {
		t.Errorf("%d outcomes, and k is %q", len(out), val)
	}
	must[Updated](w, 1, OpUpdate, Update{Table: "t", Steps: []Step{{Do: Write, Key: "k", Blob: &Blob{1, 9, 5}}}})
	out = w.update(Step{Do: Append, Key: "k"}, Step{Do: Append, Key: "big", Data: []byte("x")}, Step{Do: Add, Key: "k", Number: 1})
	if tell := w.update(Step{Do: Remove, Key: "k", Tell: true}); tell[0].Why != Parted || tell[0].Blob == nil {
		t.Errorf("removing and telling what is in parts: %+v", tell)
	}
	if out[0].Why != Parted || out[1].Why != Parted || out[2].Why != NoNumber {
		t.Errorf("%+v", out)
	}
}

// TestUpdateModel does random steps to a world and to a map.
func TestUpdateModel(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-seed=%d", s)
	r := rand.New(rand.NewPCG(s, 1))
	w := newWorld(t, 1)
	w.make("t")
	twin := make(map[string]twinValue)
	data := []string{"", "1", "-9223372036854775808", "01", "x", "9223372036854775807"}
	for n := range 4_000 {
		if r.IntN(10) == 0 {
			w.now = w.now.Add(time.Duration(r.IntN(30)) * time.Millisecond)
		}
		if r.IntN(20) == 0 {
			must[Expired](w, 0, OpExpire, none{})
		}
		steps := make([]Step, 1+r.IntN(4))
		for i := range steps {
			steps[i] = Step{
				Do: Act(r.IntN(6)), Key: string(rune('a' + r.IntN(3))), If: If(r.IntN(6)), Alarm: Alarm(r.IntN(5)), Clock: Clock(r.IntN(3)),
				TTL: time.Duration(r.IntN(3)*20) * time.Millisecond, Match: []byte(data[r.IntN(2)]), Tell: true,
			}
			switch steps[i].Do {
			case Write, Append:
				steps[i].Data = []byte(data[r.IntN(len(data))])
			case Add:
				steps[i].Number = []int64{1, -1, math.MaxInt64, math.MinInt64}[r.IntN(4)]
			}
			if old := twin[steps[i].Key]; r.IntN(2) == 0 {
				steps[i].Version, steps[i].Match = old.version, []byte(old.data)
			}
		}
		got := w.update(steps...)
		for i, s := range steps {
			want := model(twin, s, w.now, got[i].Now)
			if len(got[i].Data) == 0 {
				got[i].Data = nil
			}
			if !reflect.DeepEqual(got[i], want) {
				t.Fatalf("%d: step %+v gives %+v, want %+v", n, s, got[i], want)
			}
		}
		maps.DeleteFunc(twin, func(_ string, v twinValue) bool { return !v.expires.IsZero() && !v.expires.After(w.now) })
		for key, v := range twin {
			if val, e := w.value(key); val != v.data || e.Version != v.version || e.Expires != at(v.expires) {
				t.Fatalf("%d: after %+v %s is %q %+v, want %+v", n, steps, key, val, e, v)
			}
		}
		table := must[Table](w, 0, OpTable, Named{"t"})
		var bytes int64
		count := int64(0)
		for _, e := range must[Scanned](w, 0, OpScan, Scan{Table: "t", Limit: 10}).Entries {
			bytes += int64(len(e.Key) + e.Size)
			count++
		}
		if table.Bytes != bytes || table.Count != count {
			t.Fatalf("%d: the table says %d keys of %d bytes, and has %d of %d", n, table.Count, table.Bytes, count, bytes)
		}
	}
}

func at(t time.Time) meta.Time {
	if t.IsZero() {
		return 0
	}
	return meta.At(t)
}

// model does a step to a map. The version that it would have is as now says.
func model(twin map[string]twinValue, s Step, clock time.Time, now uint64) Outcome {
	old, was := twin[s.Key]
	if was && !old.expires.IsZero() && !old.expires.After(clock) {
		delete(twin, s.Key)
		old, was = twinValue{}, false
	}
	out := Outcome{Version: old.version, Size: len(old.data), Expires: at(old.expires), Now: old.version}
	if old.data != "" {
		out.Data = []byte(old.data)
	}
	to := clock.Add(s.TTL)
	ok := map[If]bool{Always: true, Absent: !was, Present: was, Equal: was && old.data == string(s.Match), Version: old.version == s.Version,
		Prefix: was && strings.HasPrefix(old.data, string(s.Match))}[s.If] &&
		map[Alarm]bool{Whenever: true, Unset: old.expires.IsZero(), Ticking: !old.expires.IsZero(),
			Later: !old.expires.IsZero() && to.After(old.expires), Sooner: old.expires.IsZero() || to.Before(old.expires)}[s.Alarm]
	if !ok || !was && (s.Do == Remove || s.Do == Time) {
		out.Why = NotSo
		return out
	}
	v := old
	switch s.Do {
	case Look:
		return out
	case Remove:
		delete(twin, s.Key)
		out.Now = 0
		return out
	case Write:
		v.data = string(s.Data)
	case Add:
		number, err := strconv.ParseInt(old.data, 10, 64)
		if was && (err != nil || fmt.Sprint(number) != old.data) {
			out.Why = NoNumber
			return out
		}
		if sum := number + s.Number; (sum > number) != (s.Number > 0) {
			out.Why = Overflows
			return out
		}
		out.Number = number + s.Number
		v.data = fmt.Sprint(out.Number)
	case Append:
		v.data += string(s.Data)
		out.Number = int64(len(v.data))
	}
	switch {
	case s.Clock == Anew:
		v.expires = time.Time{}
		if s.TTL > 0 {
			v.expires = to
		}
	case s.Clock == More && !old.expires.IsZero():
		v.expires = old.expires.Add(s.TTL)
	}
	v.version = now
	twin[s.Key] = v
	out.Now = now
	return out
}

func TestGetsParts(t *testing.T) {
	w := newWorld(t, 1)
	w.make("t")
	var keys []string
	for i := range 12 {
		keys = append(keys, fmt.Sprint("k", i))
		w.put("t", keys[i], strings.Repeat("x", InlineMax))
	}
	keys = append([]string{"none"}, keys...)
	got := must[Found](w, 0, OpGets, Gets{Table: "t", Keys: keys, Data: true}).Entries
	if len(got) < 2 || len(got) == len(keys) || got[0].Version != 0 || got[1].Size != InlineMax {
		t.Errorf("%d entries of %d", len(got), len(keys))
	}
	if got := must[Found](w, 0, OpGets, Gets{Table: "t", Keys: keys}).Entries; len(got) != len(keys) || got[1].Data != nil {
		t.Errorf("%d entries of %d without their bytes", len(got), len(keys))
	}
}
