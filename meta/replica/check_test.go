package replica

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dos/meta"
)

func TestConsistent(t *testing.T) {
	const none = ^uint64(0)
	for _, tc := range []struct {
		applied, snapshot, first, last, acked uint64
		want                                  string
	}{
		{0, 0, 0, 0, 0, ""},    // new
		{0, 0, 1, 9, 9, ""},    // nothing was flushed
		{9, 0, 1, 9, 9, ""},    // all was
		{9, 5, 6, 12, 10, ""},  // as usual
		{9, 9, 0, 0, 9, ""},    // restored, the log is empty
		{9, 5, 10, 12, 10, ""}, // applied+1 is the first
		{4, 5, 1, 9, 9, "the state is at 4 and the snapshot at 5"},
		{0, 5, 6, 9, 9, "the state is at 0 and the snapshot at 5"},
		{9, 5, 11, 12, 10, "the state is at 9 and the log begins at 11"},
		{13, 5, 6, 12, 10, "the state is at 13 and the log ends at 12"},
		{13, 5, 0, 0, 0, "the state is at 13 and the log ends at 5"},
		{9, 5, 6, 12, 13, "entry 13 was acknowledged and the log ends at 12"},
		{5, 5, 0, 0, 6, "entry 6 was acknowledged and the log ends at 5"},
		{9, 5, 6, 12, none, "the record of what was acknowledged is damaged"},
	} {
		err := consistent(tc.applied, tc.snapshot, tc.first, tc.last, tc.acked)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want) || !errors.Is(err, meta.Lost)) {
			t.Errorf("applied %d, snapshot %d, log %d to %d, acknowledged %d: %v, want %q", tc.applied, tc.snapshot, tc.first, tc.last, tc.acked, err, tc.want)
		}
	}
}

