package disk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/chunk/storetest"
	"dos/internal/disk"
)

// A model says what each shard may be: one of these contents, nil for absent.
// What was acknowledged leaves one, what was not adds one.
type model struct {
	mu  sync.Mutex
	may map[chunk.ID][][]byte
}

func (m *model) begin(id chunk.ID, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.may[id] == nil {
		m.may[id] = [][]byte{nil}
	}
	m.may[id] = append(m.may[id], data)
}

func (m *model) end(id chunk.ID, data []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.may[id] = [][]byte{data}
	}
}

func (m *model) put(t *testing.T, s *Store, id chunk.ID, size int, salt int) error {
	data := storetest.Data(chunk.ID{Stripe: id.Stripe + chunk.StripeID(salt)<<32}, size)
	m.begin(id, data)
	err := s.Put(t.Context(), id, data)
	m.end(id, data, err)
	return err
}

func (m *model) delete(t *testing.T, s *Store, ids ...chunk.ID) error {
	for _, id := range ids {
		m.begin(id, nil)
	}
	err := s.Delete(t.Context(), ids...)
	for _, id := range ids {
		m.end(id, nil, err)
	}
	return err
}

// check compares a store with the model, and pins down what it was free to be.
func (m *model) check(t *testing.T, s *Store, when string) {
	t.Helper()
	listed := map[chunk.ID]int64{}
	for info, err := range s.List(t.Context(), chunk.ID{}) {
		if err != nil {
			t.Fatalf("%s: List: %v", when, err)
		}
		listed[info.ID] = info.Size
		if m.may[info.ID] == nil {
			t.Errorf("%s: foreign shard %v", when, info.ID)
		}
	}
	for id, may := range m.may {
		var got []byte
		if size, ok := listed[id]; ok {
			got = make([]byte, size)
			if _, err := s.ReadAt(t.Context(), id, got, 0); err != nil {
				t.Errorf("%s: ReadAt(%v) = %v", when, id, err)
				continue
			}
			if err := s.Verify(t.Context(), id); err != nil {
				t.Errorf("%s: Verify(%v) = %v", when, id, err)
			}
		}
		ok := false
		for _, want := range may {
			ok = ok || bytes.Equal(got, want) && (got == nil) == (want == nil)
		}
		if !ok {
			t.Errorf("%s: shard %v has %d bytes, want one of %d contents: %v", when, id, len(got), len(may), lengths(may))
		}
		m.may[id] = [][]byte{got} // what was served once stays
	}
}

func lengths(may [][]byte) (n []int) {
	for _, b := range may {
		n = append(n, len(b))
	}
	return n
}

func crashConfig(fsys disk.FS) Config {
	c := testConfig(fsys)
	c.Segment = 48 << 10
	c.Reserve = 8 << 10
	return c
}

// workload does all that a store does, until something fails: puts alone and
// together, deletes, checkpoints, compaction, a clean stop.
func workload(t *testing.T, m *model, fsys disk.FS) error {
	c := crashConfig(fsys)
	if _, err := ReadIdentity(fsys, testDir); err != nil {
		if _, err := Create(testDir, c); err != nil {
			return err
		}
	}
	for life := range 2 {
		s, err := Open(testDir, c)
		if err != nil {
			return err
		}
		err = live(t, m, s, life)
		if err := errors.Join(err, s.Close()); err != nil {
			return err
		}
	}
	return nil
}

func live(t *testing.T, m *model, s *Store, life int) error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	id := func(i int) chunk.ID { return chunk.ID{Stripe: chunk.StripeID(i), Index: uint8(i % 2)} }
	for i := range 5 {
		add(m.put(t, s, id(i), 1+i*4000, 0))
	}
	var wg sync.WaitGroup
	together := make([]error, 3)
	for i := range together {
		wg.Go(func() { together[i] = m.put(t, s, id(10+i+10*life), 9000, 0) })
	}
	wg.Wait()
	add(errors.Join(together...))
	add(m.delete(t, s, id(0), id(2)))
	add(m.put(t, s, id(2), 5000, 1+life))
	if life == 0 {
		add(s.checkpoint())
	}
	add(m.put(t, s, id(6), 12000, 0))
	add(m.delete(t, s, id(1), id(3), id(6), id(10), id(11)))
	time.Sleep(1500 * time.Millisecond) // the sweeper compacts
	synctest.Wait()
	add(m.put(t, s, id(7+life), 100, 0))
	add(m.delete(t, s, id(2), id(4)))
	if s.Err() != nil {
		add(s.Err())
	}
	return errors.Join(errs...)
}

