package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"dos/meta"
	"dos/meta/state"
)

// A fakeDisk has so many bytes, less what others took and what the reserve holds.
type fakeDisk struct {
	size, others atomic.Int64
	reserve      int64
}

func (d *fakeDisk) measure(dir string) (room, error) {
	free := d.size.Load() - d.others.Load()
	if _, err := os.Stat(filepath.Join(dir, reserveName)); err == nil {
		free -= d.reserve
	} else if !errors.Is(err, fs.ErrNotExist) {
		return room{}, err
	}
	return room{capacity: d.size.Load(), free: max(0, free), writable: max(0, free)}, nil
}

// spaceConfig is on a disk of 1000 bytes, of which 200 are reserved: the marks are
// 50, 100 and 150.
func spaceConfig(t *testing.T) (Config, *fakeDisk) {
	d := &fakeDisk{reserve: 200}
	d.size.Store(amplyFree + 1000)
	cfg := testConfig(t, t.TempDir())
	cfg.limits = limits{minFree: 50, lowFree: 100, addFree: 150, reserve: 200, measure: d.measure}
	return cfg, d
}

func reserved(t *testing.T, cfg Config) bool {
	t.Helper()
	var st syscall.Stat_t
	err := syscall.Stat(filepath.Join(cfg.Dir, reserveName), &st)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return st.Size == 200 && st.Blocks > 0 // else it is being made
}

func TestSpace(t *testing.T) {
	cfg, d := spaceConfig(t)
	r := open(t, cfg)
	await := func(what string, cond func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	await("the reserve is made", func() bool { return reserved(t, cfg) })
	propose(t, r, opAppend, put{"k", []byte("1")})
	add := state.Command{Op: opAppend, Body: state.Marshal(put{"k", []byte("2")})}
	other := state.Command{Op: opGone, Body: state.Marshal("absent")}
	for _, step := range []struct {
		name       string
		left       int64 // that others leave us, the reserve included
		add, other error
		reserved   bool
	}{
		{"room", 351, nil, nil, true},
		{"short", 349, meta.NoSpace, nil, true},
		{"a little better", 351, meta.NoSpace, nil, true},
		{"low", 299, meta.NoSpace, nil, false},
		{"nothing but the reserve", 200, meta.NoSpace, nil, false},
		{"the reserve runs out", 50, meta.NoSpace, nil, false},
		{"full", 49, meta.NoSpace, meta.NoSpace, false},
		{"not any more", 50, meta.NoSpace, nil, false},
		{"not enough for the reserve", amplyFree + 349, meta.NoSpace, nil, false},
	} {
		d.others.Store(d.size.Load() - step.left)
		if _, err := r.Propose(t.Context(), add); !errors.Is(err, step.add) {
			t.Errorf("%s: adding: %v, want %v", step.name, err, step.add)
		}
		if _, err := r.Propose(t.Context(), other); !errors.Is(err, step.other) {
			t.Errorf("%s: not adding: %v, want %v", step.name, err, step.other)
		}
		if got := reserved(t, cfg); got != step.reserved {
			t.Errorf("%s: reserved %v, want %v", step.name, got, step.reserved)
		}
		if got := r.Short(); got != (step.add != nil) {
			t.Errorf("%s: Short() = %v", step.name, got)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	d.others.Store(0)
	await("room again", func() bool { return !r.Short() && reserved(t, cfg) })
	propose(t, r, opAppend, put{"k", []byte("3")})
	shut(t, r)
}

// What was acknowledged is there after a stop on a full disk, which leaves the
// state as a crash does.
func TestStopOnFullDisk(t *testing.T) {
	cfg, d := spaceConfig(t)
	r := open(t, cfg)
	propose(t, r, opAppend, put{"k", []byte("1")})
	d.others.Store(d.size.Load() - 10)
	shut(t, r)
	if r.fsm.current().db.IsClosed() {
		t.Error("Badger wrote its memtable out")
	}
	if err := r.fsm.current().db.Close(); err != nil { // as the end of the process would
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, meta.NoSpace) {
		t.Errorf("a start on a full disk: %v, want %v", err, meta.NoSpace)
	}
	d.others.Store(d.size.Load() - 60)
	r = open(t, cfg) // what is left of the reserve is enough
	if err := r.View(t.Context(), func(s state.Reader) error {
		if val, _ := s.Get([]byte("k")); string(val) != "1" {
			t.Errorf("k is %q, want 1", val)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	shut(t, r)
}

// A start that finds the disk full has the reserve.
func TestStartOnFullDisk(t *testing.T) {
	cfg, d := spaceConfig(t)
	r := open(t, cfg)
	for end := time.Now().Add(10 * time.Second); !reserved(t, cfg); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no reserve")
		}
	}
	shut(t, r)
	d.others.Store(d.size.Load() - 200)
	r = open(t, cfg)
	if reserved(t, cfg) {
		t.Error("the reserve was kept")
	}
	propose(t, r, opGone, "absent")
	shut(t, r)
}

// The log of the active memtable has all the room that it may need, however
// many there were before.
func TestMemtableHasRoom(t *testing.T) {
	f := testFSM(t, t.TempDir())
	defer func() {
		if err := f.store.close(); err != nil {
			t.Error(err)
		}
	}()
	s := f.store
	index := uint64(0)
	for s.roomy < 4 {
		index++
		f.ApplyBatch([]*raft.Log{entry(t, index, command(opBulk, bulk{"k", 100, 1000}))})
		if index > 10_000 {
			t.Fatalf("after %d entries there were %d memtables", index, s.roomy)
		}
		s.keepRoom() // the entry may have begun one
		var st unix.Stat_t
		path := filepath.Join(s.db.Opts().Dir, fmt.Sprintf("%05d.mem", s.roomy))
		if err := unix.Stat(path, &st); err != nil || st.Blocks*512 < s.db.Opts().MemTableSize+s.db.MaxBatchSize() {
			t.Fatalf("memtable %d: %+v, %v", s.roomy, st, err)
		}
	}
	if all, err := filepath.Glob(filepath.Join(s.db.Opts().Dir, "*.mem")); err != nil || filepath.Base(all[len(all)-1]) != fmt.Sprintf("%05d.mem", s.roomy) {
		t.Errorf("there are %v, %v, and room up to %d", all, err, s.roomy)
	}
}
