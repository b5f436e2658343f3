// Package steward does for a cluster's placement what one machine has to do,
// the one that is in charge: it looks every second which stores live, marks
// those out that have been away for too long and in again when they are back
// and up to date, and changes the table of placement groups when stores come,
// go or are to be drained. What follows from that, moving and rebuilding shards,
// is chunk/repair's work.
//
// It judges only by what it has seen itself, for the whole limit: a steward that
// has just begun, that was stopped for a while, or that hears from less than half
// of the machines, so that it may be the one who is cut off, marks nobody out.
// All it does are changes of the map that are conditional on the map's epoch, so
// two stewards for a moment do no harm, and one that is cut off from the
// metadata service can do nothing.
package steward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/members"
)

// Members is the map of the cluster; client.Members is one.
type Members interface {
	Map(ctx context.Context, since uint64) (members.Map, error)
	SetGroups(ctx context.Context, epoch uint64, rows []members.Row) error
	SetOut(ctx context.Context, epoch uint64, marks []members.Mark) error
}

// Fleet knows who answers now. Its methods must not block.
type Fleet interface {
	// Store returns whether a store is thought to work.
	Store(id chunk.StoreID) (chunk.Store, bool)
	// Answers reports whether a machine does. This one does.
	Answers(node string) bool
}

const (
	// every is how often the steward looks.
	every = time.Second
	// pause is the longest time between two looks that still counts as looking.
	pause = 5 * time.Second
	// settle is for how long a store has lived before it is marked in.
	settle = 10 * time.Second
	// quiet is how long the map has not changed before the table is changed for
	// the sake of balance: a machine registers its stores one after the other.
	quiet = 3 * time.Second
	// callWait bounds a call of the metadata service.
	callWait = 10 * time.Second
)

// Config says what a Steward works with. All of it is required but what says otherwise.
type Config struct {
	Members Members
	Fleet   Fleet
	// UpToDate reports whether a store that is back has all shards that the stripe
	// table names there; repair.Repairer.UpToDate.
	UpToDate func(id chunk.StoreID) bool
	// Limit is how long a store may be away before it is replaced; what the map says
	// (Limit).
	Limit time.Duration
	// Event tells people what was done; optional.
	Event func(format string, args ...any)
}

// A Steward looks after the placement of one cluster. Run it on the machine that
// is in charge, for as long as it is.
type Steward struct {
	cfg Config

	now     members.Map
	changed time.Time // when Run saw this epoch first
	planned uint64    // the epoch whose plan changes nothing
	looked  time.Time
	alone   bool // the last look found less than half of the machines
	away    map[chunk.StoreID]time.Time
	back    map[chunk.StoreID]time.Time
}

// New returns a Steward.
func New(c Config) (*Steward, error) {
	if c.Members == nil || c.Fleet == nil || c.UpToDate == nil {
		return nil, errors.New("steward: Members, Fleet and UpToDate are required")
	}
	if c.Event == nil {
		c.Event = func(string, ...any) {}
	}
	return &Steward{cfg: c}, nil
}

