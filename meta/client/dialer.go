package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/call"
	"dos/meta/exchange"
)

const (
	// knownFor is how long a Dialer relies on what it was told of a service, unless it
	// is to ask anew.
	knownFor = time.Second
	// queueWait is how long a call waits at one instance before it looks whether
	// another one is free by now.
	queueWait = 250 * time.Millisecond
	// linesMax bounds the connections to an exchange that are kept for later calls.
	linesMax = 64
	// probeMax bounds the instances that are asked whether they are free before the call
	// waits at one.
	probeMax = 8
	// The time for which an instance that failed is passed over, doubling with each
	// failure from the first to the last.
	passMin = 250 * time.Millisecond
	passMax = 30 * time.Second
	// The pause before a call is tried again, five times as long with each: who was at a
	// machine that is lost is at another one within half a second as a rule.
	againMin = passMin / 16
	againMax = time.Second
	// loadFor is how long what an instance said of its load counts.
	loadFor = time.Second
)

// A Dialer calls services:
//
//	reply, err := dialer.Call(ctx, "resize", image)
//
// A call goes to an instance that is free, by the balance that the service is set to;
// if none is, it waits where the fewest calls are. An instance that fails is passed over
// for a while. A call that was certainly not begun is tried again; the error of any
// other says that its outcome is not known, unless it came from who served.
// The errors are meta.NotExist, without such a service; meta.Refused, when nobody serves it;
// meta.TimedOut, when nothing came for the service's timeout; meta.Protocol, when who
// served died or closed without a reply; meta.HostDown, when its machine was lost; and
// what a Go server says. Its methods may be called concurrently.
type Dialer struct {
	RPC
	ways Exchanges
	by   string

	mu     sync.Mutex
	known  map[string]*known           // by service; guarded by mu
	lines  map[string][]*exchange.Line // that are free, by exchange; guarded by mu
	closed bool                        // guarded by mu
}

// known is what a Dialer knows of a service.
type known struct {
	status call.Status
	since  time.Time
	turn   int
	stats  map[uint64]*stat // by instance
}

// A stat is how an instance does.
type stat struct {
	flying int // calls of this Dialer
	load   int // all calls that it had
	at     time.Time
	fails  int
	bad    time.Time // until when it is passed over
}

// NewDialer returns a Dialer. by names for people who calls. Close ends it.
func NewDialer(c Caller, ways Exchanges, by string) *Dialer {
	return &Dialer{RPC: RPC{c}, ways: ways, by: by, known: make(map[string]*known), lines: make(map[string][]*exchange.Line)}
}

// Close breaks what is not in use.
func (d *Dialer) Close() {
	d.mu.Lock()
	lines := d.lines
	d.lines, d.closed = nil, true
	d.mu.Unlock()
	for _, list := range lines {
		for _, l := range list {
			l.Close()
		}
	}
}

// Calling says how a call is made. The zero value is that of Call.
type Calling struct {
	// Fresh has the service asked for anew: what somebody changed before counts.
	Fresh bool
	// Timeout is there instead of the service's.
	Timeout time.Duration
	// By names who calls, for people.
	By string
}

