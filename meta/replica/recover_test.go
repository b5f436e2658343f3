package replica

import (
	"errors"
	"slices"
	"testing"
	"time"

	"dos/meta"
)

// Of three members two are gone for good: the third becomes a group by itself
// with all that was acknowledged, and grows again. One of the two was not gone and
// has what the third never got: it does not go on with that.
func TestRecover(t *testing.T) {
	g := newGroup(t, "a", "b", "c")
	for seq := range uint64(20) {
		g.append(seq + 1)
	}
	g.agree(20)
	lead := g.leads()
	var others []string
	for id := range g.members {
		if id != lead {
			others = append(others, id)
		}
	}
	behind, ahead := others[0], others[1]
	g.stop(behind)
	g.append(21)
	g.agree(21)
	g.stop(lead)
	g.stop(ahead)

	cfg := g.configs[behind]
	cfg.Stream = nil
	s, err := Inspect(cfg)
	if err != nil || len(s.Group) != 3 {
		t.Fatalf("%+v, %v", s, err)
	}
	again, err := Recover(cfg)
	if err != nil || !slices.Equal(again.Group, s.Group) || again.Last != s.Last {
		t.Fatalf("%+v after %+v, %v", again, s, err)
	}
	g.start(behind)
	g.append(21) // it never got that
	g.agree(21)
	if list, err := g.members[behind].Members(); err != nil || len(list) != 1 || !list[0].Voter {
		t.Errorf("the group: %+v, %v", list, err)
	}

	// One that was ahead meets the new group.
	failed := make(chan error, 1)
	old := g.configs[ahead]
	old.Fatal = func(err error) { failed <- err }
	g.configs[ahead] = old
	g.start(ahead)
	g.leader(func(r *Replica) error { return r.AddNonvoter(t.Context(), ahead, g.configs[ahead].Address) })
	select {
	case err := <-failed:
		if !errors.Is(err, meta.Lost) {
			t.Errorf("a member of the old group: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a member of the old group goes on")
	}
	g.stop(ahead)
	old.Stream = nil
	old.Dir = copyTree(t, old.Dir) // its process has not ended
	if _, err := Inspect(old); !errors.Is(err, meta.Lost) {
		t.Errorf("it is opened once more: %v", err)
	}
	g.leader(func(r *Replica) error { return r.Remove(t.Context(), ahead) })

	g.add("d")
	g.append(22)
	g.agree(22)
}

func TestRecoverNothing(t *testing.T) {
	if _, err := Recover(testConfig(t, t.TempDir())); !errors.Is(err, meta.NotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}
