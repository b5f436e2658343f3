package node

import (
	"testing"

	entries "dos/chunk/cache"
	"dos/internal/cache"
	metamemory "dos/meta/memory"
)

// The cache gives up what the machine lacks, takes it again bit by bit when it has it, and
// leaves to queues what they hold.
func TestBalance(t *testing.T) {
	const mib = 1 << 20
	queues := metamemory.New(metamemory.Config{})
	c, err := newCaching(t.TempDir(), cache.Config{}, queues, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.entries.Close()
	at := entries.Bucket{ID: 1}
	if err := c.entries.Configure(at, entries.Settings{}); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, mib)
	for i := range 100 {
		if _, err := c.entries.Set(at, string(rune(i)), value, entries.Write{}); err != nil {
			t.Fatal(err)
		}
	}
	used, _ := c.entries.Memory()
	for _, step := range []struct {
		what             string
		allowed          int64
		total, available int64 // of the machine
		times            int
		want             int64
	}{
		{"all is well", 256 * mib, 16000 * mib, 8000 * mib, 1, 256 * mib},
		{"less is allowed", 128 * mib, 16000 * mib, 8000 * mib, 1, 128 * mib},
		{"more is, bit by bit", 256 * mib, 16000 * mib, 8000 * mib, 2, 160 * mib},
		{"until all is taken", 256 * mib, 16000 * mib, 8000 * mib, 20, 256 * mib},
		{"the machine has 40 MiB less than it is to have", 256 * mib, 16000 * mib, 960 * mib, 1, used - 40*mib},
		{"it has none", 256 * mib, 16000 * mib, 0, 1, entries.MinLimit},
		{"it has enough", 256 * mib, 16000 * mib, 8000 * mib, 1, entries.MinLimit + 16*mib},
		{"nobody knows", 256 * mib, 0, 0, 20, 256 * mib},
	} {
		c.memory = func() (int64, int64) { return step.total, step.available }
		for range step.times {
			if err := c.balance(step.allowed); err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
		}
		now, limit := c.entries.Memory()
		if limit != step.want || now > limit {
			t.Errorf("%s: %d bytes are used of %d, want %d", step.what, now, limit, step.want)
		}
	}
}
