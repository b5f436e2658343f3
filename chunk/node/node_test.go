package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	chunkdisk "dos/chunk/disk"
	"dos/chunk/storetest"
	"dos/internal/disk"
)

func config(fsys disk.FS) Config {
	return Config{
		Dir: "/store",
		Disk: chunkdisk.Config{
			FS: fsys, Cluster: "test", Store: 3, Segment: 8 << 20, Floor: -1, Reserve: -1,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		},
		MayStartEmpty: func(context.Context) bool { return true },
	}
}

// Scrubbing finds damage unasked, goes on after a restart where it was, and
// does not begin again sooner than it should.
func TestScrubGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := new(disk.Mem)
		c := config(fsys)
		c.ScrubRate = 1 << 20
		found := make(chan chunk.ID, 10)
		c.Corrupt = func(id chunk.ID) { found <- id }
		n, stop := run(t, c)
		synctest.Wait()
		for i := range 100 {
			id := chunk.ID{Stripe: chunk.StripeID(i / 2), Index: uint8(i % 2)}
			must(t, n.Put(t.Context(), id, storetest.Data(id, 1<<20)))
		}
		time.Sleep(defaultSoon + 60*time.Second + time.Millisecond)
		stop()
		f, err := fsys.Open("/store/segment-00000001") // read already
		must(t, err)
		_, err = f.WriteAt([]byte("flipped"), 3<<20)
		must(t, err)
		must(t, f.Close())

		n, stop = run(t, c)
		time.Sleep(defaultSoon + 45*time.Second)
		synctest.Wait()
		if got := n.Scrubbed(); got.Round.Finished.IsZero() || got.Round.Records != 100 || got.Corrupt != 0 {
			t.Errorf("after the second start: %+v, want a round of 100 records that took both", got)
		}
		stop()
		n, _ = run(t, c)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if got := n.Scrubbed(); got.Round.Records != 100 || got.Corrupt != 0 {
			t.Errorf("half an hour after a round: %+v, want nothing new", got)
		}
		time.Sleep(30*time.Minute + 2*time.Minute)
		synctest.Wait()
		if got := n.Scrubbed(); got.Corrupt != 1 || len(found) != 1 {
			t.Errorf("after the next round: %+v and %d shards reported, want one", got, len(found))
		}
	})
}

// run starts a node; stop ends it and checks that it ended well.
func run(t *testing.T, c Config) (n *Node, stop func()) {
	t.Helper()
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run = %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return n, stop
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) chunk.Store {
		up := make(chan State, 1)
		c := config(new(disk.Mem))
		c.Changed = func(s State) {
			if s.Up {
				up <- s
			}
		}
		n, _ := run(t, c)
		<-up
		return n
	})
}

// A story: what happens to a folder, and what the node says of it.
func TestLife(t *testing.T) {
	id := chunk.ID{Stripe: 1}
	data := storetest.Data(id, 50_000)
	for _, test := range []struct {
		name   string
		refuse bool // to start empty
		happen func(t *testing.T, fsys *disk.Mem)
		later  func(t *testing.T, fsys *disk.Mem)
		states []string // all of them, from the beginning; prefixes
		read   error    // at the end
	}{
		{
			name:   "nothing",
			states: []string{"up, empty"},
		}, {
			name:   "deleted, starts empty",
			happen: func(t *testing.T, fsys *disk.Mem) { fsys.RemoveAll("/store") },
			states: []string{"up, empty", "lost: /store: chunk: store lost", "up, empty"},
			read:   chunk.ErrNotExist,
		}, {
			name:   "emptied, starts empty",
			happen: func(t *testing.T, fsys *disk.Mem) { fsys.RemoveAll("/store"); must(t, fsys.Mkdir("/store")) },
			states: []string{"up, empty", "lost: ", "up, empty"},
			read:   chunk.ErrNotExist,
		}, {
			name:   "moved away and back, may not start empty",
			refuse: true,
			happen: func(t *testing.T, fsys *disk.Mem) { must(t, fsys.Rename("/store", "/aside")) },
			later:  func(t *testing.T, fsys *disk.Mem) { must(t, fsys.Rename("/aside", "/store")) },
			states: []string{"up, empty", "lost: /store: chunk: store lost", "lost: /store: disk: no store here", "up"},
		}, {
			name:   "identity deleted",
			happen: func(t *testing.T, fsys *disk.Mem) { must(t, fsys.Remove("/store/identity")) },
			states: []string{"up, empty", "lost: ", "up"},
		}, {
			name: "everything flipped",
			happen: func(t *testing.T, fsys *disk.Mem) {
				names, err := fsys.ReadDir("/store")
				must(t, err)
				for _, name := range names {
					scribble(t, fsys, "/store/"+name)
				}
				must(t, fsys.Rename("/store/identity", "/store/x")) // or nobody would look
				must(t, fsys.Rename("/store/x", "/store/identity.copy"))
			},
			states: []string{"up, empty", "lost: ", "up, empty"},
			read:   chunk.ErrNotExist,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fsys := new(disk.Mem)
				c := config(fsys)
				var mu sync.Mutex
				var states []State
				c.Changed = func(s State) {
					mu.Lock()
					defer mu.Unlock()
					states = append(states, s)
				}
				empty := true
				c.MayStartEmpty = func(context.Context) bool {
					mu.Lock()
					defer mu.Unlock()
					return empty || !test.refuse
				}
				n, stop := run(t, c)
				synctest.Wait()
				must(t, n.Put(t.Context(), id, data))
				mu.Lock()
				empty = false
				mu.Unlock()
				for _, happen := range []func(*testing.T, *disk.Mem){test.happen, test.later} {
					if happen != nil {
						happen(t, fsys)
						time.Sleep(5 * time.Second)
						synctest.Wait()
					}
				}
				mu.Lock()
				got := slices.Clone(states)
				mu.Unlock()
				ok := len(got) == len(test.states)
				for i := range min(len(got), len(test.states)) {
					s := got[i].String()
					ok = ok && len(s) >= len(test.states[i]) && s[:len(test.states[i])] == test.states[i]
				}
				if !ok {
					t.Errorf("states %v\nwant   %q", got, test.states)
				}
				p := make([]byte, len(data))
				if _, err := n.ReadAt(t.Context(), id, p, 0); !errors.Is(err, test.read) {
					t.Errorf("ReadAt = %v, want %v", err, test.read)
				}
				must(t, n.Put(t.Context(), id, data))
				stop()
				if err := n.Put(t.Context(), id, data); !errors.Is(err, chunk.ErrLost) {
					t.Errorf("Put after the end = %v, want ErrLost", err)
				}
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// scribble flips bits all over a file.
func scribble(t *testing.T, fsys disk.FS, name string) {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	st, err := f.Stat()
	must(t, err)
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, st.Size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] ^= byte(1 + rng.IntN(255))
	}
	_, err = f.WriteAt(b, 0)
	must(t, err)
}

func TestClosesCleanly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := new(disk.Mem)
		n, stop := run(t, config(fsys))
		synctest.Wait()
		id := chunk.ID{Stripe: 1}
		must(t, n.Put(t.Context(), id, []byte("x")))
		stop()
		if _, err := fsys.Stat("/store/checkpoint"); err != nil {
			t.Errorf("no checkpoint after the end: %v", err)
		}
		n, _ = run(t, config(fsys))
		synctest.Wait()
		storetest.Expect(t, n, id, []byte("x"))
		if s := n.State(); !s.Up || s.Empty {
			t.Errorf("state %v, want up and not empty", s)
		}
	})
}

