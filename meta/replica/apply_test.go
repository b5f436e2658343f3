package replica

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/hashicorp/raft"

	"dos/meta"
	"dos/meta/state"
)

// testFSM is an fsm without Raft.
func testFSM(t *testing.T, dir string) *fsm {
	cfg := testConfig(t, dir)
	if err := cfg.defaults(); err != nil {
		t.Fatal(err)
	}
	return newFSM(&Replica{cfg: cfg, dead: make(chan struct{})}, testStore(t, dir))
}

func entry(t *testing.T, index uint64, cmds ...state.Command) *raft.Log {
	t.Helper()
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: encodeEntry(cmds)}
}

func command(op state.Op, req any) state.Command {
	return state.Command{Op: op, Body: state.Marshal(req)}
}

// versions returns the timestamp of each row, of those with the prefix.
func versions(t *testing.T, s *store, prefix string) map[uint64]int {
	t.Helper()
	txn := s.db.NewTransactionAt(1<<60, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
	defer it.Close()
	found := make(map[uint64]int)
	for it.Rewind(); it.Valid(); it.Next() {
		found[it.Item().Version()]++
	}
	return found
}

// Batches are cut at the borders of entries, below half of what a Badger
// transaction takes, and have the timestamp of their last entry.
func TestBatchCut(t *testing.T) {
	f := testFSM(t, t.TempDir())
	defer func() {
		if err := f.store.close(); err != nil {
			t.Error(err)
		}
	}()
	rows := int(f.store.maxCount) * 2 / 5 // two entries fit, three do not
	var entries []*raft.Log
	for i := range uint64(5) {
		entries = append(entries, entry(t, i+1, command(opBulk, bulk{fmt.Sprintf("%c", 'p'+i), rows, 8})))
	}
	for i, r := range f.ApplyBatch(entries) {
		if replies, ok := r.([]state.Reply); !ok || len(replies) != 1 || replies[0].Kind != 0 {
			t.Errorf("entry %d: %+v", i+1, r)
		}
	}
	for i, want := range []uint64{2, 2, 4, 4, 5} {
		if got := versions(t, f.store, fmt.Sprintf("%c", 'p'+i)); len(got) != 1 || got[want] != rows {
			t.Errorf("rows of entry %d have the timestamps %v, want %d at %d", i+1, got, rows, want)
		}
	}
	if f.store.done != (position{5, 1}) {
		t.Errorf("applied %+v", f.store.done)
	}
	// Again, as after a start: nothing happens, and later ones are applied.
	f.ApplyBatch(append(entries, entry(t, 6, command(opAppend, put{"k", []byte("6")}))))
	if got := versions(t, f.store, "p"); got[2] != rows {
		t.Errorf("entry 1 was applied again: %v", got)
	}
	if got := versions(t, f.store, "k"); got[6] != 1 {
		t.Errorf("entry 6 was not applied: %v", got)
	}
}

// A batch that is too large for one transaction, and a crash in the middle of it.
func TestSplit(t *testing.T) {
	dir := t.TempDir()
	f := testFSM(t, dir)
	rows := int(f.store.maxCount) * 5 / 2
	f.ApplyBatch([]*raft.Log{entry(t, 1, command(opBulk, bulk{"b", rows, 8}))})
	if err := f.store.flush(nil, 1); !errors.Is(err, meta.Busy) {
		t.Errorf("flush up to a batch that was split: %v, want %v", err, meta.Busy)
	}
	f.ApplyBatch([]*raft.Log{entry(t, 2, command(opAppend, put{"k", []byte("2")}))})
	if err := f.store.flush(nil, 2); err != nil {
		t.Error(err)
	}
	// Entry 3 rewrites all rows; the process ends before the last transaction,
	// and what there was got into tables.
	crash := errors.New("the power went")
	v, err := f.store.view()
	if err != nil {
		t.Fatal(err)
	}
	o := state.NewOverlay(v)
	third := command(opBulk, bulk{"b", rows, 8})
	f.r.cfg.Machine.Apply(o, third)
	count, size := o.Size()
	v.close()
	if err := f.store.commit(batch{changes: o.Changes(), count: count, size: size, to: position{3, 1}, check: func() error { return crash }}); !errors.Is(err, crash) {
		t.Fatal(err)
	}
	if err := f.store.close(); err != nil { // flushes
		t.Fatal(err)
	}

	f = testFSM(t, dir)
	defer func() {
		if err := f.store.close(); err != nil {
			t.Error(err)
		}
	}()
	if got := f.store.done.index; got != 2 {
		t.Errorf("applied %d, want 2", got)
	}
	if got := f.store.topVersion(); got != 3 {
		t.Fatalf("largest version %d: the test does not leave what it says", got)
	}
	if got, _ := f.store.durable(); got != 2 {
		t.Errorf("durable %d, want 2", got)
	}
	check := func(want byte) {
		t.Helper()
		v, err := f.store.view()
		if err != nil {
			t.Fatal(err)
		}
		defer v.close()
		n := 0
		for key, val := range v.Scan([]byte("b"), []byte("c")) {
			var i int
			if _, err := fmt.Sscanf(string(key), "b%06d", &i); err != nil || val[0] != byte(i)+want {
				t.Fatalf("row %s begins with %d, want %d", key, val[0], byte(i)+want)
			}
			n++
		}
		if n != rows {
			t.Errorf("%d rows, want %d", n, rows)
		}
	}
	check(0)
	f.ApplyBatch([]*raft.Log{entry(t, 3, third)})
	check(1) // once, not twice
	if got, _ := f.store.durable(); got != 2 {
		t.Errorf("durable %d while entry 3 may be in part in memory, want 2", got)
	}
	f.ApplyBatch([]*raft.Log{entry(t, 4, command(opAppend, put{"k", []byte("4")}))})
	if err := f.store.flush(nil, 4); err != nil {
		t.Error(err)
	}
	if got, _ := f.store.durable(); got != 4 {
		t.Errorf("durable %d, want 4", got)
	}
}

// While entries, flushes and snapshots go on, no snapshot is ever recorded
// beyond what tables hold, the log stays short, and old versions go.
func TestSnapshotsUnderLoad(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.limits = limits{memtable: 1 << 20, snapshotEntries: 50, trailing: 5, cut: 10 * time.Millisecond}
	r := open(t, cfg)
	stop := make(chan struct{})
	var w sync.WaitGroup
	for i := range 4 {
		w.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					propose(t, r, opBulk, bulk{fmt.Sprintf("r%d", i), 20, 200})
				}
			}
		})
	}
	deadline := time.Now().Add(40 * time.Second)
	for snaps, last := 0, uint64(0); snaps < 5; {
		if time.Now().After(deadline) {
			t.Fatal("no five snapshots in 40 s")
		}
		record, err := loadCurrent(cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if record.Index == last {
			<-r.Moved()
			continue
		}
		snaps, last = snaps+1, record.Index
		if f, _ := r.fsm.durable(); last > f {
			t.Errorf("snapshot at %d, durable %d", last, f)
		}
	}
	close(stop)
	w.Wait()
	// The record comes first, then the cut.
	for {
		status, err := r.Status()
		if err != nil {
			t.Fatal(err)
		}
		if status.First > 1 && status.First+2*cfg.limits.snapshotEntries > status.Last {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log was not cut: %+v", status)
		}
	}
	// Every value is in the tables, none in the value log.
	logs, err := filepath.Glob(filepath.Join(cfg.Dir, "state.1", "*.vlog"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if rest := bytes.Trim(b[min(20, len(b)):], "\x00"); len(rest) > 0 {
			t.Errorf("%s holds %d bytes", path, len(rest))
		}
	}
	shut(t, r)
}

// Old versions go, but not those that a view sees.
func TestDiscard(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.limits = limits{memtable: 1 << 20, snapshotEntries: 1 << 40}
	r := open(t, cfg)
	defer shut(t, r)
	s := r.fsm.store
	const rows = 20
	rewrite := func() {
		t.Helper()
		for range levelZero + 2 {
			for range 10 {
				propose(t, r, opBulk, bulk{"v", rows, 100})
			}
			if err := s.flush(nil, r.Applied()); err != nil {
				t.Fatal(err)
			}
			s.discard()
		}
	}
	// Ten more versions may lie in tables that were not compacted.
	settle := func(want int) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for n := 0; ; time.Sleep(10 * time.Millisecond) {
			if n = allVersions(s, "v"); n <= want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d versions of %d rows, want at most %d", n, rows, want)
			}
		}
	}
	rewrite()
	settle(rows * (1 + 10*levelZero))
	before := make(map[string]byte)
	err := r.View(t.Context(), func(old state.Reader) error {
		for key, val := range old.Scan([]byte("v"), []byte("w")) {
			before[string(key)] = val[0]
		}
		rewrite()
		settle(rows * (2 + 10*(2*levelZero+2)))
		for key, val := range old.Scan([]byte("v"), []byte("w")) {
			if val[0] != before[string(key)] {
				t.Errorf("row %s is %d in a view that saw %d", key, val[0], before[string(key)])
			}
		}
		return nil
	})
	if err != nil || len(before) != rows {
		t.Errorf("%d rows, %v", len(before), err)
	}
	rewrite()
	settle(rows * (1 + 10*levelZero))
}

