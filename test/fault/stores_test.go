package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

const (
	// repairLimit bounds how long full redundancy may take to come back with
	// as little data as there is here: what was written with a smaller code is
	// written again when it has not changed for 10 s.
	repairLimit = time.Minute
	// errorLimit is what the design allows an operation that cannot succeed.
	errorLimit = 30 * time.Second
)

func store(m *cluster.Mount, i int) string { return filepath.Join(m.Data, "chunk", fmt.Sprint(i)) }

// pairs are all pairs of six stores, in an order in which neighbours share none.
func pairs() [][2]int {
	return [][2]int{{0, 1}, {2, 3}, {4, 5}, {0, 2}, {1, 4}, {3, 5}, {0, 3}, {1, 5}, {2, 4}, {0, 4}, {1, 3}, {2, 5}, {0, 5}, {1, 2}, {3, 4}}
}

// TestPairs takes two stores at a time away, while dos runs and while it is
// down, deleted and emptied. Nothing is lost, and when redundancy is reported
// full the next two can go.
func TestPairs(t *testing.T) {
	cluster.NeedFuse(t)
	list := pairs()
	if !*long {
		list = list[:5]
	}
	m := cluster.Start(t, cluster.Dir(t)+"/data")
	files := make(witness.Files)
	files.Add(t, m.Path("first"), 1)
	for i, p := range list {
		running, emptied := i%2 == 0, (i+i/2)%2 == 1
		when := fmt.Sprintf("pair %v, emptied %v, running %v", p, emptied, running)
		if !running {
			m.Stop(t)
		}
		for _, s := range p {
			lose(t, store(m, s), emptied)
		}
		if !running {
			m.Again(t)
		}
		files.Check(t, when+", just gone")
		files.Add(t, m.Path(fmt.Sprint("after", i)), uint64(100*(i+2)))
		cluster.Await(t, repairLimit, func() error { // its loss is noticed, and it starts anew
			for _, s := range p {
				if list, err := os.ReadDir(store(m, s)); err != nil || len(list) == 0 {
					return fmt.Errorf("store %d has not started anew (%v)", s, err)
				}
			}
			return nil
		})
		began := time.Now()
		m.AwaitHealth(t, "ok", repairLimit)
		t.Logf("%s: whole again after %.1f s", when, time.Since(began).Seconds())
		m.Cold(t)
		files.Check(t, when+", repaired")
	}
	m.Stop(t)
	fsck(t, m.Data)
}

