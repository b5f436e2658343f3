package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/meta"
	"dos/meta/call"
	"dos/meta/exchange"
)

const (
	// lingerTime is how long an instance outlives the last of those who waited for its
	// calls: a shell that serves one call after the other is gone in between. It cannot come
	// back while the metadata service does not answer, as in an election; from when that does
	// it has lingerMore.
	lingerTime = time.Second
	lingerMore = lingerTime / 2
	// The pause before an instance looks for an exchange again, doubling.
	whereMin = 20 * time.Millisecond
	whereMax = time.Second
)

// A Server serves calls, as long as it Runs: in Go, by
//
//	err := server.Serve(ctx, "upper", client.Who{}, 8, func(ctx context.Context, in *exchange.Incoming) error {
//		request, err := in.ReadAll(ctx, 1<<20)
//		if err != nil {
//			return err
//		}
//		return in.Reply(ctx, bytes.ToUpper(request))
//	})
//
// or one call at a time, by Next. Its instances are of the session of the moment. Its
// methods may be called concurrently, Run once.
type Server struct {
	stay Stay
	ways Exchanges
	node string

	mu        sync.Mutex
	shared    map[string]*serving   // those of Next, by service and user; guarded by mu
	instances map[*serving]struct{} // all; guarded by mu
	over      bool                  // guarded by mu
	running   sync.WaitGroup
}

// NewServer returns a Server. node names the machine for people.
func NewServer(s Stay, ways Exchanges, node string) *Server {
	return &Server{stay: s, ways: ways, node: node, shared: make(map[string]*serving), instances: make(map[*serving]struct{})}
}

// A serving is an instance of this process.
type serving struct {
	server  *Server
	service string
	spec    call.Instance
	stop    context.CancelFunc
	reach   func() // returns when the metadata service has answered, or the instance is stopped

	// Its own: of run.
	session meta.SessionID
	number  uint64 // in that session; 0: none yet

	mu      sync.Mutex
	place   call.Instance // where it waits; At is empty while it waits nowhere; guarded by mu, as the next
	err     error         // why it cannot be
	changed chan struct{} // closed when one of these is another
	anchor  exchange.Conn // its anchor; nil while there is none

	users  int         // guarded by Server.mu, as the next
	linger *time.Timer // runs while there are none
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.over = true
	for in := range s.instances {
		in.stop()
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// Fenced is called when the session is over: the instances begin anew in the next one.
func (s *Server) Fenced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for in := range s.instances {
		in.mu.Lock()
		if in.anchor != nil {
			in.anchor.Close()
		}
		in.mu.Unlock()
	}
}

// begin makes an instance. s.mu is held.
func (s *Server) begin(service string, who Who) (*serving, error) {
	if s.over {
		return nil, fmt.Errorf("service %q: the server has ended: %w", service, meta.Unavailable)
	}
	if who.Node == "" {
		who.Node = s.node
	}
	ctx, cancel := context.WithCancel(context.Background())
	in := &serving{
		server: s, service: service, stop: cancel, changed: make(chan struct{}),
		spec:  call.Instance{Node: short(who.Node), UID: who.UID, PID: who.PID, Target: short(who.Target)},
		reach: func() { _, _ = RPC{s.stay}.Status(ctx, service) }, // whatever it says
	}
	s.instances[in] = struct{}{}
	s.running.Go(func() { in.run(ctx) })
	return in, nil
}

// end ends an instance.
func (s *Server) end(in *serving) {
	s.mu.Lock()
	delete(s.instances, in)
	s.mu.Unlock()
	in.stop()
}

// run has the instance wait at one exchange after the other.
func (in *serving) run(ctx context.Context) {
	not := ""
	for pause := whereMin; ctx.Err() == nil; {
		began := time.Now()
		at, err := in.wait(ctx, not)
		if ctx.Err() != nil {
			break
		}
		var kind meta.Kind
		if errors.As(err, &kind) && kind != meta.Unavailable && kind != meta.TimedOut && kind != meta.HostDown && kind != meta.Expired && kind != meta.Refused {
			in.set(func() { in.err = err })
			break
		}
		if not = at; time.Since(began) > whereMax {
			pause = whereMin
		}
		wait(ctx, pause)
		pause = min(2*pause, whereMax)
	}
	in.set(func() {
		if in.place = (call.Instance{}); in.err == nil {
			in.err = fmt.Errorf("service %q is not served here any more: %w", in.service, meta.Unavailable)
		}
	})
	if in.number != 0 && in.session == in.server.stay.Session() {
		leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptMax)
		defer cancel()
		_ = in.server.stay.Call(leave, call.OpLeave, call.Leave{Number: in.number}, nil) // else it goes with the session
	}
}

