package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/chunk/storetest"
	"dos/internal/disk"
)

// What may be found at the path, and what Open says of it.
func TestOpenKinds(t *testing.T) {
	newer := prologue(identityMagic, identitySize)
	newer[8] = 9
	le.PutUint32(newer[12:], crc(newer[:12]))
	for _, test := range []struct {
		name string
		do   func(t *testing.T, fsys *disk.Mem, c *Config)
		want error
	}{
		{"as it was", func(*testing.T, *disk.Mem, *Config) {}, nil},
		{"no folder", func(t *testing.T, fsys *disk.Mem, c *Config) { fsys.RemoveAll(testDir) }, ErrNone},
		{"empty folder", func(t *testing.T, fsys *disk.Mem, c *Config) {
			fsys.RemoveAll(testDir)
			must(t, fsys.Mkdir(testDir))
		}, ErrNone},
		{"folder of others", func(t *testing.T, fsys *disk.Mem, c *Config) {
			fsys.RemoveAll(testDir)
			must(t, errors.Join(fsys.Mkdir(testDir), fsys.Mkdir(testDir+"/lost+found")))
		}, ErrNone},
		{"other cluster", func(t *testing.T, fsys *disk.Mem, c *Config) { c.Cluster = "other" }, ErrForeign},
		{"other store", func(t *testing.T, fsys *disk.Mem, c *Config) { c.Store++ }, ErrForeign},
		{"newer", func(t *testing.T, fsys *disk.Mem, c *Config) {
			must(t, replace(fsys, testDir, identityName, newer))
			must(t, replace(fsys, testDir, copyName, newer))
			must(t, fsys.Remove(testDir+"/"+segmentName(1)))
		}, ErrNewer},
		{"locked", func(t *testing.T, fsys *disk.Mem, c *Config) {
			_, err := fsys.Lock(testDir)
			must(t, err)
		}, ErrLocked},
		{"one identity flipped", func(t *testing.T, fsys *disk.Mem, c *Config) { flip(t, fsys, identityName, 300) }, nil},
		{"other identity flipped", func(t *testing.T, fsys *disk.Mem, c *Config) { flip(t, fsys, copyName, 0) }, nil},
		{"one identity says newer", func(t *testing.T, fsys *disk.Mem, c *Config) {
			must(t, replace(fsys, testDir, identityName, newer))
		}, nil},
		{"both flipped", func(t *testing.T, fsys *disk.Mem, c *Config) {
			flip(t, fsys, identityName, 300)
			flip(t, fsys, copyName, 500)
		}, nil},
		{"both gone", func(t *testing.T, fsys *disk.Mem, c *Config) {
			must(t, errors.Join(fsys.Remove(testDir+"/"+identityName), fsys.Remove(testDir+"/"+copyName)))
		}, nil},
		{"both and the segment flipped", func(t *testing.T, fsys *disk.Mem, c *Config) {
			flip(t, fsys, identityName, 300)
			flip(t, fsys, copyName, 500)
			flip(t, fsys, segmentName(1), 8*16)
		}, ErrDamaged},
		{"checkpoint flipped", func(t *testing.T, fsys *disk.Mem, c *Config) { flip(t, fsys, checkpointName, 800) }, nil},
		{"checkpoint empty", func(t *testing.T, fsys *disk.Mem, c *Config) {
			must(t, replace(fsys, testDir, checkpointName, nil))
		}, nil},
		{"segment head flipped", func(t *testing.T, fsys *disk.Mem, c *Config) { flip(t, fsys, segmentName(1), 200) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := new(disk.Mem)
			c := testConfig(fsys)
			s := create(t, testDir, c)
			fill(t, s, 5)
			closeStore(t, s)
			test.do(t, fsys, &c)
			before := contents(t, fsys)
			s, err := Open(testDir, c)
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Fatalf("Open = %v, want %v", err, test.want)
			}
			if err != nil {
				if after := contents(t, fsys); after != before {
					t.Errorf("Open touched\n%s\nnow\n%s", before, after)
				}
				return
			}
			for i := range 5 {
				id, data := shardOf(i)
				storetest.Expect(t, s, id, data)
			}
			closeStore(t, s)
			for _, name := range []string{identityName, copyName} {
				if b, err := head(fsys, testDir+"/"+name, 200); err != nil || !bytes.Equal(b, s.id.encode(identityMagic, 0)) {
					t.Errorf("%s is not mended: %x, %v", name, b, err)
				}
			}
		})
	}
}

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, fsys disk.FS, name string, bit int64) {
	t.Helper()
	f, err := fsys.Open(filepath.Join(testDir, name))
	must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, bit/8)
	must(t, err)
	b[0] ^= 1 << (bit % 8)
	_, err = f.WriteAt(b, bit/8)
	must(t, err)
}