func allVersions(s *store, prefix string) int {
	txn := s.db.NewTransactionAt(1<<60, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{AllVersions: true, Prefix: []byte(prefix)})
	defer it.Close()
	n := 0
	for it.Rewind(); it.Valid(); it.Next() {
		n++
	}
	return n
}

// A state that has seen nothing but the entries that Raft and we make for
// ourselves can have a snapshot too.
func TestSnapshotOfNothing(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := open(t, cfg)
	shut(t, r)
	r = open(t, cfg)
	if err := r.raft.Snapshot().Error(); err != nil {
		t.Error(err)
	}
	shut(t, r)
	shut(t, open(t, cfg))
}

// A log that hangs stops the answers; when it goes on, so do they.
func TestSlowLog(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.limits.slow, cfg.limits.hung = 300*time.Millisecond, time.Minute
	r := open(t, cfg)
	// The disk may be that slow by itself, so it is tried again.
	seq := uint64(0)
	insist := func(val string) {
		t.Helper()
		seq++
		for {
			_, err := r.Propose(t.Context(), state.Command{Op: opAppend, Session: 1, Seq: seq, Body: state.Marshal(put{"k", []byte(val)})})
			if err == nil {
				return
			}
			if !errors.Is(err, meta.Unavailable) {
				t.Fatal(err)
			}
		}
	}
	insist("1,")
	release := make(chan struct{})
	held := hold(r, release)
	_, err := r.Propose(t.Context(), command(opAppend, put{"k", []byte("2,")}))
	if !errors.Is(err, meta.Unavailable) || !strings.Contains(err.Error(), "outcome unknown") {
		t.Errorf("while the log hangs: %v, want %v, outcome unknown", err, meta.Unavailable)
	}
	if _, err := r.Propose(t.Context(), command(opAppend, put{"k", []byte("3,")})); !errors.Is(err, meta.Unavailable) || !strings.Contains(err.Error(), "not proposed") {
		t.Errorf("and the next: %v, want %v, not proposed", err, meta.Unavailable)
	}
	if got := read(t, r, "k"); got != "1," { // what is committed may be read
		t.Errorf("read %q", got)
	}
	<-held
	close(release)
	insist("4,")
	if got := read(t, r, "k"); got != "1,2,4," {
		t.Errorf("read %q, want 1,2,4,", got)
	}
	shut(t, r)
}

