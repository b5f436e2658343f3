package machines

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"dos/test/cluster"
	"dos/test/history"
	"dos/test/witness"
)

const (
	// disturbedOps is how many operations a worker does before a disturbance, and
	// as many after it. While it lasts, each does one every disturbedPace.
	disturbedOps  = 40
	disturbedPace = 100 * time.Millisecond
	// patience is how long a mount that cannot be reached is surely not given up. A
	// busy machine may take long to end a disturbance.
	patience = 10 * time.Second
)

// A disturbance is something that happens for a while to one of the mounts, or to
// a machine that is not in charge.
type disturbance struct {
	name  string
	lasts time.Duration
	do    func(testing.TB, *cluster.Mount, *cluster.Machine) (undo func())
	// lost is whether the mount may be given up meanwhile. Then it says EIO to what it
	// had under way, of which nobody knows whether it was done.
	lost bool
}

var disturbances = []disturbance{
	{"machine killed", 3 * time.Second, func(tb testing.TB, _ *cluster.Mount, m *cluster.Machine) func() {
		m.Kill(tb)
		return func() { m.Again(tb) }
	}, false},
	{"mount cut", 6 * time.Second, func(tb testing.TB, m *cluster.Mount, _ *cluster.Machine) func() {
		m.Cut(tb)
		return func() { m.Heal(tb) }
	}, false},
	// Its session ends, and others get what it held.
	{"mount paused", 20 * time.Second, func(tb testing.TB, m *cluster.Mount, _ *cluster.Machine) func() {
		m.Pause(tb)
		return func() { m.Resume(tb) }
	}, true},
}

// TestDisturbed has several programs on two mounts work on the same names and on
// the same bytes while one of the mounts is cut off, or stopped for long, or a
// machine is killed. What all of them were told could have come from one program
// after the other.
func TestDisturbed(t *testing.T) {
	cluster.NeedFuse(t)
	rnd := witness.Random(t)
	c := cluster.Three(t, cluster.Founded, "2+1")
	mounts := []*cluster.Mount{c.Mount(t), c.Mount(t)}
	if err := os.Mkdir(mounts[0].Path("names"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range disturbances {
		t.Run(d.name, func(t *testing.T) {
			for i := range linearNames {
				if err := os.Remove(mounts[1].Path("names", fmt.Sprint(i))); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				if err := witness.WriteSynced(mounts[1].Path(fmt.Sprint("register", i)), make([]byte, 8)); err != nil {
					t.Fatal(err)
				}
			}
			leader := c.Leader(t)
			other := c.Machines[0]
			if other == leader {
				other = c.Machines[1]
			}
			histories := []*told{
				{name: "names", model: names, next: nextName, do: doName},
				{name: "registers", model: registers, next: nextRegister, do: new(syncedRegisters).do},
			}
			began, over := time.Now(), make(chan struct{})
			var workers, ready sync.WaitGroup
			for _, h := range histories {
				for id := range linearWorkers * len(mounts) {
					w := worker{h, id, mounts[id%len(mounts)], rand.New(rand.NewPCG(rnd.Uint64(), 0)), began}
					ready.Add(1)
					workers.Go(func() { w.run(ready.Done, over) })
				}
			}
			ready.Wait()
			begins := time.Now()
			undo := d.do(t, mounts[0], other)
			time.Sleep(d.lasts) // for that long it is so
			undo()
			lasted := time.Since(begins)
			close(over)
			workers.Wait()
			t.Logf("it lasted %.1f s", lasted.Seconds())
			c.AwaitMembers(t, 3, repairLimit)
			for _, h := range histories {
				h.check(t, mounts[0], d.lost || lasted > patience)
			}
		})
	}
}

// told is what happened to the names, or to the registers.
type told struct {
	name  string
	model porcupine.Model
	next  func(*rand.Rand) request
	do    func(*cluster.Mount, request) answer

	mu     sync.Mutex
	ops    []porcupine.Operation      // guarded by mu
	unsure map[*cluster.Mount][]error // of operations that may have been done or not; guarded by mu
}

// A worker does one operation after the other on a mount.
type worker struct {
	h     *told
	id    int
	mount *cluster.Mount
	rnd   *rand.Rand
	began time.Time
}

func (w worker) run(ready func(), over <-chan struct{}) {
	for range disturbedOps {
		w.step()
	}
	ready()
	pace := time.NewTicker(disturbedPace)
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
			w.step()
			continue
		case <-over:
		}
		break
	}
	for range disturbedOps {
		w.step()
	}
}

