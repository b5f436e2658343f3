package queue

import (
	"fmt"
	"slices"
	"time"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

func (room Room) take(tx *state.Tx, req Take) (out Taken, err error) {
	if err := req.check(tx.Session); err != nil {
		return Taken{}, err
	}
	if err := room.check(tx, req.Token); err != nil {
		return Taken{}, err
	}
	w := begin(tx)
	if out.Stale, err = w.settleAll(req.Settle); err != nil {
		return Taken{}, err
	}
	if err := w.take(req, &out); err != nil {
		return Taken{}, err
	}
	w.done()
	return out, nil
}

func (room Room) pass(tx *state.Tx, req Pass) (out Passed, err error) {
	if len(req.Takes) > PassMax {
		return Passed{}, fmt.Errorf("%d that take at once, at most %d: %w", len(req.Takes), PassMax, meta.Invalid)
	}
	if err := room.check(tx, req.Push.Token); err != nil {
		return Passed{}, err
	}
	w := begin(tx)
	out.Taken = make([]Taken, len(req.Takes))
	for i, t := range req.Takes {
		if err := t.check(tx.Session); err != nil {
			return Passed{}, err
		}
		if err := room.check(tx, t.Token); err != nil {
			return Passed{}, err
		}
		if out.Taken[i].Stale, err = w.settleAll(t.Settle); err != nil {
			return Passed{}, err
		}
	}
	if len(req.Push.Messages) > 0 {
		req.Push.Name = req.Name
		if out.Pushed, err = room.push(w, req.Push); err != nil {
			return Passed{}, err
		}
	}
	size := 0
	for i, t := range req.Takes {
		if size >= TakeBytes {
			break
		}
		t.Name = req.Name
		if err := w.take(t, &out.Taken[i]); err != nil {
			return Passed{}, err
		}
		for _, m := range out.Taken[i].Messages {
			size += len(m.Body) + int(m.Size)
		}
	}
	w.done()
	return out, nil
}

func (req *Take) check(s meta.SessionID) error {
	switch {
	case s == 0:
		return fmt.Errorf("taking without a session: %w", meta.Invalid)
	case req.Max < 0 || req.Max > TakeMax || len(req.Settle) > SettleMax || req.Hold < 0 || req.Hold > timeMax:
		return fmt.Errorf("taking %d messages and settling %d claims, at most %d and %d: %w", req.Max, len(req.Settle), TakeMax, SettleMax, meta.Invalid)
	case len(req.Consumer) > TextMax:
		return fmt.Errorf("a consumer's name of %d bytes: %w", len(req.Consumer), meta.TooLarge)
	}
	return nil
}

// take claims what is there for who asks, or has it wait.
func (w *work) take(req Take, out *Taken) error {
	q, g, err := w.group(req.Name, req.Group)
	if err != nil {
		return err
	}
	out.Queue = q.ID
	if req.Max == 0 {
		return nil
	}
	q.serve(g) // others came first
	who := place{Session: w.tx.Session, Max: req.Max, Consumer: req.Consumer, Hold: req.Hold}
	q.Claims++
	var got []Got
	var until meta.Time
	if g.Waiters == 0 {
		got, until = q.claim(g, q.Claims, who)
	}
	switch {
	case len(got) > 0:
		out.Claim, out.Messages, out.Until, out.Hold = q.Claims, got, until, q.hold(who)
	case !req.Wait:
		q.Claims--
	case g.Waiters >= WaitsMax:
		return fmt.Errorf("queue %q: %d wait for messages: %w", q.name, g.Waiters, meta.Quota)
	default:
		out.Place = q.Claims
		q.line(g, out.Place, who)
	}
	return nil
}

// line puts who waits at the end of the line.
func (q *queue) line(g *group, n uint64, who place) {
	if g.Waiters == 0 {
		g.Front = n
	}
	g.Waiters++
	q.moved = true
	q.w.tx.Set(key('w', g.ID, n), state.Marshal(who))
	q.w.tx.Set(placeOfKey(who.Session, q.ID, n), state.Marshal(g.ID))
}

// unline takes a place away.
func (q *queue) unline(g *group, n uint64, s meta.SessionID) {
	g.Waiters--
	q.moved = true
	q.w.tx.Delete(key('w', g.ID, n))
	q.w.tx.Delete(placeOfKey(s, q.ID, n))
}

// serve gives those who wait what is there, some of it in a later command if it is much.
func (q *queue) serve(g *group) {
	for g.Waiters > 0 && g.ready() > 0 && !q.Settings.Paused {
		if q.given >= PushMax {
			q.timer(q.w.now(), timerServe, g.ID, 0, nil)
			return
		}
		k, val, ok := first(q.w.tx, key('w', g.ID, g.Front), state.After(key('w', g.ID)))
		if !ok {
			panic(fmt.Sprintf("queue: %q: group %q: none of %d waiters is there", q.name, g.Name, g.Waiters))
		}
		n := number(k, 0)
		g.Front = n
		var who place
		state.MustUnmarshal(val, &who)
		got, _ := q.claim(g, n, who)
		if len(got) == 0 {
			return
		}
		q.given += len(got)
		q.unline(g, n, who.Session)
	}
}

// claim claims what is ready, at most what is asked for, as the claim n.
func (q *queue) claim(g *group, n uint64, who place) (got []Got, until meta.Time) {
	if q.Settings.Paused {
		return nil, 0
	}
	size, look := 0, lookMax
	c := claim{Group: g.ID, Run: g.Run, Consumer: who.Consumer}
	for len(got) < who.Max && size < TakeBytes {
		at, e, m, ok := q.next(g, &look)
		if !ok {
			break
		}
		e.Status, e.Session, e.Claim = isOut, who.Session, n
		e.Attempts++
		q.w.tx.Set(key('p', g.Run, at), state.Marshal(e))
		g.Out++
		got = append(got, m.got(at, e.Attempts))
		c.Numbers = append(c.Numbers, at)
		size += m.size()
	}
	if len(got) == 0 {
		return nil, 0
	}
	c.Hold = q.hold(who)
	c.Until = meta.At(q.w.tx.Now.Add(c.Hold))
	q.w.tx.Set(claimKey(who.Session, q.ID, n), state.Marshal(c))
	q.timer(c.Until, timerClaim, uint64(who.Session), n, nil)
	return got, c.Until
}

// hold is how long a claim lives.
func (q *queue) hold(who place) time.Duration {
	if who.Hold != 0 {
		return who.Hold
	}
	return q.Settings.Ack
}

// next takes the next message that is ready out of the group. It looks at as many as
// there are in look; when these are used up and it has found none, a timer goes on.
func (q *queue) next(g *group, look *int) (n uint64, e entry, m message, ok bool) {
	for g.ready() > 0 {
		if *look == 0 {
			q.timer(q.w.now(), timerServe, g.ID, 0, nil)
			break
		}
		*look--
		if n, e, m, ok = q.candidate(g); !ok {
			continue
		}
		q.moved = true
		switch {
		case e.old(q.w.now()):
			if e.Status == 0 {
				e.Key = 0 // the key is not its own yet
			}
			q.Expired++
			q.finish(g, n, e)
		case e.Key != 0 && !q.own(g, e.Key, n):
			e.Status = isParked
			g.Parked++
			q.w.tx.Set(key('p', g.Run, n), state.Marshal(e))
			q.w.tx.Set(key('k', g.Run, e.Key, n), []byte{})
		default:
			return n, e, m, true
		}
	}
	return 0, entry{}, message{}, false
}

// own gives a message its key, if no other has it.
func (q *queue) own(g *group, hash, n uint64) bool {
	var whose uint64
	if read(q.w.tx, key('y', g.Run, hash), &whose) {
		return whose == n
	}
	q.w.tx.Set(key('y', g.Run, hash), state.Marshal(n))
	return true
}

// candidate takes the first message out of those that are ready: of the highest class
// that has a row, or the one at the cursor. ok is false if there was only a hole.
func (q *queue) candidate(g *group) (n uint64, e entry, m message, ok bool) {
	tx := q.w.tx
	for i := len(g.Ready) - 1; i >= 0; i-- {
		c := &g.Ready[i]
		if c.Count == 0 {
			continue
		}
		k, _, there := first(tx, readyKey(g.Run, uint8(i), c.Low), readyKey(g.Run, uint8(i)+1, 0))
		if !there {
			panic(fmt.Sprintf("queue: %q: group %q: none of %d ready messages is there", q.name, g.Name, c.Count))
		}
		n = number(k, 0)
		c.Low = n
		c.Count--
		tx.Delete(k)
		if m, ok = q.at(tx, n); !ok {
			panic(fmt.Sprintf("queue: %q: message %d is ready and not there", q.name, n))
		}
		read(tx, key('p', g.Run, n), &e)
		return n, e, m, true
	}
	n, m, ok = q.from(tx, g.Cursor)
	q.moved = true
	if !ok {
		g.Cursor, g.Fresh = q.Next, 0
		return 0, e, m, false
	}
	g.Cursor = n + 1
	g.Fresh = max(0, min(g.Fresh-1, int64(q.Next-g.Cursor)))
	if g.Cursor == q.Next {
		g.Fresh = 0
	}
	return n, q.entry(m), m, true
}

// entry is that of a message that was not given out before.
func (q *queue) entry(m message) entry {
	e := entry{Priority: m.Priority, Size: m.size(), Expires: m.Expires}
	if q.Settings.Order != ByPri {
		e.Priority = 0
	}
	if q.Settings.Order == ByKey && m.Key != "" {
		e.Key = hash(m.Key)
	}
	return e
}

func leave(tx *state.Tx, req Leave) (none, error) {
	w := begin(tx)
	q, err := w.queue(req.Name)
	if err != nil {
		return none{}, err
	}
	var id uint64
	if read(tx, placeOfKey(tx.Session, q.ID, req.Place), &id) {
		i := slices.IndexFunc(q.Groups, func(g group) bool { return g.ID == id })
		q.unline(&q.Groups[i], req.Place, tx.Session)
	} else if _, err := w.settle(Settle{Name: req.Name, Claim: req.Place, What: Return}); err != nil {
		return none{}, err
	}
	w.done()
	return none{}, nil
}

func (room Room) await(r state.Reader, req Await) (Waiting, error) {
	if !room.Memory {
		if err := session.Check(r, req.Session); err != nil {
			return Waiting{}, err
		}
	}
	q, err := findID(r, req.Queue)
	if err != nil {
		return Waiting{}, err
	}
	if _, waits := r.Get(placeOfKey(req.Session, q.ID, req.Place)); waits {
		return Waiting{Still: true}, nil
	}
	var c claim
	if !read(r, claimKey(req.Session, q.ID, req.Place), &c) {
		return Waiting{}, fmt.Errorf("queue %q: place %d: %w", q.name, req.Place, meta.NotExist)
	}
	taken := Taken{Claim: req.Place, Until: c.Until, Hold: c.Hold, Queue: q.ID}
	for _, n := range c.Numbers {
		var e entry
		m, there := q.at(r, n)
		if read(r, key('p', c.Run, n), &e) && there {
			taken.Messages = append(taken.Messages, m.got(n, e.Attempts))
		}
	}
	return Waiting{Taken: taken}, nil
}

// AwaitKey is the row that changes when the place that a session asks for becomes a claim.
func AwaitKey(req Await) []byte { return claimKey(req.Session, req.Queue, req.Place) }