// hold makes the next writes to the log wait for release. The channel that it
// returns is closed when one does.
func hold(r *Replica, release <-chan struct{}) <-chan struct{} {
	held := make(chan struct{})
	var once sync.Once
	hook := func() {
		once.Do(func() { close(held) })
		<-release
	}
	r.logs.hold.Store(&hook)
	return held
}

// One that hangs too long ends the member.
func TestHungLog(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.limits.slow, cfg.limits.hung = 300*time.Millisecond, 1500*time.Millisecond
	fatal := make(chan error, 1)
	cfg.Fatal = func(err error) { fatal <- err }
	r := open(t, cfg)
	release := make(chan struct{})
	hold(r, release)
	if _, err := r.Propose(t.Context(), command(opAppend, put{"k", nil})); !errors.Is(err, meta.Unavailable) {
		t.Errorf("%v, want %v", err, meta.Unavailable)
	}
	if err := <-fatal; !strings.Contains(err.Error(), "a write to the log") {
		t.Errorf("ended by %v", err)
	}
	if _, err := r.Propose(t.Context(), command(opAppend, put{"k", nil})); !errors.Is(err, meta.Unavailable) {
		t.Errorf("afterwards: %v, want %v", err, meta.Unavailable)
	}
	close(release)
	shut(t, r)
}

