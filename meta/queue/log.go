package queue

import (
	"dos/meta"
	"dos/meta/namespace"
	"dos/meta/state"
)

// trimMax bounds the messages that one command removes from the front of a log.
const trimMax = 64

// at returns the message n; ok is false if it is not there.
func (q *queue) at(r state.Reader, n uint64) (m message, ok bool) {
	ok = read(r, key('m', q.Log, n), &m)
	return m, ok
}

// from returns the first message from n on; ok is false if there is none.
func (q *queue) from(r state.Reader, n uint64) (uint64, message, bool) {
	if n < q.First {
		n = q.First
	}
	if n >= q.Next {
		return q.Next, message{}, false
	}
	if m, ok := q.at(r, n); ok {
		return n, m, true
	}
	k, val, ok := first(r, key('m', q.Log, n), key('m', q.Log, q.Next))
	if !ok {
		return q.Next, message{}, false
	}
	var m message
	state.MustUnmarshal(val, &m)
	return number(k, 0), m, true
}

// append puts a message at the end of the log.
func (q *queue) append(m message) uint64 {
	n := q.Next
	q.Next++
	m.Byte = q.End
	q.End += int64(m.size()) + 1
	q.Count++
	q.Bytes += int64(m.size())
	q.Pushed++
	q.roll().Pushed++
	q.moved = true
	q.w.tx.Set(key('m', q.Log, n), state.Marshal(m))
	if m.Expires != 0 {
		q.timer(m.Expires, timerExpire, q.Log, n, nil)
	}
	for i := range q.Groups {
		g := &q.Groups[i]
		if q.Settings.Order == ByPri {
			g.Cursor = q.Next
			q.ready(g, n, q.entry(m))
		} else {
			g.Fresh++
		}
	}
	return n
}

// timer has Tick look at something of the queue at a time, which is not before now.
func (q *queue) timer(at meta.Time, kind byte, b, c uint64, val *timer) {
	if val == nil {
		val = new(timer)
	}
	q.w.tx.Set(timerKey(at, kind, q.ID, b, c), state.Marshal(val))
}

// ready makes a message one that can be taken before those at the cursor.
func (q *queue) ready(g *group, n uint64, e entry) {
	e.Status = isReady
	q.w.tx.Set(key('p', g.Run, n), state.Marshal(e))
	q.w.tx.Set(readyKey(g.Run, e.Priority, n), []byte{})
	for len(g.Ready) <= int(e.Priority) {
		g.Ready = append(g.Ready, class{})
	}
	c := &g.Ready[e.Priority]
	if c.Count == 0 || n < c.Low {
		c.Low = n
	}
	c.Count++
	q.moved = true
}

// settled reports whether all groups have settled a message, but one that is not asked.
func (q *queue) settled(n uint64, but *group) bool {
	for i := range q.Groups {
		g := &q.Groups[i]
		if g == but {
			continue
		}
		if n >= g.Cursor {
			return false
		}
		if _, has := q.w.tx.Get(key('p', g.Run, n)); has {
			return false
		}
	}
	return true
}

// finish notes that a group has done with a message, whose entry is e.
func (q *queue) finish(g *group, n uint64, e entry) {
	if e.Status != 0 {
		q.w.tx.Delete(key('p', g.Run, n))
	}
	if e.Key != 0 {
		q.free(g, e.Key)
	}
	q.moved = true
	switch s := q.Settings; {
	case s.Keeps():
		q.advanced = q.advanced || s.KeepFor > 0 && !q.Trim || s.KeepBytes > 0 && q.Bytes > s.KeepBytes
	case q.settled(n, g):
		q.remove(n, e.Size)
	}
}

// remove removes a message from the log.
func (q *queue) remove(n uint64, size int) {
	if size > BodyMax {
		m, _ := q.at(q.w.tx, n)
		namespace.Unname(q.w.tx, m.Parts)
	}
	q.w.tx.Delete(key('m', q.Log, n))
	q.Count--
	q.Bytes -= int64(size)
	q.moved = true
	if n == q.First {
		q.First = n + 1
		q.advanced = true
	}
}

// free lets the next message with a key go, if there is one.
func (q *queue) free(g *group, hash uint64) {
	tx := q.w.tx
	prefix := key('k', g.Run, hash)
	k, _, ok := first(tx, prefix, state.After(prefix))
	if !ok {
		tx.Delete(key('y', g.Run, hash))
		return
	}
	tx.Delete(k)
	n := number(k, 0)
	tx.Set(key('y', g.Run, hash), state.Marshal(n))
	var e entry
	read(tx, key('p', g.Run, n), &e)
	g.Parked--
	q.ready(g, n, e)
}

// kept reports whether the first message of the log is to stay though it is settled,
// and if only for a while, until when.
func (q *queue) kept(m message) (bool, meta.Time) {
	s := q.Settings
	until := m.Sent + meta.Time(s.KeepFor)
	switch {
	case !s.Keeps(), s.KeepBytes > 0 && q.Bytes > s.KeepBytes:
		return false, 0
	case s.KeepFor == 0:
		return true, 0
	case until <= q.w.now():
		return false, 0
	}
	return true, until
}

// trim removes what nobody needs from the front of the log: some now, and the rest
// in later commands.
func (q *queue) trim() {
	for range trimMax {
		n, m, ok := q.from(q.w.tx, q.First)
		q.First = n
		q.moved = true
		if !ok || !q.settled(n, nil) {
			return
		}
		stays, until := q.kept(m)
		if stays {
			if until != 0 && !q.Trim {
				q.Trim = true
				q.timer(until, timerTrim, 0, 0, nil)
			}
			return
		}
		q.remove(n, m.size())
	}
	if !q.Trim {
		q.Trim = true
		q.timer(q.w.now(), timerTrim, 0, 0, nil)
	}
}