// contents describes all files of the store.
func contents(t *testing.T, fsys disk.FS) string {
	t.Helper()
	names, err := fsys.ReadDir(testDir)
	if errors.Is(err, fs.ErrNotExist) {
		return "no folder"
	}
	must(t, err)
	var all strings.Builder
	for _, name := range names {
		if st, err := fsys.Stat(testDir + "/" + name); err == nil && st.Dir {
			continue
		}
		b, err := head(fsys, testDir+"/"+name, 1<<20)
		must(t, err)
		fmt.Fprintf(&all, "%s %d %x\n", name, len(b), crc(b))
	}
	return all.String()
}

func TestCreateRefuses(t *testing.T) {
	fsys := new(disk.Mem)
	c := testConfig(fsys)
	s := create(t, testDir, c)
	if _, err := Create(testDir, c); !errors.Is(err, ErrLocked) {
		t.Errorf("Create of an open store = %v, want ErrLocked", err)
	}
	if _, err := Open(testDir, c); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open = %v, want ErrLocked", err)
	}
	closeStore(t, s)
	if _, err := Create(testDir, c); !errors.Is(err, ErrOccupied) {
		t.Errorf("Create of a closed store = %v, want ErrOccupied", err)
	}
	if err := Clear(testDir, c); !errors.Is(err, ErrOccupied) {
		t.Errorf("Clear of a good store = %v, want ErrOccupied", err)
	}
	if _, err := Create("/missing/store", c); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Create below nothing = %v, want ErrNotExist", err)
	}
	for _, bad := range []Config{{}, {Cluster: "c"}, {Cluster: strings.Repeat("c", 65), Store: 1}, {Cluster: "c", Store: 1, Segment: 1}} {
		if _, err := Create("/other", bad); err == nil {
			t.Errorf("Create with %+v succeeded", bad)
		}
	}
}

