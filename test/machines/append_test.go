package machines

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"dos/test/cluster"
)

// TestAppend appends to one file from two mounts at the same time.
func TestAppend(t *testing.T) {
	cluster.NeedFuse(t)
	c := cluster.Three(t, cluster.FoundedLocal, "2+1")
	a, b := c.Mount(t), c.Mount(t)
	rounds := 5
	if *long {
		rounds = 20
	}
	for range rounds {
		appendBoth(t, a, b)
	}
}

// appendBoth appends to one file from both mounts at the same time: each record
// is there once, whole.
func appendBoth(t *testing.T, a, b *cluster.Mount) {
	const writers, records, size = 2, 60, 100
	if err := os.WriteFile(a.Path("log"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, m := range []*cluster.Mount{a, b} {
		for w := range writers {
			wg.Go(func() {
				f, err := os.OpenFile(m.Path("log"), os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				for i := range records {
					line := fmt.Sprintf("%-*s\n", size-1, fmt.Sprintf("%s %d %d", m.Point, w, i))
					if _, err := f.WriteString(line); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	for _, m := range []*cluster.Mount{a, b} {
		got, err := os.ReadFile(m.Path("log"))
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]int)
		for line := range bytes.Lines(got) {
			seen[string(line)]++
		}
		if len(got) != 2*writers*records*size || len(seen) != 2*writers*records {
			for line, n := range seen {
				if n != 1 || !strings.HasPrefix(line, "/") {
					t.Errorf("%s: %d times %.60q", m.Point, n, line)
				}
			}
			t.Errorf("%s: %d bytes with %d different lines, want %d with %d", m.Point, len(got), len(seen), 2*writers*records*size, 2*writers*records)
		}
	}
}
