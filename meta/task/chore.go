package task

import (
	"dos/meta"
	"dos/meta/state"
)

// What a chore is for.
const (
	choreFollowers = 1 // the jobs that come after a task that ended as End are told
	choreElements  = 2 // all elements of an array are controlled
	choreSweep     = 3 // the elements of an array that was forgotten are removed
)

// A chore is something that concerns many rows. It is done a part in each command.
type chore struct {
	ID      ID      `cbor:"1,keyasint,omitempty"`
	What    uint8   `cbor:"2,keyasint,omitempty"`
	End     State   `cbor:"3,keyasint,omitempty"`
	Control Control `cbor:"4,keyasint,omitempty"`
	From    uint32  `cbor:"5,keyasint,omitempty"` // the place that is next
}

// chore has something done later.
func (w *work) chore(c chore) {
	w.tx.Set(key('z', w.c.Chores), state.Marshal(c))
	w.c.Chores++
}

// chores does what there is to do, limit rows of it at most, and returns what is left of that.
func (w *work) chores(limit int) int {
	for w.c.Chore < w.c.Chores && limit > 0 {
		k := key('z', w.c.Chore)
		var c chore
		if !read(w.tx, k, &c) {
			panic("task: a chore is not there")
		}
		var done bool
		switch c.What {
		case choreFollowers:
			limit, done = w.tellFollowers(c, limit)
		case choreElements:
			limit, done = w.elements(&c, limit, func(id ID, _ *row) {
				req := c.Control
				req.ID = id
				if r, err := w.task(id); err == nil {
					_ = w.control(r, req) // one of them that cannot be is let be
				}
			})
		case choreSweep:
			limit, done = w.elements(&c, limit, func(id ID, r *row) {
				w.tx.Delete(taskKey(id))
				w.tx.Delete(stateKey(r.State, id))
			})
		}
		if !done {
			w.tx.Set(k, state.Marshal(c))
			break
		}
		w.tx.Delete(k)
		w.c.Chore++
	}
	return limit
}

// tellFollowers tells the jobs that come after a task that it has ended.
func (w *work) tellFollowers(c chore, limit int) (left int, done bool) {
	type follower struct {
		job uint64
		on  Condition
	}
	var list []follower
	prefix := afterKey(c.ID, 0)
	prefix = prefix[:len(prefix)-8]
	done = true
	for k, val := range w.tx.Scan(prefix, state.After(prefix)) {
		if len(list) == limit {
			done = false
			break
		}
		list = append(list, follower{numberAt(k), Condition(val[0])})
	}
	for _, f := range list {
		w.tx.Delete(afterKey(c.ID, f.job))
		id := ID{Job: f.job}
		r, err := w.task(id)
		if err != nil {
			continue // it was cancelled and forgotten
		}
		r.Waits--
		if r.Final == 0 && !f.on.met(c.End) {
			_ = w.cancel(r, Control{ID: id, Why: unmet(Dep{c.ID, f.on}, c.End)})
		}
		w.put(id, r)
	}
	return limit - len(list), done
}

// elements does something with each element of an array that has a row.
func (w *work) elements(c *chore, limit int, do func(ID, *row)) (left int, done bool) {
	var ids []ID
	var rows []*row
	done = true
	for k, val := range w.tx.Scan(taskKey(ID{c.ID.Job, max(c.From, 1)}), state.After(key('t', c.ID.Job))) {
		if len(ids) == limit {
			c.From, done = idAt(k).Place, false
			break
		}
		r := new(row)
		state.MustUnmarshal(val, r)
		ids, rows = append(ids, idAt(k)), append(rows, r)
	}
	for i, id := range ids {
		do(id, rows[i])
	}
	return limit - len(ids), done
}

// forgetOld forgets jobs that ended too long ago or are too many.
func (w *work) forgetOld(limit int) int {
	for ; limit > 0 && tooOld(w.tx, w.c, w.now); limit-- {
		var e ended
		if read(w.tx, key('f', w.c.Ended), &e) {
			w.forget(ID{Job: e.Job})
		}
		w.c.Ended++
	}
	return limit
}

// tooOld reports whether the first in the list of jobs that ended is to be forgotten.
func tooOld(r state.Reader, c counters, now meta.Time) bool {
	if c.Ended >= c.Ends {
		return false
	}
	if c.Ends-c.Ended > EndedMax {
		return true
	}
	var e ended
	return !read(r, key('f', c.Ended), &e) || span(e.Time, now) > EndedKeep
}
