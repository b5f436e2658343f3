package queue

import (
	"fmt"
	"slices"
	"time"

	"dos/meta"
	"dos/meta/state"
)

type none = struct{}

func makeQueue(tx *state.Tx, req Make) (none, error) {
	if err := checkName("queue", req.Name); err != nil {
		return none{}, err
	}
	if load(tx, req.Name) != nil {
		return none{}, fmt.Errorf("queue %q: %w", req.Name, meta.Exist)
	}
	w := begin(tx)
	q := &queue{w: w, name: req.Name, moved: true, staled: true}
	q.config = config{
		ID: w.fresh(), UID: req.UID, GID: req.GID, Mode: req.Mode & 0o7777, Made: w.now(), Changed: w.now(),
		Settings: Settings{Ack: AckDefault, Attempts: AttemptsDefault},
	}
	q.position = position{Log: w.fresh(), Next: 1, First: 1}
	q.Groups = []group{q.newGroup("")}
	w.queues[q.name] = q
	tx.Set(key('i', q.ID), []byte(q.name))
	w.done()
	return none{}, nil
}

// newGroup is a group at the end of the log.
func (q *queue) newGroup(name string) group {
	return group{ID: q.w.fresh(), Run: q.w.fresh(), Name: name, Cursor: q.Next}
}

func removeQueue(tx *state.Tx, req Named) (none, error) {
	w := begin(tx)
	q, err := w.any(req.Name)
	if err != nil {
		return none{}, err
	}
	if n := q.depth() + q.Delayed + q.Dead; n > 0 {
		return none{}, fmt.Errorf("queue %q has %d messages that are not settled, delayed or dead: %w", q.name, n, meta.Busy)
	}
	for _, g := range q.Groups {
		if g.Waiters > 0 {
			return none{}, fmt.Errorf("queue %q: %d wait for messages: %w", q.name, g.Waiters, meta.Busy)
		}
		w.trash(g.ID)
		w.trash(g.Run)
	}
	w.trash(q.ID)
	w.trash(q.Log)
	tx.Delete(nameKey(q.name))
	tx.Delete(key('i', q.ID))
	tx.Delete(key('s', q.ID))
	q.unhome()
	return none{}, nil
}

func (room Room) set(tx *state.Tx, req Set) (none, error) {
	w := begin(tx)
	q, err := w.any(req.Name)
	if err != nil {
		return none{}, err
	}
	s := &q.Settings
	if req.Order != nil && *req.Order != s.Order && q.depth() > 0 {
		return none{}, fmt.Errorf("queue %q has %d messages; its order can be changed when it has none: %w", q.name, q.depth(), meta.Busy)
	}
	set(&s.Max, req.Max)
	set(&s.Full, req.Full)
	set(&s.Ack, req.Ack)
	set(&s.Attempts, req.Attempts)
	set(&s.Dead, req.Dead)
	set(&s.Order, req.Order)
	set(&s.KeepFor, req.KeepFor)
	set(&s.KeepBytes, req.KeepBytes)
	set(&s.Paused, req.Paused)
	if req.Memory != nil {
		if err := q.setMemory(*req.Memory, room); err != nil {
			return none{}, err
		}
	}
	set(&q.UID, req.UID)
	set(&q.GID, req.GID)
	set(&q.Mode, req.Mode)
	q.Mode &= 0o7777
	switch {
	case s.Max < 0, s.Full > DropOld, s.Ack < time.Millisecond, s.Ack > timeMax, s.Attempts < 0, s.Order > ByKey, s.KeepFor < 0, s.KeepFor > timeMax, s.KeepBytes < 0:
		return none{}, fmt.Errorf("settings %+v: %w", *s, meta.Invalid)
	case (s.Memory || room.Memory) && (s.Keeps() || s.Dead != ""):
		return none{}, fmt.Errorf("queue %q is in memory: it keeps nothing that is settled, and its dead messages stay its own: %w", q.name, meta.Unsupported)
	case s.Dead != "":
		if err := checkName("queue", s.Dead); err != nil {
			return none{}, err
		}
		if s.Dead == q.name {
			return none{}, fmt.Errorf("queue %q: its dead messages cannot go to itself: %w", q.name, meta.Invalid)
		}
	}
	q.Changed, q.staled = w.now(), true
	q.advanced = true
	w.done()
	return none{}, nil
}

