package cache

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkGet has one and sixteen callers of one Client read entries of 100 bytes of
// another process's, over a connection without TLS.
func BenchmarkGet(b *testing.B) {
	w := newWorld(b, "a")
	c := w.client(0)
	w.make(c, "b", 1)
	const keys = 1000
	for i := range keys {
		if _, err := c.Set(b.Context(), "b", fmt.Sprint(i), make([]byte, 100), Options{}); err != nil {
			b.Fatal(err)
		}
	}
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprint("callers-", callers), func(b *testing.B) {
			var next atomic.Int64
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if e, err := c.Get(b.Context(), "b", fmt.Sprint(n%keys)); err != nil || len(e.Value) != 100 {
							b.Error(errors.Join(err, fmt.Errorf("%d bytes", len(e.Value))))
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
