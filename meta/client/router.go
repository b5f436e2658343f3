package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/queue"
	"dos/meta/session"
	"dos/meta/state"
)

// attemptHeld bounds the wait for one answer of who holds a queue, after which it is
// asked who does now: longer than an answer is held back.
const attemptHeld = 4 * time.Second

// Holders are the ways to the processes that hold queues in memory.
type Holders interface {
	// Holder returns the way to one. It does not connect yet.
	Holder(queue.Holder) (Sender, error)
}

// A Router is a Stay whose requests about the messages of queues in memory go to those
// who hold them. Who that is it asks the metadata service, once for each queue and
// again when it is another.
type Router struct {
	Stay
	holders Holders

	mu     sync.Mutex
	routes map[string]*route // by name; guarded by mu
	byID   map[uint64]*route // the same by number; guarded by mu
}

// NewRouter returns a Router for the session of a Stay.
func NewRouter(s Stay, h Holders) *Router {
	return &Router{Stay: s, holders: h, routes: make(map[string]*route), byID: make(map[uint64]*route)}
}

// A route leads to the holders of a queue. What it sends is executed once, for as long
// as the queue has not begun anew.
type route struct {
	router *Router
	name   string
	queue  uint64
	begun  uint64

	mu     sync.Mutex
	home   queue.Home // guarded by mu, as all below
	stale  bool       // it may be another by now
	remote *Remote    // of the session
}

// Call is Caller's.
func (r *Router) Call(ctx context.Context, op state.Op, req, resp any) error {
	name, id, ok := queue.About(op, req)
	if !ok {
		return r.Stay.Call(ctx, op, req, resp)
	}
	for again := true; ; again = false {
		to := r.known(name, id)
		if to == nil {
			done, err := r.first(ctx, op, name, req, resp)
			if done {
				return err
			}
			if to, err = r.find(ctx, name, id); err != nil {
				return err
			}
			if to == nil { // it became durable just now
				return r.Stay.Call(ctx, op, req, resp)
			}
		}
		err := to.call(ctx, op, req, resp)
		if err == nil || !again || !errors.Is(err, meta.Lost) && !errors.Is(err, meta.NotExist) {
			return err
		}
		// The queue began anew, or is another of that name, or is no more.
		home, e := r.whose(ctx, to.name, to.queue)
		if e == nil && home.Queue == to.queue && home.Begun == to.begun {
			return err
		}
		r.drop(to)
	}
}

// first asks the metadata service, if it is to be asked first: of a queue in memory it
// knows no more than what it is. done is false if the holder is to be asked.
func (r *Router) first(ctx context.Context, op state.Op, name string, req, resp any) (done bool, err error) {
	switch op {
	case queue.OpAwait, queue.OpRoom: // their queue was asked for something before
		return true, r.Stay.Call(ctx, op, req, resp)
	case queue.OpSet:
		if set, is := req.(queue.Set); is && set.Memory != nil && *set.Memory {
			return true, r.Stay.Call(ctx, op, req, resp)
		}
		fallthrough
	case queue.OpRemove, queue.OpMakeGroup, queue.OpRemoveGroup:
		home, err := r.whose(ctx, name, 0)
		if err == nil && home.Epoch != 0 {
			return false, nil
		}
		return true, r.Stay.Call(ctx, op, req, resp)
	}
	err = r.Stay.Call(ctx, op, req, resp)
	if st, is := resp.(*queue.Status); is && err == nil {
		return !st.Settings.Memory, nil
	}
	if !errors.Is(err, meta.Unsupported) {
		return true, err
	}
	home, e := r.whose(ctx, name, 0)
	return e != nil || home.Epoch == 0, err
}

func (r *Router) whose(ctx context.Context, name string, id uint64) (home queue.Home, err error) {
	err = r.Stay.Call(ctx, queue.OpWhose, queue.Whose{Name: name, Queue: id}, &home)
	return home, err
}

func (r *Router) known(name string, id uint64) *route {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == "" {
		return r.byID[id]
	}
	return r.routes[name]
}

// find makes a route to a queue; nil if it is durable.
func (r *Router) find(ctx context.Context, name string, id uint64) (*route, error) {
	home, err := r.whose(ctx, name, id)
	if err != nil || home.Epoch == 0 {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if to := r.routes[home.Name]; to != nil && to.queue == home.Queue && to.begun == home.Begun {
		return to, nil
	}
	to := &route{router: r, name: home.Name, queue: home.Queue, begun: home.Begun, home: home}
	r.routes[to.name], r.byID[to.queue] = to, to
	return to, nil
}

func (r *Router) drop(to *route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.routes[to.name] == to {
		delete(r.routes, to.name)
	}
	if r.byID[to.queue] == to {
		delete(r.byID, to.queue)
	}
}

func (to *route) call(ctx context.Context, op state.Op, req, resp any) error {
	id := to.router.Session()
	to.mu.Lock()
	if to.remote == nil || to.remote.Session() != id {
		to.remote = NewRemote(to, id)
	}
	remote := to.remote
	to.mu.Unlock()
	return remote.Call(ctx, op, req, resp)
}

// Do is Sender's: it asks who holds the queue if that may have changed.
func (to *route) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	to.mu.Lock()
	home, stale := to.home, to.stale
	to.mu.Unlock()
	if stale {
		var err error
		if home, err = to.router.whose(ctx, "", to.queue); err != nil {
			return state.Reply{}, err
		}
		to.mu.Lock()
		to.home, to.stale = home, false
		to.mu.Unlock()
	}
	if home.Begun != to.begun {
		return state.Reply{}, fmt.Errorf("what queue %q had: %w", to.name, meta.Lost)
	}
	holder, err := to.router.holders.Holder(home.Primary)
	var reply state.Reply
	if err == nil && home.Primary.Session == 0 {
		err = fmt.Errorf("no machine holds queue %q: %w", to.name, meta.Unavailable)
	}
	if err == nil {
		if cmd.Op == session.OpAdvance { // nothing, in the place of what was lost
			cmd.Op, cmd.Body = queue.OpLeave, state.Marshal(queue.Leave{Name: to.name})
		}
		attempt, cancel := context.WithTimeout(ctx, attemptHeld)
		reply, err = holder.Do(attempt, cmd)
		cancel()
	}
	if err != nil && !refused(err) {
		to.mu.Lock()
		to.stale = true
		to.mu.Unlock()
	}
	return reply, err
}
