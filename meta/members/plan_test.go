package members

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"dos/chunk"
)

// A town is a cluster whose stores come and go, with its table.
type town struct {
	*testing.T
	Map
	next chunk.StoreID
}

func newTown(t *testing.T, zones, nodes, each int) *town {
	w := &town{T: t, Map: Map{Code: code42}}
	w.Stores, w.Nodes = disks(zones, nodes, each)
	w.next = chunk.StoreID(len(w.Stores)) + 1
	w.settle("at first")
	return w
}

// settle makes the table what Plan says. It returns how many members changed
// and how many had to: those whose store left, and what is due to stores that
// had nothing.
func (w *town) settle(what string) (moved, due int) {
	w.Helper()
	before := make([]chunk.Group, len(w.Groups))
	copy(before, w.Groups)
	had := make(map[chunk.StoreID]bool)
	rows := Plan(w.Map)
	if w.Groups == nil {
		w.Groups = make([]chunk.Group, len(rows))
	}
	for _, row := range rows {
		w.Groups[row.Group].Members = row.Members
	}
	if again := Plan(w.Map); len(again) != 0 {
		w.Errorf("%s: a plan that was carried out is followed by another, of %d rows", what, len(again))
	}
	for _, g := range before {
		for _, id := range w.regular(g) {
			had[id] = true
		}
	}
	left := Standings(w.Stores, w.Nodes)
	for i, g := range before {
		now := w.regular(w.Groups[i])
		for _, id := range now {
			if !slices.Contains(w.regular(g), id) {
				moved++
				if !had[id] {
					due++
				}
			}
		}
		gone := 0
		for _, id := range w.regular(g) {
			if s, known := left[id]; !known || s != In {
				gone++
			}
		}
		due += min(gone, len(now))
	}
	w.check(what)
	return moved, due
}

func (w *town) regular(g chunk.Group) []chunk.StoreID {
	return g.Members[:min(len(g.Members), w.Code.Shards())]
}

// check holds the table to the rules of Place.
func (w *town) check(what string) {
	w.Helper()
	standing := Standings(w.Stores, w.Nodes)
	at := make(map[chunk.StoreID]string)
	zone := make(map[string]string)
	for _, n := range w.Nodes {
		zone[n.Name] = n.Zone
	}
	in, perNode, perZone := 0, make(map[string]int), make(map[string]int)
	for _, s := range w.Stores {
		at[s.ID] = s.Node
		if standing[s.ID] == In {
			in++
			perNode[s.Node]++
			perZone[zone[s.Node]]++
		}
	}
	want := w.Code.Shards()
	for i, g := range w.Groups {
		if len(g.Members) != min(in, want+Spares) {
			w.Fatalf("%s: row %d has %d members, %d stores are in", what, i, len(g.Members), in)
		}
		onNode, inZone := make(map[string]int), make(map[string]int)
		for j, id := range g.Members {
			if s, known := standing[id]; !known || s != In || slices.Contains(g.Members[:j], id) {
				w.Fatalf("%s: row %d has store %d, which is %v or there twice: %v", what, i, id, s, g.Members)
			}
			if j < want {
				onNode[at[id]]++
				inZone[zone[at[id]]]++
			}
		}
		for a, n := range onNode {
			for b, room := range perNode {
				if n > onNode[b]+1 && onNode[b] < room && len(perZone) == 1 {
					w.Fatalf("%s: row %d has %d members on %s and %d on %s", what, i, n, a, onNode[b], b)
				}
			}
			if len(perNode) >= want && len(perZone) == 1 && n > 1 {
				w.Fatalf("%s: row %d has %d members on %s", what, i, n, a)
			}
		}
		for z, n := range inZone {
			if len(perZone) >= want && n > 1 || roomy(perZone, w.Code) && n > int(w.Code.M) {
				w.Fatalf("%s: row %d has %d members in %s", what, i, n, z)
			}
		}
	}
}

// roomy says whether a row can be such that a zone may be lost.
func roomy(perZone map[string]int, code chunk.Code) bool {
	room := 0
	for _, n := range perZone {
		room += min(n, int(code.M))
	}
	return room >= code.Shards()
}

// loads counts the rows of each store that is in.
func (w *town) loads() map[chunk.StoreID]int {
	load := make(map[chunk.StoreID]int)
	for id, s := range Standings(w.Stores, w.Nodes) {
		if s == In {
			load[id] = 0
		}
	}
	for _, g := range w.Groups {
		for _, id := range w.regular(g) {
			load[id]++
		}
	}
	return load
}

