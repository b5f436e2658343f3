package queue

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

// A work is the queues that one command has read and may change.
type work struct {
	tx     *state.Tx
	queues map[string]*queue
	ids    map[uint64]string
}

// A queue is one queue in a work.
type queue struct {
	w    *work
	name string
	config
	position
	moved    bool // the position is to be written
	staled   bool // the configuration is
	given    int  // messages, to those who wait
	advanced bool // the front of the log may have been settled
}

func begin(tx *state.Tx) *work {
	return &work{tx: tx, queues: make(map[string]*queue), ids: make(map[uint64]string)}
}

func checkName(what, name string) error {
	switch {
	case name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%s %q: %w", what, name, meta.Invalid)
	case len(name) > NameMax:
		return fmt.Errorf("%s of %d bytes: %w", what, len(name), meta.NameTooLong)
	}
	return nil
}

// load reads a queue; nil if there is none of that name.
func load(r state.Reader, name string) *queue {
	q := &queue{name: name}
	if !read(r, nameKey(name), &q.config) {
		return nil
	}
	read(r, key('s', q.ID), &q.position)
	return q
}

// find is load, for who needs one.
func find(r state.Reader, name string) (*queue, error) {
	if q := load(r, name); q != nil {
		return q, nil
	}
	return nil, fmt.Errorf("queue %q: %w", name, meta.NotExist)
}

// here refuses what is not for a queue in memory.
func (q *queue) here() error {
	if q.Settings.Memory {
		return fmt.Errorf("queue %q is in memory, which takes no part in this: %w", q.name, meta.Unsupported)
	}
	return nil
}

// findHere is find of a queue whose messages are here.
func findHere(r state.Reader, name string) (*queue, error) {
	q, err := find(r, name)
	if err == nil {
		err = q.here()
	}
	return q, err
}

// findID is find by number.
func findID(r state.Reader, id uint64) (*queue, error) {
	name, ok := r.Get(key('i', id))
	if !ok {
		return nil, fmt.Errorf("queue %d: %w", id, meta.NotExist)
	}
	return find(r, string(name))
}

// queue returns a queue whose messages are here.
func (w *work) queue(name string) (*queue, error) {
	q, err := w.any(name)
	if err == nil {
		err = q.here()
	}
	return q, err
}

// any returns a queue, also one whose messages are in memory.
func (w *work) any(name string) (*queue, error) {
	if q := w.queues[name]; q != nil {
		return q, nil
	}
	q, err := find(w.tx, name)
	if err != nil {
		return nil, err
	}
	q.w = w
	w.queues[name] = q
	w.ids[q.ID] = name
	return q, nil
}

// group finds a queue and one of its groups.
func (w *work) group(queue, name string) (q *queue, g *group, err error) {
	if q, err = w.queue(queue); err == nil {
		g, err = q.need(name)
	}
	return q, g, err
}

// byID returns a queue by its number; nil if it is no more.
func (w *work) byID(id uint64) *queue {
	name, ok := w.ids[id]
	if !ok {
		val, known := w.tx.Get(key('i', id))
		if !known {
			return nil
		}
		name = string(val)
	}
	q, err := w.any(name)
	if err != nil {
		panic(fmt.Sprintf("queue: %d is %q, which is not there", id, name))
	}
	return q
}

// done gives to those who wait what is there, and writes what has changed.
func (w *work) done() {
	for _, name := range slices.Sorted(maps.Keys(w.queues)) {
		q := w.queues[name]
		for i := range q.Groups {
			q.serve(&q.Groups[i])
		}
		if q.advanced {
			q.trim()
		}
		if q.staled {
			w.tx.Set(nameKey(name), state.Marshal(q.config))
		}
		if q.moved {
			w.tx.Set(key('s', q.ID), state.Marshal(q.position))
		}
	}
}

// fresh returns a number that nothing had.
func (w *work) fresh() uint64 {
	var c counters
	read(w.tx, counterKey, &c)
	c.Last++
	w.tx.Set(counterKey, state.Marshal(c))
	return c.Last
}

// trash leaves the rows of a number to Sweep.
func (w *work) trash(n uint64) { w.tx.Set(key('z', n), []byte{}) }

func (w *work) now() meta.Time { return meta.At(w.tx.Now) }

// group returns a group; nil if there is none of that name.
func (q *queue) group(name string) *group {
	for i := range q.Groups {
		if q.Groups[i].Name == name {
			return &q.Groups[i]
		}
	}
	return nil
}

func (q *queue) need(name string) (*group, error) {
	if g := q.group(name); g != nil {
		return g, nil
	}
	return nil, fmt.Errorf("queue %q: group %q: %w", q.name, name, meta.NotExist)
}

// running returns the group whose run it is; nil if it is over.
func (q *queue) running(run uint64) *group {
	for i := range q.Groups {
		if q.Groups[i].Run == run {
			return &q.Groups[i]
		}
	}
	return nil
}

func (q *queue) depth() (n int64) {
	for i := range q.Groups {
		n = max(n, q.Groups[i].depth())
	}
	return n
}

// room is how many more messages fit; -1: any number.
func (q *queue) room() int {
	if q.Settings.Max == 0 {
		return -1
	}
	return max(0, q.Settings.Max-int(q.depth()+q.Delayed))
}

// roll makes the current window of the rates that of the command.
func (q *queue) roll() *rates {
	r := &q.Rates
	window := int64(q.w.now()) / int64(RateWindow)
	if window != r.Window {
		last := *r
		*r = rates{Window: window}
		if window == last.Window+1 {
			r.LastPush, r.LastAck = last.Pushed, last.Acked
		}
	}
	return r
}
