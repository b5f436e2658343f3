package fuse

import (
	"context"
	"testing"

	"dos/procfs"
)

type valueNode struct{ name string }

func (valueNode) Stat(context.Context) (procfs.Info, error) { return procfs.Info{}, nil }

// sliceNode cannot be compared.
type sliceNode []int

func (sliceNode) Stat(context.Context) (procfs.Info, error) { return procfs.Info{}, nil }

func TestTable(t *testing.T) {
	var tab table
	a := tab.add(1, "a", valueNode{"a"})
	if !isSpecial(a.id) || a.id != tab.number(1, "a") {
		t.Errorf("the number is %#x, and said to be %#x", a.id, tab.number(1, "a"))
	}
	if again := tab.add(1, "a", valueNode{"a"}); again != a || again.refs != 2 {
		t.Errorf("an equal node is %+v, want %+v", again, a)
	}
	if elsewhere := tab.add(2, "b", valueNode{"a"}); elsewhere != a {
		t.Errorf("an equal node at another place has number %#x, want %#x", elsewhere.id, a.id)
	}
	other := tab.add(1, "a", valueNode{"new"})
	if other.id == a.id {
		t.Error("another object at the same name has the old one's number")
	}
	if got, ok := tab.get(other.id); !ok || got != other {
		t.Errorf("get(%#x) = %+v, %v", other.id, got, ok)
	}
	tab.forget(a.id, 2)
	if _, ok := tab.get(a.id); !ok {
		t.Error("forgotten too early")
	}
	tab.forget(a.id, 1)
	if _, ok := tab.get(a.id); ok {
		t.Error("not forgotten")
	}
	tab.forget(a.id, 1) // what is not there
	if back := tab.add(1, "a", valueNode{"a"}); back.id != a.id {
		t.Errorf("found again it has number %#x, want %#x", back.id, a.id)
	}
	s1, s2 := tab.add(1, "s", sliceNode(nil)), tab.add(1, "s", sliceNode(nil))
	if s1.id == s2.id {
		t.Error("nodes that cannot be compared share a number")
	}
	for _, s := range []*specialNode{s1, s2, other} {
		tab.forget(s.id, 1)
	}
	tab.forget(a.id, 1)
	if len(tab.byID) != 0 || len(tab.byNode) != 0 {
		t.Errorf("left over: %v %v", tab.byID, tab.byNode)
	}
}

func TestNumbersStayInRange(t *testing.T) {
	for _, n := range []uint64{0, 1, specialMask, specialMask - 1, ^uint64(0)} {
		if id := clampSpecial(n); !isSpecial(id) || id == ^uint64(0) {
			t.Errorf("clampSpecial(%#x) = %#x", n, id)
		}
	}
	if next(specialBase|specialMask-1) != specialBase {
		t.Error("the number after the last is not the first")
	}
}