func (w *town) add(node string) chunk.StoreID {
	w.Stores = append(w.Stores, Store{ID: w.next, Node: node, Ordinal: uint16(w.next)})
	w.next++
	return w.next - 1
}

// A store that comes takes its share and nothing else moves; one that goes is
// replaced and nothing else moves.
func TestPlanMovesLittle(t *testing.T) {
	for _, each := range []int{1, 2, 5} {
		w := newTown(t, 1, 8, each)
		w.Nodes = append(w.Nodes, Node{Name: "new", Zone: "zone0"})
		id := w.add("new")
		moved, due := w.settle("with one more")
		share := chunk.Groups * code42.Shards() / len(w.Stores)
		if moved != due || due < share*9/10 || due > share*11/10 {
			t.Errorf("%d stores each: one more store got %d rows, %d members moved, its share is %d", each, due, moved, share)
		}
		for i := range w.Stores {
			if w.Stores[i].ID == id {
				w.Stores[i].Out = true
			}
		}
		spares := make([][]chunk.StoreID, len(w.Groups))
		for i, g := range w.Groups {
			spares[i] = g.Members[code42.Shards():]
		}
		before := slices.Clone(w.Groups)
		moved, due = w.settle("without it")
		if moved != due || due != w.rowsOf(before, id) {
			t.Errorf("%d stores each: a store with %d rows went out and %d members moved", each, w.rowsOf(before, id), moved)
		}
		bySpare := 0
		for i, g := range w.Groups {
			for _, now := range w.regular(g) {
				if !slices.Contains(w.regular(before[i]), now) && slices.Contains(spares[i], now) {
					bySpare++
				}
			}
		}
		if bySpare < moved*3/4 {
			t.Errorf("%d stores each: of %d members that were replaced %d were by spares", each, moved, bySpare)
		}
	}
}

func (w *town) rowsOf(table []chunk.Group, id chunk.StoreID) int {
	n := 0
	for _, g := range table {
		if slices.Contains(w.regular(g), id) {
			n++
		}
	}
	return n
}

// Through any history the rules hold, the load stays within a tenth of the mean
// and a row, and what moves is what has to, and a twentieth of that and of a
// store's rows more.
func TestPlanHistories(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 2))
			w := newTown(t, 1, 7+rng.IntN(8), 1+rng.IntN(4))
			each := len(w.Stores) / len(w.Nodes)
			wasForced := true
			for step := range 16 {
				what := fmt.Sprintf("step %d: ", step)
				switch n := rng.IntN(5); {
				case n == 0 || len(w.Nodes) < 9: // a machine comes
					name := fmt.Sprint("new", step)
					w.Nodes = append(w.Nodes, Node{Name: name, Zone: "zone0"})
					for range each {
						w.add(name)
					}
					what += "machine comes"
				case n == 1: // a machine goes for good
					name := w.Nodes[rng.IntN(len(w.Nodes))].Name
					w.Nodes = slices.DeleteFunc(w.Nodes, func(n Node) bool { return n.Name == name })
					w.Stores = slices.DeleteFunc(w.Stores, func(s Store) bool { return s.Node == name })
					what += name + " goes"
				case n == 2:
					i := rng.IntN(len(w.Nodes))
					w.Nodes[i].Drain = !w.Nodes[i].Drain
					what += fmt.Sprint(w.Nodes[i].Name, " drains: ", w.Nodes[i].Drain)
				default:
					i := rng.IntN(len(w.Stores))
					w.Stores[i].Out = !w.Stores[i].Out
					what += fmt.Sprint("store ", w.Stores[i].ID, " out: ", w.Stores[i].Out)
				}
				moved, due := w.settle(what)
				forced := w.machinesIn() < 8 || w.uneven() // the rules force the load, and its changes
				if forced || wasForced {
					wasForced = forced
					continue
				}
				load := w.loads()
				mean := float64(chunk.Groups*code42.Shards()) / float64(len(load))
				if limit := 1.05*float64(due) + 0.05*mean + 2; float64(moved) > limit {
					t.Errorf("%s: %d members moved, %d had to, at most %.0f may", what, moved, due, limit)
				}
				for id, n := range load {
					if float64(n) < 0.9*mean-1 || float64(n) > 1.1*mean+1 {
						t.Errorf("%s: store %d has %d rows, %.1f on average", what, id, n, mean)
					}
				}
			}
		})
	}
}

