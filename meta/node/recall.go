package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/lease"
	"dos/meta/session"
	"dos/meta/state"
)

const (
	// recallWait is how long a request waits here for a lease before it is
	// answered with meta.Leased, and sent again by whoever wants to wait longer:
	// less than a client waits for one answer.
	recallWait = 5 * time.Second
	// recallMax is how long the holder of a lease may take to give it back before
	// its session is not renewed any more. It still believes in the session until
	// its time to live is over, and then that ends: together, with the usual time
	// to live of 15 s, less than anybody waits for an answer in all.
	recallMax = 12 * time.Second
	// recallEvery is how often waits are looked at when nothing else moves.
	recallEvery = 500 * time.Millisecond
)

// recalls are the leases that requests here wait for. They are not replicated:
// when another member leads, the requests come to it again.
type recalls struct {
	mu     sync.Mutex
	wants  map[hold]*want          // guarded by mu
	number uint64                  // of the last want; guarded by mu
	news   chan struct{}           // closed at the next want; guarded by mu
	late   map[meta.SessionID]bool // have had their time, as of the last look; guarded by mu
}

// refuses reports whether a renewal is of a session that does not give back what
// others wait for.
func (r *recalls) refuses(renewal state.Command) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.late) == 0 {
		return false
	}
	var req session.Ask
	return state.Unmarshal(renewal.Body, &req) == nil && r.late[req.ID]
}

// A hold is what a session has at most one lease of.
type hold struct {
	ino     meta.Ino
	session meta.SessionID
}

// A want is a lease that somebody waits for.
type want struct {
	held   lease.Held
	number uint64
	since  time.Duration // of Node.clock
	over   chan struct{} // closed when the holder does not hold it any more
}

// listen returns a channel that is closed at the next want.
func (r *recalls) listen() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.news == nil {
		r.news = make(chan struct{})
	}
	return r.news
}

// wanted returns the want of a lease, the one that is there or a new one.
func (r *recalls) wanted(held lease.Held, now time.Duration) *want {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := hold{held.Ino, held.Session}
	w := r.wants[key]
	if w != nil && w.held == held {
		return w
	}
	if w != nil { // it was given back, and taken again or turned into the other kind
		close(w.over)
	}
	if r.wants == nil {
		r.wants = make(map[hold]*want)
	}
	r.number++
	w = &want{held: held, number: r.number, since: now, over: make(chan struct{})}
	r.wants[key] = w
	if r.news != nil {
		close(r.news)
		r.news = nil
	}
	return w
}

// of lists what is wanted of a session after a number, and the number to go on from.
func (r *recalls) of(s meta.SessionID, after uint64) (inos []meta.Ino, last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	type numbered struct {
		ino    meta.Ino
		number uint64
	}
	var list []numbered
	for key, w := range r.wants {
		if key.session == s && w.number > after {
			list = append(list, numbered{key.ino, w.number})
		}
	}
	slices.SortFunc(list, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	last = after
	for _, n := range list[:min(len(list), lease.ListMax)] {
		inos, last = append(inos, n.ino), n.number
	}
	return inos, last
}

// settle ends the wants whose lease has gone, and returns the holders that have
// just had their time.
func (r *recalls) settle(holds func(lease.Held) bool, now time.Duration) (late []meta.SessionID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.late
	r.late = nil
	for key, w := range r.wants {
		switch s := key.session; {
		case !holds(w.held):
			close(w.over)
			delete(r.wants, key)
		case now-w.since > recallMax && !r.late[s]:
			if r.late == nil {
				r.late = make(map[meta.SessionID]bool)
			}
			r.late[s] = true
			if !was[s] {
				late = append(late, s)
			}
		}
	}
	return late
}

// clear forgets all wants: those who wait are to ask again elsewhere.
func (r *recalls) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late = nil
	for key, w := range r.wants {
		close(w.over)
		delete(r.wants, key)
	}
}

func (r *recalls) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.wants) == 0
}

// recall waits for the leases that a reply names, which are all asked for at once,
// and reports whether it is worth executing the request again.
func (n *Node) recall(ctx context.Context, reply state.Reply, until time.Duration) bool {
	var blocked lease.Blocked
	if state.Unmarshal(reply.Body, &blocked) != nil || len(blocked.By) == 0 {
		return false
	}
	var wants []*want
	for _, held := range blocked.By {
		wants = append(wants, n.recalls.wanted(held, n.clock()))
	}
	limit := time.NewTimer(until - n.clock())
	defer limit.Stop()
	for _, w := range wants {
		select {
		case <-w.over:
		case <-limit.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// wanted answers lease.OpWanted: it waits until a lease of the session is wanted.
func (n *Node) wanted(ctx context.Context, cmd state.Command) (state.Reply, error) {
	var req lease.Want
	if state.Unmarshal(cmd.Body, &req) != nil || cmd.Session == 0 {
		return state.Reply{Kind: meta.Invalid}, nil
	}
	// Who has lost the lead without knowing hears of nobody's wishes.
	if err := n.replica.View(ctx, func(state.Reader) error { return nil }); err != nil {
		return state.Reply{}, err
	}
	term, _ := n.replica.Leads()
	if req.Term != term {
		req = lease.Want{Term: term}
	}
	limit := time.NewTimer(recallWait)
	defer limit.Stop()
	tick := time.NewTicker(recallEvery)
	defer tick.Stop()
	for done := false; ; {
		news := n.recalls.listen() // before looking, so that nothing is missed
		inos, last := n.recalls.of(cmd.Session, req.After)
		if now, leads := n.replica.Leads(); !leads || now != term {
			return state.Reply{}, meta.Unavailable
		}
		if len(inos) > 0 || done {
			return state.Reply{Body: state.Marshal(lease.Wanted{Term: term, After: last, Inos: inos})}, nil
		}
		select {
		case <-news:
		case <-tick.C:
		case <-limit.C:
			done = true
		case <-ctx.Done():
			return state.Reply{}, context.Cause(ctx)
		}
	}
}

// watchLeases ends waits for leases when these are free, and sees to it that the
// sessions end that do not give theirs back.
func (n *Node) watchLeases(ctx context.Context) {
	tick := time.NewTicker(recallEvery)
	defer tick.Stop()
	for {
		news, moved := n.recalls.listen(), n.replica.Moved()
		if n.recalls.empty() {
			moved = nil
		} else {
			n.settleLeases(ctx)
		}
		select {
		case <-news:
		case <-moved:
		case <-tick.C:
		case <-ctx.Done():
			n.recalls.clear()
			return
		}
	}
}

func (n *Node) settleLeases(ctx context.Context) {
	if _, leads := n.replica.Leads(); !leads {
		n.recalls.clear()
		return
	}
	var late []meta.SessionID
	if err := n.replica.Local(func(r state.Reader) error {
		late = n.recalls.settle(func(held lease.Held) bool { return lease.Holds(r, held) }, n.clock())
		return nil
	}); err != nil {
		return // it stops
	}
	for _, id := range late {
		n.log.Warn("meta: a session does not give a lease back and is not renewed any more", "session", id)
	}
}
