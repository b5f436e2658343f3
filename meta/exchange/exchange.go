package exchange

import (
	"slices"
	"sync"
	"time"

	"dos/meta"
)

// waitMax bounds the calls that wait at one instance. Who comes then hears that it is
// busy, and may come again.
const waitMax = 1024

// An Exchange is where calls of some instances are handed over. The zero value has
// none. Its methods may be called concurrently.
type Exchange struct {
	mu        sync.Mutex
	instances map[uint64]*instance // guarded by mu, as what is in them
}

// An instance is there as long as its anchor.
type instance struct {
	idle    []*worker // the one that was used last is the last
	waiting []*talk   // the first came first
	busy    int       // talks under way
	calls   int       // that were begun
	gone    bool      // its anchor is not there any more
}

func (in *instance) load() int { return len(in.waiting) + in.busy }

// A worker is a connection of who serves.
type worker struct {
	conn Conn
	in   *instance
	seq  uint64 // of the last offer
	talk *talk  // under way; guarded by Exchange.mu
}

// A talk is a call.
type talk struct {
	conn  Conn // of who calls
	ask   Message
	in    *instance
	timer *time.Timer // until it has waited for long enough

	// Guarded by Exchange.mu:
	worker  *worker // that it was offered to,
	seq     uint64  // with this number
	offered bool    // the offer is on its way
	begun   bool    // it was accepted
	gone    bool    // nobody waits for the reply any more
	over    bool
}

// Call answers who calls over conn, until that ends.
func (x *Exchange) Call(conn Conn) error {
	var t *talk
	for {
		m, err := conn.Recv()
		if err != nil {
			if t != nil {
				x.abort(t)
			}
			return err
		}
		switch {
		case m.What == Ask:
			if t != nil {
				x.abort(t) // nobody should ask before that is over
			}
			t = &talk{conn: conn, ask: m}
			x.begin(t)
		case t == nil || m.Seq != t.ask.Seq:
		case m.What == Abort:
			x.abort(t)
		case m.What == More, m.What == Got:
			x.forward(t, m)
		}
	}
}

// begin finds somebody for a call, or has it wait.
func (x *Exchange) begin(t *talk) {
	x.mu.Lock()
	t.in = x.instances[t.ask.Instance]
	if t.in == nil {
		t.over = true
		x.mu.Unlock()
		t.say(Message{What: Absent, Kind: meta.Refused, Text: "who served is not here any more"})
		return
	}
	if t.ask.Wait >= 0 {
		if w := t.in.pop(); w != nil {
			seq := x.assign(w, t)
			x.mu.Unlock()
			x.offer(w, t, seq)
			return
		}
	}
	if t.ask.Wait <= 0 || len(t.in.waiting) >= waitMax {
		load, calls := t.in.load(), t.in.calls
		t.over = true
		x.mu.Unlock()
		t.say(Message{What: Busy, Load: load, N: calls})
		return
	}
	t.in.waiting = append(t.in.waiting, t)
	t.timer = time.AfterFunc(t.ask.Wait, func() { x.late(t) })
	x.mu.Unlock()
}

func (in *instance) pop() *worker {
	last := len(in.idle) - 1
	if last < 0 {
		return nil
	}
	w := in.idle[last]
	in.idle = in.idle[:last]
	return w
}

// assign makes a talk a worker's. x.mu is held.
func (x *Exchange) assign(w *worker, t *talk) (seq uint64) {
	w.seq++
	w.talk, t.worker, t.seq, t.offered, t.begun = t, w, w.seq, false, false
	t.in.busy++
	if t.timer != nil {
		t.timer.Stop()
	}
	return w.seq
}

// offer tells a worker of its talk. If it cannot be told, the talk goes to another one.
func (x *Exchange) offer(w *worker, t *talk, seq uint64) {
	a := t.ask
	err := w.conn.Send(Message{What: Offer, Seq: seq, Size: a.Size, Last: a.Last, Text: a.Text, Data: a.Data})
	x.mu.Lock()
	its := w.talk == t && w.seq == seq
	switch {
	case !its: // it has given it back already, or is gone
		x.mu.Unlock()
	case err != nil:
		x.unassign(w)
		x.mu.Unlock()
		w.conn.Close() // its own loop hears of it
		x.again(t)
	default:
		t.offered = true
		gone := t.gone
		x.mu.Unlock()
		if gone {
			w.say(Message{What: Abort}, seq)
		}
	}
}