// machinesIn counts the machines with stores that are in.
func (w *town) machinesIn() int {
	names := make(map[string]bool)
	standing := Standings(w.Stores, w.Nodes)
	for _, s := range w.Stores {
		if standing[s.ID] == In {
			names[s.Node] = true
		}
	}
	return len(names)
}

// uneven says whether some machine has so many of the stores that its part of
// the rows is nearly the one place in each that it may have, or more.
func (w *town) uneven() bool {
	standing := Standings(w.Stores, w.Nodes)
	per, all := make(map[string]int), 0
	for _, s := range w.Stores {
		if standing[s.ID] == In {
			per[s.Node]++
			all++
		}
	}
	for _, n := range per {
		if n*code42.Shards()*10 > 9*all {
			return true
		}
	}
	return false
}

// With zones: distinct ones if there are enough, else a zone may be lost.
func TestPlanZones(t *testing.T) {
	for _, zones := range []int{2, 3, 5, 6, 8} {
		w := newTown(t, zones, 3, 2)
		rng := rand.New(rand.NewPCG(uint64(zones), 3))
		for step := range 5 {
			i := rng.IntN(len(w.Stores))
			w.Stores[i].Out = !w.Stores[i].Out
			w.settle(fmt.Sprintf("%d zones, step %d", zones, step))
		}
	}
	// Zones are made known when there is a table already.
	w := newTown(t, 1, 9, 1)
	for i := range w.Nodes {
		w.Nodes[i].Zone = fmt.Sprint("zone", i%3)
	}
	w.settle("zones are named")
}

// A cluster grows from one store, by one at a time.
func TestPlanGrows(t *testing.T) {
	w := newTown(t, 1, 1, 1)
	for i := range 12 {
		name := fmt.Sprint("new", i)
		w.Nodes = append(w.Nodes, Node{Name: name, Zone: "zone0"})
		w.add(name)
		w.settle(name)
	}
	checkEven(t, "grown", w.loads(), len(w.Stores))
}

// Stores get rows by their capacity, as far as the rules allow.
func TestPlanWeighs(t *testing.T) {
	w := newTown(t, 1, 16, 1)
	for i := range w.Stores {
		w.Stores[i].Capacity = 1000
		if i >= 8 {
			w.Stores[i].Capacity = 2000
		}
	}
	w.Stores[0].Capacity = 0 // counts as 1,533
	w.settle("with sizes")
	load := w.loads()
	for id, want := range map[chunk.StoreID]float64{1: 6144 * 1533 / 24533, 2: 6144 * 1000 / 24533, 8: 6144 * 1000 / 24533, 9: 6144 * 2000 / 24533, 16: 6144 * 2000 / 24533} {
		if n := float64(load[id]); n < 0.95*want || n > 1.05*want {
			t.Errorf("store %d has %.0f rows, want %.0f", id, n, want)
		}
	}
}

func TestPlanIsPure(t *testing.T) {
	w := newTown(t, 1, 9, 3)
	w.Stores[3].Out, w.Stores[8].Drain = true, true
	want := Plan(w.Map)
	rng := rand.New(rand.NewPCG(1, 1))
	rng.Shuffle(len(w.Stores), func(i, j int) { w.Stores[i], w.Stores[j] = w.Stores[j], w.Stores[i] })
	rng.Shuffle(len(w.Nodes), func(i, j int) { w.Nodes[i], w.Nodes[j] = w.Nodes[j], w.Nodes[i] })
	if got := Plan(w.Map); !reflect.DeepEqual(got, want) {
		t.Error("the plan depends on the order of stores and machines")
	}
	for i := range w.Stores {
		w.Stores[i].Out = true
	}
	if rows := Plan(w.Map); rows != nil {
		t.Errorf("with no store left %d rows change", len(rows))
	}
}

func BenchmarkPlan(b *testing.B) {
	m := Map{Code: code42}
	m.Stores, m.Nodes = disks(1, 64, 16)
	for _, row := range Place(m.Code, m.Stores, m.Nodes) {
		m.Groups = append(m.Groups, chunk.Group{Members: row.Members})
	}
	m.Stores[5].Out = true
	for b.Loop() {
		Plan(m)
	}
}
