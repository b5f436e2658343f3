package members

import (
	"cmp"
	"slices"

	"dos/chunk"
)

const (
	// slack is by how much more a store may have than another before rows move
	// to make them even: less would move data for nothing.
	slack = 1.02
	// spareSlack is the same for spares, which move no data.
	spareSlack = 1.25
	// rounds bounds how often the plan looks for exchanges that make the load
	// more even; it nearly always ends after the second.
	rounds = 8
)

// A plan is a table of placement groups that is being made.
type plan struct {
	want     int // members of a row
	spares   int // of a row
	zoneMost int // members of a row that may be in one zone
	disks    []*place
	rows     []group
}

// A group is one row.
type group struct {
	members, spares []*place
	old             []*place // the members before; nil for those that are gone
}

// A place is a store that is in, and where it fails together with others.
type place struct {
	id     chunk.StoreID
	node   int // numbers of machines and zones
	zone   int
	weight float64 // its share of the rows is proportional to this
	factor float64 // of the weight: what the administrator says of its machine
	rows   [2]int  // of how many it is a member, and a spare
}

// The kinds of load in place.rows.
const (
	asMember = iota
	asSpare
)

func planned(code chunk.Code, stores []Store, nodes []Node, old []chunk.Group) *plan {
	p := &plan{rows: make([]group, chunk.Groups)}
	zone, share := make(map[string]string), make(map[string]float64)
	for _, n := range nodes {
		zone[n.Name], share[n.Name] = n.Zone, n.Share()
	}
	standing := Standings(stores, nodes)
	known := make(map[chunk.StoreID]*place)
	perZone, nodeNumber, zoneNumber := make(map[string]int), make(map[string]int), make(map[string]int)
	sum, sized := 0.0, 0
	for _, s := range stores {
		if standing[s.ID] != In {
			continue
		}
		z := zone[s.Node]
		if z == "" {
			z = "\x00" + s.Node // a machine without a zone fails by itself
		}
		d := &place{id: s.ID, node: number(nodeNumber, s.Node), zone: number(zoneNumber, z), weight: float64(s.Capacity), factor: 1}
		if f, known := share[s.Node]; known {
			d.factor = f
		}
		p.disks, known[s.ID] = append(p.disks, d), d
		perZone[z]++
		if s.Capacity > 0 {
			sum, sized = sum+d.weight, sized+1
		}
	}
	slices.SortFunc(p.disks, func(a, b *place) int { return cmp.Compare(a.id, b.id) })
	for _, d := range p.disks {
		switch {
		case sized == 0:
			d.weight = 1
		case d.weight == 0: // not known: like the others
			d.weight = sum / float64(sized)
		}
		d.weight *= d.factor
	}
	p.want = min(len(p.disks), code.Shards())
	p.spares = min(len(p.disks)-p.want, Spares)
	p.zoneMost = zoneMost(perZone, code)
	for row, g := range old {
		for i, id := range g.Members {
			switch d := known[id]; {
			case i < code.Shards() && len(p.rows[row].members) < p.want:
				p.rows[row].members = append(p.rows[row].members, d) // nil is a vacancy
			case d != nil && len(p.rows[row].spares) < p.spares:
				p.rows[row].spares = append(p.rows[row].spares, d)
			}
		}
	}
	for row := range p.rows {
		g := &p.rows[row]
		g.old = slices.Clone(g.members)
		for _, d := range g.members {
			if d != nil {
				d.rows[asMember]++
			}
		}
		for _, d := range g.spares {
			d.rows[asSpare]++
		}
	}
	return p
}

// number gives each name a number.
func number(numbers map[string]int, name string) int {
	n, ok := numbers[name]
	if !ok {
		n = len(numbers)
		numbers[name] = n
	}
	return n
}

