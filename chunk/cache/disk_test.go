package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// running returns a cache that runs until the test ends.
func running(t testing.TB, cfg Config) *Cache {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
		if err := c.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return c
}

func withDisk(t testing.TB, dir string, tier Tier) (*Cache, Bucket) {
	t.Helper()
	c := running(t, Config{Limit: MinLimit + DiskMemory, Disk: dir, DiskMax: MinDisk})
	at := Bucket{ID: 1}
	if err := c.Configure(at, Settings{Tier: tier}); err != nil {
		t.Fatal(err)
	}
	return c, at
}

// awaitSize waits until no more than that is on its way to the disk.
func (d *disk) awaitSize(t testing.TB, atMost int64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		size := d.size
		d.mu.Unlock()
		if size <= atMost {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes are still on their way to the disk", size)
		}
	}
}

func valueOf(i, n int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%08d", i)), n/8)
}

// TestDisk: what is more than the memory is on disk, whole; what was overwritten,
// deleted or cleared is not returned from there.
func TestDisk(t *testing.T) {
	for _, tier := range []Tier{OnDisk, Both} {
		t.Run(fmt.Sprint(tier), func(t *testing.T) {
			c, at := withDisk(t, t.TempDir(), tier)
			const n, size = 6000, 4096
			set := func(i, as int) {
				if _, err := c.Set(at, strconv.Itoa(i), valueOf(as, size), Write{}); err != nil {
					t.Fatal(err)
				}
				c.disk.awaitSize(t, pendingMax/2)
			}
			for i := range n {
				set(i, i)
			}
			c.check(t)
			s, _ := c.Stats(at)
			if s.DiskItems+s.Items != n || s.Evictions != 0 || s.DiskItems < n/2 {
				t.Errorf("%+v, want %d entries, most on disk", s, n)
			}
			c.disk.awaitSize(t, 0)
			for i := 0; i < n; i += 3 {
				if i%2 == 0 {
					set(i, -i)
				} else if err := c.Delete(at, strconv.Itoa(i), 0); err != nil {
					t.Fatal(err)
				}
			}
			c.disk.awaitSize(t, 0)
			for i := range n {
				e, err := c.Get(at, strconv.Itoa(i), nil)
				as := i
				switch {
				case i%6 == 3:
					if !errors.Is(err, ErrMiss) {
						t.Fatalf("%d was deleted: %v", i, err)
					}
					continue
				case i%3 == 0:
					as = -i
				}
				if err != nil || !bytes.Equal(e.Value, valueOf(as, size)) {
					t.Fatalf("%d: %.8q %v", i, e.Value, err)
				}
				c.disk.awaitSize(t, pendingMax/2)
			}
			c.check(t)
			at.Generation++
			if err := c.Configure(at, Settings{Tier: tier}); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if _, err := c.Get(at, strconv.Itoa(i), nil); !errors.Is(err, ErrMiss) {
					t.Fatalf("%d was cleared: %v", i, err)
				}
			}
			c.check(t)
		})
	}
}

