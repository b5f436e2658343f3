package task

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

func control(tx *state.Tx, req Control) (none, error) {
	switch {
	case len(req.Why) > TextMax:
		return none{}, fmt.Errorf("a reason of %d bytes: %w", len(req.Why), meta.TooLarge)
	case (req.Verb == Signal || req.Verb == Cancel && req.Number != 0) && (req.Number < 1 || req.Number > 64):
		return none{}, fmt.Errorf("signal %d, from 1 to 64: %w", req.Number, meta.Invalid)
	case req.Verb == SetPrio && (req.Number < -PrioMax || req.Number > PrioMax):
		return none{}, fmt.Errorf("priority %d, from -%d to %d: %w", req.Number, PrioMax, PrioMax, meta.Invalid)
	}
	w := begin(tx)
	r, err := w.task(req.ID)
	if err == nil {
		err = allowed(req.ID, r, req.UID)
	}
	if err == nil {
		err = w.control(r, req)
	}
	if err != nil {
		return none{}, err
	}
	w.done()
	return none{}, nil
}

// allowed refuses who is neither the owner nor root.
func allowed(id ID, r *row, uid uint32) error {
	if uid == 0 || uid == r.UID {
		return nil
	}
	return fmt.Errorf("task %v is user %d's: %w", id, r.UID, meta.Permission)
}

// control does what is asked for and puts the task.
func (w *work) control(r *row, req Control) (err error) {
	switch req.Verb {
	case Cancel:
		err = w.cancel(r, req)
	case Hold:
		err = w.hold(r, req)
	case Release:
		if r.Final == 0 && r.Held {
			r.Reason = ""
		}
		w.setHeld(r, false)
	case SetPrio:
		err = w.setPrio(r, req)
	case Requeue:
		err = w.requeue(r, req)
	case Signal, Freeze, Thaw:
		err = w.command(r, req)
	default:
		return fmt.Errorf("%d is nothing to do with a task: %w", req.Verb, meta.Invalid)
	}
	if err != nil {
		return err
	}
	if a := r.Array; a != nil && req.Verb != Hold && req.Verb != SetPrio && a.Bare < rangesLen(a.Indices) {
		w.chore(chore{ID: req.ID, What: choreElements, Control: req})
	}
	w.put(req.ID, r)
	return nil
}

// cancel ends a task, or what has not begun of an array.
func (w *work) cancel(r *row, req Control) error {
	why := req.Why
	if why == "" {
		why = fmt.Sprintf("cancelled by user %d", req.UID)
	}
	a := r.Attempt
	switch {
	case r.Final == Cancelled:
		return nil
	case r.Final != 0:
		return fmt.Errorf("task %v has ended: it is %v: %w", req.ID, r.Final, meta.Invalid)
	case r.Array != nil:
		r.Reason = why
		if r.Array.Bare > 0 && r.Array.BareEnd == 0 {
			w.endBare(r, Cancelled)
		}
		// Those with rows are cancelled by a chore, and do not begin before.
		if r.Array.Ready = nil; r.Array.ended() {
			break // put ends it
		}
		if r.Array.Bare < rangesLen(r.Array.Indices) && req.Verb != Cancel {
			w.chore(chore{ID: req.ID, What: choreElements, Control: Control{Verb: Cancel, Why: why}})
		}
	case a == nil || !a.Claimed:
		if a != nil {
			w.free(req.ID, r)
		}
		w.final(req.ID, r, Cancelled, why)
	default:
		r.Reason = why
		a.Stop = toCancel
		return w.order(req.ID, a, Order{Verb: Cancel, Number: req.Number})
	}
	return nil
}

// order tells a task's machine to do something. Further ones than there is room for are
// refused, but for one that ends it, which counts in the place of all others.
func (w *work) order(id ID, a *attempt, o Order) error {
	if len(a.Orders) >= OrdersMax {
		if o.Verb != Cancel {
			return fmt.Errorf("task %v: its machine has not obeyed %d orders yet: %w", id, len(a.Orders), meta.Busy)
		}
		a.Orders = nil
	}
	a.Order++
	o.Seq = a.Order
	a.Orders = append(a.Orders, o)
	if o.Verb == Cancel {
		a.Frozen = false
		one := w.run(a)
		one.Stops, one.Until = true, later(w.now, slack)
	}
	w.news(id, a)
	return nil
}

func (w *work) hold(r *row, req Control) error {
	switch {
	case r.Final != 0:
		return fmt.Errorf("task %v has ended: it is %v: %w", req.ID, r.Final, meta.Invalid)
	case r.Held:
		return nil
	}
	if r.Reason = req.Why; r.Reason == "" {
		r.Reason = fmt.Sprintf("held by user %d", req.UID)
	}
	w.setHeld(r, true)
	return nil
}

func (w *work) setHeld(r *row, held bool) {
	if a := r.Array; a != nil && r.Held != held && a.BareEnd == 0 {
		was, is := a.bare(r.Held), a.bare(held)
		a.Counts[was] -= a.Bare
		a.Counts[is] += a.Bare
		w.c.Counts[was] -= int64(a.Bare)
		w.c.Counts[is] += int64(a.Bare)
	}
	r.Held = held
}