// changes counts the operations of a run that change the disk and does something
// at one of them.
func changes(at int64, hit func() error) (func(disk.Op) error, *atomic.Bool) {
	var n atomic.Int64
	var done atomic.Bool
	return func(op disk.Op) error {
		if !op.Changes() || n.Add(1)-1 != at {
			return nil
		}
		done.Store(true)
		return hit()
	}, &done
}

// after opens what a run left behind and checks it, twice, with a new shard between.
func after(t *testing.T, m *model, fsys *disk.Mem, when string) {
	t.Helper()
	for round := range 2 {
		power := &disk.Faulty{FS: fsys}
		c := crashConfig(power)
		if _, err := ReadIdentity(fsys, testDir); errors.Is(err, ErrNone) {
			if _, err := Create(testDir, c); err != nil {
				t.Fatalf("%s: Create: %v", when, err)
			}
		}
		s, err := Open(testDir, c)
		if err != nil {
			t.Fatalf("%s: Open: %v", when, err)
		}
		m.check(t, s, when)
		if err := m.put(t, s, chunk.ID{Stripe: 99}, 7000, 0); err != nil {
			t.Errorf("%s: Put after it: %v", when, err)
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		m.check(t, s, when+", compacted")
		if round == 0 { // everything that was found must be safe
			power.Die()
			fsys.Crash(nil)
			_ = s.Close()
			continue
		}
		closeStore(t, s)
	}
}

// each runs f for 0, 1, 2 … until it says that there was nothing left to hit.
func each(t *testing.T, f func(t *testing.T, n int64) (hit bool)) {
	for n := int64(0); !t.Failed(); n++ {
		hit := false
		synctest.Test(t, func(t *testing.T) { hit = f(t, n) })
		if !hit {
			if n < 100 {
				t.Errorf("the workload has %d operations, want many", n)
			}
			return
		}
	}
}

func TestPowerCuts(t *testing.T) {
	t.Parallel()
	for _, torn := range []bool{false, true} {
		t.Run(fmt.Sprintf("torn=%t", torn), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, n int64) bool {
				fsys := new(disk.Mem)
				m := &model{may: map[chunk.ID][][]byte{}}
				rng := func(salt uint64) *rand.Rand {
					if !torn {
						return nil
					}
					return rand.New(rand.NewPCG(uint64(n), salt))
				}
				faulty := &disk.Faulty{FS: fsys}
				cut := func() error { faulty.Die(); fsys.Crash(rng(1)); return nil }
				var hit *atomic.Bool
				faulty.Fail, hit = changes(n, cut)
				err := workload(t, m, faulty)
				if !hit.Load() {
					if err != nil {
						t.Errorf("workload without a power cut: %v", err)
					}
					return false
				}
				// Once more while it recovers.
				again := &disk.Faulty{FS: fsys}
				again.Fail, _ = changes(n%5, func() error { again.Die(); fsys.Crash(rng(2)); return nil })
				if s, err := Open(testDir, crashConfig(again)); err == nil {
					_ = s.Close()
				}
				after(t, m, fsys, fmt.Sprintf("power cut at operation %d", n))
				return true
			})
		})
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC, disk.ErrShort} {
		t.Run(fault.Error(), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, n int64) bool {
				fsys := new(disk.Mem)
				m := &model{may: map[chunk.ID][][]byte{}}
				faulty := &disk.Faulty{FS: fsys}
				var failed atomic.Value
				var hit *atomic.Bool
				faulty.Fail, hit = changes(n, func() error { return fault })
				inner := faulty.Fail
				faulty.Fail = func(op disk.Op) error {
					err := inner(op)
					if err != nil {
						failed.Store(op.Name)
					}
					return err
				}
				err := workload(t, m, faulty)
				if !hit.Load() {
					if err != nil {
						t.Errorf("workload without a fault: %v", err)
					}
					return false
				}
				if fault == syscall.ENOSPC && errors.Is(err, chunk.ErrLost) && failed.Load() != "sync" && failed.Load() != "syncdir" {
					t.Errorf("ENOSPC of operation %d (%v) made the store lost: %v", n, failed.Load(), err)
				}
				after(t, m, fsys, fmt.Sprintf("%v at operation %d (%v)", fault, n, failed.Load()))
				return true
			})
		})
	}
}
