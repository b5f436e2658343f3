package replica

import (
	"errors"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dos/meta"
)

// What an embedded cluster left goes on as a group of several, and not back.
func TestTakeOver(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.ID = "local"
	r := open(t, cfg)
	propose(t, r, opAppend, put{"k", []byte("1,")})
	shut(t, r)

	if id, err := MemberID(cfg.Dir, "local"); err != nil || id != "local" {
		t.Fatalf("MemberID of the machine: %q, %v", id, err)
	}
	if _, err := MemberID(cfg.Dir, "other"); !errors.Is(err, meta.Invalid) || !strings.Contains(err.Error(), "belongs to member local") {
		t.Errorf("MemberID of another machine: %v", err)
	}
	other := cfg
	other.ID = "other"
	if _, err := Open(other); !errors.Is(err, meta.Invalid) || !strings.Contains(err.Error(), "belongs to member local") {
		t.Errorf("Open by another machine: %v", err)
	}

	g := newGroup(t)
	cfg.Beat, cfg.limits = 200*time.Millisecond, groupLimits
	g.configs["local"] = cfg
	g.start("local")
	g.add("b")
	g.add("c")
	g.append(1)
	for id, val := range map[string]string{"local": "1,1,", "b": "1,1,", "c": "1,1,"} {
		g.until(id+" to hold it", func() bool { return local(t, g.members[id], "k") == val })
	}
	list, err := g.members["b"].Members()
	if err != nil || len(list) != 3 {
		t.Fatalf("Members = %+v, %v", list, err)
	}
	for _, m := range list {
		if want := g.configs[m.ID].Address; !m.Voter || m.Address != want {
			t.Errorf("member %+v, want a voter at %s", m, want)
		}
	}

	// It cannot be an embedded cluster any more.
	g.stop("local")
	alone := cfg
	alone.Stream, alone.Address, alone.Beat = nil, "", 0
	if r, err := Open(alone); !errors.Is(err, meta.Invalid) || !strings.Contains(err.Error(), "a group of 3 members") || strings.Contains(err.Error(), "\n") {
		if err == nil {
			shut(t, r)
		}
		t.Errorf("opened alone: %v", err)
	}

	// After a restart it is somewhere else.
	moved := g.configs["local"]
	moved.Address = ""
	g.configs["local"] = moved
	g.start("local")
	g.leader(func(r *Replica) error { return r.AddNonvoter(t.Context(), "local", g.configs["local"].Address) })
	g.until("it to be a voter still, elsewhere", func() bool {
		m, err := g.members["local"].member("local")
		return err == nil && m.Voter && m.Address == g.configs["local"].Address
	})
	g.append(2)
}

// A clean stop of the leader costs no election that somebody has to wait for.
func TestCloseHandsOver(t *testing.T) {
	g := newGroup(t)
	g.beat = 3 * time.Second // in which nobody calls for an election
	g.add("a")
	g.add("b")
	g.add("c")
	old := g.leads()
	began := time.Now()
	g.stop(old)
	if now := g.leads(); now == old {
		t.Fatalf("%s leads after it stopped", now)
	}
	if took := time.Since(began); took >= g.beat {
		t.Errorf("the next leader took %v", took)
	}
}

// Nobody gets a vote who would be waited for.
func TestPromote(t *testing.T) {
	g := newGroup(t, "a")
	g.leader(func(r *Replica) error { return r.AddNonvoter(t.Context(), "b", "127.0.0.1:1") })
	for id, want := range map[string]meta.Kind{"b": meta.Busy, "c": meta.NotExist} {
		if err := g.members["a"].Promote(t.Context(), id); !errors.Is(err, want) {
			t.Errorf("Promote(%s) = %v, want %v", id, err, want)
		}
	}
	g.leader(func(r *Replica) error { return r.Remove(t.Context(), "b") })
	behind := Member{ID: "b", Heard: time.Now(), Lag: CaughtUp + 1}
	if g.members["a"].hears(behind) != true || g.members["a"].hears(Member{}) {
		t.Error("who answers is not who has answered lately")
	}
	g.add("b")
	g.leader(func(r *Replica) error { return r.Demote(t.Context(), "b") })
	g.until("it to have no vote", func() bool { m, err := g.members["b"].member("b"); return err == nil && !m.Voter })
	if err := g.members["a"].Yield(t.Context()); !errors.Is(err, meta.Unavailable) {
		t.Errorf("Yield without another voter = %v", err)
	}
}

