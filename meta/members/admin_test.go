package members

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"dos/meta"
)

func ptr[T any](v T) *T { return &v }

func TestSetNode(t *testing.T) {
	w := begun(t, 7)
	born := Node{Name: "b", Labels: map[string]string{"disk": "ssd", "rack": "1"}}
	w.must(OpPutNode, born, nil)
	for _, step := range []struct {
		what string
		req  SetNode
		err  error
		want map[string]string
	}{
		{"another value", SetNode{Node: "b", Label: "disk", Value: ptr("hdd")}, nil, map[string]string{"disk": "hdd", "rack": "1"}},
		{"a new one", SetNode{Node: "b", Label: "gpu", Value: ptr("")}, nil, map[string]string{"disk": "hdd", "rack": "1", "gpu": ""}},
		{"taken away", SetNode{Node: "b", Label: "rack"}, nil, map[string]string{"disk": "hdd", "gpu": ""}},
		{"what is not there", SetNode{Node: "b", Label: "nope"}, nil, map[string]string{"disk": "hdd", "gpu": ""}},
		{"as it was born", SetNode{Node: "b", Label: "disk", Value: ptr("ssd")}, nil, map[string]string{"disk": "ssd", "gpu": ""}},
		{"two words", SetNode{Node: "b", Label: "a b", Value: ptr("")}, meta.Invalid, nil},
		{"a value of two lines", SetNode{Node: "b", Label: "a", Value: ptr("b\nc")}, meta.Invalid, nil},
		{"too long", SetNode{Node: "b", Label: strings.Repeat("x", TextMax+1), Value: ptr("")}, meta.Invalid, nil},
		{"nobody", SetNode{Node: "c", Label: "x", Value: ptr("")}, meta.NotExist, nil},
		{"no weight", SetNode{Node: "b", Weight: ptr(uint32(0))}, meta.Invalid, nil},
		{"a weight", SetNode{Node: "b", Weight: ptr(uint32(250))}, nil, map[string]string{"disk": "ssd", "gpu": ""}},
		{"held", SetNode{Node: "b", Hold: ptr(true), HoldWhy: "fan"}, nil, map[string]string{"disk": "ssd", "gpu": ""}},
	} {
		if err := w.do(OpSetNode, step.req, nil); !errors.Is(err, step.err) {
			t.Errorf("%s: %v, want %v", step.what, err, step.err)
		}
		if got := w.node("b").AllLabels(); step.want != nil && !maps.Equal(got, step.want) {
			t.Errorf("%s: labels %v, want %v", step.what, got, step.want)
		}
	}
	// It starts again, with another label on its command line.
	born.Labels = map[string]string{"rack": "2", "zone": "x"}
	w.must(OpPutNode, born, nil)
	b := w.node("b")
	if want := map[string]string{"zone": "x", "gpu": ""}; !maps.Equal(b.AllLabels(), want) || b.Share() != 2.5 || !b.Hold || b.HoldWhy != "fan" {
		t.Errorf("registered again: %+v", b)
	}
	if _, ok := b.Label("rack"); ok {
		t.Errorf("a label that was taken away is there: %+v", b)
	}
	epoch := w.now().Epoch
	w.must(OpSetNode, SetNode{Node: "b", Label: "gpu", Value: ptr("")}, nil)
	if now := w.now().Epoch; now != epoch {
		t.Errorf("setting what is so already changed the epoch from %d to %d", epoch, now)
	}
	for i := range LabelsMax {
		err := w.do(OpSetNode, SetNode{Node: "b", Label: "l" + strings.Repeat("x", i), Value: ptr("")}, nil)
		if want := i >= LabelsMax-2; errors.Is(err, meta.Quota) != want {
			t.Fatalf("label %d: %v", i, err)
		}
	}
}

func TestConfigure(t *testing.T) {
	w := begun(t, 1)
	if got := w.now().Setting(RebuildAfter); got != "10m0s" {
		t.Errorf("at first %s", got)
	}
	w.must(OpConfigure, Setting{RebuildAfter, "5m"}, nil)
	if got := w.now().Setting(RebuildAfter); got != "5m" {
		t.Errorf("set to 5m it is %s", got)
	}
	for _, bad := range []Setting{{RebuildAfter, "5 minutes"}, {RebuildAfter, "1s"}, {RebuildAfter, "-1h"}} {
		if err := w.do(OpConfigure, bad, nil); !errors.Is(err, meta.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if err := w.do(OpConfigure, Setting{"nope", "1"}, nil); !errors.Is(err, meta.NotExist) {
		t.Errorf("no such setting: %v", err)
	}
	epoch := w.now().Epoch
	w.must(OpConfigure, Setting{Name: RebuildAfter}, nil)
	if m := w.now(); m.Setting(RebuildAfter) != "10m0s" || m.Epoch == epoch {
		t.Errorf("back at its default: %v", m)
	}
}

// A machine with twice the weight gets twice the rows.
func TestPlanWeight(t *testing.T) {
	w := begun(t, 0)
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		w.must(OpPutNode, Node{Name: name}, nil)
		w.must(OpPutStore, Store{Node: name, Capacity: 100}, nil)
	}
	w.must(OpSetNode, SetNode{Node: "a", Weight: ptr(uint32(50))}, nil)
	m := w.now()
	rows := make(map[string]int)
	for _, row := range Place(m.Code, m.Stores, m.Nodes) {
		for _, id := range row.Members[:m.Code.Shards()] {
			rows[m.Stores[id-1].Node]++
		}
	}
	if a, b := rows["a"], rows["b"]; a < b/2-b/10 || a > b/2+b/10 {
		t.Errorf("with half the weight %d rows, others %d: %v", a, b, rows)
	}
}

func (w *world) node(name string) Node {
	for _, n := range w.now().Nodes {
		if n.Name == name {
			return n
		}
	}
	w.t.Fatalf("there is no machine %s", name)
	return Node{}
}
