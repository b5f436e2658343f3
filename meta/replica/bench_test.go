package replica

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"dos/meta/state"
)

func BenchmarkPropose(b *testing.B) {
	for _, proposers := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(proposers), func(b *testing.B) {
			r := open(b, testConfig(b, b.TempDir()))
			defer shut(b, r)
			var next atomic.Int64
			var w sync.WaitGroup
			b.ResetTimer()
			for range proposers {
				w.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						propose(b, r, opAppend, put{fmt.Sprintf("key%09d", i), make([]byte, 100)})
					}
				})
			}
			w.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "proposals/s")
		})
	}
}

// BenchmarkAppend is what the disk does: append and fdatasync, in a loop.
func BenchmarkAppend(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 200)
	for b.Loop() {
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkView(b *testing.B) {
	r := open(b, testConfig(b, b.TempDir()))
	defer shut(b, r)
	for i := range 1000 {
		propose(b, r, opAppend, put{fmt.Sprintf("key%09d", i), make([]byte, 100)})
		if i == 100 {
			if err := r.fsm.store.flush(nil, r.Applied()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("empty", func(b *testing.B) {
		for b.Loop() {
			if err := r.View(b.Context(), func(state.Reader) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			read(b, r, "key000000500")
		}
	})
	b.Run("scan100", func(b *testing.B) {
		for b.Loop() {
			err := r.View(b.Context(), func(s state.Reader) error {
				n := 0
				for range s.Scan([]byte("key0000001"), []byte("key0000002")) {
					n++
				}
				if n != 100 {
					b.Fatalf("%d rows", n)
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkGroup is commits of three members that talk over the loopback, in one process,
// without TLS and without a client's way to the leader. Callers who each wait for a
// commit of their own cannot have more of them than their number times what one has.
func BenchmarkGroup(b *testing.B) {
	for _, proposers := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(proposers), func(b *testing.B) {
			g := newGroup(b, "a", "b", "c")
			var leader *Replica
			g.leader(func(r *Replica) error { leader = r; return nil })
			var next atomic.Int64
			var w sync.WaitGroup
			b.ResetTimer()
			for range proposers {
				w.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						propose(b, leader, opAppend, put{fmt.Sprintf("key%09d", i), make([]byte, 128)})
					}
				})
			}
			w.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "proposals/s")
		})
	}
}
