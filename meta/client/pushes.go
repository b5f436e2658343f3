package client

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"time"

	"dos/meta"
	"dos/meta/queue"
)

const (
	// companyMax bounds how long a command waits for those who came with the last one. It
	// is half the time that the last one took, if that is less.
	companyMax = time.Millisecond
	// queuesMax is how many queues are remembered to which nothing is sent just now.
	queuesMax = 256
)

// Push is that of Queues. What several threads send to a queue while a command of one
// of them is under way goes as one command after it, so that many who each wait for
// their own message share the commits; and so does what Readers of this Taker ask of
// the queue. It is executed once however often it is sent, and each hears of its own
// messages alone.
func (t *Taker) Push(ctx context.Context, name string, list ...queue.Message) ([]uint64, error) {
	return t.pushBy(ctx, name, list, t.together)
}

// A line is who sends to one queue, and who takes from it. One command of all of them is
// under way at a time, and one of them, whose turn it is, sees to it.
//
// Who waits for messages while others of the line send some takes no place at the service:
// each command that sends asks for it too, and has the answer, where a place would take
// another question. It takes one when nobody sends any more.
type line struct {
	name    string
	sending bool    // it is somebody's turn
	pushes  []*push // not sent yet, the first one first
	asks    []*ask  // likewise
	usual   int     // pushes of the last command that had some,
	took    time.Duration
	at      time.Time     // and when it was answered
	want    int           // pushes that are awaited; 0: nobody does that
	more    chan struct{} // of one: so many are there
}

// A push is the messages of one thread.
type push struct {
	req   queue.Push
	size  int // bytes of the bodies
	heard chan heard
}

// An ask is a thread that takes.
type ask struct {
	take  queue.Take
	wait  bool
	heard chan heard

	// When the last command that it was part of was sent, and in which session; zero: none
	// was executed. What was to be settled is, then.
	sent time.Time
	in   meta.SessionID
	left bool // nobody waits for messages any more; guarded by Taker.mu
}

// heard is what the one who sends says to another: how that one's messages fared or what
// it got, or that it is its turn to send, or that it has to send by itself.
type heard struct {
	out         queue.Pushed
	taken       queue.Taken
	err         error
	turn, apart bool
}

// errLeft is for who has left and got nothing.
var errLeft = errors.New("nobody waits any more")

// together sends messages with what others have for the queue.
func (t *Taker) together(ctx context.Context, req queue.Push) (queue.Pushed, error) {
	p := &push{req: req, heard: make(chan heard, 1)}
	for _, m := range req.Messages {
		if len(m.Stripes) > 0 { // they are the sender's own, for better or worse
			return t.push(ctx, req)
		}
		p.size += len(m.Body)
	}
	t.mu.Lock()
	l := t.line(req.Name)
	l.pushes = append(l.pushes, p)
	if l.want > 0 && len(l.pushes) >= l.want {
		l.want = 0
		l.more <- struct{}{}
	}
	h := heard{turn: l.begin()}
	t.mu.Unlock()
	if !h.turn {
		h = <-p.heard
	}
	if h.turn { // it is the first of those who wait
		t.company(ctx, l)
		t.send(ctx, l)
		h = <-p.heard
		t.mu.Lock()
		l.pass()
		t.mu.Unlock()
	}
	if h.apart {
		return t.push(ctx, req)
	}
	return h.out, h.err
}

// ask takes with what others have for the queue. Of ctx it looks while nothing of it is
// under way, so that nothing is taken by who does not hear of it.
func (t *Taker) ask(ctx context.Context, a *ask) heard {
	a.heard = make(chan heard, 1)
	t.mu.Lock()
	l := t.line(a.take.Name)
	l.asks = append(l.asks, a)
	turn := l.begin()
	t.mu.Unlock()
	for !turn {
		select {
		case h := <-a.heard:
			if !h.turn {
				return h
			}
			turn = true
		case <-ctx.Done():
			t.mu.Lock()
			a.left = true
			waits := l.leave(a)
			if waits && len(a.heard) > 0 { // its turn came just now: those who wait hear nothing else
				l.pass()
			}
			t.mu.Unlock()
			if waits {
				return heard{err: context.Cause(ctx)}
			}
			h := <-a.heard
			if h.err == errLeft {
				h.err = context.Cause(ctx)
			}
			return h
		}
	}
	for {
		t.company(ctx, l)
		if ctx.Err() == nil {
			t.send(ctx, l)
		}
		t.mu.Lock()
		answered := len(a.heard) > 0
		over := answered || ctx.Err() != nil
		if over {
			l.leave(a)
			l.pass()
		}
		t.mu.Unlock()
		switch {
		case answered:
			return <-a.heard
		case over:
			return heard{err: context.Cause(ctx)}
		}
	}
}

// line returns that of a queue. t.mu is held.
func (t *Taker) line(name string) *line {
	l := t.lines[name]
	if l == nil {
		if len(t.lines) >= queuesMax {
			maps.DeleteFunc(t.lines, func(_ string, l *line) bool { return !l.sending })
		}
		l = &line{name: name, more: make(chan struct{}, 1)}
		t.lines[name] = l
	}
	return l
}

// begin says whether it is the turn of who came just now.
func (l *line) begin() bool {
	if l.sending {
		return false
	}
	l.sending = true
	return true
}

