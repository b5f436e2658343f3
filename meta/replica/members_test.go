package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
	"dos/meta/state"
)

// tcp is a Stream over the loopback.
type tcp struct{ net.Listener }

func (tcp) Dial(_, addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

// A group is several members in this process.
type group struct {
	t       testing.TB
	beat    time.Duration // of those that are added
	configs map[string]Config
	members map[string]*Replica
}

var groupLimits = limits{memtable: 1 << 20, snapshotEntries: 1 << 40, trailing: 4, segment: 16 << 10}

func newGroup(t testing.TB, ids ...string) *group {
	g := &group{t: t, beat: 200 * time.Millisecond, configs: make(map[string]Config), members: make(map[string]*Replica)}
	_ = t.TempDir() // so that it is removed after the members have stopped
	t.Cleanup(func() {
		for _, r := range g.members {
			shut(t, r)
		}
	})
	for _, id := range ids {
		g.add(id)
	}
	return g
}

// add starts a new member and makes it a voter.
func (g *group) add(id string) {
	g.t.Helper()
	cfg := testConfig(g.t, g.t.TempDir())
	cfg.ID, cfg.Bootstrap, cfg.Beat, cfg.limits = id, len(g.members) == 0, g.beat, groupLimits
	g.configs[id] = cfg
	g.start(id)
	if !cfg.Bootstrap {
		g.join(id)
	}
}

func (g *group) start(id string) *Replica {
	g.t.Helper()
	cfg := g.configs[id]
	addr := cfg.Address
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		g.t.Fatal(err)
	}
	cfg.Stream, cfg.Address = tcp{l}, l.Addr().String()
	g.configs[id] = cfg
	g.members[id] = open(g.t, cfg)
	return g.members[id]
}

func (g *group) stop(id string) {
	g.t.Helper()
	shut(g.t, g.members[id])
	delete(g.members, id)
}

// join makes id a voter.
func (g *group) join(id string) {
	g.t.Helper()
	g.leader(func(r *Replica) error { return r.AddNonvoter(g.t.Context(), id, g.configs[id].Address) })
	g.leader(func(r *Replica) error { return notYet(r.Promote(g.t.Context(), id)) })
}

// notYet makes Busy something to try again.
func notYet(err error) error {
	if errors.Is(err, meta.Busy) {
		return fmt.Errorf("%w: %w", meta.Unavailable, err)
	}
	return err
}