// Run works until ctx ends. It may be called again, and then begins anew.
func (s *Steward) Run(ctx context.Context) error {
	s.now, s.planned, s.looked, s.alone = members.Map{}, 0, time.Time{}, false
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := s.look(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, meta.Conflict) {
			slog.Warn("steward: placement", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Limit is how long a store may be away before it is replaced, as the cluster's
// settings say.
func Limit(m members.Map) time.Duration {
	d, err := time.ParseDuration(m.Setting(members.RebuildAfter))
	if err != nil {
		panic(fmt.Sprintf("steward: %s was checked when it was set: %v", members.RebuildAfter, err))
	}
	return d
}

func (s *Steward) limit() time.Duration {
	if s.cfg.Limit > 0 {
		return s.cfg.Limit
	}
	return Limit(s.now)
}

// look sees how things are and changes at most one thing: its next look sees
// that, or who was faster.
func (s *Steward) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	now, err := s.cfg.Members.Map(ctx, s.now.Epoch)
	if err != nil {
		return fmt.Errorf("the map: %w", err)
	}
	if now.Epoch != s.now.Epoch {
		s.now, s.changed = now, time.Now()
	}
	s.observe()
	if marks := s.marks(); len(marks) > 0 {
		return s.mark(ctx, marks)
	}
	return s.place(ctx)
}

// observe notes since when stores are away, or back.
func (s *Steward) observe() {
	now := time.Now()
	if s.away == nil || now.Sub(s.looked) > pause || !s.heard() {
		s.away, s.back = make(map[chunk.StoreID]time.Time), make(map[chunk.StoreID]time.Time)
	}
	s.looked = now
	for _, store := range s.now.Stores {
		gone, is := s.away, s.back
		if _, live := s.cfg.Fleet.Store(store.ID); !live {
			gone, is = s.back, s.away
		}
		delete(gone, store.ID)
		if _, known := is[store.ID]; !known {
			is[store.ID] = now
		}
	}
}

// heard reports whether at least half of the machines answer.
func (s *Steward) heard() bool {
	answer := 0
	for _, n := range s.now.Nodes {
		if s.cfg.Fleet.Answers(n.Name) {
			answer++
		}
	}
	alone := 2*answer < len(s.now.Nodes)
	if alone && !s.alone {
		slog.Warn("steward: less than half of the machines answer; no store is marked out", "answer", answer, "machines", len(s.now.Nodes))
	}
	s.alone = alone
	return !alone
}

// marks says which stores change.
func (s *Steward) marks() (marks []members.Mark) {
	if s.alone {
		return nil
	}
	standing := members.Standings(s.now.Stores, s.now.Nodes)
	in := 0
	for _, is := range standing {
		if is == members.In {
			in++
		}
	}
	now := time.Now()
	for _, store := range s.now.Stores {
		since, away := s.away[store.ID]
		switch {
		case away && !store.Out && now.Sub(since) >= s.limit():
			if standing[store.ID] == members.In {
				if in <= s.now.Code.Shards() {
					continue // none can take its place; nothing is won
				}
				in--
			}
			marks = append(marks, members.Mark{Store: store.ID, Out: true, Why: fmt.Sprintf("away for %v", s.limit())})
		case !away && store.Out && now.Sub(s.back[store.ID]) >= settle && s.cfg.UpToDate(store.ID):
			marks = append(marks, members.Mark{Store: store.ID, Why: "back and up to date"})
		}
	}
	return marks
}

func (s *Steward) mark(ctx context.Context, marks []members.Mark) error {
	if err := s.cfg.Members.SetOut(ctx, s.now.Epoch, marks); err != nil {
		return fmt.Errorf("mark stores: %w", err)
	}
	for _, m := range marks {
		if m.Out {
			slog.Warn("steward: a store is out", "store", m.Store, "why", m.Why)
			s.cfg.Event("store %d is out: %s; what it had is rebuilt elsewhere", m.Store, m.Why)
		} else {
			slog.Info("steward: a store is in again", "store", m.Store)
			s.cfg.Event("store %d is in again: %s", m.Store, m.Why)
		}
	}
	return nil
}

// place changes the table of placement groups if the stores want it.
func (s *Steward) place(ctx context.Context) error {
	if s.now.Epoch == s.planned || time.Since(s.changed) < quiet && !s.urgent() {
		return nil
	}
	rows := members.Plan(s.now)
	if len(rows) == 0 {
		s.planned = s.now.Epoch
		return nil
	}
	if err := s.cfg.Members.SetGroups(ctx, s.now.Epoch, rows); err != nil {
		return fmt.Errorf("set placement groups: %w", err)
	}
	slog.Info("steward: placement groups changed", "rows", len(rows))
	return nil
}

// urgent reports whether new stripes may be written where nothing is to be put, or
// with fewer shards than they could have: the cluster is just being made.
func (s *Steward) urgent() bool {
	if len(s.now.Groups) == 0 {
		return true
	}
	standing := members.Standings(s.now.Stores, s.now.Nodes)
	in := 0
	for _, is := range standing {
		if is == members.In {
			in++
		}
	}
	for _, g := range s.now.Groups {
		if len(g.Members) < min(in, s.now.Code.Shards()) {
			return true
		}
		for _, id := range g.Members {
			if is, known := standing[id]; !known || is != members.In {
				return true
			}
		}
	}
	return false
}
