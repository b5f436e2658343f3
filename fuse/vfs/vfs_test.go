package vfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/meta"
)

var bg = context.Background()

func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		defer f.Release()
		time.Sleep(time.Second)
		wrote := time.Now()
		write(t, f, []byte("hello"), 0)
		time.Sleep(4500 * time.Millisecond)
		write(t, f, []byte("!"), 5) // newer bytes do not keep older ones back
		if n := m.count("write"); n != 0 {
			t.Fatalf("after 4.5 s %d writes, want none", n)
		}
		a, err := fs.Attr(bg, f.Ino())
		if err != nil || a.Size != 6 || a.Mtime != meta.At(time.Now()) {
			t.Errorf("stat of what is dirty: %+v, %v", a, err)
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if n := m.count("write"); n != 1 {
			t.Fatalf("after %v %d writes, want 1", time.Since(wrote), n)
		}
		if a, err := fs.Attr(bg, f.Ino()); err != nil || a.Size != 6 || a.Mtime != meta.At(wrote.Add(4500*time.Millisecond)) {
			t.Errorf("stat of what was stored: %+v, %v", a, err)
		}
		if w := m.writes[0]; len(w.Stripes) != 0 || len(w.Extents) != 1 {
			t.Errorf("a small file was not stored inline: %+v", w)
		}
	})
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		d.delay = func() time.Duration { return 20 * time.Millisecond }
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		defer f.Release()
		block := bytes.Repeat([]byte("x"), 1<<20)
		for i := range int64(42) {
			write(t, f, block, i<<20)
			time.Sleep(2 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		d.set(func() {
			if len(d.stripes) != 10 {
				t.Errorf("before fsync %d stripes are stored, want the 10 full ones", len(d.stripes))
			}
			if d.most < 2 || d.most > maxSlots {
				t.Errorf("%d stripes were stored at once, want 2 to %d", d.most, maxSlots)
			}
		})
		if err := f.Fsync(bg, false); err != nil {
			t.Fatal(err)
		}
		for _, s := range d.stripes {
			if len(s) != chunk.MaxStripe && len(s) != 2<<20 {
				t.Errorf("a stripe of %d bytes", len(s))
			}
		}
		if got := contents(t, f); len(got) != 42<<20 {
			t.Errorf("%d bytes", len(got))
		}
	})
}

// A crash must not show a longer file with a hole where the program wrote.
func TestFileOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		var delays atomic.Int64
		d.delay = func() time.Duration { return time.Duration(100-10*delays.Add(1)) * time.Millisecond } // later ones are faster
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		defer f.Release()
		write(t, f, []byte("head"), 100)
		block := bytes.Repeat([]byte("x"), 1<<20)
		for i := int64(4); i < 12; i++ {
			write(t, f, block, i<<20)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(m.writes) == 0 {
			t.Fatal("nothing was stored")
		}
		var end int64
		for i, w := range m.writes {
			if w.Extents[0].Off < end {
				t.Errorf("command %d is about %d, after one about %d", i, w.Extents[0].Off, end)
			}
			end = w.Extents[len(w.Extents)-1].End()
			if w.Size != end {
				t.Errorf("command %d: size %d, data up to %d", i, w.Size, end)
			}
		}
		if e := m.writes[0].Extents[0]; e.Off != 100 {
			t.Errorf("the first command is about offset %d, want 100", e.Off)
		}
	})
}

func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		d.delay = func() time.Duration { return time.Millisecond }
		fs, _ := mount(t, Config{Meta: m, Data: d, Dirty: 16 << 20})
		f := create(t, fs, "f")
		defer f.Release()
		rnd := rand.New(rand.NewPCG(1, 1))
		for size, writes := range map[int]int{4096: 4000, 1: 18000} { // each more than fits
			p := bytes.Repeat([]byte("x"), size)
			for range writes {
				write(t, f, p, rnd.Int64N(64<<20))
				if used, _ := fs.mem.taken(); used > fs.mem.limit+1<<20 {
					t.Fatalf("%d bytes of memory are in use, the limit is %d", used, fs.mem.limit)
				}
			}
		}
		if err := f.Fsync(bg, false); err != nil {
			t.Fatal(err)
		}
		if used, _ := fs.mem.taken(); used != 0 {
			t.Errorf("%d bytes are in use when nothing is dirty", used)
		}
	})
}