// leader calls fn with the member that leads until it succeeds; Unavailable
// means to try again.
func (g *group) leader(fn func(r *Replica) error) {
	g.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	var err error
	for time.Now().Before(deadline) {
		for _, r := range g.members {
			if _, leads := r.Leads(); !leads {
				continue
			}
			if err = fn(r); err == nil {
				return
			}
			if !errors.Is(err, meta.Unavailable) {
				g.t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Millisecond) // between two tries, not in place of a condition
	}
	g.t.Fatalf("no leader did it within 20 s: %v", err)
}

// append appends to row k, surely once.
func (g *group) append(seq uint64) {
	g.t.Helper()
	cmd := state.Command{Op: opAppend, Session: 1, Seq: seq, Body: state.Marshal(put{"k", fmt.Appendf(nil, "%d,", seq)})}
	g.leader(func(r *Replica) error {
		ctx, cancel := context.WithTimeout(g.t.Context(), 2*time.Second)
		defer cancel()
		reply, err := r.Propose(ctx, cmd)
		if err != nil {
			return err
		}
		return reply.Err()
	})
}

// agree waits until every member has applied what the leader has, and compares.
func (g *group) agree(last uint64) {
	g.t.Helper()
	var at uint64
	g.leader(func(r *Replica) error {
		return r.View(g.t.Context(), func(state.Reader) error { at = r.Applied(); return nil })
	})
	ctx, cancel := context.WithTimeout(g.t.Context(), 20*time.Second)
	defer cancel()
	for id, r := range g.members {
		if err := r.Await(ctx, at); err != nil {
			g.t.Fatalf("%s: %v", id, err)
		}
		err := r.Local(func(s state.Reader) error {
			if val, _ := s.Get([]byte("k")); string(val) != numbers(last) {
				g.t.Errorf("%s holds %q, want %q", id, tail(string(val)), tail(numbers(last)))
			}
			return nil
		})
		if err != nil {
			g.t.Error(err)
		}
	}
}

// until waits for a condition on what members know, which nothing announces.
func (g *group) until(what string, done func() bool) {
	g.t.Helper()
	for late := time.Now().Add(20 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(late) {
			g.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// local reads a row without asking anyone.
func local(t testing.TB, r *Replica, key string) (got string) {
	t.Helper()
	if err := r.Local(func(s state.Reader) error {
		val, _ := s.Get([]byte(key))
		got = string(val)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func (g *group) leads() string {
	g.t.Helper()
	var id string
	g.leader(func(r *Replica) error {
		id = r.cfg.ID
		return r.View(g.t.Context(), func(state.Reader) error { return nil })
	})
	return id
}

// Three members, one after the other leads, and each request is executed once
// although it is sent again whenever the outcome is not known.
func TestMembers(t *testing.T) {
	g := newGroup(t, "a", "b", "c")
	seq := uint64(0)
	for range 10 {
		seq++
		g.append(seq)
	}
	g.agree(seq)
	for _, r := range g.members {
		if _, leads := r.Leads(); leads {
			continue
		}
		if err := r.View(t.Context(), func(state.Reader) error { return nil }); !errors.Is(err, meta.Unavailable) {
			t.Errorf("View of a follower: %v, want %v", err, meta.Unavailable)
		}
		if _, err := r.Propose(t.Context(), command(opAppend, put{"k", nil})); !errors.Is(err, meta.Unavailable) {
			t.Errorf("Propose to a follower: %v, want %v", err, meta.Unavailable)
		}
	}
	// Proposals go on while the lead changes: handed over, and by a stop.
	var w sync.WaitGroup
	done := make(chan struct{})
	w.Go(func() {
		defer close(done)
		for range 3 {
			g.leader(func(r *Replica) error { return r.Yield(t.Context()) })
		}
	})
	for going := true; going; {
		select {
		case <-done:
			going = false
		default:
		}
		seq++
		g.append(seq)
	}
	w.Wait()
	g.agree(seq)

	old := g.leads()
	g.stop(old)
	seq++
	g.append(seq)
	if now := g.leads(); now == old {
		t.Errorf("%s leads after it stopped", now)
	}
	g.start(old) // and catches up from the log
	seq++
	g.append(seq)
	g.agree(seq)
}

// A follower that is too far behind gets the state, whatever it held before.
func TestCatchUpBySnapshot(t *testing.T) {
	g := newGroup(t, "a", "b", "c")
	seq := uint64(0)
	// Segments of the log go as a whole, and Raft finds entries in one that has
	// not gone: so the log is made of several.
	padding := make([]byte, 2<<10)
	more := func(n int) {
		for range n {
			g.leader(func(r *Replica) error {
				_, err := r.Propose(t.Context(), command(opAppend, put{fmt.Sprint("pad", seq), padding}))
				return err
			})
			seq++
			g.append(seq)
		}
	}
	cut := func() {
		t.Helper()
		for id, r := range g.members {
			if err := r.raft.Snapshot().Error(); err != nil {
				t.Fatalf("%s: %v", id, err)
			}
		}
	}
	more(10)
	g.agree(seq)
	if g.leads() == "c" {
		g.leader(func(r *Replica) error { return r.Yield(t.Context()) })
	}
	g.stop("c")
	before := copyTree(t, g.configs["c"].Dir)
	more(20)
	cut()
	more(2)
	c := g.start("c")
	g.agree(seq)
	if got := c.fsm.current().generation; got != 2 {
		t.Errorf("generation %d: it did not get the state", got)
	}
	if _, err := os.Stat(filepath.Join(g.configs["c"].Dir, "incoming")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what arrived is still there: %v", err)
	}
	// It goes on from there, also after a restart.
	more(2)
	g.agree(seq)
	g.stop("c")
	if _, err := os.Stat(stateDir(g.configs["c"].Dir, 1)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old state is still there: %v", err)
	}
	g.start("c")
	g.agree(seq)
	g.stop("c")

	// A crash after the swap and before the old log was removed.
	dir := g.configs["c"].Dir
	for _, name := range []string{"raft", "acked"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	copyInto(t, filepath.Join(before, "raft"), filepath.Join(dir, "raft"))
	b, err := os.ReadFile(filepath.Join(before, "acked"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "acked"), b, 0o600)
	}
	// And one during the next: a state that was being made, a snapshot that was
	// arriving.
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "incoming"), []byte("half"), 0o600)
	}
	if err == nil {
		err = os.Mkdir(stateDir(dir, 3), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	g.start("c")
	more(2)
	g.agree(seq)
	if _, err := os.Stat(stateDir(dir, 3)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state that was never finished is still there: %v", err)
	}

	// A new member, which has nothing.
	cut()
	g.add("d")
	more(1)
	g.agree(seq)
	g.leader(func(r *Replica) error { return r.Remove(t.Context(), "c") })
	more(1)
}

// A follower's View is refused, and a leader that is cut off from the others
// does not answer reads from what it has.
func TestIsolatedLeaderDoesNotRead(t *testing.T) {
	g := newGroup(t, "a", "b", "c")
	g.append(1)
	old := g.leads()
	for id := range g.configs {
		if id != old {
			g.stop(id)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := g.members[old].View(ctx, func(state.Reader) error { return nil }); !errors.Is(err, meta.Unavailable) {
		t.Errorf("View of a leader without followers: %v, want %v", err, meta.Unavailable)
	}
	if err := g.members[old].Local(func(state.Reader) error { return nil }); err != nil {
		t.Errorf("Local: %v", err)
	}
}

func TestVerifierShares(t *testing.T) { synctest.Test(t, testVerifierShares) }

func testVerifierShares(t *testing.T) {
	var v verifier
	var group tasks
	began, proceed := make(chan int), make(chan struct{})
	rounds := 0
	ask := func() error {
		rounds++
		began <- rounds
		<-proceed
		if rounds == 2 {
			return meta.Unavailable
		}
		return nil
	}
	results := make(chan error, 10)
	join := func() { results <- v.join(t.Context(), &group, ask) }
	go join()
	<-began
	// These came after the first round began: they share the second.
	var w sync.WaitGroup
	for range 5 {
		w.Go(join)
	}
	synctest.Wait()
	proceed <- struct{}{}
	if err := <-results; err != nil {
		t.Errorf("the first: %v", err)
	}
	for answered := 0; answered < 5; {
		select {
		case <-began:
			proceed <- struct{}{}
		case err := <-results:
			answered++
			if err == nil && rounds < 3 {
				t.Errorf("a reader was answered by a round that began before it came")
			}
		}
	}
	w.Wait()
	group.wait()
	if rounds > 4 {
		t.Errorf("%d rounds for readers that came together", rounds)
	}
}