// pass makes it the turn of the next one. Nobody sends for others for long, unless
// there are none who send.
func (l *line) pass() {
	switch {
	case len(l.pushes) > 0:
		l.pushes[0].heard <- heard{turn: true}
	case len(l.asks) > 0:
		l.asks[0].heard <- heard{turn: true}
	default:
		l.sending = false
	}
}

// leave reports whether an ask waited to be sent. It does not any more.
func (l *line) leave(a *ask) bool {
	i := slices.Index(l.asks, a)
	if i >= 0 {
		l.asks = slices.Delete(l.asks, i, i+1)
	}
	return i >= 0
}

// company waits for those who were answered together with the last command: they come
// back about now, and would have to wait for all of another one.
func (t *Taker) company(ctx context.Context, l *line) {
	runtime.Gosched() // they may be about to run
	t.mu.Lock()
	left := time.Until(l.at.Add(min(l.took/2, companyMax)))
	if len(l.pushes) >= l.usual || left <= 0 {
		t.mu.Unlock()
		return
	}
	l.want = l.usual
	t.mu.Unlock()
	late := time.NewTimer(left)
	defer late.Stop()
	select {
	case <-l.more:
	case <-late.C:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.want == 0 { // they came, perhaps just now
		select {
		case <-l.more:
		default:
		}
	}
	l.want = 0
}

// send sends one command with what there is, and tells those whose it was.
func (t *Taker) send(ctx context.Context, l *line) {
	t.mu.Lock()
	batch, all := l.gather()
	n := min(len(l.asks), queue.PassMax)
	asks := slices.Clone(l.asks[:n])
	l.asks = slices.Delete(l.asks, 0, n)
	t.mu.Unlock()
	takes := make([]queue.Take, len(asks))
	for i, a := range asks {
		takes[i] = a.take
		takes[i].Wait = a.wait && len(batch) == 0
	}
	session := t.stay.Session()
	sent := time.Now()
	out, err := t.passed(context.WithoutCancel(ctx), queue.Pass{Name: l.name, Push: all, Takes: takes})
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.at = time.Now(); len(batch) > 0 {
		l.usual, l.took = len(batch), l.at.Sub(sent)
	} else {
		l.usual = 0
	}
	list := share(batch, out.Pushed, err, len(asks))
	for i, p := range batch {
		p.heard <- list[i]
	}
	again := asks[:0]
	for i, a := range asks {
		h := heard{err: err, apart: apart(err, len(batch)+len(asks))}
		if err == nil {
			a.sent, a.in, a.take.Settle = sent, session, nil
			h.taken = out.Taken[i]
			if h.taken.Claim == 0 && h.taken.Place == 0 && a.wait && !a.left {
				again = append(again, a)
				continue
			}
			if a.left && h.taken.Claim == 0 && h.taken.Place == 0 {
				h.err = errLeft
			}
		}
		a.heard <- h
	}
	l.asks = slices.Insert(l.asks, 0, again...)
	if errors.Is(err, meta.TimedOut) { // nobody waits for longer than Patience
		for _, p := range l.pushes {
			p.heard <- heard{err: err}
		}
		for _, a := range l.asks {
			a.heard <- heard{err: err}
		}
		l.pushes, l.asks = nil, nil
	}
}

// passed sends a command that has no more in it than it has to.
func (t *Taker) passed(ctx context.Context, req queue.Pass) (out queue.Passed, err error) {
	switch {
	case len(req.Takes) == 0:
		req.Push.Name = req.Name
		out.Pushed, err = t.push(ctx, req.Push)
	case len(req.Takes) == 1 && len(req.Push.Messages) == 0:
		out.Taken = make([]queue.Taken, 1)
		err = t.stay.Call(ctx, queue.OpTake, req.Takes[0], &out.Taken[0])
	default:
		err = t.stay.Call(ctx, queue.OpPass, req, &out)
	}
	return out, err
}

// gather takes the first of those who send, and of the others as many as go with it.
func (l *line) gather() (batch []*push, all queue.Push) {
	size := 0
	for _, p := range l.pushes {
		size += p.size
		if len(batch) > 0 && (len(all.Messages)+len(p.req.Messages) > queue.PushMax || size > queue.PushBytes) {
			break
		}
		batch = append(batch, p)
		messages := append(all.Messages, p.req.Messages...)
		all = p.req
		all.Messages = messages
	}
	l.pushes = slices.Delete(l.pushes, 0, len(batch))
	return batch, all
}

// apart reports whether each of n who went together is to send its own: a command that
// fails changes nothing, and one of them may be why.
func apart(err error, n int) bool {
	if n <= 1 {
		return false
	}
	for _, kind := range []meta.Kind{meta.Invalid, meta.TooLarge, meta.Quota, meta.NoSpace, meta.NotExist} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// share says to each of a batch how its messages fared, which others went along with:
// the first ones found room.
func share(batch []*push, out queue.Pushed, err error, others int) []heard {
	list := make([]heard, len(batch))
	ids := out.IDs
	for i, p := range batch {
		n := min(len(p.req.Messages), len(ids))
		list[i] = heard{out: queue.Pushed{IDs: ids[:n:n], Queue: out.Queue}, err: err, apart: apart(err, len(batch)+others)}
		ids = ids[n:]
	}
	return list
}