func (w worker) step() {
	q := w.h.next(w.rnd)
	op := porcupine.Operation{ClientId: w.id, Input: q, Call: int64(time.Since(w.began))}
	a := w.h.do(w.mount, q)
	op.Output, op.Return = a, int64(time.Since(w.began))
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	if unsure(a) {
		if w.h.unsure == nil {
			w.h.unsure = make(map[*cluster.Mount][]error)
		}
		w.h.unsure[w.mount] = append(w.h.unsure[w.mount], fmt.Errorf("%v: %w", q, a.err))
		if q.op == "read" || q.op == "stat" {
			return // it says nothing
		}
		op.Return = history.Never // perhaps later, or not at all
	}
	w.h.ops = append(w.h.ops, op)
}

// unsure reports whether nobody knows if the operation was done.
func unsure(a answer) bool {
	return a.err == syscall.EIO || a.err == syscall.ETIMEDOUT || a.err == syscall.EHOSTDOWN
}

// check checks the history, in which only operations of the one mount may have
// failed, if it was given up.
func (h *told) check(t *testing.T, disturbed *cluster.Mount, lost bool) {
	t.Helper()
	n := 0
	for m, list := range h.unsure {
		if n = len(list); m != disturbed || !lost {
			t.Errorf("%s: %d operations failed on %s: %v", h.name, n, m.Point, list)
		}
	}
	model := h.model
	model.Step = func(state, in, out any) (bool, any) {
		if !unsure(out.(answer)) {
			return h.model.Step(state, in, out)
		}
		if ok, next := h.model.Step(state, in, answer{}); ok {
			return true, next
		}
		return true, state
	}
	got, info := porcupine.CheckOperationsVerbose(model, h.ops, time.Minute)
	if got != porcupine.Ok {
		history.TellStuck(t, info, model, h.ops)
		t.Errorf("%s: the history of %d operations is %v, want %v", h.name, len(h.ops), got, porcupine.Ok)
	}
	t.Logf("%s: %d operations, %d of them with an outcome that is not known", h.name, len(h.ops), n)
}

// A syncedRegisters does what doRegister does, with writes that are on disk when
// they return, since a mount that is given up loses others.
//
// The kernel of a machine shows what is being written there before the write has
// returned, and before other machines see it (see package fuse). So programs on one
// mount do not read a register while another of them writes it.
type syncedRegisters struct {
	mu    sync.Mutex
	locks map[*cluster.Mount]*[linearNames]sync.RWMutex // guarded by mu
}

func (s *syncedRegisters) lock(m *cluster.Mount, register int) *sync.RWMutex {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks == nil {
		s.locks = make(map[*cluster.Mount]*[linearNames]sync.RWMutex)
	}
	if s.locks[m] == nil {
		s.locks[m] = new([linearNames]sync.RWMutex)
	}
	return &s.locks[m][register]
}

func (s *syncedRegisters) do(m *cluster.Mount, q request) answer {
	lock := s.lock(m, q.a)
	if q.op != "write" {
		lock.RLock()
		defer lock.RUnlock()
		return doRegister(m, q)
	}
	lock.Lock()
	defer lock.Unlock()
	f, err := os.OpenFile(m.Path(fmt.Sprint("register", q.a)), os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		return answer{err: errno(err)}
	}
	_, err = f.Write(binary.BigEndian.AppendUint64(nil, q.val))
	return answer{err: errno(errors.Join(err, f.Close()))}
}