// Call sends a request and returns the reply.
func (d *Dialer) Call(ctx context.Context, service string, request []byte) ([]byte, error) {
	first := request[:min(len(request), exchange.FirstMax)]
	c, err := d.Open(ctx, service, bytes.Clone(first), len(first) == len(request), int64(len(request)), Calling{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if rest := request[len(first):]; len(rest) > 0 {
		if _, err := c.Write(ctx, rest, true); err != nil {
			return nil, err
		}
	}
	return c.rest(ctx)
}

// rest reads the reply to its end.
func (c *Conversation) rest(ctx context.Context) ([]byte, error) {
	reply := make([]byte, 0, 512)
	for {
		n, err := c.Read(ctx, reply[len(reply):cap(reply)])
		reply = reply[:len(reply)+n]
		switch {
		case err == io.EOF:
			return reply, nil
		case err != nil:
			return nil, err
		case len(reply) == cap(reply):
			reply = slices.Grow(reply, cap(reply))
		}
	}
}

// A Conversation is a call under way. Close ends it, and gives it up if the reply was
// not read to its end.
type Conversation struct {
	*exchange.Call
	dialer  *Dialer
	line    *exchange.Line
	key     string
	service string
	number  uint64
	once    sync.Once
}

// Close ends the call.
func (c *Conversation) Close() {
	c.once.Do(func() {
		c.Abort()
		c.dialer.put(c.key, c.line)
		c.dialer.note(c.service, c.number, func(s *stat) {
			s.flying--
			s.load, s.at = c.Load(), time.Now()
		})
	})
}

// Open makes a call, and returns when somebody has taken it. data, which it keeps, is the
// beginning of the request, at most exchange.FirstMax bytes, and with last all of it. size is
// how long the whole is, or -1.
func (d *Dialer) Open(ctx context.Context, service string, data []byte, last bool, size int64, how Calling) (*Conversation, error) {
	a := &attempt{d: d, how: how, request: exchange.Request{Service: service, By: how.By, Data: data, Last: last, Size: size}}
	if how.By == "" {
		a.request.By = d.by
	}
	return a.run(ctx)
}

// An attempt is a call that is not taken yet.
type attempt struct {
	d       *Dialer
	how     Calling
	request exchange.Request
	end     time.Time
	fails   int
	last    error // the last failure
}

func (a *attempt) run(ctx context.Context) (*Conversation, error) {
	fresh := a.how.Fresh
	for pause := againMin; ; pause = min(5*pause, againMax) {
		st, err := a.d.status(ctx, a.request.Service, fresh)
		if err != nil {
			return nil, err
		}
		if a.request.Timeout = a.how.Timeout; a.request.Timeout == 0 {
			a.request.Timeout = st.Service.Settings.Timeout
		}
		if a.end.IsZero() {
			a.end = time.Now().Add(a.request.Timeout)
		}
		list := a.d.order(st)
		switch {
		case len(list) > 0:
			c, busy, err := a.round(ctx, list)
			if c != nil || err != nil {
				return c, err
			}
			if fresh = true; busy {
				pause = againMin
				continue
			}
		case !fresh:
			fresh = true
			continue
		case len(st.Instances) == 0:
			return nil, fmt.Errorf("service %q: %w", a.request.Service, meta.Refused)
		default: // they are on their way to another machine
			a.fails++
			a.last = fmt.Errorf("service %q: who serves it cannot be reached: %w", a.request.Service, meta.HostDown)
		}
		if a.fails > st.Service.Settings.Retries || !time.Now().Before(a.end) {
			return nil, a.last
		}
		wait(ctx, pause)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// round asks one instance after the other whether it is free and, if all are busy, waits
// a while at one. It has neither a conversation nor an error if the call is to be tried
// again; busy says that it is not for a failure.
func (a *attempt) round(ctx context.Context, list []call.Instance) (c *Conversation, busy bool, err error) {
	var least call.Instance
	load := -1
	for _, in := range list[:min(len(list), probeMax)] {
		c, answer, err := a.ask(ctx, in, 0)
		switch {
		case c != nil || err != nil:
			return c, false, err
		case answer.What == exchange.Busy && (load < 0 || answer.Load < load):
			least, load = in, answer.Load
		}
	}
	if load < 0 {
		return nil, false, nil
	}
	if !time.Now().Before(a.end) {
		return nil, false, fmt.Errorf("service %q: everybody who serves it was busy for %v: %w", a.request.Service, a.request.Timeout, meta.TimedOut)
	}
	c, _, err = a.ask(ctx, least, queueWait)
	return c, true, err
}

// ask asks one instance. An error ends the call; without one, and without a conversation,
// it was not begun.
func (a *attempt) ask(ctx context.Context, in call.Instance, patience time.Duration) (*Conversation, exchange.Answer, error) {
	key := in.At + " " + in.Addr
	req := a.request
	req.Instance, req.Wait, req.Within = in.Number, patience, max(time.Until(a.end), time.Millisecond)
	for {
		line, used, err := a.d.line(ctx, key, in)
		if err != nil {
			if ctx.Err() != nil {
				return nil, exchange.Answer{}, context.Cause(ctx)
			}
			a.failed(in, err)
			return nil, exchange.Answer{}, nil
		}
		talk, answer, sent := line.Begin(ctx, req)
		switch {
		case answer.What == exchange.Taken:
			a.d.note(req.Service, in.Number, func(s *stat) {
				s.flying++
				s.fails, s.load, s.at = 0, answer.Load, time.Now()
			})
			return &Conversation{Call: talk, dialer: a.d, line: line, key: key, service: req.Service, number: in.Number}, answer, nil
		case !sent: // it broke while nobody used it
			line.Close()
			if used {
				continue
			}
			a.failed(in, answer.Err)
			return nil, answer, nil
		}
		a.d.put(key, line)
		switch answer.What {
		case exchange.Busy:
			a.d.note(req.Service, in.Number, func(s *stat) { s.load, s.at = answer.Load, time.Now() })
			return nil, answer, nil
		case exchange.Absent:
			a.failed(in, fmt.Errorf("service %q: %w", req.Service, answer.Err))
			return nil, answer, nil
		}
		if errors.Is(answer.Err, meta.HostDown) {
			a.failed(in, answer.Err)
		}
		return nil, answer, fmt.Errorf("service %q: %w", req.Service, answer.Err)
	}
}

// failed notes that an instance could not be given the call.
func (a *attempt) failed(in call.Instance, err error) {
	a.fails++
	a.last = err
	a.d.note(a.request.Service, in.Number, func(s *stat) {
		s.bad = time.Now().Add(min(passMin<<min(s.fails, 16), passMax))
		s.fails++
	})
}

// line returns a connection; used says that it was used before.
func (d *Dialer) line(ctx context.Context, key string, to call.Instance) (l *exchange.Line, used bool, err error) {
	d.mu.Lock()
	for list := d.lines[key]; len(list) > 0; {
		l = list[len(list)-1]
		list = list[:len(list)-1]
		if d.lines[key] = list; l.Alive() {
			d.mu.Unlock()
			return l, true, nil
		}
	}
	d.mu.Unlock()
	conn, err := d.ways.Open(ctx, to, false)
	if err != nil {
		return nil, false, err
	}
	return exchange.NewLine(conn), false, nil
}

// put keeps a connection for later.
func (d *Dialer) put(key string, l *exchange.Line) {
	d.mu.Lock()
	keep := !d.closed && len(d.lines[key]) < linesMax && l.Alive()
	if keep {
		d.lines[key] = append(d.lines[key], l)
	}
	d.mu.Unlock()
	if !keep {
		l.Close()
	}
}

// status describes a service as it is known here.
func (d *Dialer) status(ctx context.Context, service string, fresh bool) (call.Status, error) {
	d.mu.Lock()
	if k := d.known[service]; k != nil && !fresh && time.Since(k.since) < knownFor {
		defer d.mu.Unlock()
		return k.status, nil
	}
	d.mu.Unlock()
	asked := time.Now()
	st, err := d.Status(ctx, service)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		delete(d.known, service)
		return st, err
	}
	k := d.known[service]
	if k == nil {
		k = &known{stats: make(map[uint64]*stat)}
		d.known[service] = k
	}
	if k.status, k.since = st, asked; len(k.stats) > 2*len(st.Instances)+16 {
		for number := range k.stats {
			if _, is := st.Instance(number); !is {
				delete(k.stats, number)
			}
		}
	}
	return st, nil
}

// note changes what is known of how an instance does.
func (d *Dialer) note(service string, number uint64, change func(*stat)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.known[service]
	if k == nil {
		return
	}
	s := k.stats[number]
	if s == nil {
		s = new(stat)
		k.stats[number] = s
	}
	change(s)
}

// order returns the instances that can be called, the one to be tried first before the
// others. What failed lately comes last.
func (d *Dialer) order(st call.Status) []call.Instance {
	list := slices.DeleteFunc(slices.Clone(st.Instances), func(in call.Instance) bool { return in.At == "" })
	if len(list) < 2 {
		return list
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.known[st.Service.Name]
	if k == nil {
		return list
	}
	if st.Service.Settings.Balance == call.RoundRobin {
		k.turn++
		n := k.turn % len(list)
		list = append(list[n:len(list):len(list)], list[:n]...)
	} else {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	now := time.Now()
	rank := func(in call.Instance) (rank int) {
		s := k.stats[in.Number]
		switch {
		case s == nil:
			return 0
		case now.Before(s.bad):
			return 1 << 30
		case st.Service.Settings.Balance != call.LeastBusy:
			return 0
		}
		if rank = s.flying; now.Sub(s.at) < loadFor {
			rank = max(rank, s.load)
		}
		return rank
	}
	slices.SortStableFunc(list, func(a, b call.Instance) int { return rank(a) - rank(b) })
	return list
}

// Look says how many calls an instance has, and how many it was given so far.
func (d *Dialer) Look(ctx context.Context, service string, in call.Instance) (load, calls int, err error) {
	key := in.At + " " + in.Addr
	line, _, err := d.line(ctx, key, in)
	if err != nil {
		return 0, 0, err
	}
	defer d.put(key, line)
	_, answer, _ := line.Begin(ctx, exchange.Request{Service: service, Instance: in.Number, Size: -1, Last: true, Wait: -1, Timeout: attemptMax, Within: attemptMax})
	if answer.What != exchange.Busy {
		return 0, 0, answer.Err
	}
	return answer.Load, answer.Calls, nil
}