// A writer that waits for memory gives up when nothing can be stored.
func TestMemoryStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		d.fault = func(op string) error { return chunk.ErrTooFew }
		fs, _ := mount(t, Config{Meta: m, Data: d, Dirty: 16 << 20})
		f := create(t, fs, "f")
		defer f.Release()
		block := make([]byte, 1<<20)
		start := time.Now()
		var err error
		for i := int64(0); err == nil && i < 20; i++ {
			_, err = f.WriteAt(bg, block, i<<20, 0)
		}
		if !errors.Is(err, meta.Unavailable) || time.Since(start) > time.Minute {
			t.Fatalf("after %v: %v, want unavailable", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		for i := int64(30); err == nil || errors.Is(err, meta.Unavailable); i += 10 {
			_, err = f.WriteAt(ctx, block, i<<20, 0)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write that was given a second: %v", err)
		}
		d.set(func() { d.fault = nil })
		if err := f.Fsync(bg, false); err != nil {
			t.Errorf("after the fault is gone: %v", err)
		}
	})
}

func TestNoSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		d.free = 10 << 20
		fs, _ := mount(t, Config{Meta: m, Data: d})
		a, b := create(t, fs, "a"), create(t, fs, "b")
		defer a.Release()
		defer b.Release()
		block := make([]byte, 1<<20)
		write(t, a, block, 0)
		time.Sleep(10 * time.Second) // now the free space is known
		var n int64
		var err error
		for n = 0; err == nil; n++ {
			_, err = b.WriteAt(bg, block, n<<20, 0)
		}
		// What is being stored may count twice: as dirty, and as space taken.
		if n--; !errors.Is(err, meta.NoSpace) || n > 9 || n < 5 {
			t.Fatalf("after %d MiB of 9: %v", n, err)
		}
		if err := b.Fsync(bg, false); err != nil {
			t.Fatalf("what was accepted cannot be stored: %v", err)
		}
		// Another writer was faster: data was accepted and does not fit.
		d.set(func() { d.free = 1 << 20 })
		time.Sleep(2 * time.Second)
		fs.askRoom(bg)
		write(t, a, block, 1<<20)
		d.set(func() { d.free = 0 })
		if err := a.Fsync(bg, false); !errors.Is(err, meta.NoSpace) {
			t.Fatalf("fsync: %v", err)
		}
		if got := contents(t, a); len(got) != 2<<20 {
			t.Errorf("after a failed fsync the file has %d bytes", len(got))
		}
		if err := a.Flush(bg); !errors.Is(err, meta.NoSpace) {
			t.Fatalf("close: %v", err)
		}
		if err := a.Flush(bg); err != nil {
			t.Errorf("second close: %v", err)
		}
		if got := contents(t, a); len(got) != 1<<20 {
			t.Errorf("after close the file has %d bytes, want the megabyte that is stored", len(got))
		}
		d.set(func() { d.free = 10 << 20 })
		write(t, a, block, 1<<20)
		if err := a.Flush(bg); err != nil {
			t.Errorf("after space was freed: %v", err)
		}
		to := int64(0)
		d.set(func() { d.free = 0 })
		if _, err := fs.SetAttr(bg, a.Ino(), meta.SetAttr{Size: &to}); err != nil {
			t.Errorf("truncate when full: %v", err)
		}
	})
}

