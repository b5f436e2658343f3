package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/internal/boottime"
	"dos/meta"
	"dos/meta/lease"
	"dos/meta/session"
	"dos/meta/state"
)

const (
	// recallsMax bounds the leases that are given back at once.
	recallsMax = 64
	// recallRetry is the pause before a lease that could not be given back is
	// tried again.
	recallRetry = 100 * time.Millisecond
	// askEvery is how often it is looked whether others took the last name of
	// files: that long, and no longer, these take room that nobody uses.
	askEvery = 2 * time.Second
	askBatch = 1024
)

// A User is who holds files under the session of a Presence.
type User interface {
	// Recall is called when somebody waits for the lease of an inode. It stores
	// what is not stored, gives the lease back, and returns. After an error it is
	// called again. It may be called for what is not held.
	Recall(ctx context.Context, ino meta.Ino) error
	// Uses returns which of the inodes, whose last name others took, are in use;
	// the User drops those later.
	Uses(ctx context.Context, inos []meta.Ino) (used []meta.Ino, err error)
	// Fenced is called when the session is over: nothing it held is held any more.
	// When it returns the next session begins. It does not wait for calls.
	Fenced()
}

// A Presence is a client's stay in the system beyond the end of a session: when
// that has ended, because the client could not be reached or did not give a
// lease back, it opens another one. It is the Caller of the session of the
// moment. A request belongs to the session that it was first sent in: if that
// ends meanwhile, the request fails with meta.Expired and is not sent again.
type Presence struct {
	sender Sender
	open   session.Open
	log    *slog.Logger
	clock  func() time.Duration
	admit  func(context.Context) error

	mu      sync.Mutex
	now     stay          // guarded by mu
	changed chan struct{} // closed when now changes; guarded by mu
}

// A stay is one session.
type stay struct {
	remote *Remote
	keeper *Keeper
}

// NewPresence opens a session that opens files. name and node say for people
// what it is and where; what is too long of them is cut. Run keeps it.
func NewPresence(ctx context.Context, s Sender, name, node string) (*Presence, error) {
	p := &Presence{
		sender: s,
		open:   session.Open{Name: short(name), Node: short(node), TTL: SessionTTL, Files: true},
		log:    slog.Default(),
		clock:  boottime.Now,
	}
	return p, p.begin(ctx)
}

func short(text string) string { return text[:min(len(text), session.TextMax)] }

// Admit has admit asked before what is done in a context is done in a session, and after
// it has waited for one: whom it refuses does nothing. It is called before p is used.
func (p *Presence) Admit(admit func(context.Context) error) { p.admit = admit }

// admits asks it. The session that the caller goes on with was the one of the moment before.
func (p *Presence) admits(ctx context.Context) error {
	if p.admit == nil {
		return nil
	}
	return p.admit(ctx)
}

// begin opens a session.
func (p *Presence) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, errPatience)
	defer cancel()
	pause := pauseMin
	for {
		// A session that was opened by a request whose answer was lost ends by itself.
		attempt, stop := context.WithTimeout(ctx, attemptMax)
		sent := p.clock()
		var info session.Info
		err := Direct(p.sender, 0).Call(attempt, session.OpOpen, p.open, &info)
		stop()
		switch {
		case err == nil:
			keeper := NewKeeper(nil, info, sent)
			keeper.clock = p.clock
			keeper.trust(sent)
			remote := NewRemote(p.sender, info.ID)
			keeper.caller = remote
			p.mu.Lock()
			defer p.mu.Unlock()
			p.now = stay{remote, keeper}
			if p.changed != nil {
				close(p.changed)
			}
			p.changed = make(chan struct{})
			return nil
		case refused(err):
			return err
		}
		wait := time.NewTimer(pause)
		pause = min(2*pause, pauseMax)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return over(ctx, err)
		}
	}
}

func (p *Presence) current() (stay, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, p.changed
}

// Session is the session of the moment.
func (p *Presence) Session() meta.SessionID {
	now, _ := p.current()
	return now.remote.Session()
}

// Call is Caller's.
func (p *Presence) Call(ctx context.Context, op state.Op, req, resp any) error {
	now, _ := p.current()
	if err := p.admits(ctx); err != nil {
		return err
	}
	err := now.remote.Call(ctx, op, req, resp)
	if errors.Is(err, meta.Expired) {
		now.keeper.Look()
	}
	return err
}

