package kv

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// What is written here is read for ever: a change is a change of format.
func TestGolden(t *testing.T) {
	w := newWorld(t, 1)
	must[none](w, 0, OpMake, Make{Name: "t", UID: 1, GID: 2, Mode: 0o750})
	must[none](w, 0, OpSetTable, SetTable{Name: "t", TTL: p(time.Minute), Quota: p(int64(1 << 30))})
	w.put("t", "k", "v")
	w.put("t", "d/", "")
	for n := range uint64(2) {
		must[none](w, 1, OpStage, Stage{Number: n, Data: []byte("large")})
	}
	must[Written](w, 1, OpPut, Put{Table: "t", Key: "l", Blob: &Blob{Session: 1, Number: 0, Size: 5}, Mode: 0o600, TTL: p(time.Duration(0))})
	must[Written](w, 1, OpDelete, Delete{Table: "t", Key: "d/"})
	var got bytes.Buffer
	for _, op := range w.m.Ops() {
		if op > "0x0600" {
			fmt.Fprintln(&got, op)
		}
	}
	for k, v := range w.store.Scan([]byte("7"), []byte("8")) {
		fmt.Fprintf(&got, "%q %x\n", k, v)
	}
	n, d, i := uint32(1), time.Second, int64(2)
	for _, v := range []any{
		Make{"t", 1, 2, 3}, Named{"t"}, SetTable{"t", &n, &n, &n, &d, &i}, Stage{1, 2, []byte("d")}, Blob{1, 2, 3},
		Put{"t", "k", []byte("d"), &Blob{1, 2, 3}, p(uint64(4)), 5, 6, 7, &d}, Written{1}, Delete{"t", "k", p(uint64(1))},
		Set{"t", "k", &n, &n, &n, &d, true}, Rename{"t", "k", "u", "l", true}, Expired{true}, Tables{"t", 1}, TableList{nil, true},
		Get{"t", "k", true}, Entry{"k", 1, 2, 3, 4, 5, 6, 7, 8, true, []byte("d"), &Blob{1, 2, 3}}, Part{Blob{1, 2, 3}, 4}, PartData{[]byte("d")},
		Scan{"t", "f", "t", 1, true}, List{"t", "d", "a", 1}, Scanned{nil, true, 1}, Follow{"t", 1, 2}, Changes{nil, 1},
		Change{1, WasPut, "t", "k", 2, 3}, Due{1}, Update{"t", nil, true, 1, 2, 3}, Updated{[]Outcome{{}}},
		Step{Append, "k", []byte("d"), &Blob{1, 2, 3}, Version, []byte("m"), 4, Sooner, More, d, 5, true, true},
		Outcome{Parted, 1, 2, 3, []byte("d"), &Blob{1, 2, 3}, 4, 5}, Gets{"t", []string{"k"}, true}, Found{[]Entry{{}}},
	} {
		fmt.Fprintf(&got, "%T %x\n", v, state.Marshal(v))
	}
	statetest.Golden(t, "testdata/golden", got.String())
}

