package named

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

// What is written here is read for ever: a change is a change of format.
func TestGolden(t *testing.T) {
	w := newWorld(t, 3)
	limit, delay, value := 2, 3*time.Second, "v"
	who := Who{Node: "n", PID: 4, UID: 5, Cmd: "c"}
	must[none](w, 1, OpMkdir, Mkdir{Name: "d", Dir: Dir{UID: 1, GID: 2, Mode: 0o755}})
	must[Outcome](w, 1, OpSet, Set{Name: "d/a", Limit: &limit, Delay: &delay, Value: &value})
	for n := range uint64(4) {
		must[Outcome](w, 1, OpAsk, Ask{Name: "d/a", Claim: Claim{Number: n + 1, Mode: meta.Shared, Who: who}, Wait: true})
	}
	w.release(1, "d/a", 1)
	must[Outcome](w, 2, OpAsk, Ask{Name: "id", Claim: Claim{Number: 1, Mode: meta.Exclusive, ID: "job", TTL: time.Minute}})
	must[Outcome](w, 2, OpWatch, Watch{Name: "id"})
	for n := range uint64(2) {
		must[Outcome](w, 3, OpAsk, Ask{Name: "lent", Claim: Claim{Number: n + 1, Mode: meta.Exclusive}, Borrow: true})
		w.release(3, "lent", 1)
	}
	w.ask(2, "lent", 2, meta.Exclusive, true)
	must[Outcome](w, 2, OpAsk, Ask{Name: "old", Claim: Claim{Number: 3, Mode: meta.Exclusive}})
	w.release(2, "old", 3)
	var got bytes.Buffer
	for _, op := range w.m.Ops() {
		if op > "0x0500" {
			fmt.Fprintln(&got, op)
		}
	}
	for k, v := range w.store.Scan([]byte("6"), []byte("7")) {
		fmt.Fprintf(&got, "%q %x\n", k, v)
	}
	must[none](w, 3, OpReturn, Return{Locks: []Returned{{Name: "lent"}}})
	w.pass(time.Minute + time.Second)
	token, _ := w.store.Get(tokenKey)
	fmt.Fprintf(&got, "%q %x\n", tokenKey, token)
	lock := Lock{Token: 1, Holds: []Claim{{Session: 1, Number: 2, Mode: 1, Who: who, ID: "i", TTL: 3, Token: 4, Since: 5, Expires: 6}},
		Waits: []Claim{{Session: 7}}, Limit: 8, Delay: 9, Value: "v", Fenced: true, Shut: 10, Prev: 11}
	fenced := true
	for _, v := range []any{
		lock, Named{"n"}, Names{[]string{"n"}}, Ask{"n", lock.Holds[0], true, true}, Outcome{1, true, 2, &Loan{lock, 3}}, Release{"n", 1},
		Return{[]Returned{{"n", true, lock}}}, ByID{"n", "i", true, 1, 2}, Set{"n", &limit, &delay, &value, &fenced}, Watch{"n", true},
		Mkdir{"n", Dir{1, 2, 3, 4}}, Follow{"n", 1}, Info{"n", true, lock, 1, 2, 3, 4, &Dir{1, 2, 3, 4}}, List{"d", "f", 1},
		Listed{[]Entry{{"n", &Dir{}, 1}}, "f"}, Await{1, 2}, Arrived{[]News{{1, "n", 2, 3, true}}}, Due{1},
	} {
		fmt.Fprintf(&got, "%T %x\n", v, state.Marshal(v))
	}
	statetest.Golden(t, "testdata/golden", got.String())
}

func TestNames(t *testing.T) {
	w := newWorld(t, 1)
	mkdir := func(name string) error {
		_, err := call[none](w, 1, OpMkdir, Mkdir{Name: name, Dir: Dir{Mode: 0o700}})
		return err
	}
	for _, c := range []struct {
		name string
		want error
	}{
		{"a", nil}, {"a", meta.Exist}, {"x/y", meta.NotExist}, {"a/deep", nil}, {"", meta.Invalid}, {".a", meta.Invalid},
		{"a//b", meta.Invalid}, {"a/..", meta.Invalid}, {"a\x00", meta.Invalid}, {string(make([]byte, PathMax+1)), meta.NameTooLong},
	} {
		if err := mkdir(c.name); !is(err, c.want) {
			t.Errorf("mkdir %.20q: %v, want %v", c.name, err, c.want)
		}
	}
	for n, name := range []string{"a.b", "a/l", "b", "c/d/e", "a0"} {
		w.ask(1, name, uint64(n+1), meta.Exclusive, false)
	}
	for name, want := range map[string]error{"a": meta.IsDir, "c/d": meta.IsDir, "b/x": meta.NotDir} {
		if _, err := call[Outcome](w, 1, OpAsk, Ask{Name: name, Claim: Claim{Number: 9, Mode: meta.Exclusive}}); !is(err, want) {
			t.Errorf("a lock %q: %v, want %v", name, err, want)
		}
	}
	list := func(dir string, limit int) (names []string) {
		for from := ""; ; {
			l := must[Listed](w, 0, OpList, List{Dir: dir, From: from, Limit: limit})
			for _, e := range l.Entries {
				if e.Dir != nil {
					e.Name += "/"
				}
				names = append(names, e.Name)
			}
			if from = l.From; from == "" {
				return names
			}
		}
	}
	for _, limit := range []int{1, 2, 100} {
		for dir, want := range map[string][]string{"": {"a.b", "a/", "a0", "b", "c/"}, "a": {"deep/", "l"}, "c": {"d/"}} {
			if got := list(dir, limit); !slices.Equal(got, want) {
				t.Errorf("in %q, %d at a time: %q, want %q", dir, limit, got, want)
			}
		}
	}
	rmdir := func(name string) error { _, err := call[none](w, 1, OpRmdir, Named{Name: name}); return err }
	if err := rmdir("a"); !is(err, meta.NotEmpty) {
		t.Errorf("rmdir of what is not empty: %v", err)
	}
	w.release(1, "a/l", 2)
	for _, name := range []string{"a/deep", "a"} {
		if err := rmdir(name); err != nil {
			t.Errorf("rmdir %q: %v", name, err)
		}
	}
	if err := rmdir("a"); !is(err, meta.NotExist) {
		t.Errorf("rmdir of what is not there: %v", err)
	}
	if _, err := call[Outcome](w, 1, OpRemove, Named{Name: "b"}); !is(err, meta.Busy) {
		t.Errorf("removing what is held: %v", err)
	}
}