// The answer to a command is lost: the same command, with the same stripes, is
// sent again, and they are not given up in between.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		var lose atomic.Bool
		lose.Store(true)
		m.fault = func(op string, after bool) error {
			if op == "write" && after && lose.Load() {
				return meta.Unavailable
			}
			return nil
		}
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		defer f.Release()
		write(t, f, make([]byte, 1<<20), 0)
		if err := f.Fsync(bg, false); !errors.Is(err, meta.Unavailable) {
			t.Fatalf("fsync: %v", err)
		}
		d.set(func() {
			if len(d.open) != 1 {
				t.Errorf("%d stripes are open, want 1", len(d.open))
			}
		})
		write(t, f, []byte("later"), 10)
		lose.Store(false)
		if err := f.Fsync(bg, false); err != nil {
			t.Fatal(err)
		}
		first, again := m.writes[0], m.writes[len(m.writes)-2]
		if fmt.Sprint(first.Extents) != fmt.Sprint(again.Extents) {
			t.Errorf("first %+v, then %+v", first, again)
		}
		d.set(func() {
			if len(d.open) != 0 || len(d.stripes) != 1 {
				t.Errorf("%d stripes open, %d stored", len(d.open), len(d.stripes))
			}
		})
		if got := contents(t, f)[8:17]; string(got) != "\x00\x00later\x00\x00" {
			t.Errorf("contents %q", got)
		}
	})
}

// Loads that ride inline are not put together beyond what one command may carry.
func TestInlineBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		var down atomic.Bool
		down.Store(true)
		m.fault = func(op string, after bool) error {
			if op == "write" && down.Load() {
				return meta.Unavailable
			}
			return nil
		}
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		defer f.Release()
		for i := range int64(5) {
			write(t, f, make([]byte, 40<<10), i*(40<<10))
			if err := f.Fsync(bg, false); !errors.Is(err, meta.Unavailable) {
				t.Fatal(err)
			}
		}
		down.Store(false)
		if err := f.Fsync(bg, false); err != nil { // the fake checks the bound
			t.Fatal(err)
		}
		if len(m.writes) != 5 || len(d.stripes) != 0 {
			t.Errorf("%d commands, %d stripes, want 5 and none", len(m.writes), len(d.stripes))
		}
	})
}

// A refusal that should not be is no reason to lose data.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		var refuse atomic.Bool
		refuse.Store(true)
		m.fault = func(op string, after bool) error {
			if op == "write" && refuse.Load() {
				return meta.Conflict
			}
			return nil
		}
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		defer f.Release()
		write(t, f, make([]byte, 1<<20), 0)
		if err := f.Fsync(bg, false); !errors.Is(err, meta.Conflict) {
			t.Fatalf("fsync: %v", err)
		}
		d.set(func() {
			if len(d.open) != 0 {
				t.Errorf("%d stripes of a refused command are still open", len(d.open))
			}
		})
		refuse.Store(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if a := m.nodes[f.Ino()].attr; a.Size != 1<<20 {
			t.Errorf("the file has %d bytes", a.Size)
		}
	})
}

func TestDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		m.fault = func(op string, after bool) error {
			if op == "write" {
				return meta.Expired
			}
			return nil
		}
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		g, err := fs.Open(bg, f.Ino(), syscall.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		write(t, f, []byte("x"), 0)
		time.Sleep(6 * time.Second)
		for i, h := range []*File{f, g} {
			if err := h.Fsync(bg, false); !errors.Is(err, meta.Expired) {
				t.Errorf("handle %d is told %v", i, err)
			}
			if err := h.Flush(bg); err != nil {
				t.Errorf("handle %d is told again: %v", i, err)
			}
			h.Release()
		}
	})
}

func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		defer f.Release()
		write(t, f, bytes.Repeat([]byte("x"), 1<<20), 0)
		if err := f.Fsync(bg, false); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 100)
		for _, fault := range []error{chunk.ErrTooFew, chunk.ErrCorrupt, chunk.ErrNotExist} {
			d.set(func() { d.fault = func(string) error { return fault } })
			if _, err := f.ReadAt(bg, p, 0); !errors.Is(err, meta.Lost) {
				t.Errorf("%v: read says %v", fault, err)
			}
		}
		d.set(func() { d.fault = nil })
		if n, err := f.ReadAt(bg, p, 0); n != len(p) || err != nil {
			t.Errorf("after the fault: %d, %v", n, err)
		}
		// A fold moves the bytes and the old stripe is collected.
		m.mu.Lock()
		old := m.nodes[f.Ino()].extents[0].Stripe
		s := m.stripes[old]
		s.ID = 1 << 30
		m.stripes[s.ID] = s
		m.nodes[f.Ino()].extents[0].Stripe = s.ID
		m.mu.Unlock()
		d.set(func() { d.stripes[s.ID] = d.stripes[old]; delete(d.stripes, old) })
		if n, err := f.ReadAt(bg, p, 0); n != len(p) || err != nil {
			t.Errorf("after a fold: %d, %v", n, err)
		}
	})
}

