package named

import (
	"errors"
	"testing"

	"dos/meta"
	"dos/meta/state"
	"dos/meta/txn"
)

func TestFenceInATransaction(t *testing.T) {
	w := newWorld(t, 2)
	txn.Register(w.m, Verbs)
	w.ask(1, "a:b", 1, meta.Exclusive, false)
	for arg, want := range map[string]error{
		"a:b:1": nil, "a:b:2": meta.Invalid, "a:b": meta.Invalid, ":1": meta.Invalid, "1": meta.Invalid, "a:b:x": meta.Invalid,
	} {
		_, err := call[txn.Committed](w, 2, txn.OpCommit, txn.Commit{Steps: []txn.Step{{Verb: "fence", Args: []string{arg}}}})
		if !errors.Is(err, want) || err != nil && want == nil {
			t.Errorf("fence %s: %v, want %v", arg, err, want)
		}
	}
	w.release(1, "a:b", 1)
	w.ask(2, "a:b", 1, meta.Exclusive, false)
	_, err := call[txn.Committed](w, 1, txn.OpCommit, txn.Commit{Steps: []txn.Step{{Verb: "fence", Args: []string{"a:b:1"}}}})
	if !errors.Is(err, meta.Conflict) {
		t.Errorf("the token of an older grant: %v", err)
	}
	if _, err := fence(new(state.Tx), nil, nil); !errors.Is(err, meta.Invalid) {
		t.Errorf("no argument: %v", err)
	}
}
