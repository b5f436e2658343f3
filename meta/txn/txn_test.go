package txn

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dos/meta"
	"dos/meta/kv"
	"dos/meta/state"
)

// A world has tables t and u, and a verb of another room that counts.
type world struct {
	m     *state.Machine
	store *state.Overlay
}

var counter = []byte("zcounter")

func count(tx *state.Tx, args []string, data []byte) (string, error) {
	if string(data) == "full" {
		return "", fmt.Errorf("queue %q: %w", args, meta.Quota)
	}
	n, _ := tx.Get(counter)
	tx.Set(counter, append(slices.Clone(n), '|'))
	return fmt.Sprint(len(n) + 1), nil
}

func newWorld(t *testing.T) *world {
	w := &world{m: new(state.Machine), store: state.NewOverlay(nil)}
	kv.Register(w.m)
	Register(w.m, kv.Verbs, map[string]Verb{"push": count})
	for _, op := range []struct {
		op  state.Op
		req any
	}{
		{kv.OpMake, kv.Make{Name: "t"}}, {kv.OpMake, kv.Make{Name: "u"}},
		{kv.OpPut, kv.Put{Table: "t", Key: "k", Data: []byte("old")}}, // version 1
	} {
		if reply := w.m.Apply(w.store, state.Command{Op: op.op, Body: state.Marshal(op.req)}); reply.Err() != nil {
			t.Fatal(reply.Err())
		}
	}
	return w
}

// rows is all that there is.
func (w *world) rows() string {
	var b strings.Builder
	for k, v := range w.store.Scan(nil, nil) {
		fmt.Fprintf(&b, "%q %q\n", k, v)
	}
	return b.String()
}

func (w *world) commit(steps ...Step) ([]string, error) {
	reply := w.m.Apply(w.store, state.Command{Op: OpCommit, Body: state.Marshal(Commit{steps})})
	if err := reply.Err(); err != nil {
		return nil, err
	}
	var c Committed
	state.MustUnmarshal(reply.Body, &c)
	return c.Answers, nil
}

// step reads "verb args… : data".
func step(text string) Step {
	words, data, _ := strings.Cut(text, " : ")
	fields := strings.Fields(words)
	return Step{Verb: fields[0], Args: fields[1:], Data: []byte(data)}
}

func TestCommit(t *testing.T) {
	for _, c := range []struct {
		steps   string
		answers string
		want    meta.Kind
	}{
		{"if t/k version 1; put t/k : new; put u/a : 1; push q : m; push q : n", "|2|3|1|2", 0},
		{"if t/x absent; put t/x : v; if t/x present; del t/x", "|2||", 0},
		{"put t/a/b : v; del t/k", "2|", 0},
		{"if t/k version 7; put t/k : new", "", meta.Conflict},
		{"put u/a : 1; push q : m; if t/k absent", "", meta.Conflict},
		{"if u/none present", "", meta.Conflict},
		{"put u/a : 1; push q : full", "", meta.Quota},
		{"put u/a : 1; del u/b", "", meta.NotExist},
		{"put u/a : 1; put none/b : 1", "", meta.NotExist},
		{"put u/a : 1; fly", "", meta.Invalid},
		{"put u/a : 1; put u", "", meta.Invalid},
		{"put u/a : 1; put u/b c : 1", "", meta.Invalid},
		{"put u/a : 1; if t/k", "", meta.Invalid},
		{"put u/a : 1; if t/k version x", "", meta.Invalid},
		{"put u/a : 1; put u/.b : 1", "", meta.Invalid},
	} {
		w := newWorld(t)
		before := w.rows()
		var steps []Step
		for text := range strings.SplitSeq(c.steps, "; ") {
			steps = append(steps, step(text))
		}
		answers, err := w.commit(steps...)
		switch {
		case c.want == 0 && (err != nil || strings.Join(answers, "|") != c.answers):
			t.Errorf("%s: %q, %v, want %q", c.steps, answers, err, c.answers)
		case c.want != 0 && !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %v", c.steps, err, c.want)
		case c.want != 0 && w.rows() != before:
			t.Errorf("%s failed, and changed\n%s to\n%s", c.steps, before, w.rows())
		}
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	if _, err := w.commit(); !errors.Is(err, meta.Invalid) {
		t.Errorf("no steps: %v", err)
	}
	if _, err := w.commit(slices.Repeat([]Step{step("push q")}, StepsMax)...); err != nil {
		t.Errorf("as many steps as can be: %v", err)
	}
	if _, err := w.commit(slices.Repeat([]Step{step("push q")}, StepsMax+1)...); !errors.Is(err, meta.Invalid) {
		t.Errorf("one more: %v", err)
	}
	if _, err := w.commit(slices.Repeat([]Step{{Verb: "push", Data: make([]byte, DataMax/2+1)}}, 2)...); !errors.Is(err, meta.TooLarge) {
		t.Errorf("too many bytes: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("two rooms with one verb")
		}
	}()
	Register(new(state.Machine), kv.Verbs, kv.Verbs)
}

// What is written here stands in logs: a change is a change of format.
func TestGolden(t *testing.T) {
	for want, v := range map[string]any{
		"a10181a301637075740281646b2f61620341ff": Commit{[]Step{{"put", []string{"k/ab"}, []byte{0xff}}}},
		"a10181613a":                             Committed{[]string{":"}},
	} {
		if got := fmt.Sprintf("%x", state.Marshal(v)); got != want {
			t.Errorf("%T is %s, want %s", v, got, want)
		}
	}
}
