package node

import (
	"testing"

	"dos/chunk"
	"dos/meta/members"
)

// What is said of machines that may be lost is true of the worst stripe.
func TestWorst(t *testing.T) {
	known := members.Map{Code: chunk.Code{K: 4, M: 2}}
	add := func(node string, stores int) {
		known.Nodes = append(known.Nodes, members.Node{Name: node})
		for range stores {
			known.Stores = append(known.Stores, members.Store{ID: chunk.StoreID(len(known.Stores) + 1), Node: node})
		}
	}
	place := func() {
		known.Groups = nil
		for _, row := range members.Place(known.Code, known.Stores, known.Nodes) {
			known.Groups = append(known.Groups, chunk.Group{Members: row.Members})
		}
	}
	check := func(when string, settled bool, want int) {
		t.Helper()
		if got := worst(known, settled); got != want {
			t.Errorf("%s: %d shards of a stripe may lie on one machine, want %d", when, got, want)
		}
	}
	add("a", 6)
	place()
	check("one machine", true, 6)
	for _, node := range []string{"b", "c", "d"} {
		add(node, 1)
	}
	check("new machines that have nothing yet", false, 6)
	place()
	check("four machines, one of which has most stores", true, 3)
	add("e", 1)
	add("f", 1)
	place()
	check("as many machines as shards", true, 1)
	check("as many, and shards lie where they were", false, 6)
}
