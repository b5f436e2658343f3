package task

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

func submit(tx *state.Tx, req Submit) (Submitted, error) {
	size := 0
	for i := range req.Specs {
		size += req.Specs[i].Size()
	}
	switch {
	case len(req.Specs) == 0 || len(req.Specs) > SubmitMax:
		return Submitted{}, fmt.Errorf("%d jobs, from 1 to %d: %w", len(req.Specs), SubmitMax, meta.Invalid)
	case size > SubmitBytes && len(req.Specs) > 1:
		return Submitted{}, fmt.Errorf("jobs of %d bytes, at most %d at once: %w", size, SubmitBytes, meta.TooLarge)
	case len(req.Owner.Groups) > GroupsMax:
		return Submitted{}, fmt.Errorf("%d groups, at most %d: %w", len(req.Owner.Groups), GroupsMax, meta.Invalid)
	}
	w := begin(tx)
	first := w.c.Job + 1
	for i := range req.Specs {
		if err := w.submit(req.Owner, req.Specs[i]); err != nil {
			if len(req.Specs) > 1 {
				err = fmt.Errorf("job %d of %d: %w", i+1, len(req.Specs), err)
			}
			return Submitted{}, err
		}
	}
	w.done()
	return Submitted{first}, nil
}

func (w *work) submit(owner Owner, spec Spec) error {
	if err := spec.Check(); err != nil {
		return err
	}
	q, ok := w.rule(spec.Queue)
	if !ok {
		return fmt.Errorf("there is no queue %q: %w", spec.Queue, meta.Invalid)
	}
	if err := q.Rules.Admit(&spec); err != nil {
		return fmt.Errorf("queue %q: %w", spec.Queue, err)
	}
	w.c.Job++
	id := ID{Job: w.c.Job}
	r := &row{
		UID: owner.UID, GID: owner.GID, Name: spec.Name, Queue: q.ID, Prio: spec.Prio, Held: spec.Hold, Submitted: w.now, Retries: spec.Retries, Every: spec.Every,
		Demand: demand{Need: spec.Need, Labels: spec.Labels, Node: spec.Node, Limit: spec.Timeout, Prefer: spec.Prefer},
	}
	if err := w.follow(id, r, spec.After); err != nil {
		return err
	}
	if spec.At > w.now {
		w.wake(id, r, spec.At)
	}
	w.tx.Set(key('s', id.Job), state.Marshal(stored{owner, spec}))
	w.tx.Set(userKey(r.UID, id), []byte{})
	if r.Name != "" {
		w.tx.Set(nameKey(r.Name, id), []byte{})
	}
	w.running(q.ID).Waits++
	if spec.Array != nil {
		n := spec.Array.Len()
		a := &array{Indices: spec.Array.Indices, Ready: spec.Array.Indices, Throttle: spec.Array.Throttle, Bare: n, Counts: make([]int, states)}
		if r.Final != 0 {
			a.BareEnd, a.Ready = r.Final, nil
		}
		a.Counts[a.bare(r.Held)] = n
		w.c.Counts[a.bare(r.Held)] += int64(n)
		r.Array = a
	}
	w.put(id, r)
	return nil
}

// follow notes what a job comes after. What has ended otherwise than it should makes
// the job cancelled at once.
func (w *work) follow(id ID, r *row, after []Dep) error {
	for _, d := range after {
		dep, err := w.task(d.ID)
		if err != nil {
			return fmt.Errorf("after=%v:%v: there is no such task, or it was forgotten: %w", d.On, d.ID, meta.Invalid)
		}
		if dep.Final != 0 {
			if !d.On.met(dep.Final) && r.Final == 0 {
				w.final(id, r, Cancelled, unmet(d, dep.Final))
			}
			if d.ID.Place != 0 {
				w.put(d.ID, dep) // it may have been bare
			}
			continue
		}
		r.Waits++
		dep.Followed = true
		w.put(d.ID, dep)
		w.tx.Set(afterKey(d.ID, id.Job), []byte{byte(d.On)})
	}
	return nil
}

// met reports whether an end is what was waited for.
func (c Condition) met(end State) bool {
	switch c {
	case OK:
		return end == Done
	case Fail:
		return end != Done
	}
	return true
}

func unmet(d Dep, end State) string {
	return fmt.Sprintf("after=%v:%v cannot be: %v is %v", d.On, d.ID, d.ID, end)
}
