package queue

import (
	"encoding/binary"
	"fmt"

	"dos/chunk"
	"dos/meta"
	"dos/meta/namespace"
	"dos/meta/state"
)

// bound checks the limit of a command that works through rows.
func bound(req Bound) (int, error) {
	if req.Limit < 1 || req.Limit > ListMax {
		return 0, fmt.Errorf("%d rows, from 1 to %d: %w", req.Limit, ListMax, meta.Invalid)
	}
	return req.Limit, nil
}

// tick does what is due.
func tick(tx *state.Tx, req Bound) (More, error) {
	limit, err := bound(req)
	if err != nil {
		return More{}, err
	}
	w := begin(tx)
	var c counters
	read(tx, counterKey, &c)
	from, to := key('t', uint64(c.Ticked)), key('t', uint64(w.now())+1)
	c.Ticked = int64(w.now())
	type due struct{ key, val []byte }
	var list []due
	more := false
	for k, v := range tx.Scan(from, to) {
		if limit--; limit < 0 {
			more, c.Ticked = true, int64(binary.BigEndian.Uint64(k[2:]))
			break
		}
		list = append(list, due{k, v})
		if k[10] == timerClaim {
			limit -= TakeMax / 4 // it may be that many messages and more
		}
	}
	for _, d := range list {
		tx.Delete(d.key)
		var t timer
		state.MustUnmarshal(d.val, &t)
		a, b, c := number(d.key, 2), number(d.key, 1), number(d.key, 0)
		switch q := w.byID(a); {
		case q != nil:
			q.due(d.key[10], b, c, t)
		case d.key[10] == timerBorn: // of a queue that was purged and removed, as below
			namespace.Unname(tx, t.Message.Parts)
		case d.key[10] == timerClaim:
			tx.Delete(claimKey(meta.SessionID(b), a, c))
		}
	}
	w.done()
	// Numbers may have been given meanwhile.
	last := c.Ticked
	read(tx, counterKey, &c)
	c.Ticked = last
	tx.Set(counterKey, state.Marshal(c))
	return More{more}, nil
}

// due does what a timer of the queue was for.
func (q *queue) due(kind byte, b, c uint64, t timer) {
	tx := q.w.tx
	switch kind {
	case timerClaim:
		q.settle(meta.SessionID(b), Settle{Claim: c, What: Nack})
	case timerLater:
		g := q.running(b)
		var e entry
		if g != nil && read(tx, key('p', b, c), &e) && e.Status == isLater {
			g.Later--
			q.ready(g, c, e)
		}
	case timerBorn:
		if b != q.Log {
			namespace.Unname(tx, t.Message.Parts)
			return
		}
		q.Delayed--
		if t.Expires > 0 {
			t.Message.Expires = meta.At(tx.Now.Add(t.Expires))
		}
		q.append(*t.Message)
	case timerExpire:
		if b == q.Log {
			q.expire(c)
		}
	case timerForget:
		tx.Delete(dedupKey(q.ID, t.ID))
	case timerServe: // done at the end of each command
		q.moved = true
	case timerTrim:
		q.Trim, q.moved, q.advanced = false, true, true
	}
}

// expire takes a message away from every group that has it back or passed it over, and
// if nobody has it and it is not to be kept, from the log. Else who comes to it sees
// that it is too old.
func (q *queue) expire(n uint64) {
	m, ok := q.at(q.w.tx, n)
	if !ok {
		return
	}
	stays := q.Settings.Keeps()
	var fresh []*group
	for i := range q.Groups {
		g := &q.Groups[i]
		var e entry
		read(q.w.tx, key('p', g.Run, n), &e)
		switch e.Status {
		case isOut:
			stays = true
			continue
		case isReady:
			q.w.tx.Delete(readyKey(g.Run, e.Priority, n))
			g.Ready[e.Priority].Count--
		case isLater:
			g.Later--
		case isParked:
			g.Parked--
			q.w.tx.Delete(key('k', g.Run, e.Key, n))
		default:
			if n >= g.Cursor {
				fresh = append(fresh, g)
			}
			continue
		}
		q.moved = true
		q.w.tx.Delete(key('p', g.Run, n))
		if e.Status != isParked && e.Key != 0 {
			q.free(g, e.Key)
		}
	}
	if !stays {
		for _, g := range fresh {
			g.Fresh = max(0, g.Fresh-1)
		}
		q.Expired++
		q.remove(n, m.size())
	}
}

// tables are those with rows that begin with a number that may be swept.
const tables = "mprkyuwx"

// sweep removes rows of numbers that are not in use any more.
func sweep(tx *state.Tx, req Bound) (More, error) {
	limit, err := bound(req)
	if err != nil {
		return More{}, err
	}
	var keys [][]byte
	var parts []chunk.StripeID
	defer func() { namespace.Unname(tx, parts) }()
	for z := range tx.Scan(key('z'), state.After(key('z'))) {
		for _, table := range []byte(tables) {
			prefix := key(table, number(z, 0))
			for k, val := range tx.Scan(prefix, state.After(prefix)) {
				if len(keys)+len(parts) >= limit {
					return More{true}, removeAll(tx, keys)
				}
				keys = append(keys, k)
				parts = append(parts, partsOf(table, val)...)
			}
		}
		if len(keys)+len(parts) >= limit {
			return More{true}, removeAll(tx, keys)
		}
		keys = append(keys, z)
	}
	return More{}, removeAll(tx, keys)
}

// partsOf are the stripes that a row of such a table names.
func partsOf(table byte, val []byte) []chunk.StripeID {
	m, err := messageOf(table, val)
	switch {
	case err != nil:
		panic(fmt.Sprintf("queue: a row of table %c: %v", table, err))
	case m == nil:
		return nil
	}
	return m.Parts
}

func removeAll(tx *state.Tx, keys [][]byte) error {
	for _, k := range keys {
		tx.Delete(k)
	}
	return nil
}
