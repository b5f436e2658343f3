package members

import (
	"cmp"
	"slices"

	"dos/chunk"
)

// Place computes the table of placement groups: chunk.Groups rows, each with
// the k+m members, then up to Spares spares. It depends on nothing but its
// arguments, and not on their order.
//
// The members of a row are in as many failure domains as can be: in distinct
// zones if there are k+m of them, else on distinct machines, else spread over
// the machines evenly. Among those it takes the stores that have the fewest
// rows so far, so the load is even, and each store stands as often at each
// place of a row, because data shards are read more than the others. With
// fewer than k+m stores all of them are in every row; without any there are no rows.
func Place(code chunk.Code, stores []Store, nodes []Node) []Row {
	zone := make(map[string]string)
	for _, n := range nodes {
		zone[n.Name] = n.Zone
	}
	var list []*candidate
	zones := make(map[string]bool)
	for _, s := range stores {
		if s.Out {
			continue
		}
		z := zone[s.Node]
		if z == "" {
			z = "\x00" + s.Node // a machine without a zone fails by itself
		}
		zones[z] = true
		list = append(list, &candidate{id: s.ID, node: s.Node, zone: z, at: make([]int, code.Shards())})
	}
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b *candidate) int { return cmp.Compare(a.id, b.id) })
	byZone := len(zones) >= code.Shards()
	table := make([]Row, chunk.Groups)
	for row := range table {
		table[row] = Row{Group: uint16(row), Members: pick(list, uint64(row), code.Shards(), byZone)}
	}
	return table
}

// A candidate is a store that can be in a row.
type candidate struct {
	id         chunk.StoreID
	node, zone string
	rows       int   // it is a member of
	spare      int   // rows it is a spare of
	at         []int // how often it stands at each place
}

func pick(list []*candidate, row uint64, n int, byZone bool) []chunk.StoreID {
	left := slices.Clone(list)
	zones, nodes := make(map[string]int), make(map[string]int)
	next := func(load func(*candidate) int) *candidate {
		best := slices.MinFunc(left, func(a, b *candidate) int {
			zoneOrder := 0
			if byZone {
				zoneOrder = cmp.Compare(zones[a.zone], zones[b.zone])
			}
			return cmp.Or(
				zoneOrder,
				cmp.Compare(nodes[a.node], nodes[b.node]),
				cmp.Compare(load(a), load(b)),
				cmp.Compare(mix(row, a.id), mix(row, b.id)),
				cmp.Compare(a.id, b.id),
			)
		})
		zones[best.zone]++
		nodes[best.node]++
		left = slices.DeleteFunc(left, func(c *candidate) bool { return c == best })
		return best
	}
	var chosen []*candidate
	for len(left) > 0 && len(chosen) < n {
		c := next(func(c *candidate) int { return c.rows })
		c.rows++
		chosen = append(chosen, c)
	}
	var members []chunk.StoreID
	for place := 0; len(chosen) > 0; place++ {
		c := slices.MinFunc(chosen, func(a, b *candidate) int {
			return cmp.Or(cmp.Compare(a.at[place], b.at[place]), cmp.Compare(mix(row, a.id), mix(row, b.id)), cmp.Compare(a.id, b.id))
		})
		c.at[place]++
		members = append(members, c.id)
		chosen = slices.DeleteFunc(chosen, func(other *candidate) bool { return other == c })
	}
	for range min(Spares, len(left)) {
		c := next(func(c *candidate) int { return c.spare })
		c.spare++
		members = append(members, c.id)
	}
	return members
}

// mix breaks ties in another order in each row (splitmix64's finish).
func mix(row uint64, id chunk.StoreID) uint64 {
	x := row*0x9e3779b97f4a7c15 + uint64(id)*0xbf58476d1ce4e5b9
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