func TestScrub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := new(disk.Mem)
		c := config(fsys)
		c.ScrubRate = 1 << 20
		c.ScrubSoon = time.Minute
		found := make(chan chunk.ID, 10)
		c.Corrupt = func(id chunk.ID) { found <- id }
		n, _ := run(t, c)
		synctest.Wait()
		for i := range 10 {
			id := chunk.ID{Stripe: chunk.StripeID(i)}
			must(t, n.Put(t.Context(), id, storetest.Data(id, 1<<20)))
		}
		// Wait for 1 round: 60 s of pause and 10 s for 10 MiB.
		time.Sleep(69 * time.Second)
		synctest.Wait()
		if got := n.Scrubbed(); !got.Round.Finished.IsZero() || got.Round.Records < 9 {
			t.Errorf("after 69 s: %+v, want 9 records and no complete round", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := n.Scrubbed(); got.Round.Finished.IsZero() || got.Round.Records != 10 || got.Round.Bytes != 10<<20 || got.Corrupt != 0 {
			t.Errorf("after 71 s: %+v, want a round of 10 records", got)
		}

		f, err := fsys.Open("/store/segment-00000001")
		must(t, err)
		_, err = f.WriteAt([]byte("flipped"), 3<<20) // in shard 2
		must(t, err)
		must(t, f.Close())
		bad := chunk.ID{Stripe: 2}
		r, err := n.ScrubNow(t.Context())
		if err != nil || r.Corrupt != 1 || r.Records != 10 {
			t.Errorf("ScrubNow = %+v, %v, want 1 of 10 corrupt", r, err)
		}
		if len(found) != 1 || <-found != bad {
			t.Errorf("reported %d shards, want %v", len(found), bad)
		}
		must(t, n.Put(t.Context(), bad, storetest.Data(bad, 1<<20))) // repair
		if r, err := n.ScrubNow(t.Context()); err != nil || r.Corrupt != 0 || r.Records != 10 {
			t.Errorf("ScrubNow after repair = %+v, %v, want 10 good ones", r, err)
		}
	})
}

// Where a store may be elsewhere, no empty one is made, and it is found when it
// is there.
func TestAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := new(disk.Mem)
		_, stop := run(t, config(fsys))
		synctest.Wait()
		stop()
		must(t, fsys.Rename("/store", "/elsewhere"))
		elsewhere := errors.New("elsewhere")
		c := config(fsys)
		c.Absent = func() error { return elsewhere }
		n, stop := run(t, c)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if s := n.State(); s.Up || s.Why != elsewhere {
			t.Errorf("absent: %v", s)
		}
		must(t, fsys.Rename("/elsewhere", "/store"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := n.State(); !s.Up || s.Empty {
			t.Errorf("there again: %v", s)
		}
		stop()
	})
}