// Flipped bits anywhere in a segment never give wrong bytes, and lose only what
// they hit; what is lost can be put again.
func TestFlippedBits(t *testing.T) {
	fsys := new(disk.Mem)
	c := testConfig(fsys)
	s := create(t, testDir, c)
	const n = 8
	fill(t, s, n)
	at := map[int]entry{}
	for i := range n {
		id, _ := shardOf(i)
		at[i], _ = s.index.Get(key(id))
	}
	closeStore(t, s)
	st, err := fsys.Stat(testDir + "/" + segmentName(1))
	must(t, err)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		bit := rng.Int64N(st.Size * 8)
		for _, checkpointed := range []bool{true, false} {
			flip(t, fsys, segmentName(1), bit)
			saved, err := head(fsys, testDir+"/"+checkpointName, 1<<20)
			must(t, err)
			if !checkpointed {
				must(t, fsys.Remove(testDir+"/"+checkpointName))
			}
			before, err := head(fsys, testDir+"/"+segmentName(1), int(st.Size))
			must(t, err)
			s := reopen(t, testDir, c)
			for i := range n {
				id, data := shardOf(i)
				hit := bit/8 >= at[i].at.offset() && bit/8 < at[i].at.offset()+at[i].bytes()
				p := make([]byte, len(data))
				_, err := s.ReadAt(t.Context(), id, p, 0)
				switch {
				case err == nil && !bytes.Equal(p, data):
					t.Fatalf("bit %d, checkpoint %t: %v reads as other bytes", bit, checkpointed, id)
				case err != nil && !hit:
					t.Errorf("bit %d, checkpoint %t: %v was not hit but ReadAt = %v", bit, checkpointed, id, err)
				case err != nil:
					if !errors.Is(err, chunk.ErrCorrupt) && !errors.Is(err, chunk.ErrNotExist) {
						t.Errorf("bit %d: ReadAt(%v) = %v, want ErrCorrupt or ErrNotExist", bit, id, err)
					}
					for info := range s.List(t.Context(), id) {
						if info.ID == id {
							t.Errorf("bit %d: %v is listed though it was found damaged", bit, id)
						}
						break
					}
					must(t, s.Put(t.Context(), id, data))
					storetest.Expect(t, s, id, data)
				}
			}
			closeStore(t, s)
			// As it was, for the next bit.
			names, err := fsys.ReadDir(testDir)
			must(t, err)
			for _, name := range names {
				if strings.HasPrefix(name, segmentPrefix) {
					must(t, fsys.Remove(testDir+"/"+name))
				}
			}
			must(t, replace(fsys, testDir, segmentName(1), before))
			must(t, replace(fsys, testDir, checkpointName, saved))
			flip(t, fsys, segmentName(1), bit)
		}
	}
}

func TestFolderLostWhileOpen(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, dir string)
	}{
		{"deleted", func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }},
		{"moved", func(t *testing.T, dir string) { must(t, os.Rename(dir, dir+".moved")) }},
		{"replaced", func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+".moved"))
			must(t, os.CopyFS(dir, os.DirFS(dir+".moved")))
		}},
		{"segment deleted", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, segmentName(1)))) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			s := create(t, dir, testConfig(disk.Real{}))
			id, data := shardOf(1)
			must(t, s.Put(t.Context(), id, data))
			test.do(t, dir)
			if err := s.Put(t.Context(), chunk.ID{Stripe: 1000}, data); !errors.Is(err, chunk.ErrLost) {
				t.Errorf("Put = %v, want ErrLost before the watch noticed", err)
			}
			<-s.Lost()
			_, read := s.ReadAt(t.Context(), id, make([]byte, 1), 0)
			_, usage := s.Usage(t.Context())
			for name, err := range map[string]error{"ReadAt": read, "Usage": usage, "Delete": s.Delete(t.Context(), id), "Verify": s.Verify(t.Context(), id)} {
				if !errors.Is(err, chunk.ErrLost) {
					t.Errorf("%s = %v, want ErrLost", name, err)
				}
			}
		})
	}
}

func TestWatchNoticesLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := new(disk.Mem)
		s := create(t, testDir, testConfig(fsys))
		fill(t, s, 2)
		fsys.RemoveAll(testDir)
		began := time.Now()
		<-s.Lost()
		if took := time.Since(began); took > watchEvery {
			t.Errorf("noticed after %v, want at most %v", took, watchEvery)
		}
	})
}

