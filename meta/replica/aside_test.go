package replica

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dos/meta"
)

// A member whose log was damaged does not start. With its directory set aside it
// is another one, which the group has to add, and what it had is kept.
func TestSetAside(t *testing.T) {
	g := newGroup(t, "a", "b", "c/1")
	for i := range uint64(20) {
		g.append(i + 1)
	}
	if g.leads() == "c/1" {
		g.leader(func(r *Replica) error { return r.Yield(t.Context()) })
	}
	c := g.members["c/1"]
	g.until("c to have it all", func() bool { return strings.HasSuffix(local(t, c, "k"), ",20,") })
	if err := c.logs.recordAcked(); err != nil {
		t.Fatal(err)
	}
	if _, err := SetAside(g.configs["c/1"].Dir); !errors.Is(err, meta.Busy) {
		t.Fatalf("SetAside of a directory in use: %v", err)
	}
	crashed := copyTree(t, g.configs["c/1"].Dir)
	g.stop("c/1")
	cfg := g.configs["c/1"]
	cfg.Dir = filepath.Join(t.TempDir(), "meta")
	if err := os.Rename(crashed, cfg.Dir); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(cfg.Dir, "raft", "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	spoil(t, segments[0], strings.LastIndex(string(b), "19,"))
	g.configs["c/1"] = cfg
	if r, err := Open(cfg); !errors.Is(err, meta.Lost) || strings.Contains(err.Error(), "salvage") || strings.Contains(err.Error(), "\n") {
		if err == nil {
			shut(t, r)
		}
		t.Fatalf("with a damaged log: %v", err)
	}
	to, err := SetAside(cfg.Dir)
	if err != nil || to != cfg.Dir+".lost-1" {
		t.Fatalf("SetAside: %q, %v", to, err)
	}
	if kept, err := os.ReadFile(filepath.Join(to, "raft", filepath.Base(segments[0]))); err != nil || len(kept) != len(b) {
		t.Errorf("what is kept: %d bytes, %v", len(kept), err)
	}
	id, err := MemberID(cfg.Dir, "c")
	if err != nil || id == "c/1" {
		t.Fatalf("MemberID = %q, %v", id, err)
	}
	delete(g.configs, "c/1")
	cfg.ID = id
	g.configs[id] = cfg
	g.start(id)
	g.leader(func(r *Replica) error { return r.Remove(t.Context(), "c/1") })
	g.join(id)
	g.append(21)
	g.agree(21)

	// Several are kept.
	again := filepath.Join(t.TempDir(), "d")
	for n, want := range []string{".lost-1", ".lost-2"} {
		if err := os.Mkdir(again, 0o700); err != nil {
			t.Fatal(err)
		}
		if to, err := SetAside(again); err != nil || to != again+want {
			t.Errorf("SetAside number %d: %q, %v", n+1, to, err)
		}
	}
}
