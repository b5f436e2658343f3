package namespace_test

import (
	"errors"
	"testing"

	"dos/meta"
	"dos/meta/named"
	"dos/meta/namespace"
	"dos/meta/session"
)

// What a fence guards is changed by the session that has the lock, or had it last,
// and by no other, whoever raised it.
func TestFence(t *testing.T) {
	w := newWorld(t)
	named.Register(w.m)
	one := w.me
	two := must[session.Info](w, session.OpOpen, session.Open{Name: "two"}).ID
	f, other := w.file("f"), w.file("other")
	set := func(s meta.SessionID, val string) error {
		w.me = s
		_, err := try[struct{}](w, namespace.OpSetXattr, namespace.SetXattr{Ino: f, Name: meta.Fence, Val: []byte(val)})
		return err
	}
	lock := func(s meta.SessionID, number uint64) {
		t.Helper()
		w.me = s
		if out := must[named.Outcome](w, named.OpAsk, named.Ask{Name: "d/x", Claim: named.Claim{Number: number, Mode: meta.Exclusive}}); out.Token == 0 {
			t.Fatal("not locked")
		}
	}
	unlock := func(s meta.SessionID, number uint64) {
		t.Helper()
		w.me = s
		must[struct{}](w, named.OpRelease, named.Release{Name: "d/x", Number: number})
	}
	size := int64(0)
	// expect tries each change that must not be let pass.
	expect := func(when string, s meta.SessionID, want error) {
		t.Helper()
		w.me = s
		tries := map[string]func() error{
			"a write": func() error {
				_, err := try[meta.Attr](w, namespace.OpWrite, meta.Write{Ino: f, Extents: []meta.Extent{{Len: 1, Inline: []byte("x")}}})
				return err
			},
			"truncation": func() error {
				_, err := try[meta.Attr](w, namespace.OpSetAttr, namespace.SetAttr{Ino: f, Set: meta.SetAttr{Size: &size}})
				return err
			},
		}
		if want != nil {
			tries["removal"] = func() error {
				_, err := try[meta.Attr](w, namespace.OpUnlink, namespace.Unlink{Parent: meta.Root, Name: "f"})
				return err
			}
			tries["being replaced"] = func() error {
				_, err := try[struct{}](w, namespace.OpRename, namespace.Rename{Parent: meta.Root, Name: "other", NewParent: meta.Root, NewName: "f"})
				return err
			}
			tries["taking the fence away"] = func() error {
				_, err := try[struct{}](w, namespace.OpRemoveXattr, namespace.XattrName{Ino: f, Name: meta.Fence})
				return err
			}
		}
		for what, do := range tries {
			if err := do(); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s: %s by session %d: %v, want %v", when, what, s, err, want)
			}
		}
	}
	lock(one, 1)
	for val, want := range map[string]error{
		"": meta.Invalid, "x": meta.Invalid, ":1": meta.Invalid, "d/x:": meta.Invalid, "d/x:y": meta.Invalid, "/x:1": meta.Invalid,
		"d/x:2": meta.Invalid, "unused:1": meta.Invalid,
	} {
		if err := set(one, val); !errors.Is(err, want) {
			t.Errorf("fence %q: %v, want %v", val, err, want)
		}
	}
	if err := set(one, "d/x:1"); err != nil {
		t.Fatal(err)
	}
	if !w.attr(f).Fenced || w.attr(other).Fenced {
		t.Error("the attributes do not say which file has a fence")
	}
	expect("held by one", one, nil)
	expect("held by one", two, meta.Conflict)
	unlock(one, 1)
	expect("one had it last", one, nil)
	lock(two, 1)
	expect("held by two, which has not raised the fence", one, meta.Conflict)
	expect("held by two", two, nil)
	if err := set(two, "d/x:2"); err != nil {
		t.Error(err)
	}
	if err := set(one, "d/x:1"); !errors.Is(err, meta.Conflict) {
		t.Errorf("lowering the fence: %v", err)
	}
	unlock(two, 1)
	lock(one, 2)
	expect("held by one anew", one, nil)
	w.me = one
	must[struct{}](w, namespace.OpRemoveXattr, namespace.XattrName{Ino: f, Name: meta.Fence})
	expect("without a fence", two, nil)
	w.check()
}
