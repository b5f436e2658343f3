// Package memory holds queues whose messages are in the memory of two machines. A
// Holder is one process's part: of some queues it is the primary, which executes what
// is asked of them, of others the backup, which does the same a moment later. Each
// queue is a state of its own (package state) with the commands of package queue, so
// it does what a durable queue does. No disk and no Raft is on the way of a message.
//
// Who holds a queue is its home in the replicated state (queue.Home), and only a
// command changes that, each time with another epoch. What keeps two from answering:
//
//   - A command is answered when the backup has it too. The primary sends what it
//     executed, many commands in one frame if they come while one is on its way, and
//     the backup answers how far it is.
//   - A backup that has heard nothing for takeOver takes no frame any more, and then
//     has itself made the primary. A primary that hears nothing for alone has the
//     backup left out. Both commands are conditional on the epoch: one of them loses,
//     and gives up what it has.
//   - Questions change nothing, so the backup need not hear of them. The primary
//     answers one while an answer of the backup is younger than leaseTime, and a new
//     primary answers nothing until the backup that it was has heard nothing for
//     longer than that.
//   - A primary without a backup answers as long as its own session is certainly not
//     over: with that it loses the queue.
//
// A primary without a backup looks for one among the other holders, gives it all that
// there is, and has it made the backup. So the loss of one machine loses nothing, and
// when another has taken its place the next one may go. What is lost with both begins
// anew, empty, and its home counts it.
//
// What is asked of a queue beyond its messages (settings, groups, removing it) the
// primary asks of the replicated state, with the queue standing still, when what is in
// the queue allows it.
//
// The service dos.memory.follow has one stream, Follow, from a primary to a backup: a
// hello, answered by how far the backup is; if the backup is to be made one, all rows,
// in frames of some; then commands, or none as a sign of life, each frame answered.
package memory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"dos/internal/boottime"
	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/queue"
	"dos/meta/session"
	"dos/meta/state"
)

const (
	// beat is the pause between two signs of life of a primary.
	beat = 250 * time.Millisecond
	// leaseTime is how long a sign of life is worth, counted from before it was sent.
	leaseTime = time.Second
	// leaseWait is more than that by what clocks may differ.
	leaseWait = 1200 * time.Millisecond
	// alone is after what silence of its backup a primary goes on without it, and
	// takeOver after what silence of the primary the backup does: long enough for a busy
	// machine, short enough that who pushes only waits.
	alone    = 2 * time.Second
	takeOver = 2500 * time.Millisecond
	// lookEvery is how often it is looked at what is due.
	lookEvery = 50 * time.Millisecond
	// askEvery is how often it is asked which sessions there are, and how often a
	// primary looks for a backup.
	askEvery = time.Second
	// callWait bounds a call of the metadata service. A queue that stands still for it
	// does so no longer.
	callWait = 5 * time.Second
	// homesMax bounds the homes in one answer.
	homesMax = 256
	// DefaultMax bounds what a Holder has, in bytes as it counts them.
	DefaultMax = 256 << 20
	// overMax bounds the sessions that are known to be over. Of one that is forgotten
	// the metadata service knows, which is asked whose it is.
	overMax = 1 << 14
	// rowSize is what a row needs beside its key and its value.
	rowSize = 128
)

// A Caller executes one operation of the metadata service (client.Caller).
type Caller interface {
	Call(ctx context.Context, op state.Op, req, resp any) error
}

// A Line is the way to the process of another Holder (rpc.Client).
type Line interface {
	Open(ctx context.Context, service, method string) (*rpc.Stream, error)
}

// Config says what a Holder works with. All of it is required but what says otherwise.
type Config struct {
	Session    meta.SessionID
	Node, Addr string // the machine's
	// Meta makes calls of the session.
	Meta Caller
	// Valid reports whether the session is certainly not over.
	Valid func() bool
	// Line returns the way to another; nil if there are no others.
	Line func(queue.Holder) (Line, error)
	// Max bounds what is held, until Limit does; DefaultMax.
	Max int64
	Log *slog.Logger // slog.Default()
}

// A Holder holds queues for one session. Its methods may be called concurrently, Run
// once.
type Holder struct {
	cfg     Config
	machine *state.Machine
	size    atomic.Int64 // of all units, in bytes
	max     atomic.Int64 // of size
	spawn   chan func(context.Context)

	mu     sync.Mutex
	units  map[uint64]*unit        // by the queue's number; guarded by mu, as all below
	had    map[uint64]uint64       // of queues that were held: their Begun
	others []queue.Holder          // all holders, as they were heard of last
	over   map[meta.SessionID]bool // sessions that had something and are over
}

