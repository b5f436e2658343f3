package task

import (
	"fmt"
	"slices"

	"dos/meta/state"
)

// lanesMax bounds the lanes of a level, and so its row. A task whose demand has no
// lane there waits for one behind the others, the oldest first.
const lanesMax = 256

// readAhead is how many tasks of a lane are read at once.
const readAhead = 64

// line puts a task among those that may begin, or takes it away.
func (w *work) line(id ID, r *row, in bool) {
	r.Lane = in
	if i, element := id.Index(); element {
		all := w.array(id)
		if in {
			all.Array.Ready = insert(all.Array.Ready, uint32(i))
		} else {
			all.Array.Ready = remove(all.Array.Ready, uint32(i))
		}
		return
	}
	k := levelOf(r.Prio, r.Queue, r.UID)
	if !in {
		w.leave(k, id, r.Demand)
		return
	}
	w.join(k, id, r.Demand)
}

// level returns a level; it has lanes, or will have when the command is done.
func (w *work) level(k levelKey) *level {
	l := w.levels[k]
	if l == nil {
		l = new(level)
		read(w.tx, levelRowKey(k), l)
		w.levels[k] = l
	}
	return l
}

func (w *work) directory() []levelKey {
	if !w.dirRead {
		w.dir, w.dirRead = levelKeys(w.tx), true
	}
	return w.dir
}

func (l *level) lane(shape string) *lane {
	for _, one := range l.Lanes {
		if one.shape() == shape {
			return one
		}
	}
	return nil
}

func (w *work) join(k levelKey, id ID, d demand) {
	w.stir()
	l := w.level(k)
	shape := d.shape()
	one := l.lane(shape)
	switch {
	case one == nil && (len(l.Lanes) >= lanesMax || l.Over > 0 && id.Compare(l.Low) > 0):
		if l.Over == 0 || id.Compare(l.Low) < 0 {
			l.Low = id
		}
		l.Over++
		w.tx.Set(overKey(k, id), []byte{})
		return
	case one == nil:
		if len(l.Lanes) == 0 {
			dir := w.directory()
			n, _ := slices.BinarySearch(dir, k)
			w.dir, w.dirMoved = slices.Insert(dir, n, k), true
		}
		l.Lanes = append(l.Lanes, &lane{Demand: d, Head: id, form: shape})
		one = l.Lanes[len(l.Lanes)-1]
	case id.Compare(one.Head) < 0:
		one.Head, one.next = id, nil
	}
	one.Count++
	w.tx.Set(memberKey(k, shape, id), []byte{})
}

func (w *work) leave(k levelKey, id ID, d demand) {
	l := w.level(k)
	one := l.lane(d.shape())
	if one == nil || !has(w.tx, memberKey(k, one.shape(), id)) {
		w.tx.Delete(overKey(k, id))
		l.Over--
		return
	}
	w.drop(k, l, one, id)
}

// drop takes a task out of its lane. One that is then empty goes, and others take its place.
func (w *work) drop(k levelKey, l *level, one *lane, id ID) {
	w.tx.Delete(memberKey(k, one.shape(), id))
	one.Count--
	switch {
	case one.Count == 0:
		l.Lanes = slices.DeleteFunc(l.Lanes, func(each *lane) bool { return each == one })
		w.refill(k, l)
		if len(l.Lanes) == 0 {
			w.tx.Delete(levelRowKey(k))
			dir := w.directory()
			n, _ := slices.BinarySearch(dir, k)
			w.dir, w.dirMoved = slices.Delete(dir, n, n+1), true
		}
	case id == one.Head:
		one.advance(w.tx, k)
	default:
		one.next = nil
	}
}

// advance finds the next head behind the one that went.
func (l *lane) advance(r state.Reader, k levelKey) {
	if len(l.next) == 0 {
		prefix := memberKey(k, l.shape(), ID{})
		for key := range r.Scan(memberKey(k, l.shape(), l.Head), state.After(prefix[:len(prefix)-idSize])) {
			if l.next = append(l.next, idAt(key)); len(l.next) == readAhead {
				break
			}
		}
	}
	if len(l.next) == 0 {
		panic(fmt.Sprintf("task: none of %d tasks behind %v is there", l.Count, l.Head))
	}
	l.Head, l.next = l.next[0], l.next[1:]
}

// refill gives tasks that had no lane one, when there is room for some.
func (w *work) refill(k levelKey, l *level) {
	if l.Over == 0 || len(l.Lanes) > lanesMax/2 {
		return
	}
	var ids []ID
	for key := range w.tx.Scan(overKey(k, l.Low), state.After(append(key('o'), k...))) {
		if ids = append(ids, idAt(key)); len(ids) == readAhead {
			break
		}
	}
	for _, id := range ids {
		w.tx.Delete(overKey(k, id))
	}
	l.Over -= int64(len(ids))
	l.Low = ID{}
	if l.Over > 0 {
		l.Low = ID{ids[len(ids)-1].Job, ids[len(ids)-1].Place + 1}
	}
	for _, id := range ids {
		r := new(row)
		if !read(w.tx, taskKey(id), r) {
			panic(fmt.Sprintf("task: %v waits for a lane and is not there", id))
		}
		w.join(k, id, r.Demand)
	}
}
