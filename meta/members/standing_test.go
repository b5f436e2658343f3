package members

import (
	"encoding/hex"
	"errors"
	"testing"

	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

// standing is how each store of a map stands, a letter each.
func standing(m Map) string {
	s := ""
	all := Standings(m.Stores, m.Nodes)
	for _, store := range m.Stores {
		s += all[store.ID].String()[:1]
	}
	return s
}

func TestDrainAndOut(t *testing.T) {
	w := begun(t, 7)
	w.must(OpPutNode, Node{Name: "b"}, nil)
	w.must(OpPutStore, Store{Node: "b"}, nil)
	w.must(OpPutStore, Store{Node: "b", Ordinal: 1}, nil)
	for _, step := range []struct {
		what string
		op   state.Op
		req  any
		err  error
		want string // standing of stores 1 to 9; the last two are machine b's
	}{
		{"a store", OpDrain, Drain{Store: 2, On: true, Why: "old"}, nil, "idiiiiiii"},
		{"again", OpDrain, Drain{Store: 2, On: true, Why: "other"}, nil, "idiiiiiii"},
		{"a machine", OpDrain, Drain{Node: "b", On: true}, nil, "idiiiiidd"},
		{"too many", OpDrain, Drain{Store: 3, On: true}, meta.NoSpace, "idiiiiidd"},
		{"one of the machine's", OpDrain, Drain{Store: 8, On: true}, nil, "idiiiiidd"},
		{"the machine is back", OpDrain, Drain{Node: "b"}, nil, "idiiiiidi"},
		{"the store too", OpDrain, Drain{Store: 8}, nil, "idiiiiiii"},
		{"nobody", OpDrain, Drain{Node: "c", On: true}, meta.NotExist, "idiiiiiii"},
		{"no store", OpDrain, Drain{Store: 77, On: true}, meta.NotExist, "idiiiiiii"},
		{"both", OpDrain, Drain{Node: "b", Store: 1, On: true}, meta.Invalid, "idiiiiiii"},
		{"neither", OpDrain, Drain{On: true}, meta.Invalid, "idiiiiiii"},
		{"a store registers again", OpPutStore, Store{ID: 2, Node: "a", Ordinal: 1, Path: "p", Incarnation: 3}, nil, "idiiiiiii"},
	} {
		if err := w.do(step.op, step.req, nil); !errors.Is(err, step.err) {
			t.Errorf("%s: %v, want %v", step.what, err, step.err)
		}
		if got := standing(w.now()); got != step.want {
			t.Fatalf("%s: stores are %s, want %s", step.what, got, step.want)
		}
	}
	m := w.now()
	if s := m.Stores[1]; s.Why != "old" || s.Since == 0 || s.Incarnation != 3 {
		t.Errorf("the drained store is %+v", s)
	}
	for name, test := range map[string]struct {
		req  SetOut
		want error
	}{
		"old epoch": {SetOut{m.Epoch - 1, []Mark{{1, true, ""}}}, meta.Conflict},
		"unknown":   {SetOut{m.Epoch, []Mark{{1, true, ""}, {99, true, ""}}}, meta.Invalid},
		"twice":     {SetOut{m.Epoch, []Mark{{1, true, ""}, {1, false, ""}}}, meta.Invalid},
	} {
		if err := w.do(OpSetOut, test.req, nil); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if w.now().Epoch != m.Epoch {
			t.Fatalf("%s: the map changed", name)
		}
	}
	var made Changed
	w.must(OpSetOut, SetOut{m.Epoch, []Mark{{1, true, "gone"}, {2, true, "gone"}, {3, false, "never was"}}}, &made)
	if now := w.now(); standing(now) != "ooiiiiiii" || made.Epoch != now.Epoch || now.Stores[0].Why != "gone" || now.Stores[2].Why != "" {
		t.Errorf("stores are %s, %+v", standing(now), now.Stores)
	}
	w.must(OpSetOut, SetOut{made.Epoch, []Mark{{2, false, "back"}}}, &made)
	if got := standing(w.now()); got != "odiiiiiii" {
		t.Errorf("stores are %s: a drained one that is back drains still", got)
	}
	w.must(OpSetOut, SetOut{made.Epoch, []Mark{{1, false, "back"}}}, nil)
	w.must(OpPutNode, Node{Name: "b", Zone: "z"}, nil)
	w.must(OpDrain, Drain{Node: "b", On: true, Why: "w"}, nil)
	w.must(OpPutNode, Node{Name: "b", Zone: "z", Addr: "x:1"}, nil)
	if n := w.now().Nodes[1]; !n.Drain || n.Why != "w" || n.Since == 0 || n.Addr != "x:1" {
		t.Errorf("a machine that drains and registers again is %+v", n)
	}
}

// A change here is a change of format: fields may be added, none changed.
func TestGoldenStanding(t *testing.T) {
	w := begun(t, 8)
	w.must(OpDrain, Drain{Store: 1, On: true, Why: "w"}, nil)
	w.must(OpSetOut, SetOut{w.now().Epoch, []Mark{{2, true, "v"}}}, nil)
	w.must(OpPutStore, Store{ID: 3, Node: "a", Ordinal: 2, Capacity: 1000}, nil)
	for id, want := range map[chunk.StoreID]string{
		1: "a7010102616104676368756e6b2f30050709f50a010b6177",
		2: "a80102026161030104676368756e6b2f31050706f50a010b6176",
		3: "a401030261610302081903e8",
	} {
		val, _ := w.store.Get(storeKey(id))
		if got := hex.EncodeToString(val); got != want {
			t.Errorf("store %d is %s, want %s", id, got, want)
		}
	}
}
