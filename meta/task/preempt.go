package task

import (
	"cmp"
	"fmt"
	"slices"
)

// preempt has tasks of lower priority end, where their partitions let them, so that
// there is room for the task at the head of a lane. It returns the machine, nil if there
// is none. It takes the fewest that it can, of
// the lowest priority, of these the youngest, and never more than what makes room.
func (p *pass) preempt(t *turn, l *lane, could []*node) *node {
	if !p.preempts {
		return nil
	}
	var at *node
	var victims []run
	for _, n := range could {
		if n.keep != nil {
			continue
		}
		list, ok := p.victims(n, l.Demand.Need, t.key.prio())
		if ok && (at == nil || cmp.Or(cmp.Compare(topPrio(list), topPrio(victims)), cmp.Compare(len(list), len(victims))) < 0) {
			at, victims = n, list
		}
	}
	for _, v := range victims {
		r, err := p.w.task(v.ID)
		if err != nil {
			panic(fmt.Sprintf("task: %v runs: %v", v.ID, err))
		}
		r.Reason = fmt.Sprintf("it made room for %v of priority %d", l.Head, t.key.prio())
		a := r.Attempt
		if !a.Claimed {
			// Its machine has not begun it: there is nothing to wait for.
			p.w.free(v.ID, r)
			at.free.Add(v.Need)
			at.slots++
		} else {
			if a.Stop = toRequeue; p.w.ruleOf(v.Queue).Rules.Preempt == PreemptCancel {
				a.Stop = toCancel
			}
			_ = p.w.order(v.ID, a, Order{Verb: Cancel}) // this one is never refused
		}
		p.w.put(v.ID, r)
	}
	if at != nil {
		p.decided += len(victims)
	}
	return at
}

func topPrio(list []run) int {
	top := -PrioMax - 1
	for _, one := range list {
		top = max(top, one.Prio)
	}
	return top
}

// victims are what would have to end on a machine; ok is false if that is not enough.
func (p *pass) victims(n *node, need Resources, prio int) (list []run, ok bool) {
	free, slots := n.free.Clone(), n.slots
	var may []run
	for _, one := range n.used.Runs {
		switch {
		case one.Stops:
			free.Add(one.Need)
			slots++
		case one.Prio < prio && p.w.ruleOf(one.Queue).Rules.Preempt != Keep:
			may = append(may, one)
		}
	}
	slices.SortFunc(may, func(a, b run) int { return cmp.Or(cmp.Compare(a.Prio, b.Prio), cmp.Compare(b.Token, a.Token)) })
	for _, one := range may {
		if slots > 0 && need.Fits(free) {
			break
		}
		list = append(list, one)
		free.Add(one.Need)
		slots++
	}
	if slots < 1 || !need.Fits(free) {
		return nil, false
	}
	// Those that turned out not to be needed stay, the highest priority first.
	for i := len(list) - 1; i >= 0; i-- {
		less := free.Clone()
		if less.Sub(list[i].Need); slots > 1 && need.Fits(less) {
			free, slots = less, slots-1
			list = slices.Delete(list, i, i+1)
		}
	}
	return list, true
}