// zoneMost is how many members of a row may be in one zone: one if that can be,
// m if the loss of a zone can be survived so, else any number.
func zoneMost(perZone map[string]int, code chunk.Code) int {
	if len(perZone) >= code.Shards() {
		return 1
	}
	room := 0
	for _, n := range perZone {
		room += min(n, int(code.M))
	}
	if room >= code.Shards() {
		return int(code.M)
	}
	return code.Shards()
}

func (p *plan) run() {
	for row := range p.rows {
		p.fill(row)
	}
	for row := range p.rows {
		p.spread(row)
	}
	p.even(asMember, 1, true)
	p.even(asMember, slack, false)
	for row := range p.rows {
		p.fillSpares(row)
	}
	p.even(asSpare, spareSlack, false)
}

func (p *plan) table() []Row {
	table := make([]Row, len(p.rows))
	for row, g := range p.rows {
		table[row].Group = uint16(row)
		for _, d := range slices.Concat(g.members, g.spares) {
			table[row].Members = append(table[row].Members, d.id)
		}
	}
	return table
}

// load is how many rows a store would have after as many more, for its weight.
func (d *place) load(kind, more int) float64 { return float64(d.rows[kind]+more) / d.weight }

// fill puts a store into each vacancy of a row: a spare of the row if none
// other suits better and it does not have too much already.
func (p *plan) fill(row int) {
	g := &p.rows[row]
	for len(g.members) < p.want {
		g.members = append(g.members, nil)
	}
	fair := 0.0
	for _, d := range p.disks {
		fair += d.weight
	}
	fair = float64(len(p.rows)*p.want) / fair
	for i, d := range g.members {
		if d != nil {
			continue
		}
		best := slices.MinFunc(p.others(g.members), func(a, b *place) int {
			return cmp.Or(
				p.join(g.members, nil, a).compare(p.join(g.members, nil, b)),
				-compareBool(g.steps(a, fair), g.steps(b, fair)),
				cmp.Compare(a.load(asMember, 0), b.load(asMember, 0)),
				tie(row, a, b),
			)
		})
		g.members[i] = best
		best.rows[asMember]++
	}
	p.dropSpares(g)
}

