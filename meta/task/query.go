package task

import (
	"fmt"
	"slices"

	"dos/meta"
	"dos/meta/state"
)

func limited(n int) (int, error) {
	if n < 1 || n > ListMax {
		return 0, fmt.Errorf("%d of a list, from 1 to %d: %w", n, ListMax, meta.Invalid)
	}
	return n, nil
}

// A view answers queries about tasks.
type view struct {
	room Room
	r    state.Reader
	why  *why
	name map[uint32]string // of partitions
}

func (room Room) view(r state.Reader) *view {
	return &view{room: room, r: r, name: make(map[uint32]string)}
}

func (v *view) queueName(id uint32) string {
	name, ok := v.name[id]
	if !ok {
		name = nameOf(v.r, id)
		v.name[id] = name
	}
	return name
}

// task describes a task.
func (v *view) task(id ID, r *row) Task {
	t := Task{
		ID: id, Version: r.Version, Owner: Owner{UID: r.UID, GID: r.GID}, Name: r.Name, Queue: v.queueName(r.Queue), Prio: r.Prio, State: r.State, Reason: r.Reason,
		Node: r.Node, Token: r.Token, Attempt: r.Attempts, Claimed: r.Claimed, Started: r.Started, Exit: r.Exit, Usage: r.Usage,
		Submitted: r.Submitted, Ended: r.Ended, Due: r.Due, Failures: r.Failures, Losses: r.Losses,
	}
	if a := r.Attempt; a != nil {
		t.Frozen = a.Stands
	}
	if r.Array != nil {
		t.Elements = r.Array.Counts
	}
	if t.State == Pending || t.State == Held {
		if v.why == nil {
			v.why = v.room.why(v.r)
		}
		t.Reason = v.why.reason(id, r)
		t.Start = v.why.start(id)
	}
	return t
}

func (room Room) get(r state.Reader, req Ask) (Task, error) {
	one, _, ok := find(r, req.ID)
	if !ok {
		return Task{}, fmt.Errorf("task %v: %w", req.ID, meta.NotExist)
	}
	t := room.view(r).task(req.ID, one)
	t.Past, t.Need = one.Past, one.Demand.Need
	var job stored
	if read(r, key('s', req.ID.Job), &job) {
		t.Owner = job.Owner
	}
	return t, nil
}

// TaskKey is the row that changes when a task does. A bare element's is its array's.
func TaskKey(req Follow) []byte { return taskKey(req.ID) }

func specOf(r state.Reader, req Ask) (Spec, error) {
	var job stored
	_, _, ok := find(r, req.ID)
	if !ok || !read(r, key('s', req.ID.Job), &job) {
		return Spec{}, fmt.Errorf("task %v: %w", req.ID, meta.NotExist)
	}
	return job.Spec, nil
}

// lookMax bounds the tasks that one answer passes over.
const lookMax = 16 * ListMax

func (room Room) list(r state.Reader, req List) (Listed, error) {
	limit, err := limited(req.Limit)
	if err != nil {
		return Listed{}, err
	}
	v := room.view(r)
	out := Listed{Last: req.After}
	look := lookMax
	for id := range req.ids(r) {
		if len(out.Tasks) == limit || look == 0 {
			out.More = true
			return out, nil
		}
		look--
		out.Last = id
		one := new(row)
		if read(r, taskKey(id), one) && req.is(id, one) {
			out.Tasks = append(out.Tasks, v.task(id, one))
		}
	}
	return out, nil
}

// is reports whether a task is asked for.
func (req List) is(id ID, r *row) bool {
	return (req.State == 0 || r.State == req.State) && (req.UID == nil || r.UID == *req.UID) && (req.Name == "" || r.Name == req.Name) &&
		(req.Node == "" || r.Attempt != nil && r.Node == req.Node) && (req.Job == 0 || id.Job == req.Job)
}