func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			name  string
			floor int64
		}{{"floor", 1 << 20}, {"no floor: the disk says so", -1}} {
			fsys := &disk.Mem{Capacity: 6 << 20}
			c := testConfig(fsys)
			c.Floor, c.Reserve, c.Segment = test.floor, 64<<10, 1<<20
			s := create(t, testDir, c)
			var ids []chunk.ID
			for i := 0; ; i++ {
				id := chunk.ID{Stripe: chunk.StripeID(i)}
				err := s.Put(t.Context(), id, storetest.Data(id, 30_000))
				if errors.Is(err, chunk.ErrFull) {
					break
				}
				must(t, err)
				ids = append(ids, id)
			}
			if len(ids) < 100 {
				t.Errorf("%s: full after %d shards", test.name, len(ids))
			}
			if u, err := s.Usage(t.Context()); err != nil || u.Free > 64<<10 || u.Shards != int64(len(ids)) {
				t.Errorf("%s: full with usage %+v, %v", test.name, u, err)
			}
			if test.floor < 0 { // leave the deletes nothing but the reserve
				f, err := fsys.Create("/others")
				must(t, err)
				for at := int64(0); err == nil; at += block {
					_, err = f.WriteAt(zeroBlock, at)
				}
			}
			must(t, s.Delete(t.Context(), ids[:50]...))
			time.Sleep(time.Second)
			synctest.Wait()
			for i := range 30 {
				id := chunk.ID{Stripe: chunk.StripeID(5000 + i)}
				if err := s.Put(t.Context(), id, storetest.Data(id, 30_000)); err != nil {
					t.Errorf("%s: Put %d after 50 deletes = %v", test.name, i, err)
				}
			}
			for _, id := range ids[50:] {
				storetest.Expect(t, s, id, storetest.Data(id, 30_000))
			}
			before, err := s.Usage(t.Context())
			must(t, err)
			if test.floor < 0 {
				must(t, fsys.Remove("/others"))
			}
			closeStore(t, s)
			must(t, fsys.Remove(testDir+"/"+checkpointName)) // the segments alone must say the same
			s = reopen(t, testDir, c)
			if after, err := s.Usage(t.Context()); err != nil || after.Shards != before.Shards {
				t.Errorf("%s: %+v, %v after a scan, want %d shards", test.name, after, err, before.Shards)
			}
			for info, err := range s.List(t.Context(), chunk.ID{}) {
				must(t, err)
				if err := s.Verify(t.Context(), info.ID); err != nil {
					t.Errorf("%s: half done: Verify(%v) = %v", test.name, info.ID, err)
				}
			}
			closeStore(t, s)
			fsys.RemoveAll(testDir)
		}
	})
}

func TestFloor(t *testing.T) {
	for _, test := range []struct{ floor, capacity, want int64 }{
		{0, 1 << 30, 192 << 20},
		{0, 10 << 30, 10 << 30 / 100 * 5},
		{0, 20 << 30, 1 << 30},
		{0, 100 << 30, 100 << 30 / 100 * 3},
		{5, 100 << 30, 5},
		{-1, 100 << 30, 0},
	} {
		if got := floor(Config{Floor: test.floor}, test.capacity); got != test.want {
			t.Errorf("floor(%d, %d) = %d, want %d", test.floor, test.capacity, got, test.want)
		}
	}
}

