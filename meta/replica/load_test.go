package replica

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dos/meta/state"
)

// BenchmarkLoad writes rows of 100 bytes, b.N × 1000 of them, and reports what
// the longest proposal took (a stall of Badger would show here) and the
// anonymous memory of the process.
func BenchmarkLoad(b *testing.B) {
	r := open(b, testConfig(b, b.TempDir()))
	defer shut(b, r)
	var next, worst atomic.Int64
	var w sync.WaitGroup
	for range 64 {
		w.Go(func() {
			for i := next.Add(1); i <= int64(b.N)*20; i = next.Add(1) {
				start := time.Now()
				// Spread over the key space, as inode numbers and names are.
				propose(b, r, opBulk, bulk{fmt.Sprintf("%08x", uint32(i)*2654435761), 50, 100})
				took := int64(time.Since(start))
				for old := worst.Load(); took > old && !worst.CompareAndSwap(old, took); old = worst.Load() {
				}
			}
		})
	}
	w.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(worst.Load())/1e6, "worst-ms")
	b.ReportMetric(anonymous(b), "anon-MiB")
	b.ReportMetric(0, "ns/op")
	err := r.Local(func(s state.Reader) error {
		start, n := time.Now(), 0
		for range s.Scan(nil, nil) {
			n++
		}
		b.ReportMetric(float64(n)/time.Since(start).Seconds(), "scanned/s")
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

func anonymous(b *testing.B) float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "RssAnon: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	b.Fatal("no RssAnon in /proc/self/status")
	return 0
}
