package replica

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/state"
)

const opTick state.Op = 0x0010

// clockMachine has a command that fails when its time is before that of an
// earlier one.
func clockMachine() *state.Machine {
	m := testMachine()
	state.Handle(m, opTick, "test.tick", func(tx *state.Tx, _ struct{}) (int64, error) {
		var last int64
		if val, ok := tx.Get([]byte("time")); ok {
			state.MustUnmarshal(val, &last)
		}
		if now := tx.Now.UnixNano(); now < last {
			return 0, fmt.Errorf("it is %v, after %v: %w", now, last, meta.Conflict)
		}
		last = tx.Now.UnixNano()
		tx.Set([]byte("time"), state.Marshal(last))
		return last, nil
	})
	return m
}

// Members' clocks are minutes apart. Whoever leads, after restarts and in a member
// that has only the state: time does not run backwards in the log.
func TestClocksApart(t *testing.T) {
	apart := map[string]time.Duration{"a": 10 * time.Minute, "b": 0, "c": -10 * time.Minute}
	g := newGroup(t)
	begin := func(id string) {
		cfg := testConfig(t, t.TempDir())
		cfg.ID, cfg.Bootstrap, cfg.Beat, cfg.limits = id, len(g.members) == 0, g.beat, groupLimits
		cfg.Machine = clockMachine()
		cfg.Clock = func() time.Time { return time.Now().Add(apart[id]) }
		g.configs[id] = cfg
		g.start(id)
		if !cfg.Bootstrap {
			g.join(id)
		}
	}
	latest := int64(0)
	tick := func() {
		t.Helper()
		g.leader(func(r *Replica) error {
			reply, err := r.Propose(t.Context(), command(opTick, struct{}{}))
			if err != nil {
				return err
			}
			if err := reply.Err(); err != nil {
				t.Fatalf("%s: %v", r.cfg.ID, err)
			}
			return state.Unmarshal(reply.Body, &latest)
		})
	}
	lead := func(id string) {
		t.Helper()
		g.leader(func(r *Replica) error {
			if r.cfg.ID == id {
				return nil
			}
			to, err := r.member(id)
			if err == nil {
				err = r.change(t.Context(), r.handTo(to))
			}
			return notYet(errors.Join(meta.Busy, err))
		})
		tick()
	}
	begin("a") // whose clock is ahead
	tick()
	ahead := latest
	begin("b")
	// The last of the group gets the state, not the log.
	for id, r := range g.members {
		// It takes none before it has applied that it is a member.
		g.until("a snapshot of "+id, func() bool { return r.raft.Snapshot().Error() == nil })
	}
	begin("c")
	for _, id := range []string{"c", "b", "a", "c"} {
		lead(id)
	}
	if latest < ahead {
		t.Errorf("time is %d, was %d", latest, ahead)
	}
	// After a start nothing is applied again.
	g.stop("a")
	g.stop("b")
	g.start("b")
	tick()
	g.stop("c")
	g.start("c")
	tick()
	if latest < ahead {
		t.Errorf("time is %d, was %d", latest, ahead)
	}
}

// A start remembers how late it was, also when all of it is in tables.
func TestClockBehindAfterStart(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.Machine = clockMachine()
	cfg.Clock = func() time.Time { return time.Now().Add(time.Hour) }
	r := open(t, cfg)
	propose(t, r, opTick, struct{}{})
	shut(t, r)
	cfg.Clock = time.Now
	r = open(t, cfg)
	defer shut(t, r)
	if reply := propose(t, r, opTick, struct{}{}); reply.Err() != nil {
		t.Error(reply.Err())
	}
}