// Random single-block reads with a cached layout ask the metadata service nothing.
func TestCachedLayout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		defer f.Release()
		write(t, f, bytes.Repeat([]byte("x"), 8<<20), 0)
		if err := f.Fsync(bg, false); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4096)
		read := func() {
			for i := range int64(100) {
				if _, err := f.ReadAt(bg, p, i*4096); err != nil {
					t.Fatal(err)
				}
			}
		}
		read()
		if n := m.count("layout"); n != 1 {
			t.Errorf("%d questions for 100 reads, want 1", n)
		}
		time.Sleep(31 * time.Second)
		read()
		if n := m.count("layout"); n != 2 {
			t.Errorf("%d questions after 31 s, want 2", n)
		}
	})
}

func TestSync(t *testing.T) {
	for _, c := range []struct {
		name  string
		mount bool
		flags int
		want  int
	}{{"plain", false, 0, 0}, {"O_SYNC", false, syscall.O_SYNC, 1}, {"O_DSYNC", false, syscall.O_DSYNC, 1}, {"mount", true, 0, 1}} {
		synctest.Test(t, func(t *testing.T) {
			m, d := newFakeMeta(), newFakeData()
			fs, _ := mount(t, Config{Meta: m, Data: d, Sync: c.mount})
			f := create(t, fs, "f")
			defer f.Release()
			g, err := fs.Open(bg, f.Ino(), syscall.O_WRONLY|c.flags)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Release()
			write(t, g, []byte("x"), 0)
			if n := m.count("write"); n != c.want {
				t.Errorf("%s: %d commands after a write, want %d", c.name, n, c.want)
			}
		})
	}
}

func TestAttributes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		fs, _ := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		defer f.Release()
		mode := uint32(0o6775)
		if _, err := fs.SetAttr(bg, f.Ino(), meta.SetAttr{Mode: &mode}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(bg, make([]byte, 5000), 0, KillPriv); err != nil {
			t.Fatal(err)
		}
		a, err := fs.Lookup(bg, meta.Root, "f")
		if err != nil || a.Mode != meta.TypeFile|0o775 || a.Size != 5000 || a.Bytes < 5000 || a.Bytes > 8192 {
			t.Errorf("with dirty data: %+v, %v", a, err)
		}
		mtime := meta.Time(12345)
		if _, err := fs.SetAttr(bg, f.Ino(), meta.SetAttr{Mtime: &mtime}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if a, err := fs.Attr(bg, f.Ino()); err != nil || a.Mtime != mtime || a.Mode != meta.TypeFile|0o775 {
			t.Errorf("a time that was set after a write does not stay: %+v, %v", a, err)
		}
		asked := m.count("attr")
		for range 10 {
			if _, err := fs.Attr(bg, f.Ino()); err != nil {
				t.Fatal(err)
			}
		}
		if n := m.count("attr"); n != asked {
			t.Errorf("cached attributes were asked for %d times", n-asked)
		}
	})
}