func TestRefused(t *testing.T) {
	w := newWorld(t, 1)
	w.make("t")
	w.make("small")
	must[none](w, 0, OpSetTable, SetTable{Name: "small", Quota: p(int64(10))})
	w.put("t", "v", "x")
	long := strings.Repeat("k", KeyMax+1)
	for _, c := range []struct {
		op   state.Op
		req  any
		want meta.Kind
	}{
		{OpMake, Make{Name: "t"}, meta.Exist},
		{OpMake, Make{Name: ".t"}, meta.Invalid},
		{OpMake, Make{Name: "a/b"}, meta.Invalid},
		{OpMake, Make{Name: ""}, meta.Invalid},
		{OpMake, Make{Name: strings.Repeat("t", 256)}, meta.NameTooLong},
		{OpDrop, Named{"t"}, meta.NotEmpty},
		{OpDrop, Named{"none"}, meta.NotExist},
		{OpSetTable, SetTable{Name: "t", Quota: p(int64(-1))}, meta.Invalid},
		{OpSetTable, SetTable{Name: "t", TTL: p(-time.Second)}, meta.Invalid},
		{OpPut, Put{Table: "none", Key: "k"}, meta.NotExist},
		{OpPut, Put{Table: "t", Key: ""}, meta.NameTooLong},
		{OpPut, Put{Table: "t", Key: long}, meta.NameTooLong},
		{OpPut, Put{Table: "t", Key: "a//b"}, meta.Invalid},
		{OpPut, Put{Table: "t", Key: "/a"}, meta.Invalid},
		{OpPut, Put{Table: "t", Key: "a/.b"}, meta.Invalid},
		{OpPut, Put{Table: "t", Key: "k", Data: make([]byte, InlineMax+1)}, meta.TooLarge},
		{OpPut, Put{Table: "t", Key: "d/", Data: []byte("x")}, meta.Invalid},
		{OpPut, Put{Table: "t", Key: "k", TTL: p(-time.Second)}, meta.Invalid},
		{OpPut, Put{Table: "t", Key: "k", Blob: &Blob{Session: 1, Number: 9, Size: 5}}, meta.Invalid},
		{OpPut, Put{Table: "t", Key: "v/x"}, meta.NotDir},
		{OpPut, Put{Table: "small", Key: "k", Data: make([]byte, 10)}, meta.Quota},
		{OpSet, Set{Table: "t", Key: "k"}, meta.NotExist},
		{OpSet, Set{Table: "t", Key: "v", TTL: p(-time.Second)}, meta.Invalid},
		{OpStage, Stage{Number: 1, Part: 1, Data: []byte("x")}, meta.Invalid},
		{OpStage, Stage{Number: 1, Data: make([]byte, PartMax+1)}, meta.Invalid},
		{OpScan, Scan{Table: "t"}, meta.Invalid},
		{OpScan, Scan{Table: "none", Limit: 1}, meta.NotExist},
		{OpFollow, Follow{Table: "t", After: 99, Limit: 1}, meta.Invalid},
	} {
		if _, err := call[none](w, 1, c.op, c.req); !errors.Is(err, c.want) {
			t.Errorf("op %#x %.60v: %v, want %v", uint16(c.op), c.req, err, c.want)
		}
	}
}

func TestLargeValues(t *testing.T) {
	w := newWorld(t, 2)
	w.make("t")
	rows := func() (n int) {
		for range w.store.Scan([]byte(parts7), []byte(staged7+"\xff")) {
			n++
		}
		return n
	}
	put := func(number uint64, size int) Blob {
		t.Helper()
		for part := 0; part*PartMax < size; part++ {
			data := bytes.Repeat([]byte{byte(part)}, min(PartMax, size-part*PartMax))
			must[none](w, 1, OpStage, Stage{Number: number, Part: uint32(part), Data: data})
		}
		return Blob{Session: 1, Number: number, Size: size}
	}
	big := put(1, ValueMax)
	if _, err := call[none](w, 1, OpStage, Stage{Number: 1, Part: 4, Data: []byte("x")}); !errors.Is(err, meta.TooLarge) {
		t.Errorf("more than a value: %v", err)
	}
	if _, err := call[Written](w, 2, OpPut, Put{Table: "t", Key: "k", Blob: &big}); !errors.Is(err, meta.Invalid) {
		t.Errorf("what another session staged: %v", err)
	}
	must[Written](w, 1, OpPut, Put{Table: "t", Key: "k", Blob: &big})
	if _, err := call[none](w, 1, OpStage, Stage{Number: 1, Data: []byte("x")}); !errors.Is(err, meta.Exist) {
		t.Errorf("a part of a value that is there: %v", err)
	}
	e := must[Entry](w, 0, OpGet, Get{Table: "t", Key: "k", Data: true})
	if e.Size != ValueMax || e.Blob == nil || len(must[PartData](w, 0, OpPart, Part{*e.Blob, 3}).Data) != PartMax {
		t.Errorf("the value is %+v", e)
	}
	second := put(2, PartMax+1)
	must[Written](w, 1, OpRename, Rename{"t", "k", "t", "l", false})
	if n := rows(); n != 4+3 {
		t.Errorf("%d rows of parts, want 7", n)
	}
	must[Written](w, 1, OpPut, Put{Table: "t", Key: "l", Blob: &second})
	if _, err := call[PartData](w, 0, OpPart, Part{*e.Blob, 3}); !errors.Is(err, meta.NotExist) {
		t.Errorf("a part of a value that was replaced: %v", err)
	}
	put(3, 5)
	must[none](w, 1, OpUnstage, Blob{Number: 3})
	put(4, 5)
	must[session.Ended](w, 0, session.OpEnd, session.End{ID: 1})
	if n := rows(); n != 2 {
		t.Errorf("%d rows of parts after the end of the session, want those of the value", n)
	}
	must[Written](w, 2, OpDelete, Delete{Table: "t", Key: "l"})
	if n := rows(); n != 0 {
		t.Errorf("%d rows of parts of nothing", n)
	}
}

