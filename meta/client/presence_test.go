package client

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
	"dos/meta/lease"
	ns "dos/meta/namespace"
	"dos/meta/session"
	"dos/meta/state"
)

// A service answers what a Presence asks.
type service struct {
	mu    sync.Mutex
	last  meta.SessionID // guarded by mu, as all below
	ended map[meta.SessionID]bool
	away  bool       // it cannot be reached
	wants []meta.Ino // what is wanted, in order
	asks  []meta.Ino // what is asked about
	kept  []meta.Ino // as Drop said
	gone  []meta.Ino
	given []meta.Ino
	said  map[meta.SessionID]int // commands of each session
}

func (s *service) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *service) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	if cmd.Op == lease.OpWanted {
		return s.wanted(ctx, cmd)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return state.Reply{}, meta.Unavailable
	}
	if s.ended[cmd.Session] && !IsQuery(cmd.Op) {
		return state.Reply{Kind: meta.Expired}, nil
	}
	s.said[cmd.Session]++
	reply := any(struct{}{})
	switch cmd.Op {
	case session.OpOpen:
		var req session.Open
		if state.MustUnmarshal(cmd.Body, &req); !req.Files || req.TTL == 0 {
			return state.Reply{Kind: meta.Invalid}, nil
		}
		s.last++
		reply = session.Info{ID: s.last, TTL: req.TTL}
	case session.OpRenew:
		if s.ended[cmd.Session] {
			return state.Reply{Kind: meta.Expired}, nil
		}
	case ns.OpAsked:
		reply = ns.AskedReply{Inos: s.asks}
	case ns.OpDrop:
		var req ns.Drop
		state.MustUnmarshal(cmd.Body, &req)
		s.kept, s.gone, s.asks = append(s.kept, req.Keep...), append(s.gone, req.Inos...), nil
	case lease.OpGive:
		var req lease.Give
		state.MustUnmarshal(cmd.Body, &req)
		s.given = append(s.given, req.Inos...)
	}
	return state.Reply{Body: state.Marshal(reply)}, nil
}

func (s *service) wanted(ctx context.Context, cmd state.Command) (state.Reply, error) {
	var req lease.Want
	state.MustUnmarshal(cmd.Body, &req)
	for range 50 {
		s.mu.Lock()
		list := slices.Clone(s.wants[min(int(req.After), len(s.wants)):])
		s.mu.Unlock()
		if len(list) > 0 {
			return state.Reply{Body: state.Marshal(lease.Wanted{Term: 1, After: req.After + uint64(len(list)), Inos: list})}, nil
		}
		wait(ctx, 100*time.Millisecond)
	}
	return state.Reply{Body: state.Marshal(lease.Wanted{Term: 1, After: req.After})}, nil
}

// A user notes what it is told.
type user struct {
	p *Presence

	mu       sync.Mutex
	recalled map[meta.Ino]int // guarded by mu
	fails    int              // how often Recall fails yet; guarded by mu
	fenced   []meta.SessionID // guarded by mu
}

func (u *user) Recall(ctx context.Context, ino meta.Ino) error {
	time.Sleep(time.Second)
	u.mu.Lock()
	u.recalled[ino]++
	fails := u.fails > 0
	if fails {
		u.fails--
	}
	u.mu.Unlock()
	if fails {
		return meta.Unavailable
	}
	return u.p.Give(ctx, ino)
}

func (u *user) Uses(_ context.Context, inos []meta.Ino) (used []meta.Ino, err error) {
	return slices.DeleteFunc(slices.Clone(inos), func(ino meta.Ino) bool { return ino%2 == 0 }), nil
}

func (u *user) Fenced() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fenced = append(u.fenced, u.p.Session())
}

// present returns a Presence that has a session with a service.
func present(t *testing.T) (*service, *Presence) {
	t.Helper()
	s := &service{ended: make(map[meta.SessionID]bool), said: make(map[meta.SessionID]int)}
	start := time.Now()
	p := &Presence{
		sender: s, open: session.Open{Name: "test", TTL: SessionTTL, Files: true},
		log: slog.New(slog.DiscardHandler), clock: func() time.Duration { return time.Since(start) },
	}
	if err := p.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, p
}

func TestPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := present(t)
		u := &user{p: p, recalled: make(map[meta.Ino]int)}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- p.Run(ctx, u) }()

		// Leases are given back, those that fail or are wanted anew again.
		// look looks into both.
		look := func(check func()) {
			s.set(func() {
				u.mu.Lock()
				defer u.mu.Unlock()
				check()
			})
		}
		look(func() { u.fails = 2 })
		s.set(func() { s.wants = append(s.wants, 7) })
		time.Sleep(500 * time.Millisecond)
		s.set(func() { s.wants = append(s.wants, 8, 7) })
		time.Sleep(10 * time.Second)
		look(func() {
			if u.recalled[7] < 3 || u.recalled[8] < 1 || !slices.Contains(s.given, 7) || !slices.Contains(s.given, 8) {
				t.Errorf("recalled %v, given %v", u.recalled, s.given)
			}
		})

		// Questions are answered.
		s.set(func() { s.asks = []meta.Ino{1, 2, 3, 4} })
		time.Sleep(2 * askEvery)
		look(func() {
			if !slices.Equal(s.kept, []meta.Ino{1, 3}) || !slices.Equal(s.gone, []meta.Ino{2, 4}) {
				t.Errorf("kept %v, dropped %v", s.kept, s.gone)
			}
		})

		// While the service is away for longer than it is sure, nobody trusts the session.
		if err := p.Trust(ctx); err != nil {
			t.Error(err)
		}
		s.set(func() { s.away = true })
		time.Sleep(SessionTTL)
		if err := p.Trust(ctx); !errors.Is(err, meta.TimedOut) {
			t.Errorf("trust without a sign of life: %v", err)
		}
		trusted := make(chan error, 1)
		go func() { trusted <- p.Trust(ctx) }()
		time.Sleep(time.Second)
		s.set(func() { s.away = false })
		if err := <-trusted; err != nil {
			t.Error(err)
		}
		look(func() {
			if len(u.fenced) != 0 || p.Session() != 1 {
				t.Errorf("fenced %v, session %d", u.fenced, p.Session())
			}
		})

		// An ended session is found out by the first who is refused, and followed
		// by another.
		s.set(func() { s.ended[1] = true })
		if err := p.Take(ctx, 9, false); !errors.Is(err, meta.Expired) {
			t.Errorf("a request of an ended session: %v", err)
		}
		if err := p.Trust(ctx); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		var before int
		look(func() {
			if p.Session() != 2 || !slices.Equal(u.fenced, []meta.SessionID{1}) {
				t.Errorf("fenced %v, session %d", u.fenced, p.Session())
			}
			before = s.said[1]
		})
		if err := p.Take(ctx, 9, false); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		look(func() {
			if s.said[1] != before {
				t.Errorf("the ended session said %d things more", s.said[1]-before)
			}
		})
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := p.End(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What a session is called does not keep it from being opened.
func TestPresenceName(t *testing.T) {
	s := &service{ended: make(map[meta.SessionID]bool), said: make(map[meta.SessionID]int)}
	p, err := NewPresence(t.Context(), s, strings.Repeat("n", 1000), strings.Repeat("h", 1000))
	if err != nil || len(p.open.Name) != session.TextMax || len(p.open.Node) != session.TextMax {
		t.Errorf("%v; a name of %d bytes", err, len(p.open.Name))
	}
}

// Whoever is not admitted any more by the time that there is a session again does nothing in it;
// what he asks is sent in no later session than the one that he was admitted to.
func TestPresenceAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := present(t)
		type key struct{}
		var over atomic.Bool
		var first func() // done when somebody is about to be admitted
		p.Admit(func(ctx context.Context) error {
			if first != nil {
				do := first
				first = nil
				do()
			}
			if ctx.Value(key{}) != nil && over.Load() {
				return meta.Fenced
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- p.Run(ctx, &user{p: p, recalled: make(map[meta.Ino]int)}) }()
		old := context.WithValue(ctx, key{}, true)
		ask := func(ctx context.Context) error { return p.Take(ctx, 9, false) }
		for _, each := range []context.Context{ctx, old} {
			if err := errors.Join(p.Trust(each), ask(each)); err != nil {
				t.Fatal(err)
			}
		}

		// The session ends while two wait for it.
		s.set(func() { s.away = true })
		time.Sleep(SessionTTL)
		waits := func(ctx context.Context) chan error {
			done := make(chan error, 1)
			go func() { done <- p.Trust(ctx) }()
			return done
		}
		his, others := waits(old), waits(ctx)
		time.Sleep(time.Second)
		over.Store(true)
		s.set(func() { s.away, s.ended[1] = false, true })
		if err := <-his; !errors.Is(err, meta.Fenced) {
			t.Errorf("who is not admitted any more: %v, want %v", err, meta.Fenced)
		}
		if err := <-others; err != nil {
			t.Error(err)
		}
		if err := errors.Join(p.Trust(old), ask(old)); !errors.Is(err, meta.Fenced) {
			t.Errorf("in the next session: %v, want %v", err, meta.Fenced)
		}
		if err := ask(ctx); err != nil {
			t.Error(err)
		}

		// It ends between his admission and what he sends.
		over.Store(false)
		now := p.Session()
		first = func() {
			s.set(func() { s.ended[now] = true })
			if err := p.begin(ctx); err != nil {
				t.Error(err)
			}
		}
		if err := ask(old); !errors.Is(err, meta.Expired) || p.Session() == now {
			t.Errorf("it is sent in session %d, which follows %d: %v, want %v", p.Session(), now, err, meta.Expired)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