// Operations on one inode that overlap may be answered in any order; what is
// cached must be the last state.
func TestOverlappingChanges(t *testing.T) {
	m, d := newFakeMeta(), newFakeData()
	fs, _ := mount(t, Config{Meta: m, Data: d})
	f := create(t, fs, "f")
	defer f.Release()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 50 {
				name := fmt.Sprintf("%d.%d", g, i)
				if _, err := fs.Link(bg, f.Ino(), meta.Root, name); err != nil {
					t.Error(err)
				}
				if _, err := f.WriteAt(bg, []byte("x"), 0, Append); err != nil {
					t.Error(err)
				}
				if err := f.Fsync(bg, false); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					if err := fs.Unlink(bg, meta.Root, name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	got, err := fs.Attr(bg, f.Ino())
	if want := m.nodes[f.Ino()].attr; err != nil || got != want {
		t.Errorf("cached %+v, %v, want %+v", got, err, want)
	}
	if got.Nlink != 101 || got.Size != 200 {
		t.Errorf("nlink %d, size %d, want 101, 200", got.Nlink, got.Size)
	}
}

// Readers, writers, truncations and syncs of one file at once: for the race
// detector, and nothing may hang.
func TestConcurrent(t *testing.T) {
	m, d := newFakeMeta(), newFakeData()
	d.delay = func() time.Duration { return 100 * time.Microsecond }
	fs, stop := mount(t, Config{Meta: m, Data: d, Dirty: 16 << 20, Age: 20 * time.Millisecond})
	f := create(t, fs, "f")
	ctx, cancel := context.WithTimeout(bg, time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for g := range 6 {
		rnd := rand.New(rand.NewPCG(uint64(g), 7))
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(g + 1)}, 200<<10)
			for range 60 {
				off := rnd.Int64N(12 << 20)
				var err error
				switch rnd.IntN(7) {
				case 0:
					_, err = fs.SetAttr(ctx, f.Ino(), meta.SetAttr{Size: &off})
				case 1:
					err = f.Fsync(ctx, false)
				case 2:
					_, err = f.WriteAt(ctx, p, 0, Append)
				case 3:
					_, err = f.ReadAt(ctx, make([]byte, len(p)), off)
				case 4:
					err = f.Allocate(ctx, off, 100<<10, 3)
				default:
					_, err = f.WriteAt(ctx, p[:rnd.IntN(len(p)-1)+1], off, 0)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want := contents(t, f)
	if err := f.Fsync(ctx, false); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, f); !bytes.Equal(got, want) {
		t.Error("what is read after fsync is not what was read before")
	}
	f.Release()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestRunStoresTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		fs, stop := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		write(t, f, []byte("x"), 0)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := m.nodes[f.Ino()]; n.attr.Size != 1 {
			t.Errorf("size %d", n.attr.Size)
		}
		write(t, f, []byte("x"), 0)
		if err := f.Fsync(bg, false); !errors.Is(err, meta.Unavailable) {
			t.Errorf("fsync after the end: %v", err)
		}

		d = newFakeData()
		d.fault = func(string) error { return chunk.ErrTooFew }
		fs, stop = mount(t, Config{Meta: m, Data: d})
		f = create(t, fs, "g")
		write(t, f, make([]byte, 1<<20), 0)
		start := time.Now()
		if err := stop(); !errors.Is(err, meta.Unavailable) || time.Since(start) > 31*time.Second {
			t.Errorf("with no store, after %v: %v", time.Since(start), err)
		}
	})
}

// A command that would replace more extents than the service lets one replace
// is sent in parts, of one extent too.
func TestReplaceMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, d := newFakeMeta(), newFakeData()
		m.replaceMax = 20
		fs, stop := mount(t, Config{Meta: m, Data: d})
		f := create(t, fs, "f")
		defer f.Release()
		const size = 1 << 20
		want := bytes.Repeat([]byte("x"), size)
		for off := int64(0); off < size; off += 16 << 10 {
			write(t, f, want[off:off+100], off)
		}
		if err := f.Fsync(bg, false); err != nil {
			t.Fatal(err)
		}
		write(t, f, want, 0)
		if err := f.Fsync(bg, false); err != nil {
			t.Errorf("overwriting 64 extents, 20 at once: %v", err)
		}
		fs.layouts.drop(f.Ino(), 0, 1<<62)
		if got := contents(t, f); !bytes.Equal(got, want) {
			t.Error("other bytes than were written")
		}
		for i := range 64 { // pieces of one stripe, far apart
			off := i * 16 << 10
			write(t, f, bytes.Repeat([]byte("y"), 2000), int64(off))
		}
		if err := f.Fsync(bg, false); err != nil {
			t.Error(err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if low := d.Low(); len(d.open) != 0 {
			t.Errorf("%d stripes were not ended, low is %d", len(d.open), low)
		}
	})
}
