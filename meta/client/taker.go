package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/queue"
)

const (
	// keepEvery is how often it is looked whether claims need more time, and how long
	// an acknowledgement may wait for company.
	keepEvery = 250 * time.Millisecond
	// batchMax is how many messages a Reader takes at once.
	batchMax = 64
)

// A Taker has what the readers of one client took, and keeps it theirs as long as
// they are there: a claim ends when its reader gives it back, or with the session.
// Its methods may be called concurrently, Run once.
type Taker struct {
	Queues
	stay Stay
	data Data

	mu      sync.Mutex
	readers map[*Reader]bool       // guarded by mu
	idle    map[waitKey][]idleWait // waits that were interrupted, the longest first; guarded by mu
	lines   map[string]*line       // by queue; guarded by mu, as what is in them
}

// A waitKey is by what a reader who comes back is known.
type waitKey struct {
	name, group string
	by          Process
}

// A Process is one of the client's machine, and whose it is. PID 0 is one that is
// not known.
type Process struct{ UID, PID uint32 }

type idleWait struct {
	consumer *Consumer
	left     time.Time
}

// NewTaker returns a Taker. What is taken is kept while it Runs. Without data it does
// without what is large.
func NewTaker(s Stay, data Data) *Taker {
	return &Taker{Queues: Queues{s}, stay: s, data: data, readers: make(map[*Reader]bool), idle: make(map[waitKey][]idleWait), lines: make(map[string]*line)}
}

// Run keeps what was taken until ctx ends.
func (t *Taker) Run(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		var gone []*Consumer
		t.mu.Lock()
		list := make([]*Reader, 0, len(t.readers))
		for r := range t.readers {
			list = append(list, r)
		}
		for key, waits := range t.idle {
			for len(waits) > 0 && time.Since(waits[0].left) > graceTime {
				gone = append(gone, waits[0].consumer)
				waits = waits[1:]
			}
			if t.idle[key] = waits; len(waits) == 0 {
				delete(t.idle, key)
			}
		}
		t.mu.Unlock()
		for _, c := range gone {
			_ = c.Close(ctx) // else the place goes with the session
		}
		for _, r := range list {
			r.keep(ctx)
		}
	}
}

// Take waits, unless wait is false, for one message, and returns the Reader that has
// it. Who was interrupted while it waited, and comes back within a second, has kept
// its place. Without wait it is meta.WouldWait if there is none.
func (t *Taker) Take(ctx context.Context, name, group, who string, by Process, wait bool) (*Reader, queue.Got, error) {
	key := waitKey{name, group, by}
	t.mu.Lock()
	var c *Consumer
	if waits := t.idle[key]; len(waits) > 0 { // of several threads of a process any
		c = waits[0].consumer
		t.idle[key] = waits[1:]
	}
	t.mu.Unlock()
	if c == nil {
		c = NewConsumer(t.stay, name, group, who)
	}
	r := &Reader{taker: t, consumer: c, by: by}
	m, err := r.only1(ctx, wait)
	for err == errGone {
		m, err = r.only1(ctx, wait)
	}
	if err != nil && r.only == 0 {
		if c.place != 0 {
			t.mu.Lock()
			t.idle[key] = append(t.idle[key], idleWait{c, time.Now()})
			t.mu.Unlock()
		}
		return nil, queue.Got{}, err
	}
	if err != nil { // it is back as if it had not been taken
		return nil, m, errors.Join(err, r.Close(context.WithoutCancel(ctx), false))
	}
	return r, m, nil
}

// only1 takes one message, of which the Reader is from then on.
func (r *Reader) only1(ctx context.Context, wait bool) (queue.Got, error) {
	r.mu.Lock() // as soon as it is among the others the Taker keeps it
	defer r.mu.Unlock()
	r.only = 0
	if err := r.fill(ctx, 1, wait); err != nil {
		return queue.Got{}, err
	}
	r.only = r.got[0].Number
	r.taker.mu.Lock()
	r.taker.readers[r] = true
	r.taker.mu.Unlock()
	m, err := r.step(ctx)
	if err == errGone { // nobody is to wait for it while it waits for the next one
		r.taker.mu.Lock()
		delete(r.taker.readers, r)
		r.taker.mu.Unlock()
	}
	return m, err
}