// Readers see every shard while segments are compacted below them.
func TestCompactionUnderReads(t *testing.T) {
	fsys := new(disk.Mem)
	c := testConfig(fsys)
	c.Segment = 256 << 10
	c.Compact = 1 << 30
	s := create(t, testDir, c)
	const n = 120
	fill(t, s, n)
	var gone, left []int
	for i := range n {
		if i%8 == 0 {
			left = append(left, i)
		} else {
			gone = append(gone, i)
		}
	}
	before := len(s.all())
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for w := range 4 {
		readers.Go(func() {
			for k := w; ctx.Err() == nil; k++ {
				id, data := shardOf(left[k%len(left)])
				p := make([]byte, len(data))
				if _, err := s.ReadAt(t.Context(), id, p, 0); err != nil || !bytes.Equal(p, data) {
					t.Errorf("ReadAt(%v) = %v while compacting", id, err)
					return
				}
			}
		})
	}
	for part := range slices.Chunk(gone, 10) {
		var ids []chunk.ID
		for _, i := range part {
			id, _ := shardOf(i)
			ids = append(ids, id)
		}
		must(t, s.Delete(t.Context(), ids...))
	}
	deadline := time.Now().Add(20 * time.Second)
	for len(s.all()) > before/3 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	readers.Wait()
	if after := len(s.all()); after > before/3 {
		t.Errorf("%d segments became %d, want at most a third", before, after)
	}
	closeStore(t, s)
	must(t, fsys.Remove(testDir+"/"+checkpointName)) // the segments alone must say the same
	s = reopen(t, testDir, c)
	for _, i := range left {
		id, data := shardOf(i)
		storetest.Expect(t, s, id, data)
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Shards != int64(len(left)) {
		t.Errorf("Usage = %+v, %v, want %d shards", u, err, len(left))
	}
}

// A file system that cannot punch loses nothing either.
func TestNoPunch(t *testing.T) {
	fsys := new(disk.Mem)
	c := testConfig(&disk.Faulty{FS: fsys, Fail: func(op disk.Op) error {
		if op.Name == "punch" {
			return syscall.EOPNOTSUPP
		}
		return nil
	}})
	s := create(t, testDir, c)
	fill(t, s, 6)
	gone, _ := shardOf(2)
	must(t, s.Delete(t.Context(), gone))
	closeStore(t, s)
	must(t, fsys.Remove(testDir+"/"+checkpointName))
	s = reopen(t, testDir, c)
	for i := range 6 {
		id, data := shardOf(i)
		if id == gone {
			if _, err := s.Stat(t.Context(), id); !errors.Is(err, chunk.ErrNotExist) {
				t.Errorf("Stat of the deleted %v = %v", id, err)
			}
			continue
		}
		storetest.Expect(t, s, id, data)
	}
}

// A shard that holds a copy of a segment, headers and all, stays one shard.
func TestPayloadIsNoHeader(t *testing.T) {
	fsys := new(disk.Mem)
	c := testConfig(fsys)
	s := create(t, testDir, c)
	fill(t, s, 4)
	copied, err := head(fsys, testDir+"/"+segmentName(1), 1<<20)
	must(t, err)
	id := chunk.ID{Stripe: 500}
	must(t, s.Put(t.Context(), id, copied))
	e, _ := s.index.Get(key(id))
	closeStore(t, s)
	flip(t, fsys, segmentName(1), e.at.offset()*8) // now the scan goes through the payload
	must(t, fsys.Remove(testDir+"/"+checkpointName))
	s = reopen(t, testDir, c)
	n := 0
	for range s.List(t.Context(), chunk.ID{}) {
		n++
	}
	if n != 4 {
		t.Errorf("%d shards, want the 4 that were not hit", n)
	}
}

// A store on a disk that others filled to the last block stops cleanly, starts
// again and deletes.
func TestCloseOnFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, reserve := range []int64{-1, 64 << 10} {
			fsys := &disk.Mem{Capacity: 6 << 20}
			c := testConfig(fsys)
			c.Reserve = reserve
			s := create(t, testDir, c)
			fill(t, s, 20)
			others := func() {
				t.Helper()
				f, err := fsys.Open("/others")
				if errors.Is(err, fs.ErrNotExist) {
					f, err = fsys.Create("/others")
				}
				must(t, err)
				st, err := f.Stat()
				must(t, err)
				for at := st.Size; err == nil; at += block {
					_, err = f.WriteAt(zeroBlock, at)
				}
				if !disk.IsFull(err) {
					t.Fatal(err)
				}
				must(t, f.Close())
			}
			others()
			closeStore(t, s)
			others() // also what the reserve had
			s = reopen(t, testDir, c)
			for i := range 20 {
				id, data := shardOf(i)
				storetest.Expect(t, s, id, data)
			}
			id, data := shardOf(3)
			if err := s.Put(t.Context(), chunk.ID{Stripe: 999}, data); !errors.Is(err, chunk.ErrFull) {
				t.Errorf("reserve %d: Put on a full disk = %v, want %v", reserve, err, chunk.ErrFull)
			}
			must(t, fsys.Remove("/others"))
			must(t, s.Delete(t.Context(), id))
			closeStore(t, s)
		}
	})
}
