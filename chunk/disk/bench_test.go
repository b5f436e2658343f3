package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"dos/chunk"
	"dos/chunk/storetest"
	"dos/internal/disk"
)

var benchSizes = []struct{ size, writers int }{{1 << 20, 8}, {4 << 10, 64}, {4 << 10, 1}}

func benchStore(b *testing.B) *Store {
	c := testConfig(disk.Real{})
	c.Segment = 0
	dir := filepath.Join(b.TempDir(), "store")
	if _, err := Create(dir, c); err != nil {
		b.Fatal(err)
	}
	s, err := Open(dir, c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// together runs do b.N times by so many goroutines.
func together(b *testing.B, size, n int, do func(i int64) error) {
	b.SetBytes(int64(size))
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

func BenchmarkPut(b *testing.B) {
	for _, bench := range benchSizes {
		b.Run(fmt.Sprintf("%dKiB×%d", bench.size>>10, bench.writers), func(b *testing.B) {
			s := benchStore(b)
			data := storetest.Data(chunk.ID{}, bench.size)
			together(b, bench.size, bench.writers, func(i int64) error {
				return s.Put(b.Context(), chunk.ID{Stripe: chunk.StripeID(i)}, data)
			})
		})
	}
}

// BenchmarkPlain appends the same bytes to one plain file, with one fdatasync
// for as many writes as there are writers.
func BenchmarkPlain(b *testing.B) {
	for _, bench := range benchSizes {
		b.Run(fmt.Sprintf("%dKiB×%d", bench.size>>10, bench.writers), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			plain, err := disk.Real{}.Open(f.Name())
			if err != nil {
				b.Fatal(err)
			}
			defer plain.Close()
			data := storetest.Data(chunk.ID{}, bench.size)
			together(b, bench.size, 1, func(i int64) error {
				if _, err := f.WriteAt(data, (i-1)*int64(bench.size)); err != nil {
					return err
				}
				if i%int64(bench.writers) == 0 {
					return plain.Sync()
				}
				return nil
			})
		})
	}
}

func BenchmarkReadAt(b *testing.B) {
	const shards = 64
	s := benchStore(b)
	for i := range shards {
		id := chunk.ID{Stripe: chunk.StripeID(i)}
		if err := s.Put(b.Context(), id, storetest.Data(id, 1<<20)); err != nil {
			b.Fatal(err)
		}
	}
	for _, size := range []int{4 << 10, 128 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			p := make([]byte, size)
			together(b, size, 1, func(i int64) error {
				_, err := s.ReadAt(b.Context(), chunk.ID{Stripe: chunk.StripeID(i % shards)}, p, (i*7919%256)<<12%(1<<20-int64(size)+1))
				return err
			})
		})
	}
}

// BenchmarkIndex says what an entry of the index costs in memory.
func BenchmarkIndex(b *testing.B) {
	x := newIndex()
	b.ReportAllocs()
	for i := range b.N {
		x.ReplaceOrInsert(entry{stripe: chunk.StripeID(i), size: 1})
	}
}
