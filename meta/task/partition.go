package task

import (
	"fmt"
	"maps"
	"slices"

	"dos/meta"
	"dos/meta/state"
)

// rule returns a partition. The default one is there without a row.
func (w *work) rule(name string) (queueRow, bool) { return findQueue(w.tx, name) }

func findQueue(r state.Reader, name string) (q queueRow, ok bool) {
	ok = read(r, queueKey(name), &q)
	return q, ok || name == ""
}

// nameOf is a partition's name.
func nameOf(r state.Reader, id uint32) string {
	val, _ := r.Get(short('i', id))
	return string(val)
}

// ruleOf returns a partition by its number.
func (w *work) ruleOf(id uint32) *queueRow {
	q := w.rules[id]
	if q == nil {
		one, _ := w.rule(nameOf(w.tx, id))
		q = &one
		w.rules[id] = q
	}
	return q
}

// Admit refuses what may not be submitted to a partition, and gives what says no time
// limit the partition's.
func (rules *Rules) Admit(s *Spec) error {
	if s.Timeout == 0 {
		if s.Timeout = rules.Default; s.Timeout == 0 {
			s.Timeout = rules.Timeout
		}
	}
	if rules.Timeout != 0 && s.Timeout > rules.Timeout {
		return fmt.Errorf("timeout=%v, at most %v: %w", s.Timeout, rules.Timeout, meta.Invalid)
	}
	for _, l := range []Limits{rules.Limits, rules.PerUser} {
		if what := l.over(Resources{}, 0, s.Need); what != "" {
			return fmt.Errorf("one task alone is over the limit of %s: %w", what, meta.Invalid)
		}
	}
	return nil
}

// over says of what there would be more than the limits allow with one more task; "" of nothing.
func (l Limits) over(used Resources, tasks int, need Resources) string {
	switch {
	case l.Tasks != 0 && tasks+1 > l.Tasks:
		return fmt.Sprintf("%d tasks", l.Tasks)
	case l.Need.CPU != 0 && used.CPU+need.CPU > l.Need.CPU:
		return fmt.Sprintf("cpu %s", cores(l.Need.CPU))
	case l.Need.Mem != 0 && used.Mem+need.Mem > l.Need.Mem:
		return fmt.Sprintf("mem %s", bytesText(l.Need.Mem))
	case len(l.Need.Count) == 0:
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(l.Need.Count)) {
		if used.Count[name]+need.Count[name] > l.Need.Count[name] {
			return fmt.Sprintf("%s %d", name, l.Need.Count[name])
		}
	}
	return ""
}

// bytesText writes a size as #DOS takes it.
func bytesText(n int64) string {
	for i, unit := range []string{"t", "g", "m", "k"} {
		if size := int64(1) << (40 - 10*i); n >= size && n%size == 0 {
			return fmt.Sprint(n/size, unit)
		}
	}
	return fmt.Sprint(n)
}

func (rules *Rules) check() error {
	for _, l := range []Limits{rules.Limits, rules.PerUser} {
		if err := l.Need.check(); err != nil || l.Tasks < 0 {
			return fmt.Errorf("limits %+v: %w", l, meta.Invalid)
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(rules.Shares)) {
		if n := rules.Shares[uid]; n < 1 || n > WeightMax {
			return fmt.Errorf("the share %d of user %d, from 1 to %d: %w", n, uid, WeightMax, meta.Invalid)
		}
	}
	switch {
	case rules.Weight < 0 || rules.Weight > WeightMax || len(rules.Shares) > SharesMax:
		return fmt.Errorf("a weight of %d, at most %d, and %d shares, at most %d: %w", rules.Weight, WeightMax, len(rules.Shares), SharesMax, meta.Invalid)
	case rules.Timeout < 0 || rules.Timeout > timeMax || rules.Default < 0 || rules.Default > timeMax || rules.Timeout != 0 && rules.Default > rules.Timeout:
		return fmt.Errorf("time limits %v and, if none is asked for, %v: %w", rules.Timeout, rules.Default, meta.Invalid)
	case int(rules.Preempt) >= len(preemptions) || len(rules.Label) > TextMax:
		return fmt.Errorf("preemption %d, label %.40q: %w", rules.Preempt, rules.Label, meta.Invalid)
	}
	return nil
}

func makeQueue(tx *state.Tx, req MakeQueue) (none, error) {
	if err := checkWord("queue", req.Name); err != nil {
		return none{}, err
	}
	w := begin(tx)
	if _, ok := w.rule(req.Name); ok {
		return none{}, fmt.Errorf("queue %q: %w", req.Name, meta.Exist)
	}
	if w.c.Queues++; w.c.Queues > QueuesMax {
		return none{}, fmt.Errorf("more than %d queues: %w", QueuesMax, meta.Quota)
	}
	w.c.Queue++
	q := queueRow{ID: w.c.Queue, UID: req.UID, GID: req.GID, Mode: req.Mode & 0o7777, Made: w.now}
	tx.Set(queueKey(req.Name), state.Marshal(q))
	tx.Set(short('i', q.ID), []byte(req.Name))
	w.done()
	return none{}, nil
}

func setQueue(tx *state.Tx, req SetQueue) (none, error) {
	w := begin(tx)
	q, ok := w.rule(req.Name)
	if !ok {
		return none{}, fmt.Errorf("queue %q: %w", req.Name, meta.NotExist)
	}
	if req.Rules != nil {
		if err := req.Rules.check(); err != nil {
			return none{}, err
		}
		q.Rules = *req.Rules
	}
	set(&q.UID, req.UID)
	set(&q.GID, req.GID)
	set(&q.Mode, req.Mode)
	q.Mode &= 0o7777
	tx.Set(queueKey(req.Name), state.Marshal(q))
	w.stir()
	w.done()
	return none{}, nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func removeQueue(tx *state.Tx, req Named) (none, error) {
	w := begin(tx)
	q, ok := w.rule(req.Name)
	switch {
	case !ok:
		return none{}, fmt.Errorf("queue %q: %w", req.Name, meta.NotExist)
	case q.ID == 0:
		return none{}, fmt.Errorf("the default queue: %w", meta.Fixed)
	}
	if n := w.running(q.ID).Waits; n > 0 {
		return none{}, fmt.Errorf("queue %q has %d jobs that have not ended: %w", req.Name, n, meta.Busy)
	}
	delete(w.queues, q.ID)
	for _, k := range [][]byte{queueKey(req.Name), short('i', q.ID), short('k', q.ID)} {
		tx.Delete(k)
	}
	w.c.Queues--
	w.done()
	return none{}, nil
}