// steps reports whether a spare of the row is to become a member.
func (g *group) steps(d *place, fair float64) bool {
	return slices.Contains(g.spares, d) && d.load(asMember, 0) <= slack*fair
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// others lists the stores that are not among those.
func (p *plan) others(list []*place) []*place {
	others := make([]*place, 0, len(p.disks))
	for _, d := range p.disks {
		if !slices.Contains(list, d) {
			others = append(others, d)
		}
	}
	return others
}

// dropSpares takes members out of the spares of their row.
func (p *plan) dropSpares(g *group) {
	g.spares = slices.DeleteFunc(g.spares, func(d *place) bool {
		member := slices.Contains(g.members, d)
		if member {
			d.rows[asSpare]--
		}
		return member
	})
}

// A crowd says how much worse a row's spread over failure domains becomes.
type crowd struct{ zones, nodes int }

func (a crowd) compare(b crowd) int {
	return cmp.Or(cmp.Compare(a.zones, b.zones), cmp.Compare(a.nodes, b.nodes))
}

// join says what it does to the spread of the list when one leaves, nil for
// nobody, and another comes. Machines count as squares, so that even is best.
func (p *plan) join(list []*place, leaves, comes *place) crowd {
	var leftZone, leftNode, zone, node int // others in the zone and on the machine of who leaves, and of who comes
	for _, d := range list {
		if d == nil || d == leaves {
			continue
		}
		if leaves != nil && d.zone == leaves.zone {
			leftZone++
		}
		if leaves != nil && d.node == leaves.node {
			leftNode++
		}
		if d.zone == comes.zone {
			zone++
		}
		if d.node == comes.node {
			node++
		}
	}
	c := crowd{nodes: 2*node + 1}
	if zone >= p.zoneMost {
		c.zones++
	}
	if leaves != nil {
		c.nodes -= 2*leftNode + 1
		if leftZone >= p.zoneMost {
			c.zones--
		}
	}
	return c
}

// spread exchanges members while that brings the row into more failure domains.
func (p *plan) spread(row int) {
	g := &p.rows[row]
	for !p.apart(g.members) {
		var from, to *place
		var best crowd
		for _, b := range p.others(g.members) {
			for _, a := range g.members {
				c := p.join(g.members, a, b)
				if c.compare(crowd{}) >= 0 {
					continue
				}
				if from == nil || cmp.Or(c.compare(best),
					cmp.Compare(b.load(asMember, 0), to.load(asMember, 0)),
					-cmp.Compare(a.load(asMember, 0), from.load(asMember, 0)),
					tie(row, b, to), tie(row, a, from)) < 0 {
					from, to, best = a, b, c
				}
			}
		}
		if from == nil {
			return
		}
		p.exchange(row, asMember, from, to)
	}
}

// apart reports whether the spread of members cannot be better.
func (p *plan) apart(members []*place) bool {
	for i, d := range members {
		inZone := 1
		for _, other := range members[:i] {
			if other.node == d.node {
				return false
			}
			if other.zone == d.zone {
				inZone++
			}
		}
		if inZone > p.zoneMost {
			return false
		}
	}
	return true
}

// exchange puts one store in the place of another.
func (p *plan) exchange(row, kind int, from, to *place) {
	g := &p.rows[row]
	list := g.members
	if kind == asSpare {
		list = g.spares
	}
	list[slices.Index(list, from)] = to
	from.rows[kind]--
	to.rows[kind]++
	if kind == asMember {
		p.dropSpares(g)
	}
}

// even moves rows from stores that have many to those that have few, where
// that does not harm the spread. Fresh are only those that move anyway.
func (p *plan) even(kind int, slack float64, fresh bool) {
	for range rounds {
		moved := false
		open := slices.Clone(p.disks)
		for len(open) > 0 {
			to := slices.MinFunc(open, func(a, b *place) int {
				return cmp.Or(cmp.Compare(a.load(kind, 0), b.load(kind, 0)), cmp.Compare(a.id, b.id))
			})
			if row, from := p.giver(kind, to, slack, fresh); from != nil {
				p.exchange(row, kind, from, to)
				moved = true
				continue
			}
			open = slices.DeleteFunc(open, func(d *place) bool { return d == to })
		}
		if !moved {
			return
		}
	}
}

// giver finds the store with the most rows that can give one of them up, or nil.
func (p *plan) giver(kind int, to *place, slack float64, fresh bool) (row int, from *place) {
	least := slack * to.load(kind, 1)
	for r := range p.rows {
		g := &p.rows[r]
		if slices.Contains(g.members, to) || kind == asSpare && slices.Contains(g.spares, to) {
			continue
		}
		list, all := g.members, g.members
		if kind == asSpare {
			list, all = g.spares, slices.Concat(g.members, g.spares)
		}
		for _, d := range list {
			load := d.load(kind, 0)
			if load <= least || from != nil && cmp.Or(-cmp.Compare(load, from.load(kind, 0)), cmp.Compare(mix(r, to.id), mix(row, to.id))) >= 0 {
				continue
			}
			if fresh && slices.Contains(g.old, d) {
				continue
			}
			if p.join(all, d, to).compare(crowd{}) <= 0 {
				row, from = r, d
			}
		}
	}
	return row, from
}

// fillSpares completes the spares of a row.
func (p *plan) fillSpares(row int) {
	g := &p.rows[row]
	for len(g.spares) < p.spares {
		all := slices.Concat(g.members, g.spares)
		best := slices.MinFunc(p.others(all), func(a, b *place) int {
			return cmp.Or(
				p.join(all, nil, a).compare(p.join(all, nil, b)),
				cmp.Compare(a.load(asSpare, 0), b.load(asSpare, 0)),
				tie(row, a, b),
			)
		})
		g.spares = append(g.spares, best)
		best.rows[asSpare]++
	}
}
