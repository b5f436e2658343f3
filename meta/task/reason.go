package task

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/state"
)

// A why says why tasks wait, for as many of them as one answer is about.
type why struct {
	room  Room
	r     state.Reader
	nodes []*node
	keeps []kept
	fits  map[string]string // what is said of a lane, by its level and shape
}

func (room Room) why(r state.Reader) *why {
	y := &why{room: room, r: r, fits: make(map[string]string)}
	y.nodes = room.nodes(r, usedIn(r))
	read(r, keptKey, &y.keeps)
	return y
}

// start is when a task begins at the latest, if a machine is kept for it.
func (y *why) start(id ID) meta.Time {
	for _, k := range y.keeps {
		if k.ID == id {
			return k.Start
		}
	}
	return 0
}

func (y *why) reason(id ID, r *row) string {
	before := ""
	if r.Reason != "" {
		before = r.Reason + "; "
	}
	switch {
	case r.Attempt != nil:
		return "begins on " + r.Node
	case r.Held:
		return r.Reason
	case r.Waits > 0:
		return y.after(id, r)
	case r.Due != 0:
		return fmt.Sprintf("%swaits until %s", before, r.Due.Std().UTC().Format(time.RFC3339))
	}
	if i, element := id.Index(); element {
		all, _, _ := find(y.r, id.Array())
		switch {
		case all == nil || all.Array == nil:
			return before + "waits for its array"
		case !all.Lane:
			return before + "array " + id.Array().String() + ": " + y.reason(id.Array(), all)
		case all.Array.Ready[0].First < uint32(i):
			return fmt.Sprintf("%swaits for element %d and others of its array", before, all.Array.Ready[0].First)
		}
		r = all
	}
	if a := r.Array; a != nil && a.Throttle > 0 && a.Active >= a.Throttle {
		return fmt.Sprintf("%s%d of its elements run, as many as may", before, a.Active)
	}
	return before + y.noRoom(r)
}

// after names what a task comes after that has not ended.
func (y *why) after(id ID, r *row) string {
	var job stored
	read(y.r, key('s', id.Job), &job)
	var list []string
	for _, d := range job.Spec.After {
		if has(y.r, afterKey(d.ID, id.Job)) {
			list = append(list, d.ID.String())
		}
	}
	return "waits for " + strings.Join(list, ", ") + " to end"
}

// noRoom says why a task that may begin does not.
func (y *why) noRoom(r *row) string {
	k := levelOf(r.Prio, r.Queue, r.UID)
	memo := string(k) + r.Demand.shape()
	text, ok := y.fits[memo]
	if !ok {
		text = y.lane(k, &r.Demand)
		y.fits[memo] = text
	}
	return text
}

func (y *why) lane(k levelKey, d *demand) string {
	q, _ := findQueue(y.r, nameOf(y.r, k.queue()))
	var now running
	var acc account
	read(y.r, short('k', k.queue()), &now)
	read(y.r, accountKey(k.queue(), k.uid()), &acc)
	if q.Rules.Paused {
		return "its queue is paused"
	}
	if what := q.Rules.Limits.over(now.Used, now.Tasks, d.Need); what != "" {
		return "partition limit: " + what
	}
	if what := q.Rules.PerUser.over(acc.Used, acc.Tasks, d.Need); what != "" {
		return "partition limit of each user: " + what
	}
	return fitting(y.nodes, d, q.Rules.Label)
}

// fitting says what is missing on the machines.
func fitting(nodes []*node, d *demand, label string) string {
	if len(nodes) == 0 {
		return "no node offers to run tasks"
	}
	var could []*node
	for _, n := range nodes {
		if n.could(d, label) {
			could = append(could, n)
		}
	}
	if len(could) == 0 {
		return impossible(nodes, d, label)
	}
	// The one on which the least is missing is what a person looks at.
	var best *node
	for _, n := range could {
		if d.Need.Fits(n.free) && n.slots > 0 {
			return "others come first"
		}
		if best == nil || n.load(d.Need) < best.load(d.Need) {
			best = n
		}
	}
	short := missing(d.Need, best.free, "free")
	if short == "" {
		short = fmt.Sprintf("all %d slots are taken", best.offer.Slots)
	}
	return fmt.Sprintf("%s on best node %s", short, best.name)
}

// impossible says why no machine could run such a task.
func impossible(nodes []*node, d *demand, label string) string {
	in := nodes
	for _, only := range []struct {
		what string
		is   func(n *node) bool
	}{
		{"no node " + d.Node + " offers to run tasks", func(n *node) bool { return d.Node == "" || d.Node == n.name }},
		{"no node has label " + strings.Join(d.Labels, ","), func(n *node) bool {
			return !slices.ContainsFunc(d.Labels, func(l string) bool { return !n.hasLabel(l) })
		}},
		{"no node has label " + label + " of its queue", func(n *node) bool { return label == "" || n.hasLabel(label) }},
		{"every node for it is drained or closed", func(n *node) bool { return n.why == "" }},
	} {
		in = slices.DeleteFunc(slices.Clone(in), func(n *node) bool { return !only.is(n) })
		if len(in) == 0 {
			return only.what
		}
	}
	for _, kind := range d.Need.kinds() {
		if !slices.ContainsFunc(in, func(n *node) bool { return d.Need.of(kind) <= n.offer.Have.of(kind) }) {
			return fmt.Sprintf("no node has %s", amount(kind, d.Need.of(kind)))
		}
	}
	return "no node has all of " + strings.Join(amounts(d.Need), ", ")
}

// missing says of which kind there is too little; "" if of none.
func missing(need, have Resources, what string) string {
	for _, kind := range need.kinds() {
		if need.of(kind) > have.of(kind) {
			n, h := need.of(kind), max(0, have.of(kind))
			switch kind {
			case "cpu":
				return fmt.Sprintf("cpu: %s wanted, %s %s", cores(n), cores(h), what)
			case "mem":
				return fmt.Sprintf("mem: %s wanted, %s %s", bytesText(n), bytesText(h>>20<<20), what)
			}
			return fmt.Sprintf("%s: %d wanted, %d %s", kind, n, h, what)
		}
	}
	return ""
}

// kinds are those that are not zero, cpu and mem first.
func (r Resources) kinds() []string {
	list := slices.Sorted(maps.Keys(r.Count))
	if r.Mem != 0 {
		list = slices.Insert(list, 0, "mem")
	}
	return slices.Insert(list, 0, "cpu")
}

func (r Resources) of(kind string) int64 {
	switch kind {
	case "cpu":
		return r.CPU
	case "mem":
		return r.Mem
	}
	return r.Count[kind]
}

// amount writes how much of a kind: "4 gpus", "mem 1g".
func amount(kind string, n int64) string {
	switch {
	case kind == "cpu":
		return cores(n) + " cpus"
	case kind == "mem":
		return bytesText(n) + " of memory"
	case n == 1:
		return "1 " + kind
	}
	return fmt.Sprintf("%d %ss", n, kind)
}

func amounts(r Resources) (list []string) {
	for _, kind := range r.kinds() {
		list = append(list, amount(kind, r.of(kind)))
	}
	return list
}
