package services

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"dos/test/cluster"
	"dos/test/history"
	"dos/test/witness"
)

const (
	// cacheKeys is how many entries of a bucket programs use.
	cacheKeys = 24
	// standstill is how long a machine is stopped: its session is over then.
	standstill = 12 * time.Second
	// hitsLeast is what part of entries that were written when all was well is there.
	hitsLeast = 0.95
)

// An entryOp is a read, a write or a removal of an entry.
type entryOp struct {
	read, remove, add bool
	val               string
}

// An entryAnswer is how it ended; none: there was no entry, or, to an addition, there may
// have been one.
type entryAnswer struct {
	none bool
	val  string
}

// entryModel is an entry that may go at any time: that there is none says nothing.
var entryModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		q, a := in.(entryOp), out.(entryAnswer)
		switch {
		case q.read:
			return a.none || a.val == state.(string), state
		case q.remove:
			return true, ""
		case q.add && a.none:
			return true, state
		}
		return true, q.val
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v: %+v", in, out) },
}

// caches are programs that use entries.
type caches struct{ history.History }

func (c *caches) step(w *worker) int {
	name := fmt.Sprintf("b%d/k%d", 1+w.rnd.IntN(2), w.rnd.IntN(cacheKeys))
	path := w.site.Path("cache", name)
	var q entryOp
	var a entryAnswer
	call := w.now()
	var err error
	switch w.rnd.IntN(8) {
	case 0:
		q.remove = true
		if err = unix.Unlink(path); err == syscall.ENOENT {
			q, a.none, err = entryOp{read: true}, true, nil
		}
	case 1, 2:
		q.val = fmt.Sprint("v", w.number())
		err = writeEntry(path, unix.O_CREAT|unix.O_TRUNC, q.val)
	case 3: // that makes an empty entry first, which others may see
		q.val, q.add = "", true
		var f file
		if f, err = open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL); err == nil {
			q.val = "\n" // stands for an empty one
			err = f.close()
		} else if err == syscall.EEXIST {
			a.none, err = true, nil
		}
	default:
		q.read = true
		if a.val, err = readEntry(w, path); err == syscall.ENOENT {
			a.none, err = true, nil
		}
	}
	end := w.now()
	if err != nil {
		if q.read || !unsure(err) {
			w.tb.Errorf("%v: %+v of %s on %s: %v", w.site.now(), q, name, w.site.name, err)
			return 0
		}
		end = history.Never
		if q.add {
			q.val = "\n"
		}
	}
	c.Add(name, porcupine.Operation{ClientId: w.id, Input: q, Call: call, Output: a, Return: end})
	return 1
}

func readEntry(w *worker, path string) (string, error) {
	f, err := open(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	text, err := f.read(w.buf)
	if text == "" {
		text = "\n"
	}
	return text, errors.Join(err, f.close())
}

func writeEntry(path string, flags int, val string) error {
	f, err := open(path, unix.O_WRONLY|flags)
	if err != nil {
		return err
	}
	_, err = f.write(val)
	if e := f.close(); err == nil {
		err = e
	}
	return err
}

// TestCache has programs on two mounts use entries of the cache while machines are
// killed, cut off and stand still until others have taken what is theirs. Nobody gets
// what was there before; and when all are back, what is written is there.
func TestCache(t *testing.T) {
	rnd := witness.Random(t)
	c := three(t)
	began := time.Now()
	var sites []*site
	for _, name := range []string{"x", "y"} {
		sites = append(sites, &site{Mount: c.Mount(t), name: name, began: began})
	}
	for n := 1; n <= 2; n++ {
		dir := sites[0].Path("cache", fmt.Sprint("b", n))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/.ctl", fmt.Appendf(nil, "replicas %d\n", n), 0); err != nil {
			t.Fatal(err)
		}
	}
	var used caches
	using := &service{name: "entries", step: used.step}
	var all sync.WaitGroup
	over := make(chan struct{})
	for id := range workers * len(sites) {
		w := newWorker(t, id, sites[id%len(sites)], rnd)
		all.Go(func() { w.run(using, over) })
	}
	end := sync.OnceFunc(func() { close(over); all.Wait() })
	defer end()
	for i, f := range cacheFaults(rnd) {
		using.left.Store(1000)
		m := c.Machines[rnd.IntN(len(c.Machines))]
		at := time.Now()
		f.do(t, m)
		awaitAll([]*service{using})
		t.Logf("round %d, %s %s: %.1f s", i, m.Name, f.name, time.Since(at).Seconds())
		c.AwaitWhole(t, wholeLimit)
	}
	end()
	n := using.total.Load()
	t.Logf("%d operations", n)
	if n < 2000 {
		t.Errorf("%d operations are too few to tell of", n)
	}
	used.Check(t, entryModel)
	awaitHolders(t, sites[0], len(c.Machines))
	if hits := hitRate(t, sites); hits < hitsLeast {
		t.Errorf("all is well, and of what was written %.0f %% is there", 100*hits)
	}
}