// A member that is taken out while it runs knows it, and a leader goes on as
// nobody.
func TestRemoved(t *testing.T) {
	g := newGroup(t, "a", "b", "c")
	for _, r := range g.members {
		if r.Removed() {
			t.Errorf("%s says that it was removed", r.cfg.ID)
		}
	}
	old := g.leads()
	g.leader(func(r *Replica) error {
		if err := r.Remove(t.Context(), old); err != nil && r.cfg.ID == old {
			return err
		}
		return nil
	})
	g.until("the removed one to know it", func() bool { return g.members[old].Removed() })
	g.until("another to lead", func() bool {
		for id, r := range g.members {
			if _, leads := r.Leads(); leads && id != old {
				return true
			}
		}
		return false
	})
	empty := testConfig(t, t.TempDir())
	empty.ID, empty.Bootstrap = "d", false
	g.configs["d"] = empty
	if g.start("d").Removed() {
		t.Error("a member that was never in a group says that it was removed")
	}
}

// A follower says who leads and where, at once.
func TestNotLeaderSays(t *testing.T) {
	g := newGroup(t, "a", "b", "c")
	lead := g.leads()
	for id, r := range g.members {
		if id == lead {
			continue
		}
		g.until(id+" to know the leader", func() bool { who, _ := r.Leader(); return who == lead })
		_, err := r.Propose(t.Context(), command(opAppend, put{"k", nil}))
		if want := lead + " at " + g.configs[lead].Address; !errors.Is(err, meta.Unavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", id, err, want)
		}
	}
}

func TestMemberID(t *testing.T) {
	dir := t.TempDir()
	a, err := MemberID(dir, "n1")
	if err != nil || MachineOf(a) != "n1" || a == "n1" {
		t.Fatalf("MemberID of nothing: %q, %v", a, err)
	}
	if b, err := MemberID(dir, "n1"); err != nil || b == a {
		t.Errorf("MemberID of nothing again: %q, %v", b, err)
	}
	if err := saveCurrent(dir, current{ID: a, Generation: 1}); err != nil {
		t.Fatal(err)
	}
	if b, err := MemberID(dir, "n1"); err != nil || b != a {
		t.Errorf("MemberID = %q, %v, want %q", b, err, a)
	}
	if err := os.WriteFile(dir+"/current", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := MemberID(dir, "n1"); !errors.Is(err, meta.Lost) {
		t.Errorf("MemberID of garbage: %v", err)
	}
}

// counted counts the connections that come to a Stream.
type counted struct {
	Stream
	calls atomic.Int64
}

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Stream.Accept()
	if err == nil {
		c.calls.Add(1)
	}
	return conn, err
}

// A member that began again with an empty directory, at the address of the one
// that it was, casts no vote of that one's: it would give the lead to a member
// that lacks what was acknowledged.
func TestNoVoteOfAnother(t *testing.T) {
	g := newGroup(t, "a/1", "b/1", "c/1")
	g.append(1)
	g.agree(1)
	for g.leads() != "a/1" {
		g.leader(func(r *Replica) error { return notYet(r.Yield(t.Context())) })
	}
	g.stop("b/1")
	g.append(2)
	g.stop("c/1")
	cfg := testConfig(t, t.TempDir())
	cfg.ID, cfg.Bootstrap, cfg.Beat, cfg.limits = "c/2", false, g.beat, groupLimits
	l, err := net.Listen("tcp", g.configs["c/1"].Address)
	if err != nil {
		t.Fatal(err)
	}
	stream := &counted{Stream: tcp{l}}
	cfg.Stream, cfg.Address = stream, l.Addr().String()
	g.configs["c/2"], g.members["c/2"] = cfg, open(t, cfg)

	g.until("the leader to call in vain", func() bool { return stream.calls.Load() >= 3 })
	g.stop("a/1")
	before := stream.calls.Load()
	g.start("b/1")
	g.until("the candidate to call in vain", func() bool {
		if _, leads := g.members["b/1"].Leads(); leads {
			t.Fatal("leads by the vote of a member that holds nothing")
		}
		return stream.calls.Load() >= before+3
	})
	g.stop("c/2")
	g.start("a/1")
	g.append(3)
	g.agree(3)
}
