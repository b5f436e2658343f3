package queue

import (
	"fmt"
	"slices"

	"dos/chunk"
	"dos/meta"
	"dos/meta/namespace"
	"dos/meta/state"
)

func checkMessages(req Push) error {
	if n := len(req.Messages); n == 0 || n > PushMax {
		return fmt.Errorf("%d messages, from 1 to %d: %w", n, PushMax, meta.Invalid)
	}
	size := 0
	for _, m := range req.Messages {
		switch {
		case len(m.Body) > BodyMax:
			return fmt.Errorf("a message of %d bytes in the log, at most %d: %w", len(m.Body), BodyMax, meta.TooLarge)
		case len(m.Stripes) > 0 && (len(m.Body) > 0 || len(m.Stripes) > PartsMax || held(m.Stripes) <= BodyMax):
			return fmt.Errorf("a message of %d bytes and of %d in %d stripes: %w", len(m.Body), held(m.Stripes), len(m.Stripes), meta.Invalid)
		case held(m.Stripes) > SizeMax:
			return fmt.Errorf("a message of %d bytes, at most %d: %w", held(m.Stripes), SizeMax, meta.TooLarge)
		case len(m.Key) > TextMax || len(m.Dedup) > TextMax:
			return fmt.Errorf("a key of %d bytes, an id of %d, at most %d: %w", len(m.Key), len(m.Dedup), TextMax, meta.TooLarge)
		case m.Priority >= Priorities, m.Delay < 0, m.Delay > timeMax, m.Expires < 0, m.Expires > timeMax:
			return fmt.Errorf("priority %d, delay %v, expires %v: %w", m.Priority, m.Delay, m.Expires, meta.Invalid)
		}
		size += len(m.Body)
	}
	if size > PushBytes {
		return fmt.Errorf("messages of %d bytes, at most %d at once: %w", size, PushBytes, meta.TooLarge)
	}
	return nil
}

// Push is the command, for commands of other rooms: all or nothing.
func (room Room) Push(tx *state.Tx, req Push) (Pushed, error) {
	if err := room.check(tx, req.Token); err != nil {
		return Pushed{}, err
	}
	w := begin(tx)
	out, err := room.push(w, req)
	if err != nil {
		return Pushed{}, err
	}
	w.done()
	return out, nil
}

func (room Room) push(w *work, req Push) (Pushed, error) {
	if err := checkMessages(req); err != nil {
		return Pushed{}, err
	}
	if room.Memory && slices.ContainsFunc(req.Messages, func(m Message) bool { return len(m.Stripes) > 0 }) {
		return Pushed{}, fmt.Errorf("a message in memory has at most %d bytes: %w", BodyMax, meta.TooLarge)
	}
	q, err := w.queue(req.Name)
	if err != nil {
		return Pushed{}, err
	}
	list := req.Messages
	if room := q.roomFor(len(list)); room < len(list) {
		switch {
		case q.Settings.Full == Reject, q.Settings.Full == Block && !req.Part && len(list) > q.Settings.Max:
			return Pushed{}, fmt.Errorf("queue %q has %d messages of %d: %w", q.name, q.depth(), q.Settings.Max, meta.Quota)
		case !req.Part:
			room = 0
		}
		list = list[:room]
	}
	out := Pushed{Queue: q.ID}
	for _, m := range list {
		id, err := q.push(m)
		if err != nil {
			return Pushed{}, err
		}
		out.IDs = append(out.IDs, id)
	}
	if s := q.Settings; s.KeepBytes > 0 && q.Bytes > s.KeepBytes {
		q.advanced = true
	}
	if g := q.group(""); g != nil {
		out.Ready = g.ready()
	}
	return out, nil
}

// roomFor makes room for n messages if it is for the old ones to go, and returns for
// how many there is.
func (q *queue) roomFor(n int) int {
	room := q.room()
	if room < 0 {
		return n
	}
	if q.Settings.Full != DropOld {
		return min(n, room)
	}
	for look := dropMax; room < n && look > 0; room = q.room() {
		most := q.depth()
		dropped := false
		for i := range q.Groups {
			g := &q.Groups[i]
			if g.depth() < most {
				continue
			}
			if n, e, _, ok := q.next(g, &look); ok {
				q.finish(g, n, e)
				q.Dropped++
				dropped = true
			}
		}
		if !dropped {
			break // all that is there is out
		}
	}
	return min(n, q.room())
}

// held is how many bytes stripes hold.
func held(list []chunk.Stripe) (n int64) {
	for _, s := range list {
		n += int64(s.Len)
	}
	return n
}

// push sends one message, and returns its id. The stripes of one that is there already
// are not named: they are garbage.
func (q *queue) push(m Message) (uint64, error) {
	tx := q.w.tx
	id := q.Next
	if m.Delay > 0 {
		q.Claims++
		id = q.Claims
	}
	if m.Dedup != "" {
		var was uint64
		if read(tx, dedupKey(q.ID, m.Dedup), &was) {
			return was, nil
		}
		tx.Set(dedupKey(q.ID, m.Dedup), state.Marshal(id))
		q.timer(meta.At(tx.Now.Add(DedupKeep)), timerForget, hash(m.Dedup), q.Claims, &timer{ID: m.Dedup})
	}
	row := message{Body: m.Body, Key: m.Key, Priority: m.Priority, Sent: q.w.now(), Whole: m.Whole, Size: held(m.Stripes)}
	if len(m.Stripes) > 0 {
		if err := namespace.Keep(tx, m.Stripes); err != nil {
			return 0, err
		}
		for _, s := range m.Stripes {
			row.Parts = append(row.Parts, s.ID)
		}
	}
	if m.Delay > 0 {
		q.Delayed++
		row.ID = id
		q.timer(meta.At(tx.Now.Add(m.Delay)), timerBorn, q.Log, id, &timer{Message: &row, Expires: m.Expires})
		q.moved = true
		return id, nil
	}
	if m.Expires > 0 {
		row.Expires = meta.At(tx.Now.Add(m.Expires))
	}
	return q.append(row), nil
}