// New returns a Holder that holds nothing yet.
func New(c Config) *Holder {
	if c.Max == 0 {
		c.Max = DefaultMax
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	h := &Holder{
		cfg: c, machine: machine(), spawn: make(chan func(context.Context)),
		units: make(map[uint64]*unit), had: make(map[uint64]uint64), over: make(map[meta.SessionID]bool),
	}
	h.max.Store(c.Max)
	return h
}

// Limit says how much may be held from now on, in bytes, and returns how much is. What is
// over it stays until it is taken.
func (h *Holder) Limit(max int64) (held int64) {
	h.max.Store(max)
	return h.size.Load()
}

// machine has the commands of a queue in memory.
func machine() *state.Machine {
	m := new(state.Machine)
	queue.Room{Memory: true}.Register(m)
	state.Handle(m, session.OpEnd, "session.end", func(tx *state.Tx, req session.End) (session.Ended, error) {
		_, more := queue.Release(tx, req.ID, session.EndMax)
		if !more {
			state.ForgetSlots(tx, req.ID)
		}
		return session.Ended{More: more}, nil
	})
	return m
}

// Run holds queues until ctx ends.
func (h *Holder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { h.keepHomes(ctx) })
	wg.Go(func() { repeat(ctx, lookEvery, func() { h.each(func(u *unit) { u.look(ctx) }) }) })
	wg.Go(func() {
		repeat(ctx, askEvery, func() {
			h.askSessions(ctx)
			h.each(func(u *unit) { u.seek(ctx) })
		})
	})
	for {
		select {
		case do := <-h.spawn:
			wg.Go(func() { do(ctx) })
		case <-ctx.Done():
			h.each(func(u *unit) { u.stop() })
			return nil
		}
	}
}

// start has Run run do. It is called by what Run runs, or with a context that ends.
func (h *Holder) start(ctx context.Context, do func(context.Context)) {
	select {
	case h.spawn <- do:
	case <-ctx.Done():
	}
}

func repeat(ctx context.Context, every time.Duration, do func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

func (h *Holder) each(do func(*unit)) {
	h.mu.Lock()
	list := make([]*unit, 0, len(h.units))
	for _, u := range h.units {
		list = append(list, u)
	}
	h.mu.Unlock()
	for _, u := range list {
		do(u)
	}
}

// errElsewhere says that this process does not answer for a queue.
var errElsewhere = fmt.Errorf("the queue is not held here: %w", meta.Unavailable)

// Do executes a request about a queue that is held here: client.Sender's. What it does
// not hold is meta.Unavailable, and not executed. What is refused without the commands
// of the queue is an error, not a reply: the request's number is not used up.
func (h *Holder) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	if cmd.Op == session.OpSession { // whose it is
		return h.pass(ctx, cmd)
	}
	name, id, ok := queue.AboutBody(cmd.Op, cmd.Body)
	if !ok {
		return state.Reply{}, fmt.Errorf("operation %#04x is not for a queue in memory: %w", uint16(cmd.Op), meta.Unsupported)
	}
	u := h.find(name, id)
	if u == nil {
		return state.Reply{}, errElsewhere
	}
	if h.ended(cmd.Session) {
		return state.Reply{}, fmt.Errorf("session %d: %w", cmd.Session, meta.Expired)
	}
	switch {
	case configures(cmd.Op):
		return u.configure(ctx, cmd)
	case h.machine.IsQuery(cmd.Op):
		return u.answer(ctx, cmd)
	}
	return u.execute(ctx, cmd)
}

// pass asks the metadata service in the place of who asks here.
func (h *Holder) pass(ctx context.Context, cmd state.Command) (state.Reply, error) {
	var req session.Ask
	if err := state.Unmarshal(cmd.Body, &req); err != nil {
		return state.Reply{}, fmt.Errorf("the request does not decode: %w", meta.Invalid)
	}
	var info session.Info
	if err := h.cfg.Meta.Call(ctx, cmd.Op, req, &info); err != nil {
		var kind meta.Kind
		if errors.As(err, &kind) && kind == meta.NotExist {
			return state.Reply{Kind: kind, Text: err.Error()}, nil
		}
		return state.Reply{}, err
	}
	return state.Reply{Body: state.Marshal(info)}, nil
}

func (h *Holder) find(name string, id uint64) *unit {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name == "" {
		return h.units[id]
	}
	for _, u := range h.units {
		if u.name == name {
			return u
		}
	}
	return nil
}

// full reports whether nothing is to be added to what is held.
func (h *Holder) full() bool { return h.size.Load() > h.max.Load() }

// askSessions gives back what sessions had that are over.
func (h *Holder) askSessions(ctx context.Context) {
	used := make(map[meta.SessionID]bool) // before it is asked which there are
	h.each(func(u *unit) { u.users(used) })
	if len(used) == 0 {
		return
	}
	req := session.List{Limit: session.ListMax}
	for {
		var list session.Listed
		if err := h.call(ctx, session.OpSessions, req, &list); err != nil {
			return // it is asked again
		}
		for _, s := range list.Sessions {
			if !s.Ending {
				delete(used, s.ID)
			}
		}
		if !list.More || len(list.Sessions) == 0 {
			break
		}
		req.After = list.Sessions[len(list.Sessions)-1].ID
	}
	h.mu.Lock()
	if len(h.over) > overMax {
		clear(h.over)
	}
	for s := range used {
		h.over[s] = true
	}
	h.mu.Unlock()
	if len(used) > 0 {
		h.each(func(u *unit) { u.release(ctx, used) })
	}
}

// ended reports whether a session is over. It may take askEvery to notice.
func (h *Holder) ended(s meta.SessionID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.over[s]
}

func (h *Holder) call(ctx context.Context, op state.Op, req, resp any) error {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	return h.cfg.Meta.Call(ctx, op, req, resp)
}

func now() time.Duration { return boottime.Now() }
