package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/cache"
)

const (
	// openWait bounds the making of a link.
	openWait = 2 * time.Second
	// silence is how long what was asked may be without an answer before the other end
	// counts as lost for reads. It is looked at every silence/4.
	silence = time.Second
	// queueMax is how many requests wait to be sent on one link.
	queueMax = 1024
)

var (
	// errNotSent says that a request did not go out.
	errNotSent = fmt.Errorf("not sent: %w", meta.Unavailable)
	// errSilent says that a read got no answer in time.
	errSilent = fmt.Errorf("no answer: %w", meta.HostDown)
)

// A link is a stream to one Holder. What is asked while it sends is sent in one frame.
type link struct {
	stream *rpc.Stream
	cancel context.CancelFunc
	out    chan *call
	dead   chan struct{} // closed when it is over
	ended  sync.WaitGroup

	mu    sync.Mutex
	calls map[uint64]*call // that were not answered; guarded by mu, as all below
	next  uint64
	err   error // why it is over
}

// A call is one request on its way.
type call struct {
	req  *request
	done chan struct{} // has room for one
	ans  answer
	err  error
	at   time.Time // when it was asked
	sent bool      // guarded by the link's mu
}

// openLink opens a stream of a holder.
func openLink(ctx context.Context, line Line, name string) (*link, error) {
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel) // until it is open
	late := time.AfterFunc(openWait, cancel)
	s, err := line.Open(running, serviceName, name)
	late.Stop()
	stop()
	if err != nil {
		cancel()
		return nil, err
	}
	l := &link{stream: s, cancel: cancel, out: make(chan *call, queueMax), dead: make(chan struct{}), calls: make(map[uint64]*call)}
	l.ended.Go(l.send)
	l.ended.Go(l.receive)
	l.ended.Go(l.watch)
	return l, nil
}

// do asks and waits for the answer. errNotSent says that it did not go out; with any
// other error it may have been executed.
func (l *link) do(ctx context.Context, req *request) (answer, error) {
	c := &call{req: req, done: make(chan struct{}, 1), at: time.Now()}
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return answer{}, errNotSent
	}
	l.next++
	number := l.next
	l.calls[number] = c
	l.mu.Unlock()
	req.Number = number
	select {
	case l.out <- c:
	case <-ctx.Done():
		return answer{}, l.giveUp(number, context.Cause(ctx))
	case <-l.dead:
	}
	select {
	case <-c.done:
		return c.ans, c.err
	case <-ctx.Done():
		return answer{}, l.giveUp(number, context.Cause(ctx))
	}
}

// giveUp forgets a call. What is not sent by now is not sent any more.
func (l *link) giveUp(number uint64, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.calls[number]
	delete(l.calls, number)
	if c != nil && !c.sent {
		return errNotSent
	}
	return err
}

// send sends what is asked, as much as there is at a time.
func (l *link) send() {
	for {
		var first *call
		select {
		case first = <-l.out:
		case <-l.dead:
			return
		}
		var list []*request
		size := 0
		take := func(c *call) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.calls[c.req.Number] == c {
				c.sent = true
				list = append(list, c.req)
				size += len(c.req.Value)
			}
		}
		take(first)
	more:
		for len(list) < frameMax && size < frameBytes {
			select {
			case c := <-l.out:
				take(c)
			default:
				break more
			}
		}
		if len(list) == 0 {
			continue
		}
		if err := l.stream.Send(encode(list)); err != nil {
			l.end(err)
			return
		}
	}
}

func (l *link) receive() {
	for {
		var f rpc.Frame
		if err := l.stream.Recv(&f); err != nil {
			l.end(err)
			return
		}
		list, err := decode[answer](&f)
		if err != nil {
			l.end(err)
			return
		}
		var given []uint64
		l.mu.Lock()
		for _, a := range list {
			c := l.calls[a.Number]
			switch {
			case c != nil:
				delete(l.calls, a.Number)
				c.ans = a
				c.done <- struct{}{}
			case a.Fill != 0: // who wanted to fill has given up
				given = append(given, a.Fill)
			}
		}
		l.mu.Unlock()
		for _, n := range given {
			l.ended.Go(func() { _, _ = l.do(context.Background(), &request{Op: opAbandon, Fill: n}) }) // ends with the link
		}
	}
}

// watch has reads fail that are not answered in time.
func (l *link) watch() {
	tick := time.NewTicker(silence / 4)
	defer tick.Stop()
	for {
		select {
		case <-l.dead:
			return
		case now := <-tick.C:
			l.mu.Lock()
			for number, c := range l.calls {
				if c.req.Op.stream() == streamRead && now.Sub(c.at) > silence {
					delete(l.calls, number)
					c.err = errSilent
					c.done <- struct{}{}
				}
			}
			l.mu.Unlock()
		}
	}
}

