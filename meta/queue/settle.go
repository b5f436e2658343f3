package queue

import (
	"fmt"
	"slices"

	"dos/meta"
	"dos/meta/namespace"
	"dos/meta/state"
)

func settles(tx *state.Tx, req Settles) (Settled, error) {
	if len(req.List) > SettleMax {
		return Settled{}, fmt.Errorf("settling %d claims, at most %d: %w", len(req.List), SettleMax, meta.Invalid)
	}
	w := begin(tx)
	stale, err := w.settleAll(req.List)
	if err != nil {
		return Settled{}, err
	}
	w.done()
	return Settled{stale}, nil
}

// settleAll settles, and counts the claims that are no more.
func (w *work) settleAll(list []Settle) (stale int, err error) {
	for _, s := range list {
		ok, err := w.settle(s)
		if err != nil {
			return 0, err
		}
		if !ok {
			stale++
		}
	}
	return stale, nil
}

// settle does what s says; ok is false if the session has no such claim, or it has
// none of the messages.
func (w *work) settle(s Settle) (ok bool, err error) {
	if s.What > Discard || s.Time < 0 || s.Time > timeMax || len(s.Numbers) > TakeMax {
		return false, fmt.Errorf("settling claim %d: %w", s.Claim, meta.Invalid)
	}
	q, err := w.queue(s.Name)
	if err != nil {
		return false, err
	}
	return q.settle(w.tx.Session, s), nil
}

func (q *queue) settle(id meta.SessionID, s Settle) bool {
	tx := q.w.tx
	row := claimKey(id, q.ID, s.Claim)
	var c claim
	if !read(tx, row, &c) {
		return false
	}
	g := q.running(c.Run)
	if g == nil { // its group was purged, moved or removed
		q.drop(id, s.Claim, c)
		return false
	}
	if s.What == Extend {
		tx.Delete(q.claimTimer(id, s.Claim, c))
		c.Until = meta.At(tx.Now.Add(s.Time))
		tx.Set(row, state.Marshal(c))
		q.timer(c.Until, timerClaim, uint64(id), s.Claim, nil)
		return true
	}
	some := false
	left := make([]uint64, 0, len(c.Numbers))
	for _, n := range c.Numbers {
		if len(s.Numbers) > 0 && !slices.Contains(s.Numbers, n) {
			left = append(left, n)
			continue
		}
		some = true
		q.resolve(g, n, s)
	}
	if c.Numbers = left; len(left) == 0 {
		q.drop(id, s.Claim, c)
	} else if some {
		tx.Set(row, state.Marshal(c))
	}
	return some
}

func (q *queue) claimTimer(id meta.SessionID, n uint64, c claim) []byte {
	return timerKey(c.Until, timerClaim, q.ID, uint64(id), n)
}

// drop removes a claim.
func (q *queue) drop(id meta.SessionID, n uint64, c claim) {
	q.w.tx.Delete(claimKey(id, q.ID, n))
	q.w.tx.Delete(q.claimTimer(id, n, c))
}

// resolve does with one message that was out what s says.
func (q *queue) resolve(g *group, n uint64, s Settle) {
	var e entry
	if !read(q.w.tx, key('p', g.Run, n), &e) || e.Status != isOut {
		panic(fmt.Sprintf("queue: %q: message %d of a claim is not out: %+v", q.name, n, e))
	}
	g.Out--
	q.moved = true
	e.Session, e.Claim = 0, 0
	switch most := q.Settings.Attempts; {
	case s.What == Ack:
		g.Done++
		q.roll().Acked++
		q.finish(g, n, e)
	case e.old(q.w.now()):
		q.Expired++
		q.finish(g, n, e)
	case s.What == Return:
		e.Attempts--
		q.ready(g, n, e)
	case s.What == Discard, most > 0 && e.Attempts >= most:
		q.die(g, n, e)
	case s.Time > 0:
		e.Status, e.Due = isLater, meta.At(q.w.tx.Now.Add(s.Time))
		g.Later++
		q.w.tx.Set(key('p', g.Run, n), state.Marshal(e))
		q.timer(e.Due, timerLater, g.Run, n, nil)
	default:
		q.ready(g, n, e)
	}
}

// die makes a message that was out a dead one.
func (q *queue) die(g *group, n uint64, e entry) {
	m, ok := q.at(q.w.tx, n)
	if !ok {
		panic(fmt.Sprintf("queue: %q: message %d is out and not there", q.name, n))
	}
	if to, err := q.w.queue(q.Settings.Dead); q.Settings.Dead != "" && err == nil {
		namespace.Share(q.w.tx, m.Parts)
		to.append(message{Body: m.Body, Key: m.Key, Priority: m.Priority, Sent: q.w.now(), Whole: m.Whole, Parts: m.Parts, Size: m.Size})
	} else {
		if _, there := q.w.tx.Get(key('x', q.Log, n)); !there {
			namespace.Share(q.w.tx, m.Parts)
			q.Dead++
		}
		q.w.tx.Set(key('x', q.Log, n), state.Marshal(dead{Message: m, Group: g.Name, Died: q.w.now(), Attempts: e.Attempts}))
	}
	q.finish(g, n, e)
}

func bury(tx *state.Tx, req Bury) (none, error) {
	w := begin(tx)
	q, err := w.queue(req.Name)
	if err != nil {
		return none{}, err
	}
	var d dead
	if !read(tx, key('x', q.Log, req.Number), &d) {
		return none{}, fmt.Errorf("queue %q: dead message %d: %w", q.name, req.Number, meta.NotExist)
	}
	namespace.Unname(tx, d.Message.Parts)
	tx.Delete(key('x', q.Log, req.Number))
	q.Dead--
	q.moved = true
	w.done()
	return none{}, nil
}

// releaseMax bounds the messages of the claims that one Release gives up, but for the last.
const releaseMax = 2 * PushMax

// Release gives up at most limit claims and places of a session that has ended; it is
// a session.Release.
func Release(tx *state.Tx, s meta.SessionID, limit int) (n int, more bool) {
	w := begin(tx)
	if n, more = w.leaveHomes(s, limit); more {
		return n, more
	}
	messages := 0
	for _, table := range []byte{'v', 'l'} {
		var keys [][]byte
		prefix := key(table, uint64(s))
		for k, v := range tx.Scan(prefix, state.After(prefix)) {
			if n == limit || messages >= releaseMax {
				more = true
				break
			}
			n++
			keys = append(keys, k)
			if table == 'l' {
				var c claim
				state.MustUnmarshal(v, &c)
				messages += len(c.Numbers)
			}
		}
		for _, k := range keys {
			w.release(s, table, k)
		}
	}
	w.done()
	return n, more
}

func (w *work) release(s meta.SessionID, table byte, k []byte) {
	q, at := w.byID(number(k, 1)), number(k, 0)
	switch {
	case q == nil:
		w.tx.Delete(k)
	case table == 'l':
		q.settle(s, Settle{Claim: at, What: Nack})
	default:
		var id uint64
		read(w.tx, k, &id)
		for i := range q.Groups {
			if g := &q.Groups[i]; g.ID == id {
				q.unline(g, at, s)
				return
			}
		}
		w.tx.Delete(k)
	}
}