// Open returns a Reader of many messages.
func (t *Taker) Open(name, group, who string) *Reader {
	r := &Reader{taker: t, consumer: NewConsumer(t.stay, name, group, who)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readers[r] = true
	return r
}

// A Reader reads messages one after the other: the next one acknowledges the last.
// Claims and acknowledgements travel in batches. Its methods may be called
// concurrently with the Taker's.
type Reader struct {
	taker    *Taker
	consumer *Consumer
	by       Process // who has the message of a Take,
	only     uint64  // and its number; 0: there may be many

	mu     sync.Mutex // guards all below; held while messages are waited for
	claim  uint64     // 0: nothing is out
	in     meta.SessionID
	until  time.Time // the claim is kept beyond, from half its time on
	hold   time.Duration
	got    []queue.Got // not given out yet
	now    uint64      // the message that the program has; 0: none
	acks   []uint64    // acknowledged, and the service does not know yet
	manual bool        // the program says when the claim gets more time
}

// errStale says that the message is another's by now.
var errStale = fmt.Errorf("the message is not held any more: %w", meta.Fenced)

// Manual leaves it to Extend to give the claim more time.
func (r *Reader) Manual() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manual = true
}

// Next acknowledges the last message and returns the next one; without wait it is
// meta.WouldWait if there is none.
func (r *Reader) Next(ctx context.Context, wait bool) (queue.Got, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.claim != 0 && r.in != r.taker.stay.Session() {
		r.forget()
		return queue.Got{}, errStale
	}
	if len(r.got) > 0 {
		if err := r.sure(ctx); err != nil {
			return queue.Got{}, err
		}
	}
	if r.now != 0 {
		r.acks = append(r.acks, r.now)
		r.now = 0
	}
	for {
		if len(r.got) == 0 {
			if err := r.fill(ctx, batchMax, wait); err != nil {
				return queue.Got{}, err
			}
		}
		if m, err := r.step(ctx); err != errGone {
			return m, err
		}
	}
}

// sure returns when what was claimed a while ago is certainly still held. This machine
// may have stood still, and another have it by now, and even have acknowledged it.
func (r *Reader) sure(ctx context.Context) error {
	if err := r.taker.stay.Trust(ctx); err != nil {
		return err
	}
	if r.in == r.taker.stay.Session() {
		sent := time.Now()
		if sent.Before(r.until) {
			return nil
		}
		stale, err := r.taker.Settle(context.WithoutCancel(ctx), r.settle(queue.Extend, nil, r.hold))
		if err != nil {
			return err
		}
		if stale == 0 {
			r.until = sent.Add(r.hold)
			return nil
		}
	}
	r.forget()
	return errStale
}

func (r *Reader) forget() { r.claim, r.got, r.now, r.acks = 0, nil, 0, nil }

// errGone says that a message was given up, and the next one is to be looked at.
var errGone = errors.New("the message was given up")

// step gives out the next message of those that are here, if its body can be had. If it
// is lost the message becomes a dead letter: at the head, it would be in the way of all
// others for ever.
func (r *Reader) step(ctx context.Context) (queue.Got, error) {
	m := r.got[0]
	if err := r.taker.Load(ctx, &m); errors.Is(err, meta.Lost) {
		if _, e := r.taker.Settle(context.WithoutCancel(ctx), r.settle(queue.Discard, []uint64{m.Number}, 0)); e != nil {
			return queue.Got{}, errors.Join(err, e)
		}
		r.got = r.got[1:]
		slog.Warn("client: what a message says is lost: it is a dead letter now", "queue", r.consumer.take.Name, "message", m.Number, "err", err)
		return queue.Got{}, errGone
	} else if err != nil {
		return queue.Got{}, err
	}
	r.got = r.got[1:]
	r.now = m.Number
	return m, nil
}

func (r *Reader) settle(what queue.What, numbers []uint64, d time.Duration) queue.Settle {
	return queue.Settle{Name: r.consumer.take.Name, Claim: r.claim, Numbers: numbers, What: what, Time: d}
}

// fill claims what comes next. All of the last claim was given out.
func (r *Reader) fill(ctx context.Context, max int, wait bool) error {
	for {
		if err := r.take(ctx, max, wait); err != nil {
			return err
		}
		err := r.taker.stay.Trust(ctx)
		if err == nil && r.in == r.taker.stay.Session() {
			return nil
		}
		// The answer was long on its way, and the claim may have gone with its session.
		_, _ = r.taker.Settle(context.WithoutCancel(ctx), r.settle(queue.Return, nil, 0))
		r.forget()
		if err != nil {
			return err
		}
	}
}

