package quorum

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"dos/meta"
	"dos/meta/replica"
)

const (
	// lookEvery is the pause between two looks at the group. A step that was taken
	// is followed by the next look at once.
	lookEvery = 500 * time.Millisecond
	// stepWait bounds a step.
	stepWait = 10 * time.Second

	defaultDead   = 2 * time.Minute
	defaultAnswer = 3 * time.Second
)

// A Group is what a Keeper needs of its member (a *replica.Replica).
type Group interface {
	Leads() (term uint64, ok bool)
	Members() ([]replica.Member, error)
	AddNonvoter(ctx context.Context, id, addr string) error
	Promote(ctx context.Context, id string) error
	Demote(ctx context.Context, id string) error
	Remove(ctx context.Context, id string) error
	Yield(ctx context.Context) error
}

// Machines says which machines belong to the cluster now. It is asked by the
// leader alone. An error means that nothing is changed.
type Machines interface {
	Machines(ctx context.Context) ([]Machine, error)
}

// Config says what to keep.
type Config struct {
	Self     string // the member's name
	Group    Group
	Machines Machines
	// Voters is how many voters there should be, 1, 3 or 5. The default is the
	// largest odd number up to 5 for which there are machines.
	Voters int
	// Dead is how long a voter may be away before a spare takes its place; 2 min.
	Dead time.Duration
	// Answer is how long ago a member that answers was heard of at most; 3 s.
	Answer time.Duration
	Log    *slog.Logger // the default is slog.Default
	// Event hears of each change of the group, for people; optional.
	Event func(format string, args ...any)
}

// A Keeper keeps the group what it should be.
type Keeper struct{ c Config }

// New checks the configuration. The Keeper does nothing until it is Run.
func New(c Config) (*Keeper, error) {
	switch {
	case c.Self == "" || c.Group == nil || c.Machines == nil:
		return nil, fmt.Errorf("quorum: a name, a group and machines are needed: %w", meta.Invalid)
	case c.Voters != 0 && c.Voters != 1 && c.Voters != 3 && c.Voters != VotersMax:
		return nil, fmt.Errorf("quorum: %d voters, not 1, 3 or %d: %w", c.Voters, VotersMax, meta.Invalid)
	}
	if c.Dead == 0 {
		c.Dead = defaultDead
	}
	if c.Answer == 0 {
		c.Answer = defaultAnswer
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Event == nil {
		c.Event = func(string, ...any) {}
	}
	return &Keeper{c}, nil
}

// Run works until ctx ends, whenever the member leads, and then returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	var since time.Time // when this leader began to listen
	var in uint64       // the term of it
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil
		}
		pause.Reset(lookEvery)
		term, leads := k.c.Group.Leads()
		switch {
		case !leads:
			in = 0
			continue
		case term != in:
			in, since = term, time.Now()
		}
		took, err := k.look(ctx, since)
		switch {
		case err != nil && ctx.Err() == nil:
			k.c.Log.Warn("quorum: the group could not be changed, will be tried again", "err", err)
		case took:
			pause.Reset(0)
		}
	}
}

// look takes the next step, if there is one.
func (k *Keeper) look(ctx context.Context, since time.Time) (took bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	v := view{self: k.c.Self, voters: k.c.Voters, since: since, answer: k.c.Answer, dead: k.c.Dead}
	if v.machines, err = k.c.Machines.Machines(ctx); err != nil {
		return false, fmt.Errorf("which machines there are: %w", err)
	}
	if v.members, err = k.c.Group.Members(); err != nil {
		return false, err
	}
	v.now = time.Now()
	s, ok := next(v)
	if !ok {
		return false, nil
	}
	if err := k.take(ctx, s); err != nil {
		return false, fmt.Errorf("%v %s, because %s: %w", s.act, s.member, s.why, err)
	}
	k.c.Log.Info("quorum: the group has changed", "did", s.act.String(), "member", s.member, "why", s.why)
	k.c.Event("metadata member %s: %v, because %s", s.member, s.act, s.why)
	return true, nil
}

func (k *Keeper) take(ctx context.Context, s step) error {
	g := k.c.Group
	switch s.act {
	case add, move:
		return g.AddNonvoter(ctx, s.member, s.addr)
	case promote:
		return g.Promote(ctx, s.member)
	case demote:
		return g.Demote(ctx, s.member)
	case remove:
		return g.Remove(ctx, s.member)
	case yield:
		return g.Yield(ctx)
	}
	panic(fmt.Sprintf("quorum: no such act: %d", s.act))
}
