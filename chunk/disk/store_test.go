package disk

import (
	"errors"
	"io"
	"log/slog"
	"testing"

	"dos/chunk"
	"dos/chunk/storetest"
	"dos/internal/disk"
)

const testDir = "/store"

// testConfig is a store of small segments without reserves.
func testConfig(fsys disk.FS) Config {
	return Config{
		FS: fsys, Cluster: "test", Store: 7, Segment: 8 << 20, Floor: -1, Reserve: -1,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func create(t *testing.T, dir string, c Config) *Store {
	t.Helper()
	if _, err := Create(dir, c); err != nil {
		t.Fatal(err)
	}
	return reopen(t, dir, c)
}

func reopen(t *testing.T, dir string, c Config) *Store {
	t.Helper()
	s, err := Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

// closeStore closes a store that may be lost: then the errors are of no interest.
func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil && s.Err() == nil {
		t.Errorf("Close = %v", err)
	}
}

func TestStoreInMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) chunk.Store { return create(t, testDir, testConfig(new(disk.Mem))) })
}

func TestStoreInFiles(t *testing.T) {
	storetest.Run(t, func(t *testing.T) chunk.Store { return create(t, t.TempDir(), testConfig(disk.Real{})) })
}

// fill puts n shards of different sizes.
func fill(t *testing.T, s *Store, n int) {
	t.Helper()
	for i := range n {
		id, data := shardOf(i)
		if err := s.Put(t.Context(), id, data); err != nil {
			t.Fatalf("Put(%v) = %v", id, err)
		}
	}
}

func shardOf(i int) (chunk.ID, []byte) {
	id := chunk.ID{Stripe: chunk.StripeID(i + 1), Index: uint8(i % 6)}
	return id, storetest.Data(id, 1+(i*7919)%20000)
}

func TestReopen(t *testing.T) {
	for _, test := range []struct {
		name  string
		close func(t *testing.T, s *Store, cut func())
	}{
		{"closed", func(t *testing.T, s *Store, cut func()) { closeStore(t, s) }},
		{"power cut", func(t *testing.T, s *Store, cut func()) { cut() }},
		{"checkpoint, then power cut", func(t *testing.T, s *Store, cut func()) {
			if err := s.checkpoint(); err != nil {
				t.Fatal(err)
			}
			id, data := shardOf(100)
			if err := errors.Join(s.Put(t.Context(), id, data), s.Delete(t.Context(), id)); err != nil {
				t.Fatal(err)
			}
			cut()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := new(disk.Mem)
			power := &disk.Faulty{FS: fsys}
			c := testConfig(power)
			c.Segment = 64 << 10
			s := create(t, testDir, c)
			fill(t, s, 40)
			gone, _ := shardOf(3)
			if err := s.Delete(t.Context(), gone); err != nil {
				t.Fatal(err)
			}
			test.close(t, s, func() {
				power.Die()
				fsys.Crash(nil)
				_ = s.Close()
			})
			c.FS = fsys
			for range 2 {
				s = reopen(t, testDir, c)
				for i := range 40 {
					id, data := shardOf(i)
					if id != gone {
						storetest.Expect(t, s, id, data)
					} else if _, err := s.Stat(t.Context(), id); !errors.Is(err, chunk.ErrNotExist) {
						t.Errorf("Stat of a deleted shard = %v, want ErrNotExist", err)
					}
				}
				if u, err := s.Usage(t.Context()); err != nil || u.Shards != 39 {
					t.Errorf("Usage = %+v, %v, want 39 shards", u, err)
				}
				closeStore(t, s)
			}
		})
	}
}