func (w *work) setPrio(r *row, req Control) error {
	if req.ID.Place != 0 {
		return fmt.Errorf("task %v: the priority is the whole array's: %w", req.ID, meta.Unsupported)
	}
	if r.Lane {
		w.line(req.ID, r, false)
	}
	r.Prio = req.Number
	return nil
}

// requeue has a task run again from its beginning. One that waits does so no longer.
func (w *work) requeue(r *row, req Control) error {
	if err := w.met(req.ID, r); err != nil {
		return err
	}
	a := r.Attempt
	switch {
	case r.Array != nil:
		if r.Array.BareEnd != 0 {
			w.bringBack(req.ID, r)
		}
		return nil
	case r.Final != 0:
		w.again(req.ID, r)
	case a != nil && a.Claimed:
		r.Reason = "it is to be run again"
		a.Stop = toRequeue
		return w.order(req.ID, a, Order{Verb: Cancel})
	case a != nil:
		w.free(req.ID, r)
	}
	w.sleep(req.ID, r)
	return nil
}

// met refuses a task that came after another, which ended otherwise than it should have.
// If that runs again, the job waits for it again.
func (w *work) met(id ID, r *row) error {
	var job stored
	read(w.tx, key('s', id.Job), &job)
	for _, d := range job.Spec.After {
		dep, _, ok := find(w.tx, d.ID)
		switch {
		case !ok || dep.Final != 0 && d.On.met(dep.Final) || has(w.tx, afterKey(d.ID, id.Job)):
		case dep.Final != 0:
			return fmt.Errorf("task %v cannot run: %s: %w", id, unmet(d, dep.Final), meta.Invalid)
		case id.Place != 0:
			return fmt.Errorf("task %v cannot run before %v has ended: %w", id, d.ID, meta.Invalid)
		default:
			if err := w.follow(id, r, []Dep{d}); err != nil {
				return err
			}
		}
	}
	return nil
}

// bringBack makes the bare elements of an array that have ended ones that wait.
func (w *work) bringBack(id ID, r *row) {
	if r.Final != 0 {
		w.again(id, r)
	}
	a := r.Array
	was := a.BareEnd
	a.BareEnd = 0
	is := a.bare(r.Held)
	a.Counts[was] -= a.Bare
	a.Counts[is] += a.Bare
	w.c.Counts[was] -= int64(a.Bare)
	w.c.Counts[is] += int64(a.Bare)
	// What has a row comes back by itself, or has already.
	ready := a.Indices
	for k := range w.tx.Scan(taskKey(ID{id.Job, 1}), state.After(key('t', id.Job))) {
		if i, _ := idAt(k).Index(); !contains(a.Ready, uint32(i)) {
			ready = remove(ready, uint32(i))
		}
	}
	a.Ready = ready
}

// command is a signal, or that a task is to stand still or go on.
func (w *work) command(r *row, req Control) error {
	a := r.Attempt
	switch {
	case r.Array != nil && r.Final == 0:
		return nil
	case a == nil || !a.Claimed:
		return fmt.Errorf("task %v does not run: it is %v: %w", req.ID, r.State, meta.Invalid)
	case req.Verb == Signal:
		return w.order(req.ID, a, Order{Verb: Signal, Number: req.Number})
	}
	if frozen := req.Verb == Freeze; a.Frozen != frozen {
		a.Frozen = frozen
		w.news(req.ID, a)
	}
	return nil
}

func forget(tx *state.Tx, req Forget) (none, error) {
	w := begin(tx)
	r, bare, ok := find(tx, req.ID)
	switch {
	case !ok:
		return none{}, fmt.Errorf("task %v: %w", req.ID, meta.NotExist)
	case req.ID.Place != 0 || bare:
		return none{}, fmt.Errorf("task %v is part of an array, which is forgotten as a whole: %w", req.ID, meta.Unsupported)
	}
	if err := allowed(req.ID, r, req.UID); err != nil {
		return none{}, err
	}
	if r.Final == 0 {
		return none{}, fmt.Errorf("task %v has not ended: it is %v: %w", req.ID, r.State, meta.Busy)
	}
	tx.Delete(key('f', r.End))
	w.forget(req.ID)
	w.done()
	return none{}, nil
}

// forget removes a job that has ended.
func (w *work) forget(id ID) {
	r, _, ok := find(w.tx, id)
	if !ok || r.Final == 0 {
		panic(fmt.Sprintf("task: %v is to be forgotten and has not ended", id))
	}
	w.tx.Delete(taskKey(id))
	w.tx.Delete(key('s', id.Job))
	w.tx.Delete(stateKey(r.State, id))
	w.tx.Delete(userKey(r.UID, id))
	if r.Name != "" {
		w.tx.Delete(nameKey(r.Name, id))
	}
	if r.Array == nil {
		w.c.Counts[r.Final]--
	} else {
		for s, n := range r.Array.Counts {
			w.c.Counts[s] -= int64(n)
		}
		if r.Array.Bare < rangesLen(r.Array.Indices) {
			w.chore(chore{ID: id, What: choreSweep})
		}
	}
	w.tx.Set(key('F', id.Job), []byte{})
}

func cleared(tx *state.Tx, req Cleared) (none, error) {
	if len(req.Jobs) > ListMax {
		return none{}, fmt.Errorf("%d jobs, at most %d: %w", len(req.Jobs), ListMax, meta.Invalid)
	}
	for _, job := range req.Jobs {
		tx.Delete(key('F', job))
	}
	return none{}, nil
}
