package namespace_test

import (
	"strings"
	"testing"

	"dos/chunk"
	"dos/meta"
	"dos/meta/namespace"
	"dos/meta/state"
)

// What another room does, as operations of this test.
const (
	opKeep state.Op = 0x7f00 + iota
	opShare
	opUnname
)

type kept struct {
	List []chunk.Stripe
	IDs  []chunk.StripeID
}

func keeping(t *testing.T) *world {
	w := newWorld(t)
	state.Handle(w.m, opKeep, "test.keep", func(tx *state.Tx, k kept) (struct{}, error) {
		return struct{}{}, namespace.Keep(tx, k.List)
	})
	for op, do := range map[state.Op]func(*state.Tx, []chunk.StripeID){opShare: namespace.Share, opUnname: namespace.Unname} {
		state.Handle(w.m, op, "test.keep "+string(rune(op)), func(tx *state.Tx, k kept) (struct{}, error) {
			do(tx, k.IDs)
			return struct{}{}, nil
		})
	}
	return w
}

// A kept stripe lives until it is named no more, is listed as any other, and is no file's.
func TestKeep(t *testing.T) {
	w := keeping(t)
	id := w.reserve(2)
	one, two := stripeOf(id, 1000), stripeOf(id+1, 500)
	must[struct{}](w, opKeep, kept{List: []chunk.Stripe{one, two}})
	if counts := w.check(); counts.Bytes != 1500 || counts.Stripes != 2 {
		t.Errorf("kept: %+v", counts)
	}
	if _, err := try[struct{}](w, opKeep, kept{List: []chunk.Stripe{one}}); !is(err, meta.Conflict) {
		t.Errorf("kept twice: %v", err)
	}
	if _, err := try[struct{}](w, opKeep, kept{List: []chunk.Stripe{stripeOf(id+2, 1000)}}); !is(err, meta.Invalid) {
		t.Errorf("another's: %v", err)
	}
	ino := w.file("f")
	if _, err := w.write(meta.Write{Ino: ino, Extents: []meta.Extent{{Len: 1000, Stripe: id}}}); !is(err, meta.Invalid) {
		t.Errorf("a file takes it: %v", err)
	}
	if list := must[namespace.StripesReply](w, namespace.OpStripes, namespace.Stripes{Limit: 9}).Stripes; len(list) != 2 || list[0].Owner != 0 || list[0].Live != 1000 {
		t.Errorf("listed: %+v", list)
	}

	must[struct{}](w, opShare, kept{IDs: []chunk.StripeID{id}})
	must[struct{}](w, opUnname, kept{IDs: []chunk.StripeID{id, id + 1}})
	if counts := w.check(); counts.Bytes != 1000 || counts.Dead != 1 {
		t.Errorf("one is named still: %+v", counts)
	}
	must[struct{}](w, opUnname, kept{IDs: []chunk.StripeID{id}})
	if counts := w.check(); counts.Bytes != 0 || counts.Dead != 2 {
		t.Errorf("none is named: %+v", counts)
	}
	if _, err := try[struct{}](w, opKeep, kept{List: []chunk.Stripe{one}}); !is(err, meta.Conflict) {
		t.Errorf("kept again when it was dead: %v", err)
	}
}

func TestCheckKept(t *testing.T) {
	w := keeping(t)
	id := w.reserve(1)
	must[struct{}](w, opKeep, kept{List: []chunk.Stripe{stripeOf(id, 1000)}})
	for k, v := range w.store.Scan([]byte("s"), []byte("t")) {
		var s namespace.StripeInfo
		state.MustUnmarshal(v, &s)
		s.Live = 999
		w.store.Set(k, state.Marshal(s))
		break
	}
	said := ""
	namespace.Check(w.store, func(problem string) { said += problem + "\n" })
	if !strings.Contains(said, "is kept, and 999 of its 1000 bytes live") {
		t.Errorf("the check says %q", said)
	}
}
