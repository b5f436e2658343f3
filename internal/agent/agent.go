// Package agent runs the tasks of a machine: it offers what the machine has, claims
// what the service assigns to it (package meta/task), runs it (package internal/run), and
// reports what becomes of it. It knows nothing of what scheduling means, and holds nothing that a
// new agent could not begin without.
//
// # Under one session
//
// An Agent works under one session, and what it has claimed is the machine's while
// that lasts. So nothing runs beyond it: each task is given an hour when it is killed, the end of
// the session as far as it is certain, which every renewal puts off. A machine that
// cannot reach the service, or an agent that stands still, has ended its tasks by the time that
// the service gives them to another machine. When Run returns nothing runs any more.
//
// # In which order
//
// A task is claimed before it is started, and reported to have ended when no process
// of it is left and its output is stored. Reports are sent in order, many together;
// each is repeated until it is heard. A report that is refused says that the attempt is
// another's: then it is killed, and nothing more is said of it.
//
// # What goes through the mount
//
// A task starts in its directory of the tree, and its output is appended to files of the tree,
// both through the machine's mount. While that is away nothing is claimed, and what
// runs goes on: its output waits in its pipes, and with it the task when they are full.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/internal/boottime"
	"dos/internal/run"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/task"
)

// Config says what an Agent works with.
type Config struct {
	Offer   task.Offer // what the machine has, and its name
	Mount   string     // where the tree is mounted
	Host    *run.Host
	Tasks   client.Tasks // in the session
	Session meta.SessionID
	Left    func() time.Duration // for how long the session is certainly not over
	Key     string               // what no other agent on this machine has: some of each task's environment

	Look  func() error  // says why the mount is not there; nil: it is looked
	Grace time.Duration // that a task has to end after TERM, before it is killed; 10 s
	// OutputMax is how much of each of the two outputs of an attempt is kept, in bytes; 1 GiB: more than
	// anybody reads, and little enough that a flood does not fill the cluster.
	OutputMax int64
}

// An Agent is made by New and runs once.
type Agent struct {
	cfg     Config
	tree    *tree
	reports *reporter
	devices devices

	mu       sync.Mutex
	attempts map[uint64]*attempt // by token; guarded by mu
	closing  chan struct{}       // closed by Drain
	changed  chan struct{}       // has room for one: attempts has fewer
	drain    sync.Once
}

// New returns an Agent.
func New(c Config) *Agent {
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	if c.OutputMax == 0 {
		c.OutputMax = 1 << 30
	}
	return &Agent{
		cfg: c, tree: newTree(c.Mount, c.Look), reports: newReporter(c.Tasks), devices: newDevices(c.Offer.Have.Count),
		attempts: make(map[uint64]*attempt), closing: make(chan struct{}), changed: make(chan struct{}, 1),
	}
}

// Drain has the agent claim nothing more. Run returns when the last task has ended.
func (a *Agent) Drain() { a.drain.Do(func() { close(a.closing) }) }

// Tasks is how many tasks the agent has.
func (a *Agent) Tasks() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.attempts)
}

// errDrained ends what Run started when the last task has ended.
var errDrained = errors.New("drained")

// Run works until ctx ends, or Drain was called and nothing runs any more: then it
// returns nil. It returns meta.Expired when the session is over.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.reports.run(ctx) })
	g.Go(func() error { return a.tree.run(ctx) })
	g.Go(func() error { return a.offer(ctx) })
	g.Go(func() error { return a.extend(ctx) })
	g.Go(func() error { return a.follow(ctx, g) })
	g.Go(func() error { return a.awaitDrained(ctx) })
	err := g.Wait()
	if errors.Is(err, errDrained) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (a *Agent) awaitDrained(ctx context.Context) error {
	select {
	case <-a.closing:
	case <-ctx.Done():
		return nil
	}
	for a.Tasks() > 0 {
		select {
		case <-a.changed:
		case <-ctx.Done():
			return nil
		}
	}
	return errDrained
}

// again is the pause before something is asked of the service again.
const again = 200 * time.Millisecond

// insist does something until it succeeds, ctx ends, or it fails for good.
func insist(ctx context.Context, do func() error) error {
	for {
		err := do()
		var kind meta.Kind
		if err == nil || ctx.Err() != nil || errors.As(err, &kind) && kind != meta.Unavailable && kind != meta.TimedOut {
			return err
		}
		if pause(ctx, again) != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// offer says what the machine has, and whether more may begin.
func (a *Agent) offer(ctx context.Context) error {
	var said *string
	for {
		changed, why := a.tree.away()
		if (said == nil || *said != why) && why != unknown {
			offer := a.cfg.Offer
			offer.Closed = why
			if err := insist(ctx, func() error { return a.cfg.Tasks.Offer(ctx, offer) }); err != nil {
				return err
			}
			if why != "" {
				slog.Warn("agent: nothing begins here", "why", why)
			}
			said = &why
		}
		select {
		case <-changed:
		case <-a.closing:
			return insist(ctx, func() error { return a.cfg.Tasks.Withdraw(ctx, a.cfg.Offer.Node) })
		case <-ctx.Done():
			return nil
		}
	}
}

// extendEvery is how often it is looked whether the session was renewed: much more
// often than it is.
const extendEvery = 500 * time.Millisecond

// until is the hour at which the session may be over.
func (a *Agent) until() time.Duration { return boottime.Now() + a.cfg.Left() }

// extend puts off the hour of all that runs, as the session is renewed.
func (a *Agent) extend(ctx context.Context) error {
	tick := time.NewTicker(extendEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		until := a.until()
		for _, t := range a.list() {
			t.extend(until)
		}
	}
}

func (a *Agent) list() []*attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*attempt, 0, len(a.attempts))
	for _, t := range a.attempts {
		list = append(list, t)
	}
	return list
}

// follow begins what is assigned, and passes on what is ordered.
func (a *Agent) follow(ctx context.Context, g *errgroup.Group) error {
	var seen uint64
	for {
		var got task.Orders
		err := insist(ctx, func() (err error) {
			got, err = a.cfg.Tasks.Orders(ctx, a.cfg.Session, seen)
			return err
		})
		if err != nil {
			return err
		}
		seen = got.Version
		for _, one := range got.Attempts {
			a.mu.Lock()
			t := a.attempts[one.Token]
			known := t != nil
			if !known && !one.Claimed {
				t = newAttempt(a, one)
				a.attempts[one.Token] = t
			}
			a.mu.Unlock()
			switch {
			case known:
				t.order(one)
			case t != nil:
				g.Go(func() error { return a.attend(ctx, t) })
			}
		}
	}
}

// attend has one attempt from its claim to its end.
func (a *Agent) attend(ctx context.Context, t *attempt) error {
	defer func() {
		a.mu.Lock()
		delete(a.attempts, t.is.Token)
		a.mu.Unlock()
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}()
	err := t.run(ctx)
	switch {
	case err == nil || errors.Is(err, meta.Fenced) || ctx.Err() != nil:
		return nil
	case errors.Is(err, meta.Expired):
		return err
	}
	slog.Warn("agent: a task", "task", t.is.ID.String(), "err", err)
	return nil
}
