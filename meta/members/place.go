package members

import (
	"cmp"
	"slices"

	"dos/chunk"
)

// Place computes the table of placement groups of a cluster that has none:
// chunk.Groups rows, each with the k+m members, then up to Spares spares. It
// depends on nothing but its arguments, and not on their order.
//
// Only stores that are In take part. The members of a row are in as many failure
// domains as can be: in distinct zones if there are k+m of them, else at most m
// in a zone if that is possible, so that a zone may be lost; and on distinct
// machines, or spread over the machines evenly if there are fewer than k+m.
// Among those it takes the stores that have the fewest rows so far for their
// capacity, so the load is even, and each store stands as often at each place of
// a row. With fewer than k+m stores all of them are in every row; without any
// there are no rows.
func Place(code chunk.Code, stores []Store, nodes []Node) []Row {
	p := planned(code, stores, nodes, nil)
	if len(p.disks) == 0 {
		return nil
	}
	p.run()
	p.arrange()
	return p.table()
}

// Plan says which rows of the table of placement groups are to change so that
// the rules of Place hold for the stores that are In, with as few members
// changed as that takes. Who leaves a row is followed by a spare of that row if
// the rules allow, for it may have shards already; a store that is new takes an
// even share from the others, and nothing else moves. Like Place it depends on
// its argument alone. Where a store stands in its row it does not keep even:
// writers rotate the members by the stripe.
//
// A table that is even within a fiftieth is left alone.
func Plan(m Map) []Row {
	if len(m.Groups) == 0 {
		return Place(m.Code, m.Stores, m.Nodes)
	}
	p := planned(m.Code, m.Stores, m.Nodes, m.Groups)
	if len(p.disks) == 0 {
		return nil // nowhere is better than where it is
	}
	p.run()
	return slices.DeleteFunc(p.table(), func(row Row) bool {
		return slices.Equal(row.Members, m.Groups[row.Group].Members)
	})
}

// A Standing says what a store is good for.
type Standing uint8

// The standings of a store.
const (
	In       Standing = iota // new shards are put there
	Draining                 // it serves what it has, and that is moved off
	Out                      // away for too long: what it had is rebuilt elsewhere
)

func (s Standing) String() string { return [...]string{"in", "draining", "out"}[s] }

// Standings says how each store stands: a store is Draining if it or its machine
// is to be drained, and Out whatever else it is.
func Standings(stores []Store, nodes []Node) map[chunk.StoreID]Standing {
	drain := make(map[string]bool)
	for _, n := range nodes {
		drain[n.Name] = n.Drain
	}
	all := make(map[chunk.StoreID]Standing, len(stores))
	for _, s := range stores {
		switch {
		case s.Out:
			all[s.ID] = Out
		case s.Drain || drain[s.Node]:
			all[s.ID] = Draining
		default:
			all[s.ID] = In
		}
	}
	return all
}

// arrange orders the members of each row so that each store stands as often at
// each place.
func (p *plan) arrange() {
	at := make(map[*place][]int)
	for _, d := range p.disks {
		at[d] = make([]int, p.want)
	}
	for row := range p.rows {
		left := p.rows[row].members
		var list []*place
		for i := 0; len(left) > 0; i++ {
			d := slices.MinFunc(left, func(a, b *place) int {
				return cmp.Or(cmp.Compare(at[a][i], at[b][i]), tie(row, a, b))
			})
			at[d][i]++
			list = append(list, d)
			left = slices.DeleteFunc(left, func(other *place) bool { return other == d })
		}
		p.rows[row].members = list
	}
}

// tie breaks ties in another order in each row.
func tie(row int, a, b *place) int {
	return cmp.Or(cmp.Compare(mix(row, a.id), mix(row, b.id)), cmp.Compare(a.id, b.id))
}

// mix is splitmix64's finish.
func mix(row int, id chunk.StoreID) uint64 {
	x := uint64(row)*0x9e3779b97f4a7c15 + uint64(id)*0xbf58476d1ce4e5b9
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