func (in *serving) set(change func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	change()
	close(in.changed)
	in.changed = make(chan struct{})
}

// join says where the instance waits, in the session of the moment.
func (in *serving) join(ctx context.Context, at call.Instance) (call.Instance, error) {
	s := in.server
	if now := s.stay.Session(); now != in.session {
		in.session, in.number = now, 0
	}
	at.Number = in.number
	var joined call.Joined
	if err := s.stay.Call(ctx, call.OpJoin, call.Join{Name: in.service, Instance: at}, &joined); err != nil {
		return at, err
	}
	in.number = joined.Number
	at.Number = joined.Number
	return at, nil
}

// wait has the instance wait at an exchange, as long as that is there. It is in the
// registry before it is at the exchange, and only then says where: nobody is sent to
// where it is not.
func (in *serving) wait(ctx context.Context, not string) (at string, err error) {
	s := in.server
	if err := s.stay.Trust(ctx); err != nil {
		return "", err
	}
	place := in.spec
	if in.number == 0 || in.session != s.stay.Session() {
		if place, err = in.join(ctx, place); err != nil {
			return "", err
		}
	}
	place.Number = in.number
	if place.At, place.Addr, err = s.ways.Where(ctx, not); err != nil {
		return "", err
	}
	conn, err := s.ways.Open(ctx, place, true)
	if err != nil {
		return place.At, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, conn.Close)()
	if err := exchange.Anchor(conn, in.service, in.number); err != nil {
		return place.At, err
	}
	session := in.session
	if place, err = in.join(ctx, place); err != nil || in.session != session {
		return place.At, err
	}
	in.set(func() { in.place, in.anchor = place, conn })
	defer in.set(func() { in.place, in.anchor = call.Instance{}, nil })
	for err == nil {
		_, err = conn.Recv()
	}
	return place.At, fmt.Errorf("%w: %v", meta.HostDown, err)
}

// at returns where the instance waits, when it does.
func (in *serving) at(ctx context.Context) (call.Instance, error) {
	for {
		in.mu.Lock()
		place, err, changed := in.place, in.err, in.changed
		in.mu.Unlock()
		if err != nil || place.At != "" {
			return place, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return call.Instance{}, context.Cause(ctx)
		}
	}
}