func TestFeedIsBounded(t *testing.T) {
	w := newWorld(t, 1)
	w.make("t")
	w.make("u")
	for range FeedMax + 10 {
		w.put("t", "k", "")
	}
	n := 0
	for range w.store.Scan([]byte(feed7), state.After([]byte(feed7))) {
		n++
	}
	if n != FeedMax {
		t.Errorf("%d changes are kept, want %d", n, FeedMax)
	}
	if _, err := call[Changes](w, 0, OpFollow, Follow{Table: "t", After: 9, Limit: 1}); !errors.Is(err, meta.Conflict) {
		t.Errorf("following after what is not kept: %v", err)
	}
	if reply := must[Changes](w, 0, OpFollow, Follow{Table: "t", After: 10, Limit: 1}); len(reply.Changes) != 1 || reply.Rev != 11 {
		t.Errorf("the oldest changes: %+v", reply)
	}
}

// A touched value lives on, and one whose ttl is taken away stays.
func TestTimeToLive(t *testing.T) {
	w := newWorld(t, 1)
	w.make("t")
	for _, key := range []string{"goes", "touched", "stays", "written"} {
		must[Written](w, 1, OpPut, Put{Table: "t", Key: key, TTL: p(10 * time.Second)})
	}
	first := must[Due](w, 0, OpDue, none{}).At
	w.now = w.now.Add(6 * time.Second)
	must[none](w, 1, OpSet, Set{Table: "t", Key: "touched", Touch: true})
	must[none](w, 1, OpSet, Set{Table: "t", Key: "stays", TTL: p(time.Duration(0))})
	w.put("t", "written", "again")
	w.now = w.now.Add(6 * time.Second)
	must[Expired](w, 0, OpExpire, none{})
	var left []string
	for _, e := range must[Scanned](w, 0, OpScan, Scan{Table: "t", Limit: 9}).Entries {
		left = append(left, e.Key)
	}
	if got := strings.Join(left, " "); got != "stays touched written" {
		t.Errorf("%s are left", got)
	}
	if due := must[Due](w, 0, OpDue, none{}).At; due <= first {
		t.Errorf("due at %v, before that at %v", due, first)
	}
	for i := range expireMax + 1 {
		must[Written](w, 1, OpPut, Put{Table: "t", Key: fmt.Sprint(i), TTL: p(time.Second)})
	}
	w.now = w.now.Add(time.Minute)
	if !must[Expired](w, 0, OpExpire, none{}).More || must[Expired](w, 0, OpExpire, none{}).More {
		t.Error("what expires is not bounded")
	}
}