func (r *Reader) take(ctx context.Context, max int, wait bool) error {
	var settle []queue.Settle
	if len(r.acks) > 0 {
		settle = append(settle, r.settle(queue.Ack, r.acks, 0))
	}
	var out queue.Taken
	var err error
	session := r.taker.stay.Session()
	sent := time.Now()
	c := r.consumer
	if wait && c.place != 0 && c.waitIn == session { // it goes on waiting there
		out, err = c.Take(ctx, max, settle...)
	} else {
		if !wait {
			ctx = context.WithoutCancel(ctx)
		}
		if c.waitIn != session {
			c.place = 0 // it went with its session
		}
		a := &ask{take: c.take, wait: wait}
		a.take.Max, a.take.Settle = max, settle
		h := r.taker.ask(ctx, a)
		if out, err = h.taken, h.err; h.apart {
			out, err = c.send(context.WithoutCancel(ctx), max, wait, settle)
		} else if !a.sent.IsZero() {
			r.forget()
			sent, session = a.sent, a.in
		}
		if err == nil && out.Place != 0 {
			c.place, c.queue, c.waitIn = out.Place, out.Queue, session
			out, err = c.Take(ctx, max)
		}
	}
	if err == nil || c.place != 0 { // what was to be settled is
		r.forget()
	}
	switch {
	case err != nil:
		return err
	case out.Claim == 0:
		return meta.WouldWait
	}
	r.claim, r.in, r.got = out.Claim, session, out.Messages
	r.hold = out.Hold
	r.until = sent.Add(r.hold)
	return nil
}

// keep acknowledges what waits for that, and gives the claim more time.
func (r *Reader) keep(ctx context.Context) {
	if !r.mu.TryLock() {
		return // it is at the service now
	}
	defer r.mu.Unlock()
	if r.claim == 0 || r.in != r.taker.stay.Session() {
		return
	}
	var list []queue.Settle
	if len(r.acks) > 0 {
		list = append(list, r.settle(queue.Ack, r.acks, 0))
	}
	more := !r.manual && (r.now != 0 || len(r.got) > 0) && time.Until(r.until) < r.hold/2
	if more {
		list = append(list, r.settle(queue.Extend, nil, r.hold))
	}
	if len(list) == 0 {
		return
	}
	sent := time.Now()
	if _, err := r.taker.Settle(ctx, list...); err != nil {
		return // it is tried again
	}
	r.acks = nil
	if more {
		r.until = sent.Add(r.hold)
	}
}

// Do does with the message that the program has what is said. It waits for nobody, so
// it does not look at ctx: whoever did not hear of it would say it again.
func (r *Reader) Do(ctx context.Context, what queue.What, d time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == 0 || r.in != r.taker.stay.Session() {
		return errStale
	}
	stale, err := r.taker.Settle(context.WithoutCancel(ctx), r.settle(what, []uint64{r.now}, d))
	switch {
	case err != nil:
		return err
	case stale > 0:
		r.forget()
		return errStale
	case what == queue.Extend:
		r.until = time.Now().Add(d)
	default:
		r.now = 0
	}
	return nil
}

// Close gives back what was not acknowledged: the message that the program has with
// an attempt counted, those that it never saw as they were. With had it is
// acknowledged.
func (r *Reader) Close(ctx context.Context, had bool) error {
	r.taker.mu.Lock()
	delete(r.taker.readers, r)
	r.taker.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.consumer.Close(ctx)
	if r.claim == 0 || r.in != r.taker.stay.Session() {
		return err
	}
	var list []queue.Settle
	if had && r.now != 0 {
		r.acks = append(r.acks, r.now)
		r.now = 0
	}
	if len(r.acks) > 0 {
		list = append(list, r.settle(queue.Ack, r.acks, 0))
	}
	if r.now != 0 {
		list = append(list, r.settle(queue.Nack, []uint64{r.now}, 0))
	}
	if len(r.got) > 0 {
		list = append(list, r.settle(queue.Return, nil, 0))
	}
	r.forget()
	if len(list) == 0 {
		return err
	}
	stale, e := r.taker.Settle(ctx, list...)
	switch {
	case e != nil:
		return e
	case stale > 0 && had:
		return errStale
	}
	return err
}