// A process that was stopped for longer than a write may take, while it wrote, has
// no disk that hangs.
func TestStandstill(t *testing.T) {
	const tick = 100 * time.Millisecond
	var w watched
	now := time.Unix(1e9, 0)
	look := func(after time.Duration, began int64, took, want time.Duration) {
		t.Helper()
		now = now.Add(after)
		if got := w.look(now, began, took); got != want {
			t.Errorf("a write that has taken %v, looked at after %v: %v, want %v", took, after, got, want)
		}
	}
	look(tick, 7, 0, 0)
	look(tick, 7, tick, tick)
	look(20*time.Second, 7, 20*time.Second+tick, tick)
	look(tick, 7, 20*time.Second+2*tick, 2*tick)           // it goes on hanging
	look(12*time.Second, 8, 12*time.Second, 0)             // another, begun unseen
	look(12*time.Second, 9, 3*tick, 0)                     // begun after the standstill
	look(tick, 9, 4*tick, tick)                            // and late by no more than it has taken
	look(tick, 0, 0, 0)                                    // none
	look(30*time.Second, 0, 0, 0)                          // nor while it stood still
	look(tick, 10, tick, tick)                             // the next is watched from its start
	look(standstill, 10, tick+standstill, tick+standstill) // a look that is a little late counts
}

func TestDumpAndRestore(t *testing.T) {
	r := open(t, testConfig(t, t.TempDir()))
	propose(t, r, opBulk, bulk{"row", 5000, 200})
	propose(t, r, opAppend, put{"k", []byte("1,")})
	propose(t, r, opGone, "row000003")
	var dumped bytes.Buffer
	if err := r.Dump(&dumped); err != nil {
		t.Fatal(err)
	}
	shut(t, r)

	cfg := testConfig(t, filepath.Join(t.TempDir(), "new"))
	cfg.ID = "b" // a dump may go to another member
	if err := Restore(cfg, bytes.NewReader(dumped.Bytes()[:dumped.Len()-3])); !errors.Is(err, meta.Lost) {
		t.Errorf("a dump that was cut: %v, want %v", err, meta.Lost)
	}
	if _, err := Open(cfg); !errors.Is(err, meta.Lost) {
		t.Errorf("opening what was restored in part: %v, want %v", err, meta.Lost)
	}
	if err := Restore(cfg, bytes.NewReader(dumped.Bytes())); !errors.Is(err, meta.NotEmpty) {
		t.Errorf("restoring into something: %v, want %v", err, meta.NotEmpty)
	}
	cfg.Dir = filepath.Join(t.TempDir(), "new")
	if err := Restore(cfg, bytes.NewReader(dumped.Bytes())); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r = open(t, cfg)
		var again bytes.Buffer
		if err := r.Dump(&again); err != nil {
			t.Fatal(err)
		}
		// The index differs, the rows do not.
		if !bytes.Equal(again.Bytes()[dumpHeader:], dumped.Bytes()[dumpHeader:]) {
			t.Error("what was restored is not what was dumped")
		}
		propose(t, r, opAppend, put{"k", []byte("2,")})
		if got := read(t, r, "k"); got != "1,2," {
			t.Errorf("read %q", got)
		}
		propose(t, r, opGone, "k")
		propose(t, r, opAppend, put{"k", []byte("1,")})
		shut(t, r)
	}
}

// Time never runs backwards in the log, whatever the clock does.
func TestTime(t *testing.T) {
	now := time.Unix(1000, 0)
	cfg := testConfig(t, t.TempDir())
	var seen []int64
	cfg.Machine = new(state.Machine)
	state.Handle(cfg.Machine, opAppend, "test.time", func(tx *state.Tx, _ struct{}) (int64, error) { return tx.Now.Unix(), nil })
	var mu sync.Mutex
	cfg.Clock = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	r := open(t, cfg)
	for _, at := range []int64{1000, 900, 1001} {
		mu.Lock()
		now = time.Unix(at, 0)
		mu.Unlock()
		var got int64
		state.MustUnmarshal(propose(t, r, opAppend, struct{}{}).Body, &got)
		seen = append(seen, got)
	}
	shut(t, r)
	if fmt.Sprint(seen) != "[1000 1000 1001]" {
		t.Errorf("commands saw %v", seen)
	}
}
