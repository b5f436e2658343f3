package services

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/test/cluster"
)

// lineLength is how many wait for one lock.
const lineLength = 9

// order has programs on all mounts wait for a lock, one after the other, each known to
// wait before the next comes. The leader is killed meanwhile, and so is one who waits;
// the others get the lock in the order in which they came.
func order(t *testing.T, c *cluster.Cluster, sites []*site) {
	path := func(s *site) string { return s.Path("locks", "line") }
	awaitWaiters := func(n int) {
		t.Helper()
		cluster.Await(t, wholeLimit, func() error {
			text, err := os.ReadFile(path(sites[1]))
			if got := value(string(text), "waiters"); err == nil && got != fmt.Sprint(n) {
				err = fmt.Errorf("%s wait, want %d", got, n)
			}
			return err
		})
	}
	holder, err := open(path(sites[0]), unix.O_RDWR|unix.O_CREAT)
	if err == nil {
		_, err = holder.flock(unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	tokens := make(map[int]uint64) // of those that were not interrupted; guarded by mu
	for n := range lineLength {
		s := sites[n%len(sites)]
		wg.Go(func() {
			token, interrupted, err := locked(path(s))
			if err != nil {
				t.Errorf("who waits as number %d on %s: %v", n, s.name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if interrupted == 0 { // else it kept its place only if it was back within a second
				tokens[n] = token
			}
		})
		awaitWaiters(n + 1)
	}
	victim := bash(t, sites[2], "exec flock locks/line true")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	awaitWaiters(lineLength + 1)
	m := c.Leader(t)
	m.Kill(t)
	m.Again(t)
	awaitWaiters(lineLength + 1)
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // it was killed
	awaitWaiters(lineLength)
	released := time.Now()
	if err := holder.close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	last := uint64(0)
	for n := range lineLength {
		token, ok := tokens[n]
		if ok && token <= last {
			t.Errorf("in the order of coming, the tokens are %v", tokens)
		}
		last = max(last, token)
	}
	t.Logf("%d waited, %d of them without an interrupt, and had the lock one after the other in %v", lineLength, len(tokens), time.Since(released))
}

// locked waits for a lock, reads its token and gives it up.
func locked(path string) (token uint64, interrupted int, err error) {
	f, err := open(path, unix.O_RDWR)
	if err != nil {
		return 0, 0, err
	}
	defer f.close() //nolint:errcheck // it was read, not written
	if interrupted, err = f.flock(unix.LOCK_EX); err != nil {
		return 0, interrupted, err
	}
	text, err := f.read(make([]byte, 4<<10))
	if err == nil {
		token, err = strconv.ParseUint(value(text, "token"), 10, 64)
	}
	return token, interrupted, err
}