// awaitHolders waits until so many machines have entries again.
func awaitHolders(t *testing.T, s *site, n int) {
	t.Helper()
	cluster.Await(t, homeLimit, func() error {
		text, err := os.ReadFile(s.Path("cache", "b1", ".status"))
		if err != nil {
			return err
		}
		if got := strings.Count(string(text), "\nnode ") - strings.Count(string(text), " away\n"); got != n {
			return fmt.Errorf("%d machines have entries:\n%s", got, text)
		}
		return nil
	})
}

// hitRate writes entries on one mount and reads them on another.
func hitRate(t *testing.T, sites []*site) float64 {
	const n = 300
	hits := 0
	for i := range n {
		if err := os.WriteFile(sites[0].Path("cache", "b1", fmt.Sprint("h", i)), fmt.Append(nil, i), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if got, err := os.ReadFile(sites[1].Path("cache", "b1", fmt.Sprint("h", i))); err == nil && string(got) == fmt.Sprint(i) {
			hits++
		}
	}
	return float64(hits) / n
}

// A cacheFault is one that a machine has.
type cacheFault struct {
	name string
	do   func(t *testing.T, m *cluster.Machine)
}

func cacheFaults(rnd *rand.Rand) (list []cacheFault) {
	n := 1
	if *long {
		n = 6
	}
	for range n {
		list = append(list,
			cacheFault{"killed", func(t *testing.T, m *cluster.Machine) {
				m.Kill(t)
				time.Sleep(shortly) // that is how long it is away
				m.Again(t)
			}},
			cacheFault{"cut off", func(t *testing.T, m *cluster.Machine) {
				m.Cut(t)
				time.Sleep(cutTime)
				m.Heal(t)
			}},
			cacheFault{"stopped", func(t *testing.T, m *cluster.Machine) {
				m.Pause(t)
				time.Sleep(standstill)
				m.Resume(t)
			}})
	}
	rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// TestCacheMemory puts more into the cache than it may have: the process takes no more
// memory than the limit, and a tenth.
func TestCacheMemory(t *testing.T) {
	cluster.NeedFuse(t)
	m := cluster.Start(t, filepath.Join(cluster.Dir(t), "data"))
	dir := m.Path("cache", "b")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 64<<10)
	for i := range 64 { // what the process needs anyway for such
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("first", i)), value, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	limit := statusNumber(t, dir, "limit")
	before := resident(t, m.PID()) - statusNumber(t, dir, "used")
	most := int64(0)
	for i := range int(limit+limit/4) / len(value) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), value, 0o666); err != nil {
			t.Fatal(err)
		}
		if i%64 == 0 {
			most = max(most, resident(t, m.PID())-before)
		}
	}
	t.Logf("limit %d MiB, %d before, at most %d more", limit>>20, before>>20, most>>20)
	if used := statusNumber(t, dir, "used"); used < limit*9/10 {
		t.Errorf("%d bytes are in use of %d", used, limit)
	}
	if most > limit+limit/10 {
		t.Errorf("the process grew by %d bytes with a limit of %d", most, limit)
	}
}

// statusNumber reads what the line of the first machine in .status says.
func statusNumber(t *testing.T, dir, key string) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, ".status"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "node ")
	words := strings.Fields(rest)
	for i := 1; i+1 < len(words); i += 2 {
		if words[i] == key {
			n, err := strconv.ParseInt(words[i+1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in\n%s", key, text)
	return 0
}

// resident is a process's resident memory, in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var total, pages int64
	if _, err := fmt.Sscan(string(text), &total, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
