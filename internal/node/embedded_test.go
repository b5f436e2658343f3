package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dos/chunk"
	"dos/internal/admin"
	"dos/meta"
	metanode "dos/meta/node"
	"dos/meta/replica"
	"dos/procfs/cluster"
)

// runEmbedded opens an embedded cluster in dir and runs it until the test ends or stop
// is called.
func runEmbedded(t *testing.T, dir string) (e *Embedded, stop func()) {
	t.Helper()
	e, err := openEmbedded(t.Context(), embeddedConfig{data: dir, create: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, e.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	if err := e.stores.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e, stop
}

// until waits for something to become true of the cluster's status.
func until(t *testing.T, e *Embedded, what string, is func(cluster.Status) bool) cluster.Status {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		s, err := e.Status(t.Context())
		if err == nil && is(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("not %s after a minute: %v\n%s", what, err, s.Text())
		}
		select { // a poll of a condition that another goroutine brings about
		case <-t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func write(t *testing.T, e *Embedded, name string, data []byte) {
	t.Helper()
	_, f, err := e.tree.CreateOpen(t.Context(), meta.Root, name, meta.Node{Mode: meta.TypeFile | 0o644}, os.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if _, err := f.WriteAt(t.Context(), data, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Fsync(t.Context(), false); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, e *Embedded, name string, size int) ([]byte, error) {
	t.Helper()
	attr, err := e.tree.Lookup(t.Context(), meta.Root, name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := e.tree.Open(t.Context(), attr.Ino, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	p := make([]byte, size)
	n, err := f.ReadAt(t.Context(), p, 0)
	return p[:n], err
}

func random(n int) []byte {
	p := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

func states(s cluster.Status, state string) (n int) {
	for _, st := range s.Stores {
		if st.State == state {
			n++
		}
	}
	return n
}

// reportTo notes the lines of a report.
func reportTo(said *strings.Builder) admin.Report {
	return admin.Report{Say: func(line string) { said.WriteString(line + "\n") }, At: func(int64, int64) {}}
}

func check(t *testing.T, e *Embedded) {
	t.Helper()
	var said strings.Builder
	n, err := e.fsck(t.Context(), true, reportTo(&said))
	if n != 0 || err != nil {
		t.Errorf("fsck: %d problems, %v\n%s", n, err, &said)
	}
}

// Two folders go while it runs: everything is read, and rebuilt unasked.
func TestTwoFoldersLost(t *testing.T) {
	dir := t.TempDir()
	e, _ := runEmbedded(t, dir)
	want := random(9 << 20)
	write(t, e, "f", want)
	until(t, e, "full", func(s cluster.Status) bool { return s.Stripes.Full == s.Stripes.Total() })
	for _, i := range []int{1, 4} {
		if err := os.RemoveAll(e.data.store(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := read(t, e, "f", len(want)); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, %v after the loss", len(got), err)
	}
	until(t, e, "rebuilt", func(s cluster.Status) bool {
		return states(s, cluster.Up) == 6 && s.Stripes.Full >= 3 && s.Stripes.Full == s.Stripes.Total() &&
			strings.Contains(cluster.Lines(e.Log()), "starts empty")
	})
	check(t, e)
}

// Three folders go while it is down: what they had cannot be read, the rest
// works, nothing starts empty by itself, and what comes back is used.
// Stores that were being rebuilt when the process ended count as lost after the
// next start, until they are whole.
func TestRebuildingOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	e, stop := runEmbedded(t, dir)
	write(t, e, "f", random(1<<20))
	until(t, e, "ok", func(s cluster.Status) bool { return s.Health().Word == cluster.OK })
	stop()
	for i := range 2 {
		if err := os.RemoveAll(filepath.Join(dir, "chunk", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	// This start ends before anything is rebuilt: there is no repair in it.
	e, err := openEmbedded(t.Context(), embeddedConfig{data: dir})
	if err != nil {
		t.Fatal(err)
	}
	e.stores.repaired = func() bool { return false }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.stores.Run(ctx) }()
	for !e.stores.list[0].isRebuilding() || !e.stores.list[1].isRebuilding() {
		if ctx.Err() != nil {
			t.Fatal("the stores do not start empty")
		}
		time.Sleep(20 * time.Millisecond) // a poll; the stores start after settleTime
	}
	cancel()
	if err := errors.Join(<-done, e.Close()); err != nil {
		t.Fatal(err)
	}

	e, err = openEmbedded(t.Context(), embeddedConfig{data: dir})
	if err != nil {
		t.Fatal(err)
	}
	if e.stores.mayStartEmpty(e.stores.list[2]) {
		t.Error("a third store would be given up while two are being rebuilt")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the mark goes when they are whole, for good
		e, stop = runEmbedded(t, dir)
		until(t, e, "ok", func(s cluster.Status) bool {
			return s.Health().Word == cluster.OK && !e.stores.list[0].isRebuilding() && !e.stores.list[1].isRebuilding()
		})
		stop()
	}
}

func TestThreeFoldersAway(t *testing.T) {
	dir := t.TempDir()
	e, stop := runEmbedded(t, dir)
	want := random(5 << 20)
	write(t, e, "before", want)
	stop()
	away := t.TempDir()
	for _, i := range []string{"0", "2", "5"} {
		if err := os.Rename(filepath.Join(dir, "chunk", i), filepath.Join(away, i)); err != nil {
			t.Fatal(err)
		}
	}

	e, _ = runEmbedded(t, dir)
	if _, err := read(t, e, "before", len(want)); !errors.Is(err, meta.Lost) {
		t.Errorf("read without three folders: %v, want Lost", err)
	}
	write(t, e, "during", want)
	if got, err := read(t, e, "during", len(want)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what is written meanwhile: %d bytes, %v", len(got), err)
	}
	s := until(t, e, "counted", func(s cluster.Status) bool { return s.Stripes.Lost > 0 })
	if got := s.Health().Word; got != cluster.DataLost {
		t.Errorf("health %s, want %s", got, cluster.DataLost)
	}
	for _, st := range e.stores.list { // long after they were lost
		st.mu.Lock()
		known := st.member.Incarnation != 0
		st.mu.Unlock()
		if now := st.node.State(); !now.Up && known {
			time.Sleep(time.Until(now.Since.Add(settleTime + time.Millisecond))) // until the rule may say otherwise
			if e.stores.mayStartEmpty(st) {
				t.Errorf("store %d may start empty though two others are lost", st.member.ID)
			}
		}
	}

	for _, i := range []string{"0", "2", "5"} {
		if err := os.Rename(filepath.Join(away, i), filepath.Join(dir, "chunk", i)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, e, "whole", func(s cluster.Status) bool { return s.Stripes.Lost == 0 && states(s, cluster.Up) == 6 })
	if got, err := read(t, e, "before", len(want)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after they came back: %d bytes, %v", len(got), err)
	}
}

// The administrator gives up a store of three that are gone for good.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	e, stop := runEmbedded(t, dir)
	write(t, e, "f", random(1<<20))
	if err := e.stores.Replace(1); !errors.Is(err, meta.Busy) {
		t.Errorf("replacing a store that works: %v, want Busy", err)
	}
	if err := e.stores.Replace(7); !errors.Is(err, meta.NotExist) {
		t.Errorf("replacing a store that is not: %v, want NotExist", err)
	}
	stop()
	for _, i := range []int{0, 1, 2} {
		if err := os.RemoveAll(filepath.Join(dir, "chunk", string(rune('0'+i)))); err != nil {
			t.Fatal(err)
		}
	}
	e, _ = runEmbedded(t, dir)
	for id := chunk.StoreID(1); id <= 3; id++ {
		if err := e.stores.Replace(id); err != nil {
			t.Errorf("replace %d: %v", id, err)
		}
	}
	until(t, e, "replaced", func(s cluster.Status) bool { return states(s, cluster.Lost) == 0 })
	write(t, e, "g", random(1<<20))
}

// What was written is there after a stop, and after a start that ends at once.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	small, large := random(100), random(6<<20+5)
	e, stop := runEmbedded(t, dir)
	write(t, e, "small", small)
	write(t, e, "large", large)
	stop()
	for range 2 {
		e, stop = runEmbedded(t, dir)
		for name, want := range map[string][]byte{"small": small, "large": large} {
			if got, err := read(t, e, name, len(want)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
		check(t, e)
		stop()
	}
	var said strings.Builder
	n, err := FsckOffline(t.Context(), dir, FsckOptions{Data: true}, reportTo(&said))
	if n != 0 || err != nil || !strings.Contains(said.String(), "clean") {
		t.Errorf("offline: %d problems, %v\n%s", n, err, &said)
	}
}

// A dump made while it runs restores a directory whose metadata is gone.
func TestDumpAndRestore(t *testing.T) {
	dir := t.TempDir()
	want := random(1 << 20)
	e, stop := runEmbedded(t, dir)
	write(t, e, "f", want)
	var dump bytes.Buffer
	if err := (administration{e}).Dump(t.Context(), &dump); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := Restore(t.Context(), dir, bytes.NewReader(dump.Bytes())); err == nil {
		t.Error("restored over metadata that is there")
	}
	if err := os.RemoveAll(filepath.Join(dir, "meta")); err != nil {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), dir, &dump); err != nil {
		t.Fatal(err)
	}
	e, _ = runEmbedded(t, dir)
	if got, err := read(t, e, "f", len(want)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after the restore: %d bytes, %v", len(got), err)
	}
	check(t, e)
}

// Stripe IDs that were handed out after a dump are not handed out again: the
// stores may have other bytes under them.
func TestOldDump(t *testing.T) {
	for _, test := range []struct {
		name    string
		restore func(t *testing.T, dir string, dump *bytes.Buffer)
	}{
		{"restore", func(t *testing.T, dir string, dump *bytes.Buffer) {
			if err := Restore(t.Context(), dir, dump); err != nil {
				t.Fatal(err)
			}
		}},
		{"salvage", func(t *testing.T, dir string, dump *bytes.Buffer) {
			c := replica.Config{Dir: filepath.Join(dir, "meta"), ID: nodeName, Machine: metanode.Machine()}
			if err := replica.Restore(c, dump); err != nil { // stands for metadata that has lost its end
				t.Fatal(err)
			}
			if _, err := FsckOffline(t.Context(), dir, FsckOptions{Salvage: true}, reportTo(new(strings.Builder))); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			e, stop := runEmbedded(t, dir)
			var dump bytes.Buffer
			if err := (administration{e}).Dump(t.Context(), &dump); err != nil {
				t.Fatal(err)
			}
			for i := range 5 {
				write(t, e, fmt.Sprint("old", i), random(1<<20+i))
			}
			handedOut, err := e.path.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			e.path.End(handedOut)
			stop()
			if err := os.RemoveAll(filepath.Join(dir, "meta")); err != nil {
				t.Fatal(err)
			}
			test.restore(t, dir, &dump)
			e, _ = runEmbedded(t, dir)
			id, err := e.path.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			e.path.End(id)
			if id <= handedOut {
				t.Errorf("stripe ID %d after %d was handed out", id, handedOut)
			}
			for i := range 5 {
				write(t, e, fmt.Sprint("new", i), random(1<<20+100+i))
			}
			check(t, e)
		})
	}
}
