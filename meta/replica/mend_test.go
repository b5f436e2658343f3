package replica

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
)

// A log whose end a new leader took away can be read after the next start.
func TestCutLogOpens(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	if err := cfg.defaults(); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{16 << 10, 1 << 20} { // cut in an earlier segment, and in the last
		cfg.Dir, cfg.limits.segment = t.TempDir(), size
		l, err := openLogs(cfg.Dir, &cfg)
		if err != nil {
			t.Fatal(err)
		}
		write := func(from, to, term uint64) {
			t.Helper()
			for i := from; i <= to; i++ {
				if err := l.StoreLog(&raft.Log{Index: i, Term: term, Data: fmt.Append(make([]byte, 100), term, i)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		check := func(last uint64, term func(uint64) uint64) {
			t.Helper()
			if bad, err := l.verify(1, last); err != nil {
				t.Fatalf("entry %d of %d: %v", bad, last, err)
			}
			for i := uint64(1); i <= last; i++ {
				var e raft.Log
				if err := l.GetLog(i, &e); err != nil || e.Term != term(i) || string(e.Data[100:]) != fmt.Sprint(term(i), i) {
					t.Fatalf("entry %d: %+v, %v", i, e, err)
				}
			}
			if got := l.last(); got != last {
				t.Errorf("the last entry is %d, want %d", got, last)
			}
		}
		write(1, 400, 1)
		for round, cut := range []uint64{390, 350, 345, 200} {
			if err := l.DeleteRange(cut+1, l.last()); err != nil {
				t.Fatal(err)
			}
			if round%2 == 0 {
				write(cut+1, cut+3, 2)
			}
			last := l.last()
			for range 2 {
				if err := l.close(); err != nil {
					t.Fatal(err)
				}
				if l, err = openLogs(cfg.Dir, &cfg); err != nil {
					t.Fatal(err)
				}
				check(last, func(i uint64) uint64 {
					if i > cut && round%2 == 0 {
						return 2
					}
					return 1
				})
			}
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
	}
}