// ids yields those of an index that have what is asked for, and perhaps more, after one.
func (req List) ids(r state.Reader) func(yield func(ID) bool) {
	after := ID{req.After.Job, req.After.Place + 1}
	if req.After == (ID{}) {
		after = ID{}
	}
	scan := func(prefix []byte, each func(id ID) bool) {
		for k := range r.Scan(withID(slices.Clip(prefix), after), state.After(prefix)) {
			if !each(idAt(k)) {
				return
			}
		}
	}
	jobs := func(prefix []byte) func(func(ID) bool) { // with the elements of arrays
		return func(yield func(ID) bool) {
			from := withID(slices.Clip(prefix), after.Array())
			for k := range r.Scan(from, state.After(prefix)) {
				job := idAt(k).Job
				first := ID{Job: job}
				if job == after.Job {
					first = after
				}
				for k := range r.Scan(taskKey(first), state.After(key('t', job))) {
					if !yield(idAt(k)) {
						return
					}
				}
			}
		}
	}
	switch {
	case req.Job != 0:
		return func(yield func(ID) bool) {
			from := ID{Job: req.Job}
			if after.Compare(from) > 0 {
				from = after
			}
			for k := range r.Scan(taskKey(from), state.After(key('t', req.Job))) {
				if !yield(idAt(k)) {
					return
				}
			}
		}
	case req.Node != "":
		return func(yield func(ID) bool) {
			var u used
			read(r, usedKey(req.Node), &u)
			slices.SortFunc(u.Runs, func(a, b run) int { return a.ID.Compare(b.ID) })
			for _, one := range u.Runs {
				if one.ID.Compare(after) >= 0 && !yield(one.ID) {
					return
				}
			}
		}
	case req.Name != "":
		return jobs(append(append(key('N'), req.Name...), 0))
	case req.UID != nil:
		return jobs(short('U', *req.UID))
	case req.State != 0:
		return func(yield func(ID) bool) { scan(append(key('y'), byte(req.State)), yield) }
	}
	return func(yield func(ID) bool) { scan(key('t'), yield) }
}

func eventsSince(r state.Reader, req Since) (Events, error) {
	limit, err := limited(req.Limit)
	if err != nil {
		return Events{}, err
	}
	var out Events
	read(r, eventsKey, &out.Last)
	out.First = 1
	if out.Last > EventsMax {
		out.First = out.Last - EventsMax + 1
	}
	for n := max(req.Seq+1, out.First); n <= out.Last && len(out.List) < limit; n++ {
		var e Event
		if !read(r, key('E', n), &e) {
			panic(fmt.Sprintf("task: event %d is not there", n))
		}
		out.List = append(out.List, e)
	}
	return out, nil
}

// EventsKey is the row that changes when something has happened.
func EventsKey(Since) []byte { return eventsKey }

func (room Room) status(r state.Reader, _ struct{}) (Status, error) {
	c := readCounters(r)
	list, err := queues(r, struct{}{})
	return Status{Counts: c.Counts, Nodes: room.nodeStatus(r), Queues: list.List, Submitted: c.Job}, err
}

func (room Room) offers(r state.Reader, _ struct{}) (Offers, error) {
	return Offers{room.nodeStatus(r)}, nil
}

func (room Room) nodeStatus(r state.Reader) (list []NodeStatus) {
	var keeps []kept
	read(r, keptKey, &keeps)
	for _, n := range room.nodes(r, usedIn(r)) {
		one := NodeStatus{Offer: n.offer, Used: n.used.Sum, Tasks: len(n.used.Runs), Why: n.why}
		one.Offer.Labels = n.labels
		if i := slices.IndexFunc(keeps, func(k kept) bool { return k.Node == n.name }); i >= 0 {
			one.Kept, one.Start = keeps[i].ID, keeps[i].Start
		}
		list = append(list, one)
	}
	return list
}

// usedIn reads what runs on machines.
func usedIn(r state.Reader) func(string) *used {
	return func(name string) *used {
		u := new(used)
		read(r, usedKey(name), u)
		return u
	}
}

func queueOf(r state.Reader, req Named) (Queue, error) {
	q, ok := findQueue(r, req.Name)
	if !ok {
		return Queue{}, fmt.Errorf("queue %q: %w", req.Name, meta.NotExist)
	}
	return q.describe(r, req.Name), nil
}

func (q queueRow) describe(r state.Reader, name string) Queue {
	var now running
	read(r, short('k', q.ID), &now)
	return Queue{Name: name, UID: q.UID, GID: q.GID, Mode: q.Mode, Made: q.Made, Rules: q.Rules, Used: now.Used, Tasks: now.Tasks, Waits: now.Waits}
}

func queues(r state.Reader, _ struct{}) (Queues, error) {
	first, _ := findQueue(r, "")
	out := Queues{[]Queue{first.describe(r, "")}}
	for k, val := range r.Scan(queueKey("\x00"), state.After(queueKey(""))) {
		var q queueRow
		state.MustUnmarshal(val, &q)
		out.List = append(out.List, q.describe(r, string(k[2:])))
	}
	return out, nil
}

func forgotten(r state.Reader, _ struct{}) (Jobs, error) {
	var out Jobs
	for k := range r.Scan(key('F'), state.After(key('F'))) {
		if out.Jobs = append(out.Jobs, numberAt(k)); len(out.Jobs) == ListMax {
			break
		}
	}
	return out, nil
}
