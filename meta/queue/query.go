package queue

import (
	"encoding/binary"
	"fmt"
	"sort"

	"dos/meta"
	"dos/meta/state"
)

func limited(n int) (int, error) {
	if n < 1 || n > ListMax {
		return 0, fmt.Errorf("%d of a list, from 1 to %d: %w", n, ListMax, meta.Invalid)
	}
	return n, nil
}

func list(r state.Reader, req List) (Names, error) {
	limit, err := limited(req.Limit)
	if err != nil {
		return Names{}, err
	}
	var out Names
	from := nameKey(req.After)
	if req.After != "" {
		from = append(from, 0)
	}
	for k := range r.Scan(from, state.After([]byte("8n"))) {
		if len(out.Names) == limit {
			out.More = true
			break
		}
		out.Names = append(out.Names, string(k[2:]))
	}
	return out, nil
}

func statusOf(r state.Reader, req Named) (Status, error) {
	q, err := find(r, req.Name)
	if err != nil {
		return Status{}, err
	}
	out := Status{
		Name: q.name, ID: q.ID, UID: q.UID, GID: q.GID, Mode: q.Mode, Made: q.Made, Changed: q.Changed, Settings: q.Settings,
		Messages: q.Count, Bytes: q.Bytes, First: q.First, Next: q.Next, End: q.End, Begin: q.End, Delayed: q.Delayed, Dead: q.Dead,
		Pushed: q.Pushed, Expired: q.Expired, Dropped: q.Dropped, PushRate: q.Rates.LastPush, AckRate: q.Rates.LastAck,
	}
	if n, m, ok := q.from(r, q.First); ok {
		out.First, out.Begin, out.Oldest = n, m.Byte, m.Sent
	}
	var h home
	if q.Settings.Memory && read(r, homeKey(q.ID), &h) {
		home := q.home(r, h)
		out.Home = &home
	}
	for i := range q.Groups {
		g := &q.Groups[i]
		out.Groups = append(out.Groups, GroupStatus{
			Name: g.Name, ID: g.ID, Cursor: g.Cursor, Ready: g.ready(), Out: g.Out, Later: g.Later, Parked: g.Parked, Waiters: g.Waiters, Done: g.Done,
		})
	}
	return out, nil
}

func fits(r state.Reader, req Fit) (Space, error) {
	q, err := findID(r, req.Queue)
	if err != nil {
		return Space{}, err
	}
	room := q.room()
	return Space{room < 0 || room >= min(req.N, q.Settings.Max)}, nil
}

// RoomKey is the row that changes when there is more room in a queue.
func RoomKey(req Fit) []byte { return key('s', req.Queue) }

func readLog(r state.Reader, req Read) (Log, error) {
	limit, err := limited(req.Limit)
	if err != nil {
		return Log{}, err
	}
	q, err := findHere(r, req.Name)
	if err != nil {
		return Log{}, err
	}
	var out Log
	size := 0
	add := func(n uint64, m message, attempts int) (more bool) {
		if len(out.Messages) == limit || size >= listBytes {
			out.More = true
			return false
		}
		size += len(m.Body)
		out.Messages = append(out.Messages, Logged{m.got(n, attempts), m.Byte})
		return true
	}
	from := max(req.From, q.First)
	if req.Byte > 0 {
		from = q.search(r, func(m message) bool { return m.Byte+int64(m.size()) >= req.Byte })
	}
	if req.Undone {
		g, err := q.need(req.Group)
		if err != nil {
			return Log{}, err
		}
		for k, v := range r.Scan(key('p', g.Run, from), key('p', g.Run, g.Cursor)) {
			var e entry
			state.MustUnmarshal(v, &e)
			if m, ok := q.at(r, number(k, 0)); ok && !add(number(k, 0), m, e.Attempts) {
				return out, nil
			}
		}
		from = max(from, g.Cursor)
	}
	for k, v := range r.Scan(key('m', q.Log, from), key('m', q.Log, q.Next)) {
		var m message
		state.MustUnmarshal(v, &m)
		if !add(number(k, 0), m, 0) {
			break
		}
	}
	return out, nil
}

// search returns the number of the first message of the log that is, as all behind it.
func (q *queue) search(r state.Reader, is func(message) bool) uint64 {
	n, _, _ := q.from(r, q.First)
	i := sort.Search(int(q.Next-n), func(i int) bool {
		_, m, ok := q.from(r, n+uint64(i))
		return !ok || is(m)
	})
	return n + uint64(i)
}

func flights(r state.Reader, req Flights) (Flying, error) {
	limit, err := limited(req.Limit)
	if err != nil {
		return Flying{}, err
	}
	q, err := findHere(r, req.Name)
	if err != nil {
		return Flying{}, err
	}
	g, err := q.need(req.Group)
	if err != nil {
		return Flying{}, err
	}
	var out Flying
	for k, v := range r.Scan(key('p', g.Run, req.From), state.After(key('p', g.Run))) {
		var e entry
		if state.MustUnmarshal(v, &e); e.Status != isOut {
			continue
		}
		if len(out.List) == limit {
			out.More = true
			break
		}
		var c claim
		read(r, claimKey(e.Session, q.ID, e.Claim), &c)
		out.List = append(out.List, Flight{number(k, 0), e.Claim, e.Session, c.Consumer, c.Until, e.Attempts})
	}
	return out, nil
}

func letters(r state.Reader, req Dead) (Letters, error) {
	limit, err := limited(req.Limit)
	if err != nil {
		return Letters{}, err
	}
	q, err := findHere(r, req.Name)
	if err != nil {
		return Letters{}, err
	}
	var out Letters
	size := 0
	for k, v := range r.Scan(key('x', q.Log, req.From), state.After(key('x', q.Log))) {
		if len(out.List) == limit || size >= listBytes {
			out.More = true
			break
		}
		var d dead
		state.MustUnmarshal(v, &d)
		size += len(d.Message.Body)
		out.List = append(out.List, Letter{d.Message.got(number(k, 0), d.Attempts), d.Group, d.Died})
	}
	return out, nil
}

func dueNow(r state.Reader, req Due) (Work, error) {
	var c counters
	read(r, counterKey, &c)
	from := max(c.Ticked, int64(req.From))
	var out Work
	if k, _, ok := first(r, key('t', uint64(from)), state.After([]byte("8t"))); ok {
		out.Tick = int64(binary.BigEndian.Uint64(k[2:])) <= int64(req.Now)
	}
	_, _, out.Sweep = first(r, key('z'), state.After(key('z')))
	return out, nil
}
