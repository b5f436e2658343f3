package replica

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"dos/meta"
)

func TestSeal(t *testing.T) {
	for _, e := range []*raft.Log{
		{Index: 1, Term: 2, Type: raft.LogCommand, Data: []byte("data")},
		{Index: 3, Term: 4, Type: raft.LogConfiguration, Extensions: []byte("ext")},
	} {
		s := sealed(e)
		if had, err := unseal(s); !had || err != nil || !reflect.DeepEqual(s, e) {
			t.Errorf("%+v comes back as %+v, %v, %v", e, s, had, err)
		}
		for what, spoil := range map[string]func(*raft.Log){
			"index": func(l *raft.Log) { l.Index ^= 1 },
			"term":  func(l *raft.Log) { l.Term ^= 8 },
			"type":  func(l *raft.Log) { l.Type ^= 4 },
			"data":  func(l *raft.Log) { l.Data = append([]byte("x"), l.Data...) },
			"seal":  func(l *raft.Log) { l.Extensions[len(l.Extensions)-1] ^= 1 },
		} {
			s := sealed(e)
			spoil(s)
			if had, err := unseal(s); !had || !errors.Is(err, meta.Lost) {
				t.Errorf("%+v with another %s: %v, %v", e, what, had, err)
			}
		}
		plain := *e
		if had, err := unseal(&plain); had || err != nil || !reflect.DeepEqual(&plain, e) {
			t.Errorf("without a seal %+v comes back as %+v, %v, %v", e, plain, had, err)
		}
	}
}

// A bit that flips anywhere in the log is found at the start, or does no harm.
func TestFlippedLog(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	cfg := testConfig(t, t.TempDir())
	cfg.limits = limits{memtable: 1 << 20, snapshotEntries: 1 << 40, trailing: 2, segment: 4 << 10}
	r := open(t, cfg)
	want := ""
	for range 80 {
		propose(t, r, opAppend, put{"k", []byte("0123456789,")})
		want += "0123456789,"
	}
	if err := r.logs.recordAcked(); err != nil {
		t.Fatal(err)
	}
	crashed := copyTree(t, cfg.Dir) // all of it is in the log alone
	shut(t, r)
	segments, err := filepath.Glob(filepath.Join(crashed, "raft", "*.wal"))
	if err != nil || len(segments) < 2 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	for round := range 6 {
		cfg.Dir = copyTree(t, crashed)
		path := filepath.Join(cfg.Dir, "raft", filepath.Base(segments[rng.IntN(len(segments))]))
		if round == 0 {
			path = filepath.Join(cfg.Dir, "raft", filepath.Base(segments[0]))
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		used := len(strings.TrimRight(string(b), "\x00"))
		at, bit := rng.IntN(used), rng.IntN(8)
		if round == 0 { // surely in an entry
			at = strings.Index(string(b), "0123456789,")
		}
		b[at] ^= 1 << bit
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Open(cfg)
		if err == nil {
			if got := read(t, r, "k"); got != want {
				t.Errorf("bit %d of byte %d of %s: it opens with %q", bit, at, path, got)
			}
			shut(t, r)
			if round == 0 {
				t.Errorf("bit %d of byte %d of %s: it opens", bit, at, path)
			}
			continue
		}
		if !errors.Is(err, meta.Lost) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "--salvage") {
			t.Errorf("bit %d of byte %d of %s: %v", bit, at, path, err)
		}
		fix := cfg
		fix.Salvage = true
		if r, err = Open(fix); err != nil {
			t.Errorf("bit %d of byte %d of %s: salvage: %v", bit, at, path, err)
			continue
		}
		if got := read(t, r, "k"); !strings.HasPrefix(want, got) {
			t.Errorf("bit %d of byte %d of %s: salvaged %q", bit, at, path, got)
		}
		propose(t, r, opAppend, put{"k", []byte("more")})
		shut(t, r)
		shut(t, open(t, cfg))
	}
}

// What the snapshot covers need not be in the log.
func TestDamageBehindSnapshot(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.limits = limits{memtable: 1 << 20, snapshotEntries: 1 << 40, trailing: 100}
	r := open(t, cfg)
	for range 10 {
		propose(t, r, opAppend, put{"k", []byte("x")})
	}
	shut(t, r)
	segments, err := filepath.Glob(filepath.Join(cfg.Dir, "raft", "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b), "\x61k\x02\x41x") // the first request
	if at < 0 {
		t.Fatal("the log does not have what was proposed")
	}
	spoil(t, segments[0], at+4)
	r = open(t, cfg)
	defer shut(t, r)
	if got := read(t, r, "k"); got != "xxxxxxxxxx" {
		t.Errorf("k = %q", got)
	}
}