// What can go missing, what Open says to it, and what Salvage saves.
func TestRefusals(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.limits = limits{memtable: 1 << 20, snapshotEntries: 1 << 40, trailing: 2}
	r := open(t, cfg)
	propose(t, r, opAppend, put{"k", []byte("one,")})
	fresh := copyTree(t, cfg.Dir) // one entry, in the log alone
	if err := r.fsm.store.flush(nil, r.Applied()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		propose(t, r, opAppend, put{"k", []byte("two,")})
	}
	if err := r.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	propose(t, r, opAppend, put{"k", []byte("three,")}) // durable in the log alone
	if err := r.logs.recordAcked(); err != nil {
		t.Fatal(err)
	}
	crashed := copyTree(t, cfg.Dir) // with a snapshot and an entry beyond it
	propose(t, r, opAppend, put{"k", []byte("four,")})
	shut(t, r)
	stopped := cfg.Dir

	const upTo2, upTo3, upTo4 = "one,two,two,two,two,two,", "one,two,two,two,two,two,three,", "one,two,two,two,two,two,three,four,"
	remove := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, name := range names {
				if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	take := func(from string, names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, name := range names {
				remove(name)(t, dir)
				if info, err := os.Stat(filepath.Join(from, name)); err == nil && info.IsDir() {
					copyInto(t, filepath.Join(from, name), filepath.Join(dir, name))
				} else if b, err := os.ReadFile(filepath.Join(from, name)); err != nil {
					t.Fatal(err)
				} else if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, tc := range []struct {
		name    string
		from    string
		damage  func(t *testing.T, dir string)
		kind    meta.Kind
		say     string
		salvage string // what is there afterwards; "-" if it cannot be salvaged
	}{
		{"state gone", crashed, remove("state.1"), meta.Lost, "the state has lost entries", ""},
		{"log gone", crashed, remove("raft"), meta.Lost, "the log has lost entries", upTo2},
		{"log gone after a clean stop", stopped, remove("raft"), 0, "", upTo4},
		{"older log", crashed, take(fresh, "raft"), meta.Lost, "was acknowledged and the log ends at", upTo2},
		{"older state", stopped, take(fresh, "state.1"), meta.Lost, "the state has lost entries", ""},
		{"older state and record", stopped, take(fresh, "state.1", "current"), meta.Lost, "the log begins at", ""},
		{"older log and record", stopped, take(fresh, "raft", "current", "acked"), meta.Lost, "the log has lost entries", upTo4},
		{"record of what was acknowledged spoiled", crashed, func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "acked"), []byte(strings.Repeat("x", 2*ackSlot)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, meta.Lost, "is damaged", upTo3},
		{"index of the log garbage", crashed, func(t *testing.T, dir string) {
			path := filepath.Join(dir, "raft", "wal-meta.db")
			info, err := os.Stat(path)
			if err == nil {
				err = os.WriteFile(path, []byte(strings.Repeat("garbage!", int(info.Size()/8))), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, meta.Lost, "cannot be read", upTo2},
		{"log and state gone", crashed, remove("raft", "state.1"), meta.Lost, "the state has lost entries", ""},
		{"no current", crashed, remove("current"), meta.Lost, `but no file "current"`, "-"},
		{"newer", crashed, func(t *testing.T, dir string) {
			b := encodeCurrent(current{ID: "a", Generation: 1})
			b[4] = currentVersion + 1
			if err := os.WriteFile(filepath.Join(dir, "current"), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, meta.Unsupported, "newer than this program", "-"},
		{"another member's", crashed, func(t *testing.T, dir string) {
			if err := saveCurrent(dir, current{ID: "b", Generation: 1}); err != nil {
				t.Fatal(err)
			}
		}, meta.Invalid, "belongs to member b", "-"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg.Dir = copyTree(t, tc.from)
			tc.damage(t, cfg.Dir)
			if tc.kind != 0 {
				for range 2 { // it stays refused
					r, err := Open(cfg)
					if err == nil {
						got := read(t, r, "k")
						shut(t, r)
						t.Fatalf("it opened, with %q", got)
					}
					if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.say) || strings.Contains(err.Error(), "\n") {
						t.Errorf("%v, want %v and one line with %q", err, tc.kind, tc.say)
					}
					if got, want := strings.Contains(err.Error(), "dosctl fsck --data D --salvage"), tc.salvage != "-"; got != want {
						t.Errorf("%v: names the way to salvage: %v, want %v", err, got, want)
					}
				}
			}
			if tc.salvage == "-" {
				return
			}
			fix := cfg
			fix.Salvage = true
			r := open(t, fix)
			if got := read(t, r, "k"); got != tc.salvage {
				t.Errorf("salvaged %q, want %q", got, tc.salvage)
			}
			propose(t, r, opAppend, put{"k", []byte("new,")})
			shut(t, r)
			r = open(t, cfg) // from then on as usual
			defer shut(t, r)
			if got, want := read(t, r, "k"), tc.salvage+"new,"; got != want {
				t.Errorf("after the salvage %q, want %q", got, want)
			}
		})
	}
}

func TestOpenNothing(t *testing.T) {
	cfg := testConfig(t, filepath.Join(t.TempDir(), "d"))
	cfg.Bootstrap = false
	if _, err := Open(cfg); !errors.Is(err, meta.NotExist) {
		t.Errorf("nothing there and no bootstrap: %v, want %v", err, meta.NotExist)
	}
	if _, err := Open(Config{}); !errors.Is(err, meta.Invalid) {
		t.Errorf("no configuration: %v, want %v", err, meta.Invalid)
	}
}

// A table with a flipped bit is found at open and not read around.
func TestSpoiledTable(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := open(t, cfg)
	propose(t, r, opBulk, bulk{"row", 1000, 100})
	shut(t, r)
	tables, err := filepath.Glob(filepath.Join(cfg.Dir, "state.1", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	spoil(t, tables[0], 3000)
	if r, err := Open(cfg); err == nil {
		shut(t, r)
		t.Error("a table with a flipped bit was accepted")
	} else if !strings.Contains(err.Error(), "checksum") {
		t.Errorf("the error does not say why: %v", err)
	}
}
