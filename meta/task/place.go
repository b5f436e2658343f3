package task

import (
	"cmp"
	"slices"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

// A node is a machine in a pass.
type node struct {
	name    string
	offer   Offer
	session meta.SessionID
	labels  map[string]string
	weight  int64
	why     string // nothing new is to begin there; "" if it may
	used    *used
	free    Resources
	slots   int

	closed bool // a task that comes first waits for room here: without a time limit nothing else begins
	keep   *kept
	spare  Resources // what is free at the reserved start beside what it is for
	spares int       // slots likewise
}

// nodes returns the machines that offer something, by name.
func (room Room) nodes(r state.Reader, usedOf func(name string) *used) (list []*node) {
	for k, val := range r.Scan(nodeKey(""), state.After(nodeKey(""))) {
		var row nodeRow
		state.MustUnmarshal(val, &row)
		n := &node{name: string(k[2:]), offer: row.Offer, session: row.Session, used: usedOf(string(k[2:]))}
		s := room.standing(r, n.name)
		if n.weight, n.why = int64(s.Weight), row.Offer.Closed; row.Deaf != 0 {
			n.why = "it does not take what is assigned to it"
		}
		if s.Drained {
			n.why = "drained"
			if s.Why != "" {
				n.why = "drained: " + s.Why
			}
		}
		n.labels = row.Offer.Labels
		if len(s.Labels) > 0 {
			n.labels = s.Labels
			for key, value := range row.Offer.Labels {
				if _, ok := n.labels[key]; !ok {
					n.labels = withLabel(n.labels, key, value)
				}
			}
		}
		n.free = row.Offer.Have.Clone()
		n.free.Sub(n.used.Sum)
		n.slots = row.Offer.Slots - len(n.used.Runs)
		list = append(list, n)
	}
	return list
}

func withLabel(labels map[string]string, key, value string) map[string]string {
	all := map[string]string{key: value}
	for k, v := range labels {
		all[k] = v
	}
	return all
}

// could reports whether the machine could run such tasks if it were empty.
func (n *node) could(d *demand, label string) bool {
	if n.why != "" || d.Node != "" && d.Node != n.name || n.offer.Slots < 1 || !d.Need.Fits(n.offer.Have) || label != "" && !n.hasLabel(label) {
		return false
	}
	return !slices.ContainsFunc(d.Labels, func(l string) bool { return !n.hasLabel(l) })
}

// hasLabel reports whether the machine has KEY or KEY=VALUE.
func (n *node) hasLabel(text string) bool {
	key, value, exact := strings.Cut(text, "=")
	has, ok := n.labels[key]
	return ok && (!exact || has == value)
}

// take takes room of the machine for a task that ends at until.
func (n *node) take(need Resources, until meta.Time) {
	n.free.Sub(need)
	n.slots--
	if n.keep != nil && (until == 0 || until > n.keep.Start) {
		n.spare.Sub(need)
		n.spares--
	}
}

// place returns the machine that a task is to begin on now; nil if none has room. Of
// several it is one that is near to its data, then one without resources that are
// counted and that it does not ask for, then the one that is the least used for its weight.
func (p *pass) place(d *demand, label string) (best *node) {
	var bestRank [3]int64
	for _, n := range p.nodes {
		if n.slots < 1 || !d.Need.Fits(n.free) || !n.could(d, label) || !p.open(n, d) {
			continue
		}
		rank := [3]int64{1, 0, n.load(d.Need)}
		if slices.Contains(d.Prefer, n.name) {
			rank[0] = 0
		}
		for kind := range n.offer.Have.Count {
			if d.Need.Count[kind] == 0 {
				rank[1]++
			}
		}
		if best == nil || slices.Compare(rank[:], bestRank[:]) < 0 {
			best, bestRank = n, rank
		}
	}
	return best
}

// load is how much of the machine would be used, of the kind that is used the most, in
// parts per million, for its weight.
func (n *node) load(need Resources) int64 {
	part := func(free, need, have int64) int64 {
		if have == 0 {
			return 0
		}
		return int64(float64(have-free+need) / float64(have) * 1e6)
	}
	most := max(part(n.free.CPU, need.CPU, n.offer.Have.CPU), part(n.free.Mem, need.Mem, n.offer.Have.Mem))
	return most * 100 / n.weight
}

// open reports whether a task may begin on a machine that others, which come first,
// wait for.
func (p *pass) open(n *node, d *demand) bool {
	switch {
	case !n.closed:
		return true
	case d.Limit == 0:
		return false
	case n.keep == nil:
		return true
	case n.keep.Start == 0:
		return false
	}
	return later(p.w.now, d.Limit+slack) <= n.keep.Start || n.spares > 0 && d.Need.Fits(n.spare)
}

// blocked is what becomes of the first task of a lane that has no room: the machines
// that could run it are closed to others without a time limit, and if it is the first on
// all of them, one is kept for it.
func (p *pass) blocked(t *turn, l *lane) {
	var could []*node
	first := true
	for _, n := range p.nodes {
		if n.could(&l.Demand, t.rules.Rules.Label) {
			could = append(could, n)
			first = first && !n.closed
		}
	}
	if first && len(could) > 0 {
		p.reserve(t, l, could)
	}
	for _, n := range could {
		n.closed = true
	}
}

// candidatesMax bounds the machines that a reserved start is sought on: those with the
// most room.
const candidatesMax = 32

// reserve keeps a machine for the task at the head of a lane: where it can begin first.
// It stays the one that it was unless another is better for certain.
func (p *pass) reserve(t *turn, l *lane, could []*node) {
	old := -1
	if i := slices.IndexFunc(p.kept, func(k kept) bool { return k.ID == l.Head }); i >= 0 {
		old = slices.IndexFunc(could, func(n *node) bool { return n.name == p.kept[i].Node })
	}
	if len(could) > candidatesMax {
		byRoom := slices.Clone(could)
		slices.SortStableFunc(byRoom, func(a, b *node) int { return cmp.Compare(a.load(Resources{}), b.load(Resources{})) })
		if byRoom = byRoom[:candidatesMax]; old >= 0 && !slices.Contains(byRoom, could[old]) {
			byRoom[candidatesMax-1] = could[old]
		}
		if old >= 0 {
			old = slices.Index(byRoom, could[old])
		}
		could = byRoom
	}
	var best *node
	var start meta.Time
	var spare Resources
	var spares int
	consider := func(n *node) {
		at, left, slots := p.earliest(n, l.Demand.Need)
		if best == nil || at != 0 && (start == 0 || at < start) {
			best, start, spare, spares = n, at, left, slots
		}
	}
	if old >= 0 {
		consider(could[old])
	}
	for _, n := range could {
		consider(n)
	}
	if start == 0 || start > later(p.w.now, slack) {
		if n := p.preempt(t, l, could); n != nil {
			best = n
			start, spare, spares = p.earliest(n, l.Demand.Need)
		}
	}
	p.keeps = append(p.keeps, kept{l.Head, best.name, start})
	best.keep, best.spare, best.spares = &kept{l.Head, best.name, start}, spare, spares
}

// earliest is when a machine has room for a task at the latest, and what is free then
// beside it; 0 if nobody knows.
func (p *pass) earliest(n *node, need Resources) (at meta.Time, left Resources, slots int) {
	free := n.free.Clone()
	slots = n.slots
	at = p.w.now
	for _, one := range byEnd(n.used.Runs) {
		if slots > 0 && need.Fits(free) {
			break
		}
		if one.Until == 0 {
			return 0, Resources{}, 0
		}
		free.Add(one.Need)
		slots++
		at = max(at, one.Until)
	}
	if slots < 1 || !need.Fits(free) {
		return 0, Resources{}, 0 // it offers less than it did
	}
	// What ends at the same time is free too.
	free.Sub(need)
	return at, free, slots - 1
}

// byEnd orders runs by their ends, those that nobody knows last.
func byEnd(runs []run) []run {
	runs = slices.Clone(runs)
	slices.SortStableFunc(runs, func(a, b run) int {
		return cmp.Or(cmp.Compare(never(a.Until), never(b.Until)), cmp.Compare(a.Until, b.Until))
	})
	return runs
}

func never(t meta.Time) int {
	if t == 0 {
		return 1
	}
	return 0
}