// end fails all that is not answered.
func (l *link) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	for _, c := range l.calls {
		if c.err = errNotSent; c.sent {
			c.err = fmt.Errorf("%w: %w", meta.Unavailable, err)
		}
		c.done <- struct{}{}
	}
	clear(l.calls)
	close(l.dead)
	l.cancel()
}

func (l *link) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil
}

func (l *link) close() {
	l.end(errors.New("closed"))
	l.ended.Wait()
}

// peers are the links to the members.
type peers struct {
	lines Lines
	relay func(context.Context, []byte) ([]byte, error) // nil: it asks by links

	mu     sync.Mutex
	links  map[linkKey]*link // guarded by mu, as all below
	making map[linkKey]chan struct{}
	silent map[meta.SessionID]time.Time // who answered no read: until when none is sent
	behind map[behindKey]bool           // whose copies may be old
	closed bool
}

type linkKey struct {
	session meta.SessionID
	stream  string
}

type behindKey struct {
	session meta.SessionID
	fresh   uint64
}

func newPeers(l Lines) *peers {
	return &peers{
		lines: l, links: make(map[linkKey]*link), making: make(map[linkKey]chan struct{}),
		silent: make(map[meta.SessionID]time.Time), behind: make(map[behindKey]bool),
	}
}

// do has a member execute a request. errNotSent says that it did not go out.
func (p *peers) do(ctx context.Context, m cache.Member, req *request) (answer, error) {
	if p.relay != nil {
		return p.relayTo(ctx, m, req)
	}
	read := req.Op.stream() == streamRead
	if read && p.isSilent(m.Session) {
		return answer{}, errSilent
	}
	l, err := p.link(ctx, m, req.Op.stream())
	if err == nil {
		var a answer
		a, err = l.do(ctx, req)
		if err == nil {
			return a, nil
		}
	}
	if read && ctx.Err() == nil {
		p.setSilent(m.Session)
	}
	return answer{}, err
}

// link returns the link to a member, or makes one.
func (p *peers) link(ctx context.Context, m cache.Member, name string) (*link, error) {
	key := linkKey{m.Session, name}
	for {
		p.mu.Lock()
		if p.closed || p.lines == nil {
			p.mu.Unlock()
			return nil, errNotSent
		}
		if l := p.links[key]; l != nil && !l.over() {
			p.mu.Unlock()
			return l, nil
		}
		making := p.making[key]
		if making == nil {
			making = make(chan struct{})
			p.making[key] = making
			p.mu.Unlock()
			return p.open(ctx, m, key, making)
		}
		p.mu.Unlock()
		select {
		case <-making:
		case <-ctx.Done():
			return nil, errNotSent
		}
	}
}

func (p *peers) open(ctx context.Context, m cache.Member, key linkKey, making chan struct{}) (*link, error) {
	line, err := p.lines.Line(m)
	var l *link
	if err == nil {
		l, err = openLink(ctx, line, key.stream)
	}
	p.mu.Lock()
	delete(p.making, key)
	old := p.links[key]
	closed := p.closed
	if err == nil && !closed {
		p.links[key] = l
	}
	p.mu.Unlock()
	close(making)
	if old != nil {
		old.close()
	}
	if err == nil && closed {
		l.close()
		err = errNotSent
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	return l, nil
}

// keep closes the links to those who are no members any more.
func (p *peers) keep(members map[meta.SessionID]cache.Member) {
	var gone []*link
	p.mu.Lock()
	for key, l := range p.links {
		if _, is := members[key.session]; !is {
			gone = append(gone, l)
			delete(p.links, key)
		}
	}
	for s := range p.silent {
		if _, is := members[s]; !is {
			delete(p.silent, s)
		}
	}
	for b := range p.behind {
		if m, is := members[b.session]; !is || m.Fresh != b.fresh {
			delete(p.behind, b)
		}
	}
	p.mu.Unlock()
	for _, l := range gone {
		l.close()
	}
}

func (p *peers) close() {
	p.mu.Lock()
	links := p.links
	p.links, p.closed = nil, true
	p.mu.Unlock()
	for _, l := range links {
		l.close()
	}
}

func (p *peers) isSilent(s meta.SessionID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, is := p.silent[s]
	return is && time.Now().Before(until)
}

// setSilent has no reads sent for a while: they would wait for nothing. Then one tries.
func (p *peers) setSilent(s meta.SessionID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent[s] = time.Now().Add(silence)
}

func (p *peers) isBehind(m cache.Member) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.behind[behindKey{m.Session, m.Fresh}]
}

func (p *peers) setBehind(m cache.Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behind[behindKey{m.Session, m.Fresh}] = true
}
