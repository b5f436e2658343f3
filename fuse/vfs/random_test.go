package vfs

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/meta"
)

var seedFlag = flag.Uint64("seed", 0, "of the random tests; 0: a new one")

func seed(t *testing.T) *rand.Rand {
	s := *seedFlag
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", s)
	return rand.New(rand.NewPCG(s, 1))
}

// twin is a file and what it should hold. versions are the states since the last
// that is known to be stored: what a crash may bring back, byte by byte.
type twin struct {
	t        *testing.T
	rnd      *rand.Rand
	fs       *FS
	meta     *fakeMeta
	data     *fakeData
	f        *File
	want     []byte
	versions [][]byte
	max      int64
	faults   bool
}

func (w *twin) changed() {
	if len(w.versions) > 0 || w.faults {
		w.versions = append(w.versions, bytes.Clone(w.want))
	}
}

func (w *twin) synced() { w.versions = [][]byte{bytes.Clone(w.want)} }

func (w *twin) put(p []byte, off int64) {
	if end := off + int64(len(p)); end > int64(len(w.want)) {
		w.want = append(w.want, make([]byte, end-int64(len(w.want)))...)
	}
	copy(w.want[off:], p)
}

func (w *twin) random(n int64) []byte {
	return bytes.Repeat([]byte{byte(w.rnd.IntN(255) + 1)}, int(n))
}

func (w *twin) step() string {
	ctx := context.Background()
	off := w.rnd.Int64N(w.max)
	size := w.rnd.Int64N(1<<w.rnd.IntN(19)) + 1
	must := func(op string, err error) bool {
		if err != nil && (!w.faults || !errors.Is(err, meta.Unavailable)) {
			w.t.Fatalf("%s at %d of %d bytes: %v", op, off, size, err)
		}
		return err == nil
	}
	switch k := w.rnd.IntN(100); {
	case k < 30:
		p := w.random(size)
		write(w.t, w.f, p, off)
		w.put(p, off)
		w.changed()
		return "write"
	case k < 45: // in sequence
		off = int64(len(w.want)) / 2
		for range w.rnd.IntN(12) {
			p := w.random(w.rnd.Int64N(1 << 20))
			write(w.t, w.f, p, off)
			w.put(p, off)
			w.changed()
			if off += int64(len(p)); off > w.max {
				break
			}
		}
		return "stream"
	case k < 52:
		if int64(len(w.want)) > w.max {
			return ""
		}
		p := w.random(size)
		if n, err := w.f.WriteAt(ctx, p, 0, Append); err != nil || n != len(p) {
			w.t.Fatalf("append: %d, %v", n, err)
		}
		w.put(p, int64(len(w.want)))
		w.changed()
		return "append"
	case k < 58:
		to := off
		if w.rnd.IntN(4) == 0 {
			to = 0
		}
		if _, err := w.fs.SetAttr(ctx, w.f.Ino(), meta.SetAttr{Size: &to}); must("truncate", err) {
			w.want = append(w.want[:min(to, int64(len(w.want)))], make([]byte, max(0, to-int64(len(w.want))))...)
			w.changed()
		}
		return fmt.Sprint("truncate ", to)
	case k < 64:
		mode := []uint32{3, 0x11, 0x10, 0}[w.rnd.IntN(4)]
		if must("allocate", w.f.Allocate(ctx, off, size, mode)) {
			end := off + size
			if mode&1 != 0 {
				end = min(end, int64(len(w.want)))
			}
			if end > int64(len(w.want)) {
				w.want = append(w.want, make([]byte, end-int64(len(w.want)))...)
			}
			if mode != 0 && end > off {
				clear(w.want[off:end])
			}
			w.changed()
		}
		return fmt.Sprint("allocate ", mode)
	case k < 70:
		if must("fsync", w.f.Fsync(ctx, true)) {
			w.synced()
		}
		return "fsync"
	case k < 73:
		if must("flush", w.f.Flush(ctx)) {
			w.synced()
		}
		return "flush"
	case k < 76: // as under pressure: what is dirty is on its way during the next steps
		w.send()
		switch w.rnd.IntN(3) {
		case 0:
			for i := range int64(3) {
				p := w.random(size)
				write(w.t, w.f, p, off+i*size/4)
				w.put(p, off+i*size/4)
				w.changed()
				w.send()
			}
			w.same("contents", contents(w.t, w.f), w.want, 0)
		case 1:
			to := w.rnd.Int64N(int64(len(w.want)) + 1)
			if _, err := w.fs.SetAttr(ctx, w.f.Ino(), meta.SetAttr{Size: &to}); must("truncate", err) {
				w.want = w.want[:to]
				w.changed()
			}
		}
		return "send"
	case k < 79:
		time.Sleep(time.Duration(w.rnd.IntN(3000)) * time.Millisecond)
		return "pause"
	case k < 83:
		w.seek(off)
		return "seek"
	case k < 86:
		w.crash()
		return "crash"
	default:
		p := make([]byte, size*4)
		n, err := w.f.ReadAt(ctx, p, off)
		if err != nil {
			w.t.Fatalf("read: %v", err)
		}
		want := w.want[min(off, int64(len(w.want))):min(off+size*4, int64(len(w.want)))]
		w.same("read", p[:n], want, off)
		return "read"
	}
}