// unassign takes a worker's talk away. x.mu is held.
func (x *Exchange) unassign(w *worker) {
	if t := w.talk; t != nil {
		t.in.busy--
		t.worker, w.talk = nil, nil
	}
}

// again looks for somebody else for a talk that was not begun. It goes before others.
func (x *Exchange) again(t *talk) {
	x.mu.Lock()
	if t.gone || t.over {
		t.over = true
		x.mu.Unlock()
		return
	}
	if t.in.gone {
		t.over = true
		x.mu.Unlock()
		t.say(Message{What: Absent, Kind: meta.Refused, Text: "who served is not here any more"})
		return
	}
	if w := t.in.pop(); w != nil {
		seq := x.assign(w, t)
		x.mu.Unlock()
		x.offer(w, t, seq)
		return
	}
	t.in.waiting = slices.Insert(t.in.waiting, 0, t)
	t.timer = time.AfterFunc(max(t.ask.Wait, time.Millisecond), func() { x.late(t) })
	x.mu.Unlock()
}

// late ends a talk that has waited for long enough.
func (x *Exchange) late(t *talk) {
	x.mu.Lock()
	i := slices.Index(t.in.waiting, t)
	if i < 0 || t.over {
		x.mu.Unlock()
		return
	}
	t.in.waiting = slices.Delete(t.in.waiting, i, i+1)
	t.over = true
	load := t.in.load()
	x.mu.Unlock()
	t.say(Message{What: Busy, Load: load})
}

// abort is for who does not wait any more.
func (x *Exchange) abort(t *talk) {
	x.mu.Lock()
	if t.over || t.gone {
		x.mu.Unlock()
		return
	}
	t.gone = true
	if i := slices.Index(t.in.waiting, t); i >= 0 {
		t.in.waiting = slices.Delete(t.in.waiting, i, i+1)
		t.timer.Stop()
		t.over = true
	}
	w, seq := t.worker, t.seq
	tell := w != nil && t.offered
	x.mu.Unlock()
	if tell {
		w.say(Message{What: Abort}, seq)
	}
}

// forward passes on what who calls says.
func (x *Exchange) forward(t *talk, m Message) {
	x.mu.Lock()
	w, seq := t.worker, t.seq
	ok := w != nil && t.begun && !t.gone
	x.mu.Unlock()
	if ok {
		w.say(m, seq)
	}
}

// say sends to who calls. If it is not there any more, its own loop hears of it.
func (t *talk) say(m Message) {
	m.Seq = t.ask.Seq
	_ = t.conn.Send(m)
}

// say sends to who serves. If it is not there any more, its own loop hears of it.
func (w *worker) say(m Message, seq uint64) {
	m.Seq = seq
	_ = w.conn.Send(m)
}

// Work lets who serves over conn have calls, until that ends. first is its Hello.
func (x *Exchange) Work(conn Conn, first Message) error {
	if first.Anchor {
		return x.anchor(conn, first.Instance)
	}
	x.mu.Lock()
	w := &worker{conn: conn, in: x.instances[first.Instance]}
	none := w.in != nil && len(w.in.waiting) == 0
	x.mu.Unlock()
	switch {
	case w.in == nil:
		return conn.Send(Message{What: Absent, Kind: meta.Refused, Text: "the instance is not here"})
	case none && first.Wait < 0:
		return conn.Send(Message{What: Busy})
	}
	x.ready(w)
	for {
		m, err := conn.Recv()
		if err != nil {
			x.lost(w)
			return err
		}
		if m.What == Bye {
			x.leave(w)
			return nil
		}
		x.heard(w, m)
	}
}

// anchor has an instance as long as conn is there.
func (x *Exchange) anchor(conn Conn, number uint64) error {
	in := new(instance)
	x.mu.Lock()
	if x.instances == nil {
		x.instances = make(map[uint64]*instance)
	}
	before := x.instances[number]
	x.instances[number] = in
	x.mu.Unlock()
	x.dismiss(before)
	err := conn.Send(Message{What: Accept})
	for err == nil {
		_, err = conn.Recv()
	}
	x.mu.Lock()
	if x.instances[number] == in {
		delete(x.instances, number)
	}
	x.mu.Unlock()
	x.dismiss(in)
	return err
}