// setMemory says whether the messages are to be in memory.
func (q *queue) setMemory(to bool, room Room) error {
	if room.Memory {
		return fmt.Errorf("queue %q is in memory: %w", q.name, meta.Invalid) // it is another's to move it
	}
	if q.Settings.Memory == to {
		return nil
	}
	if !to {
		q.Settings.Memory = false
		q.unhome()
		return nil
	}
	n := q.depth() + q.Count + q.Delayed + q.Dead
	for _, g := range q.Groups {
		n += g.Waiters
	}
	if n > 0 {
		return fmt.Errorf("queue %q has %d messages and consumers; it can be in memory when it has none: %w", q.name, n, meta.Busy)
	}
	var h home
	read(q.w.tx, HomesKey(), &h.Epoch) // no epoch that it may have had is as great
	if h.begin(q.w, q.ID); h.Primary == 0 {
		return fmt.Errorf("no machine holds queues in memory: %w", meta.Unavailable)
	}
	q.Settings.Memory = true
	q.w.putHome(q.ID, nil, &h)
	return nil
}

// unhome forgets who held a queue in memory.
func (q *queue) unhome() {
	var h home
	if read(q.w.tx, homeKey(q.ID), &h) {
		q.w.putHome(q.ID, &h, nil)
	}
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func makeGroup(tx *state.Tx, req Grouped) (none, error) {
	w := begin(tx)
	q, err := w.any(req.Name)
	if err == nil && req.Group != "" {
		err = checkName("group", req.Group)
	}
	switch {
	case err != nil:
		return none{}, err
	case q.group(req.Group) != nil:
		return none{}, fmt.Errorf("queue %q: group %q: %w", q.name, req.Group, meta.Exist)
	case len(q.Groups) == GroupsMax:
		return none{}, fmt.Errorf("queue %q has %d groups: %w", q.name, GroupsMax, meta.Quota)
	}
	q.Groups = append(q.Groups, q.newGroup(req.Group))
	q.moved, q.Changed, q.staled = true, w.now(), true
	w.done()
	return none{}, nil
}

func removeGroup(tx *state.Tx, req Grouped) (none, error) {
	w := begin(tx)
	var g *group
	q, err := w.any(req.Name)
	if err == nil {
		g, err = q.need(req.Group)
	}
	switch {
	case err != nil:
		return none{}, err
	case g.Out > 0 || g.Waiters > 0:
		return none{}, fmt.Errorf("queue %q: group %q has %d messages out and %d waiters: %w", q.name, g.Name, g.Out, g.Waiters, meta.Busy)
	}
	w.trash(g.ID)
	w.trash(g.Run)
	q.Groups = slices.DeleteFunc(q.Groups, func(each group) bool { return each.ID == g.ID })
	q.moved, q.Changed, q.staled = true, w.now(), true
	q.advanced = true // what only this group had not settled may go
	w.done()
	return none{}, nil
}

func purgeQueue(tx *state.Tx, req Named) (none, error) {
	w := begin(tx)
	q, err := w.queue(req.Name)
	if err != nil {
		return none{}, err
	}
	// The timer of a delayed message will find that its log is no more.
	w.trash(q.Log)
	q.Log = w.fresh()
	q.First, q.Count, q.Bytes, q.Delayed, q.Dead = q.Next, 0, 0, 0, 0
	for i := range q.Groups {
		q.restart(&q.Groups[i], q.Next)
	}
	w.done()
	return none{}, nil
}

// restart gives a group a new run from a message on. What it had out is no claim any
// more; who waits goes on waiting.
func (q *queue) restart(g *group, at uint64) {
	q.w.trash(g.Run)
	g.Run = q.w.fresh()
	g.Cursor, g.Fresh = at, int64(q.Next-at)
	g.Ready, g.Out, g.Later, g.Parked = nil, 0, 0, 0
	q.moved, q.advanced = true, true
}

func seek(tx *state.Tx, req Seek) (none, error) {
	w := begin(tx)
	q, g, err := w.group(req.Name, req.Group)
	switch {
	case err != nil:
		return none{}, err
	case q.Settings.Order == ByPri:
		return none{}, fmt.Errorf("queue %q is in the order of priorities, not of its log: %w", q.name, meta.Unsupported)
	}
	var to uint64
	switch {
	case req.First:
		to = q.First
	case req.Last:
		to = q.Next
	case req.Number > 0:
		to = min(max(req.Number, q.First), q.Next)
	case req.Time > 0:
		to = q.search(tx, func(m message) bool { return m.Sent >= req.Time })
	default:
		return none{}, fmt.Errorf("seeking nothing: %w", meta.Invalid)
	}
	q.restart(g, to)
	w.done()
	return none{}, nil
}