// post waits for calls where the instance does.
func (in *serving) post(ctx context.Context, wait bool) (*exchange.Post, error) {
	place, err := in.at(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := in.server.ways.Open(ctx, place, true)
	if err != nil {
		return nil, err
	}
	return exchange.NewPost(conn, in.service, place.Number, wait)
}

// elsewhere reports whether an instance may find calls at another exchange.
func elsewhere(err error) bool {
	return errors.Is(err, meta.HostDown) || errors.Is(err, meta.Refused)
}

// A Served is a call that Next returned. It ends with Done.
type Served struct {
	*exchange.Incoming
	post *exchange.Post
	in   *serving
}

// Next waits for one call of a service, unless wait is false: then it is
// meta.WouldWait if there is none. Whoever waits for the next one within a second was
// there all the time.
func (s *Server) Next(ctx context.Context, service string, who Who, wait bool) (*Served, error) {
	in, err := s.use(service, who)
	if err != nil {
		return nil, err
	}
	for pause := whereMin; ; pause = min(2*pause, whereMax) {
		post, err := in.post(ctx, wait)
		var incoming *exchange.Incoming
		if err == nil {
			if incoming, err = post.Next(ctx); err == nil {
				return &Served{incoming, post, in}, nil
			}
			post.Leave()
		}
		if ctx.Err() != nil || !elsewhere(err) {
			s.unuse(in, ctx.Err() == nil && !errors.Is(err, meta.WouldWait))
			return nil, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// Done ends a call that was replied to, or failed or was given back. killed says that
// who served it will not be back.
func (s *Served) Done(killed bool) {
	s.post.Leave()
	s.in.server.unuse(s.in, killed)
}

// use returns the instance of Next of a service and a user.
func (s *Server) use(service string, who Who) (*serving, error) {
	key := fmt.Sprintf("%d %s", who.UID, service)
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.shared[key]
	if in == nil || in.failed() {
		var err error
		if in, err = s.begin(service, who); err != nil {
			return nil, err
		}
		s.shared[key] = in
	}
	if in.linger != nil {
		in.linger.Stop()
		in.linger = nil
	}
	in.users++
	return in, nil
}

func (in *serving) failed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.err != nil
}

// unuse lets an instance go, at once or after a while.
func (s *Server) unuse(in *serving, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.users--; in.users > 0 {
		return
	}
	drop := func() {
		for key, one := range s.shared {
			if one == in {
				delete(s.shared, key)
			}
		}
		delete(s.instances, in)
		in.stop()
	}
	if now {
		drop()
		return
	}
	// then does something if nobody has come until after a while.
	then := func(after time.Duration, do func()) {
		var timer *time.Timer
		timer = time.AfterFunc(after, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if in.linger == timer && !s.over {
				do()
			}
		})
		in.linger = timer
	}
	then(lingerTime, func() {
		asked := in.linger
		s.running.Go(func() {
			in.reach()
			s.mu.Lock()
			defer s.mu.Unlock()
			if in.linger == asked && !s.over {
				then(lingerMore, drop)
			}
		})
	})
}

// A Handler does a call. What it returns is why there is no reply; nil is for a call
// that was replied to, or given back.
type Handler func(ctx context.Context, in *exchange.Incoming) error

// Serve serves a service with up to n calls at a time, until ctx ends.
func (s *Server) Serve(ctx context.Context, service string, who Who, n int, do Handler) error {
	started, err := s.Start(ctx, service, who, n, do)
	if err != nil {
		return ended(ctx, err)
	}
	defer context.AfterFunc(ctx, started.cancel)()
	err = started.g.Wait()
	s.end(started.in)
	return ended(ctx, err)
}

// A Started is a service that is served until it is stopped.
type Started struct {
	in     *serving
	cancel context.CancelFunc
	g      *errgroup.Group
}

// Start is Serve that returns when calls can come; ctx bounds how long that takes.
func (s *Server) Start(ctx context.Context, service string, who Who, n int, do Handler) (*Started, error) {
	s.mu.Lock()
	in, err := s.begin(service, who)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if _, err := in.at(ctx); err != nil {
		s.end(in)
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g, life := errgroup.WithContext(life)
	for range n {
		g.Go(func() error { return ended(life, in.serve(life, do)) })
	}
	return &Started{in, cancel, g}, nil
}

// Stop stops it. Calls under way fail.
func (s *Started) Stop() {
	s.in.server.end(s.in)
	s.cancel()
	_ = s.g.Wait() // that it could not go on is over too
}

// ended is no error if ctx is why.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serve does one call after the other.
func (in *serving) serve(ctx context.Context, do Handler) error {
	for {
		post, err := in.post(ctx, true)
		for err == nil {
			var incoming *exchange.Incoming
			if incoming, err = post.Next(ctx); err != nil {
				post.Leave()
				break
			}
			if failure := do(ctx, incoming); failure != nil {
				_ = incoming.Fail(failure) // nothing, if it was replied to
			} else if !incoming.Over() {
				_ = incoming.Fail(fmt.Errorf("there was no reply: %w", meta.Protocol))
			}
		}
		if ctx.Err() != nil || !elsewhere(err) {
			return err
		}
		wait(ctx, whereMin)
	}
}
