package load

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// EntrySize is the size of each value of a cache, in bytes.
	EntrySize = 100
	// Entries is how many there are.
	Entries = 1000
)

// A Fetcher is one client of a cache, in which every Entry was put. Fetch returns the
// value under a key, which lives until it is called again.
type Fetcher interface {
	Fetch(ctx context.Context, key string) ([]byte, error)
}

// Entry is the i-th key, and its value.
func Entry(i int) (key string, value []byte) {
	key = fmt.Sprint("entry-", i)
	value = bytes.Repeat([]byte{'.'}, EntrySize)
	copy(value, key)
	return key, value
}

// Fetch has each Fetcher read one entry after the other for a while, and returns how many
// were read a second. It fails if a value is missing or is another's.
func Fetch(ctx context.Context, clients []Fetcher, during time.Duration) (float64, error) {
	var keys [Entries]string
	var values [Entries][]byte
	for i := range Entries {
		keys[i], values[i] = Entry(i)
	}
	var total atomic.Int64
	began := time.Now()
	err := Parallel(ctx, len(clients), func(ctx context.Context, at int) error {
		n := 0
		for i := at * Entries / len(clients); time.Since(began) < during; i = (i + 1) % Entries {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			switch got, err := clients[at].Fetch(ctx, keys[i]); {
			case err != nil:
				return fmt.Errorf("%s: %w", keys[i], err)
			case !bytes.Equal(got, values[i]):
				return fmt.Errorf("%s has the value %q", keys[i], got)
			}
			n++
		}
		total.Add(int64(n))
		return nil
	})
	return float64(total.Load()) / time.Since(began).Seconds(), err
}