// TestDiskTogether: while others read, and so bring values back to memory, who writes
// and deletes a key finds what it did last, or nothing.
func TestDiskTogether(t *testing.T) {
	c, at := withDisk(t, t.TempDir(), Both)
	const writers, keys, size = 4, 1500, 4096 // twice the memory
	key := func(g, k int) string { return fmt.Sprintf("%d-%d", g, k) }
	var wg sync.WaitGroup
	var fromDisk, hits atomic.Int64
	for g := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 3))
			var last [keys]int // 0: none
			for i := 1; i < 6000; i++ {
				k := rnd.IntN(keys)
				switch rnd.IntN(8) {
				case 0:
					if err := c.Delete(at, key(g, k), 0); err != nil && !errors.Is(err, ErrMiss) {
						t.Error(err)
					}
					last[k] = 0
				case 1, 2, 3:
					if _, err := c.Set(at, key(g, k), valueOf(i, size), Write{}); err != nil {
						t.Error(err)
					}
					last[k] = i
				case 4, 5:
					_, _ = c.Get(at, key(rnd.IntN(writers), k), nil)
				default:
					_, id, _ := c.inMemory(at, key(g, k), nil)
					e, err := c.Get(at, key(g, k), nil)
					if err == nil && (last[k] == 0 || !bytes.Equal(e.Value, valueOf(last[k], size))) {
						t.Errorf("%s: %.8q, want %d", key(g, k), e.Value, last[k])
						return
					}
					if err == nil {
						hits.Add(1)
						if id != 0 {
							fromDisk.Add(1)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	if fromDisk.Load() == 0 || hits.Load() < 100 {
		t.Errorf("%d hits, %d of them on disk", hits.Load(), fromDisk.Load())
	}
	c.check(t)
}

// TestDiskCounts: a counter whose value is on disk counts on.
func TestDiskCounts(t *testing.T) {
	c, at := withDisk(t, t.TempDir(), OnDisk)
	key := strings.Repeat("k", 16) // so that the value makes a larger slot
	if _, err := c.Set(at, key, []byte("100000000000000001"), Write{}); err != nil {
		t.Fatal(err)
	}
	if s, _ := c.Stats(at); s.DiskItems != 1 {
		t.Fatalf("%+v, want it on disk", s)
	}
	if n, err := c.Incr(at, key, 1); n != 100000000000000002 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if e, f, err := c.Fill(t.Context(), at, key, nil); f != nil || err != nil || string(e.Value) != "100000000000000002" {
		t.Errorf("fill: %q %v %v", e.Value, f, err)
	}
}

// TestDiskBounds: the disk tier stays within its bytes, and the process within its
// memory, while several times as much comes in.
func TestDiskBounds(t *testing.T) {
	debug.FreeOSMemory()
	before := anonymous(t)
	dir := t.TempDir()
	c, at := withDisk(t, dir, Both)
	const size = 32 << 10
	value := make([]byte, size)
	rnd := rand.NewChaCha8([32]byte{1})
	var mostDisk, mostMemory int64
	for i := range 3 * MinDisk / size {
		_, _ = rnd.Read(value)
		if _, err := c.Set(at, strconv.Itoa(i), value, Write{}); err != nil {
			t.Fatal(err)
		}
		c.disk.awaitSize(t, pendingMax*3/4)
		if i%64 == 0 {
			mostDisk = max(mostDisk, used(t, dir))
			mostMemory = max(mostMemory, anonymous(t)-before)
		}
	}
	t.Logf("disk %d of %d, memory %d of %d bytes", mostDisk, MinDisk, mostMemory, MinLimit+DiskMemory)
	if mostDisk > MinDisk || mostDisk < MinDisk/3 {
		t.Errorf("%d bytes on disk with a limit of %d", mostDisk, MinDisk)
	}
	if allowed := int64(MinLimit + DiskMemory); mostMemory > allowed*11/10 && !raceDetector {
		t.Errorf("grown by %d bytes with a limit of %d", mostMemory, allowed)
	}
	c.disk.awaitSize(t, 0)
	c.check(t)
	s, _ := c.Stats(at)
	if s.DiskItems < MinDisk/3/size {
		t.Errorf("%+v", s)
	}
}

// used is the bytes of disk that the files below dir take.
func used(t *testing.T, dir string) (sum int64) {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // deleted meanwhile
		}
		if info, err := e.Info(); err == nil {
			sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// anonymous is the process's memory without the pages of files, in bytes.
func anonymous(t *testing.T) int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestDiskDamage: a value that changed on disk is a miss, and the others are not.
func TestDiskDamage(t *testing.T) {
	dir := t.TempDir()
	c, at := withDisk(t, dir, OnDisk)
	for i := range 100 {
		if _, err := c.Set(at, strconv.Itoa(i), valueOf(i, 4096), Write{}); err != nil {
			t.Fatal(err)
		}
	}
	c.disk.awaitSize(t, 0)
	damaged := false
	logs, err := filepath.Glob(filepath.Join(dir, "*", "*.vlog"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range logs {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 2<<20)
		n, _ := f.ReadAt(text, 0)
		if i := bytes.Index(text[:n], valueOf(42, 4096)); i >= 0 {
			_, err = f.WriteAt([]byte("!"), int64(i+1000))
			damaged = true
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if !damaged {
		t.Fatal("the value is not on disk")
	}
	for i := range 100 {
		e, err := c.Get(at, strconv.Itoa(i), nil)
		if i == 42 && !errors.Is(err, ErrMiss) {
			t.Errorf("a damaged value: %.8q %v", e.Value, err)
		}
		if i != 42 && (err != nil || !bytes.Equal(e.Value, valueOf(i, 4096))) {
			t.Errorf("%d: %.8q %v", i, e.Value, err)
		}
	}
	c.check(t)
}

// TestDiskCrash: after kill -9 in the midst of writing nothing is there any more, in the
// cache or on the disk.
func TestDiskCrash(t *testing.T) {
	if dir := os.Getenv("CACHE_CRASH"); dir != "" {
		c, at := withDisk(t, dir, OnDisk)
		for i := 0; ; i++ {
			if _, err := c.Set(at, strconv.Itoa(i%5000), valueOf(i, 4096), Write{}); err != nil {
				t.Fatal(err)
			}
			c.disk.awaitSize(t, pendingMax/2)
			if i == 3000 {
				fmt.Println("enough")
			}
		}
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDiskCrash$")
	cmd.Env = append(os.Environ(), "CACHE_CRASH="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 7)
	_, readErr := io.ReadFull(out, line)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if readErr != nil || string(line) != "enough\n" {
		t.Fatalf("%q %v", line, readErr)
	}
	if n := used(t, dir); n < 4<<20 {
		t.Fatalf("the crash left %d bytes", n)
	}
	c, at := withDisk(t, dir, OnDisk)
	for i := range 5000 {
		if _, err := c.Get(at, strconv.Itoa(i), nil); !errors.Is(err, ErrMiss) {
			t.Fatalf("%d after a crash: %v", i, err)
		}
	}
	if n := used(t, dir); n > 1<<20 {
		t.Errorf("%d bytes are still there", n)
	}
	c.mustSet(t, at, "new")
	if _, err := c.Get(at, "new", nil); err != nil {
		t.Error(err)
	}
}