// dismiss sends those away that wait at an instance which is not here any more. What
// is under way goes on.
func (x *Exchange) dismiss(in *instance) {
	if in == nil {
		return
	}
	x.mu.Lock()
	in.gone = true
	waiting, idle := in.waiting, in.idle
	in.waiting, in.idle = nil, nil
	for _, t := range waiting {
		t.over = true
		t.timer.Stop()
	}
	x.mu.Unlock()
	for _, t := range waiting {
		t.say(Message{What: Absent, Kind: meta.Refused, Text: "who served is not here any more"})
	}
	for _, w := range idle {
		w.away()
	}
}

// ready gives a worker what waits, or has it wait.
func (x *Exchange) ready(w *worker) {
	x.mu.Lock()
	if w.in.gone {
		x.mu.Unlock()
		w.away()
		return
	}
	if len(w.in.waiting) == 0 {
		w.in.idle = append(w.in.idle, w)
		x.mu.Unlock()
		return
	}
	t := w.in.waiting[0]
	w.in.waiting = slices.Delete(w.in.waiting, 0, 1)
	seq := x.assign(w, t)
	x.mu.Unlock()
	x.offer(w, t, seq)
}

// away tells a worker that no calls come here.
func (w *worker) away() {
	w.say(Message{What: Absent, Kind: meta.Refused, Text: "the instance is not here any more"}, 0)
}

// heard is what a worker says of its talk.
func (x *Exchange) heard(w *worker, m Message) {
	x.mu.Lock()
	t := w.talk
	if t == nil || m.Seq != w.seq {
		x.mu.Unlock()
		return
	}
	ends := m.What == Fail || m.What == Reply && m.Last
	back := m.What == Return && !t.begun
	if !back && !t.begun {
		t.in.calls++
	}
	tell := !t.gone
	if m.Load = t.in.load(); ends {
		m.Load--
	}
	switch {
	case ends || m.What == Return && t.begun:
		t.over = true
		x.unassign(w)
	case back:
		x.unassign(w)
		t.over = m.Kind != 0 || t.gone
	default:
		t.begun = true
	}
	x.mu.Unlock()
	switch {
	case back && m.Kind != 0: // it is not fit for it
		if tell {
			t.say(Message{What: Absent, Kind: m.Kind, Text: m.Text, Load: m.Load})
		}
	case back:
		x.again(t)
	case m.What == Return:
		if tell {
			t.say(Message{What: Fail, Kind: meta.Protocol, Text: "it was given back after it was begun"})
		}
	case m.What == Accept:
		if tell {
			t.say(Message{What: Taken, Load: m.Load})
		}
	case tell:
		t.say(m)
	}
	if ends || m.What == Return {
		x.ready(w)
	}
}

// leave is for a worker that says so: what it was offered goes to another one.
func (x *Exchange) leave(w *worker) {
	t, begun := x.part(w, false)
	switch {
	case t == nil:
	case begun:
		t.say(Message{What: Fail, Kind: meta.Protocol, Text: "who served went away without a reply"})
	default:
		x.again(t)
	}
}

// lost is for a worker whose connection broke: nobody knows how far it got.
func (x *Exchange) lost(w *worker) {
	if t, _ := x.part(w, true); t != nil {
		t.say(Message{What: Fail, Kind: meta.HostDown, Text: "who served cannot be reached any more; whether it did something is not known"})
	}
}

// part takes a worker out, and returns what it had, if anybody waits for that.
func (x *Exchange) part(w *worker, lost bool) (t *talk, begun bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i := slices.Index(w.in.idle, w); i >= 0 {
		w.in.idle = slices.Delete(w.in.idle, i, i+1)
	}
	if t = w.talk; t == nil {
		return nil, false
	}
	begun = t.begun
	x.unassign(w)
	t.over = begun || lost || t.gone
	if t.gone {
		return nil, false
	}
	return t, begun
}
