package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"dos/meta"
	"dos/meta/state"
)

// The test binary starts itself again as the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DOS_REPLICA_CHILD"); dir != "" {
		if err := child(dir, os.Getenv("DOS_REPLICA_ACKED")); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const crashers = 8

// child proposes until it is killed. Each proposer has a session and appends its
// numbers to a row of its own, beginning with the one that was perhaps executed
// already.
func child(dir, acked string) error {
	r, err := Open(childConfig(dir))
	if err != nil {
		return err
	}
	var out sync.Mutex
	var w sync.WaitGroup
	for i, last := range strings.Split(acked, ",") {
		n, err := strconv.ParseUint(last, 10, 64)
		if err != nil {
			return err
		}
		w.Go(func() {
			for seq := n + 1; ; seq++ {
				cmd := state.Command{Op: opAppend, Session: meta.SessionID(i + 1), Slot: uint16(i), Seq: seq, Body: state.Marshal(put{crashKey(i), fmt.Appendf(nil, "%d,", seq)})}
				reply, err := r.Propose(context.Background(), cmd)
				if err == nil {
					err = reply.Err()
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, "child: proposing:", err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Printf("%d %d\n", i, seq)
				out.Unlock()
			}
		})
	}
	w.Wait()
	return nil
}

func childConfig(dir string) Config {
	return Config{Dir: dir, ID: "a", Machine: testMachine(), Bootstrap: true,
		// Flushes, snapshots and truncation all the time.
		limits: limits{memtable: 1 << 20, snapshotEntries: 100, trailing: 10, cut: 20e6}}
}

func crashKey(i int) string { return fmt.Sprintf("crash%d", i) }

// Kill -9 at any moment, and all that was acknowledged is there, once, in order;
// what was under way is there or not.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acked := make([]uint64, crashers)
	rounds := 3
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		var list []string
		for _, n := range acked {
			list = append(list, fmt.Sprint(n))
		}
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "DOS_REPLICA_CHILD="+dir, "DOS_REPLICA_ACKED="+strings.Join(list, ","))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := 200 + rand.IntN(2000)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == kill {
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
			}
			var i int
			var seq uint64
			if _, err := fmt.Sscan(lines.Text(), &i, &seq); err != nil {
				break // the line was cut by the kill
			}
			if seq != acked[i]+1 {
				t.Errorf("proposer %d: %d acknowledged after %d", i, seq, acked[i])
			}
			acked[i] = seq
		}
		if err := cmd.Wait(); err == nil || lines.Err() != nil {
			t.Fatalf("round %d: the child ended by itself: %v", round, lines.Err())
		}

		r := open(t, childConfig(dir))
		for i, last := range acked {
			got := read(t, r, crashKey(i))
			if got != numbers(last) && got != numbers(last+1) {
				t.Errorf("round %d, killed after %d: proposer %d was answered up to %d and the row ends %q", round, kill, i, last, tail(got))
			}
		}
		status, err := r.Status()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("killed after %d: %+v", kill, status)
		if round == rounds-1 && status.Snapshot == 0 {
			t.Error("no snapshot was taken: the test tests less than it says")
		}
		shut(t, r)
	}
}

func numbers(n uint64) string {
	var b strings.Builder
	for i := uint64(1); i <= n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()
}

func tail(s string) string { return s[max(0, len(s)-40):] }

// copyTree copies a directory as a crash would leave it. Nothing may be written
// meanwhile.
func copyTree(t *testing.T, from string, skip ...string) string {
	t.Helper()
	to := t.TempDir()
	copyInto(t, from, to, skip...)
	return to
}

func copyInto(t *testing.T, from, to string, skip ...string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		for _, s := range skip {
			switch {
			case rel == s && d.IsDir():
				return filepath.SkipDir
			case rel == s:
				return nil
			}
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		src, err := os.Open(path)
		if err != nil {
			return err
		}
		dst, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return errors.Join(err, src.Close())
		}
		info, err := src.Stat()
		if err == nil {
			_, err = io.Copy(dst, io.LimitReader(src, info.Size()))
		}
		return errors.Join(err, src.Close(), dst.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// After a power cut Badger's own log of a memtable may have any part of what was
// written. Here one is from later than all the rest: were it read, the state
// would be ahead of the log. Another is garbage.
func TestMemtableLogsAreNotRead(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := open(t, cfg)
	propose(t, r, opAppend, put{"k", []byte("early,")})
	if err := r.fsm.store.flush(nil, r.Applied()); err != nil {
		t.Fatal(err)
	}
	propose(t, r, opAppend, put{"k", []byte("middle,")})
	if err := r.logs.recordAcked(); err != nil {
		t.Fatal(err)
	}
	then := copyTree(t, cfg.Dir)
	propose(t, r, opAppend, put{"k", []byte("late,")})
	later, err := filepath.Glob(filepath.Join(cfg.Dir, "state.1", "*.mem"))
	if err != nil || len(later) == 0 {
		t.Fatalf("no memtable logs to try with: %v", err)
	}
	for _, path := range later {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "late,") {
			continue
		}
		if err := os.WriteFile(filepath.Join(then, "state.1", filepath.Base(path)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(then, "state.1", "00099.mem"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	shut(t, r)

	cfg.Dir = then
	r = open(t, cfg)
	defer shut(t, r)
	if got, want := read(t, r, "k"), "early,middle,"; got != want {
		t.Errorf("read %q, want %q", got, want)
	}
}

// A crash before and after each step by which the state becomes durable and the
// log is cut leaves the same rows.
func TestCrashPoints(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	cfg.limits = limits{memtable: 1 << 20, snapshotEntries: 1 << 40, trailing: 5}
	r := open(t, cfg)
	for i := range 40 {
		propose(t, r, opAppend, put{"k", fmt.Appendf(nil, "%d,", i+1)})
	}
	if err := r.logs.recordAcked(); err != nil {
		t.Fatal(err)
	}
	copies := map[string]string{"before the flush": copyTree(t, cfg.Dir)}
	if err := r.fsm.store.flush(nil, r.Applied()); err != nil {
		t.Fatal(err)
	}
	copies["flushed"] = copyTree(t, cfg.Dir)
	if err := r.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	copies["snapshot recorded, log cut"] = copyTree(t, cfg.Dir)
	// The record is written before the log is cut: what lies between is the new
	// record over the old log.
	between := copyTree(t, copies["flushed"], "current")
	b, err := os.ReadFile(filepath.Join(cfg.Dir, "current"))
	if err == nil {
		err = os.WriteFile(filepath.Join(between, "current"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	copies["snapshot recorded, log not cut"] = between
	status, err := r.Status()
	if err != nil || status.Snapshot == 0 || status.First < 10 {
		t.Fatalf("the log was not cut: %+v, %v", status, err)
	}
	shut(t, r)
	copies["clean stop"] = cfg.Dir

	for name, dir := range copies {
		cfg.Dir = dir
		r, err := Open(cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, want := read(t, r, "k"), numbers(40); got != want {
			t.Errorf("%s: read %q, want %q", name, got, want)
		}
		propose(t, r, opAppend, put{"k", []byte("41,")})
		shut(t, r)
		r = open(t, cfg)
		if got, want := read(t, r, "k"), numbers(41); got != want {
			t.Errorf("%s, and again: read %q, want %q", name, got, want)
		}
		shut(t, r)
	}
}