// Trust returns when the session is certainly not over: at once as a rule,
// after a while when the service cannot be reached, or when there is another
// session. What is held is the caller's own since Trust returned, for a moment.
func (p *Presence) Trust(ctx context.Context) error {
	now, changed := p.current()
	if now.keeper.Valid() {
		return p.admits(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, errPatience)
	defer cancel()
	for {
		renewed := now.keeper.listen()
		if now.keeper.Valid() {
			return p.admits(ctx)
		}
		select {
		case <-renewed:
		case <-changed:
			now, changed = p.current()
		case <-ctx.Done():
			return fmt.Errorf("the session may be over: %w", context.Cause(ctx))
		}
	}
}

// Left is for how long the session is certainly not over. It is as old as the
// caller's next step is late: whoever passes it on to others needs a margin, and
// has one of trustMargin.
func (p *Presence) Left() time.Duration {
	now, _ := p.current()
	return now.keeper.Left()
}

// Take gets a lease of an inode, when those whose leases are in the way have given
// them back: X, or S if it is to be shared.
func (p *Presence) Take(ctx context.Context, ino meta.Ino, shared bool) error {
	return p.Call(ctx, lease.OpTake, lease.Take{Ino: ino, Shared: shared}, nil)
}

// Give gives leases back.
func (p *Presence) Give(ctx context.Context, inos ...meta.Ino) error {
	for len(inos) > 0 {
		part := inos[:min(len(inos), lease.ListMax)]
		if err := p.Call(ctx, lease.OpGive, lease.Give{Inos: part}, nil); err != nil {
			return err
		}
		inos = inos[len(part):]
	}
	return nil
}

// End ends the session. Run has returned.
func (p *Presence) End(ctx context.Context) error {
	return Session{Caller: Direct(p.sender, 0)}.End(ctx, p.Session())
}

// Run keeps a session, and tells the user what others want, until ctx ends.
func (p *Presence) Run(ctx context.Context, user User) error {
	for {
		err := p.stay(ctx, user)
		if ctx.Err() != nil {
			return nil
		}
		p.log.Warn("meta: the session has ended; what was not stored under it is lost", "session", p.Session(), "err", err)
		user.Fenced()
		for {
			if err = p.begin(ctx); err == nil {
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			p.log.Warn("meta: no new session yet", "err", err)
		}
		p.log.Info("meta: a new session has begun", "session", p.Session())
	}
}

// stay returns when the session is over or ctx ends.
func (p *Presence) stay(ctx context.Context, user User) error {
	now, _ := p.current()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return now.keeper.Run(ctx) })
	g.Go(func() error { now.recall(ctx, user); return nil })
	g.Go(func() error { now.answer(ctx, user); return nil })
	return g.Wait()
}

// recall gives back what others wait for.
func (s stay) recall(ctx context.Context, user User) {
	var work errgroup.Group // its functions do not fail
	defer work.Wait()
	work.SetLimit(recallsMax)
	var mu sync.Mutex
	busy := make(map[meta.Ino]bool) // guarded by mu; true: it is wanted anew
	var req lease.Want
	for ctx.Err() == nil {
		var got lease.Wanted
		if err := s.remote.Call(ctx, lease.OpWanted, req, &got); err != nil {
			wait(ctx, recallRetry)
			continue
		}
		req = lease.Want{Term: got.Term, After: got.After}
		for _, ino := range got.Inos {
			mu.Lock()
			_, already := busy[ino]
			busy[ino] = already
			mu.Unlock()
			if already {
				continue
			}
			work.Go(func() error {
				for {
					for user.Recall(ctx, ino) != nil && ctx.Err() == nil {
						wait(ctx, recallRetry)
					}
					mu.Lock()
					again := busy[ino]
					if busy[ino] = false; !again || ctx.Err() != nil {
						delete(busy, ino)
						mu.Unlock()
						return nil
					}
					mu.Unlock()
				}
			})
		}
	}
}

// answer says which files without a name are used.
func (s stay) answer(ctx context.Context, user User) {
	files := Files{Caller: s.remote}
	for ctx.Err() == nil {
		inos, err := files.Asked(ctx, askBatch)
		if err == nil && len(inos) > 0 {
			err = answerFor(ctx, files, user, inos)
		}
		if err != nil || len(inos) < askBatch {
			wait(ctx, askEvery)
		}
	}
}

func answerFor(ctx context.Context, files Files, user User, inos []meta.Ino) error {
	used, err := user.Uses(ctx, inos)
	if err != nil {
		return err
	}
	uses := make(map[meta.Ino]bool, len(used))
	for _, ino := range used {
		uses[ino] = true
	}
	var unused []meta.Ino
	for _, ino := range inos {
		if !uses[ino] {
			unused = append(unused, ino)
		}
	}
	if err := files.Keep(ctx, used...); err != nil {
		return err
	}
	return files.Drop(ctx, unused...)
}

// wait waits for a while or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