func (w *twin) send() {
	w.f.n.mu.Lock()
	w.fs.send(w.f.n, 0, 1<<63-1, false)
	w.f.n.mu.Unlock()
}

func (w *twin) same(op string, got, want []byte, off int64) {
	w.t.Helper()
	if len(got) != len(want) {
		w.t.Fatalf("%s at %d: %d bytes, want %d", op, off, len(got), len(want))
	}
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				w.t.Fatalf("%s: byte %d is %d, want %d", op, off+int64(i), got[i], want[i])
			}
		}
	}
}

// seek checks that no byte other than zero is called a hole.
func (w *twin) seek(off int64) {
	ctx := context.Background()
	size := int64(len(w.want))
	data, err := w.f.Seek(ctx, off, seekData)
	if err != nil && !errors.Is(err, ErrNoData) {
		w.t.Fatal(err)
	}
	if err != nil {
		data = size
	}
	if off < data && bytes.Count(w.want[off:data], []byte{0}) != int(data-off) {
		w.t.Fatalf("seek data from %d says %d, but there is some before", off, data)
	}
	if err != nil {
		return
	}
	hole, err := w.f.Seek(ctx, data, seekHole)
	if err != nil || hole <= data || hole > size {
		w.t.Fatalf("seek hole from %d of %d: %d, %v", data, size, hole, err)
	}
}

// crash looks at the file as it would be after a crash now: every byte must be
// as in one of the states since the last sync.
func (w *twin) crash() {
	if len(w.versions) == 0 {
		return
	}
	fs, stop := mount(w.t, Config{Meta: w.meta.clone(), Data: &fakeData{stripes: w.data.stripes, free: 1 << 40}})
	defer stop()
	f, err := fs.Open(context.Background(), w.f.Ino(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Release()
	got := contents(w.t, f)
	least := len(w.versions[0])
	for _, v := range w.versions {
		least = min(least, len(v))
	}
	if len(got) < least {
		w.t.Fatalf("after a crash %d bytes, but there were never less than %d since the last sync", len(got), least)
	}
	const block = 512 // compared at once where it can be
	for at := 0; at < len(got); at += block {
		end := min(at+block, len(got))
		if !slices.ContainsFunc(w.versions, func(v []byte) bool { return len(v) >= end && bytes.Equal(v[at:end], got[at:end]) }) {
			for i := at; i < end; i++ {
				if !slices.ContainsFunc(w.versions, func(v []byte) bool { return i < len(v) && v[i] == got[i] }) {
					w.t.Fatalf("after a crash byte %d of %d is %d, which it never was since the last sync", i, len(got), got[i])
				}
			}
		}
	}
}

func TestRandom(t *testing.T) {
	for _, faults := range []bool{false, true} {
		t.Run(fmt.Sprintf("faults=%v", faults), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testRandom(t, faults) })
		})
	}
}

func testRandom(t *testing.T, faults bool) {
	rnd := seed(t)
	var mu sync.Mutex // guards dice, which the fakes throw too
	dice := rand.New(rand.NewPCG(rnd.Uint64(), 2))
	throw := func(n int) int { mu.Lock(); defer mu.Unlock(); return dice.IntN(n) }
	w := &twin{t: t, rnd: rnd, meta: newFakeMeta(), data: newFakeData(), max: 5 << 20, faults: faults}
	w.data.delay = func() time.Duration { return time.Duration(throw(40)) * time.Millisecond }
	if faults {
		w.data.fault = func(op string) error {
			if op == "write" && throw(6) == 0 {
				return chunk.ErrTooFew
			}
			return nil
		}
		w.meta.fault = func(op string, after bool) error {
			if op == "write" && throw(12) == 0 && !after {
				return meta.Unavailable
			}
			return nil
		}
	}
	var stop func() error
	w.fs, stop = mount(t, Config{Meta: w.meta, Data: w.data, Dirty: 16 << 20})
	w.f = create(t, w.fs, "file")
	w.synced()
	var last []string
	defer func() {
		if t.Failed() {
			t.Logf("the last steps: %q", last[max(0, len(last)-20):])
		}
	}()
	for range 100 {
		last = append(last, w.step())
		if len(w.versions) > 12 { // the test's own memory
			for w.f.Fsync(context.Background(), false) != nil {
			}
			w.synced()
		}
		a, err := w.fs.Attr(context.Background(), w.f.Ino())
		if err != nil || a.Size != int64(len(w.want)) {
			t.Fatalf("size %d, %v, want %d", a.Size, err, len(w.want))
		}
	}
	w.same("contents", contents(t, w.f), w.want, 0)
	w.f.Release()
	if err := stop(); err != nil {
		t.Fatalf("Run: %v", err)
	}
	if used, _ := w.fs.mem.taken(); used != 0 || w.fs.flying.Load() != 0 || w.fs.mem.data.Load() != 0 {
		t.Errorf("at the end %d bytes of memory are in use, %d on the way, %d dirty", used, w.fs.flying.Load(), w.fs.mem.data.Load())
	}
	if len(w.data.open) > 0 {
		t.Errorf("%d stripes were begun and not ended", len(w.data.open))
	}
	w.versions, w.data.fault, w.meta.fault = [][]byte{w.want}, nil, nil
	w.crash()
}