// lose deletes a folder, or all that is in it.
func lose(t *testing.T, dir string, emptied bool) {
	t.Helper()
	if !emptied {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlippedBits damages the contents of two stores' files, in one place and
// all over, while dos runs and while it is down. Every read is right, and a
// scrub mends what is damaged, so that the next two can be.
func TestFlippedBits(t *testing.T) {
	cluster.NeedFuse(t)
	rnd := witness.Random(t)
	m := cluster.Start(t, cluster.Dir(t)+"/data")
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 7)
	for i, c := range []struct {
		pair    [2]int
		every   int // bytes between two flips, about
		running bool
	}{
		{[2]int{0, 1}, 100_000, false},
		{[2]int{2, 3}, 3_000, false},
		{[2]int{4, 5}, 20_000, true},
	} {
		when := fmt.Sprintf("stores %v, a flip about every %d bytes, running %v", c.pair, c.every, c.running)
		m.Stop(t)
		cluster.DropCaches(t)
		if c.running {
			m.Again(t)
		}
		flipped := 0
		for _, s := range c.pair {
			flipped += flip(t, rnd, store(m, s), c.every)
		}
		if flipped == 0 {
			t.Fatalf("%s: nothing to flip", when)
		}
		if !c.running {
			m.Again(t)
		}
		files.Check(t, when)
		files.Add(t, m.Path(fmt.Sprint("after", i)), uint64(100*(i+10)))
		scrub(t, m.Data)
		m.AwaitHealth(t, "ok", repairLimit)
		m.Cold(t)
		files.Check(t, when+", mended")
	}
	m.Stop(t)
	fsck(t, m.Data)
}

// scrub has dosctl find and mend what is bad. It reports what it found, which is no failure here.
func scrub(t *testing.T, data string) {
	t.Helper()
	r := cluster.Run(t, cluster.Bin("dosctl"), "--data", data, "scrub")
	if r.Code > 1 {
		t.Fatalf("dosctl scrub: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// flip turns single bits of a store's segment files, about one in each of every bytes.
func flip(t *testing.T, rnd *rand.Rand, dir string, every int) (flipped int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !segment(d.Name()) {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		var b [1]byte
		for off := int64(rnd.IntN(every)); err == nil && off < info.Size(); off += 1 + int64(rnd.IntN(2*every)) {
			if _, err = f.ReadAt(b[:], off); err == nil {
				b[0] ^= 1 << rnd.IntN(8)
				_, err = f.WriteAt(b[:], off)
				flipped++
			}
		}
		return errors.Join(err, f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return flipped
}

// segment reports whether a file of a store holds records.
func segment(name string) bool { return strings.HasPrefix(name, "segment-") }

// TestThreeGone takes one store more away than the code can lose. What needs
// it fails soon and says why, the rest works, and when the folders are back so
// is everything.
func TestThreeGone(t *testing.T) {
	cluster.NeedFuse(t)
	m := cluster.Start(t, cluster.Dir(t)+"/data")
	files := make(witness.Files)
	files.Add(t, m.Path("files"), 3)
	away := cluster.Dir(t)
	for _, running := range []bool{true, false} {
		if !running {
			m.Stop(t)
		}
		for s := range 3 {
			if err := os.Rename(store(m, s), filepath.Join(away, fmt.Sprint(s))); err != nil {
				t.Fatal(err)
			}
		}
		if running {
			m.AwaitHealth(t, "lost", repairLimit)
			cluster.DropCaches(t) // what the kernel has cached is no evidence
		} else {
			m.Again(t)
		}
		lost := 0
		for path, want := range files {
			began := time.Now()
			got, err := os.ReadFile(path)
			if took := time.Since(began); took > errorLimit {
				t.Errorf("running %v: reading %s took %v (%v)", running, path, took, err)
			}
			switch {
			case errors.Is(err, syscall.EIO):
				lost++
			case err != nil:
				t.Errorf("running %v: %s: got %v, want EIO or the contents", running, path, err)
			case string(got) != string(want):
				t.Errorf("running %v: %s: wrong contents", running, path)
			}
			if len(want) <= 4096 && err != nil {
				t.Errorf("running %v: %s needs no store: %v", running, path, err)
			}
			if len(want) >= 1<<20 && err == nil {
				t.Errorf("running %v: %s was read without half of its stores", running, path)
			}
		}
		if lost == 0 || !strings.Contains(m.Log(), "too few shards") {
			t.Errorf("running %v: %d files failed; the log must name the cause", running, lost)
		}
		m.AwaitHealth(t, "lost", repairLimit)
		if err := witness.WriteSynced(m.Path("meanwhile"), witness.Bytes(9, 5<<20)); err != nil {
			t.Errorf("running %v: writing with three stores: %v", running, err)
		}
		if err := os.Remove(m.Path("meanwhile")); err != nil {
			t.Errorf("running %v: removing with three stores: %v", running, err)
		}
		if !running {
			m.Stop(t)
		}
		for s := range 3 {
			// What was made meanwhile in the old place holds nothing that counts.
			if err := os.RemoveAll(store(m, s)); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(away, fmt.Sprint(s)), store(m, s)); err != nil {
				t.Fatal(err)
			}
		}
		if !running {
			m.Again(t)
		}
		began := time.Now()
		cluster.Await(t, repairLimit, func() error { _, err := os.ReadFile(m.Path("files", "f1048576")); return err })
		files.Check(t, fmt.Sprintf("running %v: the folders are back", running))
		t.Logf("running %v: all can be read after %.1f s", running, time.Since(began).Seconds())
		m.AwaitHealth(t, "ok", repairLimit)
		t.Logf("running %v: whole again after %.1f s", running, time.Since(began).Seconds())
	}
	m.Cold(t)
	files.Check(t, "at the end")
	m.Stop(t)
	fsck(t, m.Data)
}
