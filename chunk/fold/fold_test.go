package fold

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/chunk"
	"dos/chunk/stripe"
	"dos/chunk/stripe/stripetest"
)

var (
	wanted       = chunk.Code{K: 4, M: 2}
	_      Data  = (*stripe.Path)(nil)
	_      Files = (*files)(nil)
)

func best(n int) chunk.Code {
	if n <= chunk.CopyMax {
		return chunk.Code{K: 1, M: 2}
	}
	return wanted
}

func TestPlan(t *testing.T) {
	inline := func(off, n int64) Extent { return Extent{Off: off, Len: n, Inline: make([]byte, n)} }
	in := func(off, n int64, id chunk.StripeID, at uint32) Extent {
		return Extent{Off: off, Len: n, Stripe: id, At: at}
	}
	row := func(id chunk.StripeID, n uint32, k uint8) chunk.Stripe {
		return chunk.Stripe{ID: id, Len: n, Code: chunk.Code{K: k, M: 2}}
	}
	const mib = 1 << 20
	for _, test := range []struct {
		name    string
		extents []Extent
		stripes []chunk.Stripe
		from    int64
		size    int64
		want    string // the pieces, off+len each
	}{
		{"nothing", nil, nil, 0, 100, ""},
		{"a hole", []Extent{in(8*mib, 100, 1, 0)}, []chunk.Stripe{row(1, 100, 1)}, 0, 9 * mib, ""},
		{"small inline", []Extent{inline(0, 4096)}, nil, 0, 4096, ""},
		{"inline in a larger file", []Extent{inline(0, 4096)}, nil, 0, 4097, "0+4096"},
		{"two inline", []Extent{inline(0, 10), inline(10, 5000)}, nil, 0, 5010, "0+10 10+5000"},
		{"one full stripe", []Extent{in(0, 4*mib, 1, 0)}, []chunk.Stripe{row(1, 4*mib, 4)}, 0, 4 * mib, ""},
		{"one short stripe", []Extent{in(0, 4*mib, 1, 0)}, []chunk.Stripe{row(1, 4*mib, 3)}, 0, 4 * mib, "0+4194304"},
		{"copies where 4+2 should be", []Extent{in(0, mib, 1, 0)}, []chunk.Stripe{row(1, mib, 1)}, 0, mib, "0+1048576"},
		{"copies", []Extent{in(0, 65536, 1, 0)}, []chunk.Stripe{row(1, 65536, 1)}, 0, 65536, ""},
		{"inline in a stripe", []Extent{in(0, 100, 1, 0), inline(100, 1), in(101, 99, 1, 101)},
			[]chunk.Stripe{row(1, 200, 1)}, 0, 200, "0+100 100+1 101+99"},
		{"two stripes", []Extent{in(0, 100, 1, 0), in(100, 100, 2, 0)},
			[]chunk.Stripe{row(1, 100, 1), row(2, 100, 1)}, 0, 200, "0+100 100+100"},
		{"half live", []Extent{in(0, 100, 1, 0)}, []chunk.Stripe{row(1, 200, 1)}, 0, 100, ""},
		{"less than half live", []Extent{in(0, 99, 1, 0)}, []chunk.Stripe{row(1, 200, 1)}, 0, 100, "0+99"},
		{"half live in two pieces", []Extent{in(0, 50, 1, 0), in(150, 50, 1, 150)}, []chunk.Stripe{row(1, 200, 1)}, 0, 200, ""},
		{"cut at the window", []Extent{in(3*mib, 2*mib, 1, 0), in(5*mib, 4*mib, 2, 7)},
			[]chunk.Stripe{row(1, 2*mib, 4), row(2, 4*mib+7, 4)}, 4 * mib, 9 * mib, "4194304+1048576 5242880+3145728"},
		{"unknown stripe", []Extent{in(0, 100, 1, 0)}, nil, 0, 100, ""},
		{"larger m", []Extent{in(0, 100, 1, 0)}, []chunk.Stripe{{ID: 1, Len: 100, Code: chunk.Code{K: 1, M: 1}}}, 0, 100, "0+100"},
		{"smaller m stays", []Extent{in(0, mib, 1, 0)}, []chunk.Stripe{{ID: 1, Len: mib, Code: chunk.Code{K: 2, M: 3}}}, 0, mib, ""},
	} {
		var got []string
		for _, e := range plan(Layout{Extents: test.extents, Stripes: test.stripes}, test.from, test.size, best) {
			got = append(got, fmt.Sprintf("%d+%d", e.Off, e.Len))
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("%s: plan = %q, want %q", test.name, got, test.want)
		}
	}
	none := func(int) chunk.Code { return chunk.Code{} }
	if got := plan(Layout{Extents: []Extent{inline(0, 9), inline(9, 5000)}}, 0, 5009, none); got != nil {
		t.Errorf("plan with too few stores = %v, want nothing", got)
	}
}

func TestPack(t *testing.T) {
	got := pack(9, []Extent{{Off: 10, Len: 5, Inline: []byte("hello")}, {Off: 15, Len: 7, Stripe: 1, At: 3}, {Off: 30, Len: 2, Stripe: 2}})
	want := []Extent{{Off: 10, Len: 12, Stripe: 9}, {Off: 30, Len: 2, Stripe: 9, At: 12}}
	if !slices.EqualFunc(got, want, func(a, b Extent) bool {
		return a.Off == b.Off && a.Len == b.Len && a.Stripe == b.Stripe && a.At == b.At && a.Inline == nil
	}) {
		t.Errorf("pack = %v, want %v", got, want)
	}
}

// files is a metadata service in memory. Each file remembers what it should
// read as.
type files struct {
	path  *stripe.Path
	limit int // extents in an answer

	mu   sync.Mutex
	all  map[uint64]*file // guarded by mu
	hook func()           // called before each Swap; guarded by mu
}

type file struct {
	version uint64
	size    int64
	extents []Extent
	stripes map[chunk.StripeID]chunk.Stripe
	bytes   []byte
	since   time.Time
	pending bool
}

func (s *files) Candidates(ctx context.Context, after uint64, limit int) ([]Candidate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Candidate
	for n, f := range s.all {
		if n > after && f.pending {
			list = append(list, Candidate{n, f.since})
		}
	}
	slices.SortFunc(list, func(a, b Candidate) int { return cmp.Compare(a.File, b.File) })
	return list[:min(len(list), limit)], nil
}

func (s *files) Layout(ctx context.Context, n uint64, off, size int64) (Layout, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.all[n]
	if f == nil {
		return Layout{}, ErrGone
	}
	l := Layout{Version: f.version, Size: f.size, End: off + size}
	seen := make(map[chunk.StripeID]bool)
	for _, e := range f.extents {
		if e.end() <= off || e.Off >= off+size {
			continue
		}
		if len(l.Extents) == s.limit {
			l.End = e.Off
			break
		}
		l.Extents = append(l.Extents, e)
		if e.Stripe != 0 && !seen[e.Stripe] {
			seen[e.Stripe] = true
			l.Stripes = append(l.Stripes, f.stripes[e.Stripe])
		}
	}
	return l, nil
}

func (s *files) Swap(ctx context.Context, n, version uint64, extents []Extent, stripes []chunk.Stripe, done bool, low chunk.StripeID) error {
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	if hook != nil {
		hook()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.all[n]
	switch {
	case f == nil:
		return ErrGone
	case f.version != version:
		return ErrConflict
	}
	for _, stripe := range stripes {
		if stripe.ID < low {
			return fmt.Errorf("stripe %d is below the low-water mark %d", stripe.ID, low)
		}
	}
	replaced := 0
	for _, e := range extents {
		replaced += len(clip(f.extents, e.Off, e.end()))
	}
	if replaced > 4096 {
		return fmt.Errorf("%d extents are replaced", replaced)
	}
	f.put(extents, stripes)
	if done {
		f.pending = false
	}
	return nil
}

// put lays extents over what the file has.
func (f *file) put(extents []Extent, stripes []chunk.Stripe) {
	for _, e := range extents {
		f.extents = slices.Concat(clip(f.extents, 0, e.Off), []Extent{e}, clip(f.extents, e.end(), 1<<62))
		f.size = max(f.size, e.end())
	}
	for _, s := range stripes {
		f.stripes[s.ID] = s
	}
	f.version++
}

// write changes a file as a writer does: inline when small.
func (s *files) write(t *testing.T, n uint64, off int64, data []byte) {
	t.Helper()
	e := Extent{Off: off, Len: int64(len(data))}
	var stripes []chunk.Stripe
	if len(data) <= 4096 {
		e.Inline = bytes.Clone(data)
	} else {
		id, err := s.path.Begin(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		w, err := s.path.Write(context.Background(), id, data)
		if err != nil {
			t.Fatal(err)
		}
		s.path.End(id)
		e.Stripe, stripes = w.ID, []chunk.Stripe{w}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.all[n]
	if f == nil {
		f = &file{stripes: make(map[chunk.StripeID]chunk.Stripe)}
		s.all[n] = f
	}
	f.put([]Extent{e}, stripes)
	if grow := int(e.end()) - len(f.bytes); grow > 0 {
		f.bytes = append(f.bytes, make([]byte, grow)...)
	}
	copy(f.bytes[off:], data)
	f.since, f.pending = time.Now(), true
}

// check reads a file through its extents.
func (s *files) check(t *testing.T, n uint64) {
	t.Helper()
	s.mu.Lock()
	f := *s.all[n]
	s.mu.Unlock()
	got := make([]byte, f.size)
	for _, e := range f.extents {
		if e.Stripe == 0 {
			copy(got[e.Off:], e.Inline)
		} else if err := s.path.Read(context.Background(), f.stripes[e.Stripe], got[e.Off:e.end()], int64(e.At)); err != nil {
			t.Errorf("file %d at %d: %v", n, e.Off, err)
		}
	}
	if !bytes.Equal(got, f.bytes) {
		t.Errorf("file %d: %d bytes differ from what was written", n, len(got))
	}
}

// windows describes where each window of a file lies.
func (f *file) windows() string {
	var all []string
	for from := int64(0); from < f.size; from += Window {
		set := make(map[string]bool)
		for _, e := range clip(f.extents, from, from+Window) {
			if e.Stripe == 0 {
				set["inline"] = true
			} else {
				set[fmt.Sprintf("%v/%d", f.stripes[e.Stripe].Code, f.stripes[e.Stripe].Len)] = true
			}
		}
		var list []string
		for s := range set {
			list = append(list, s)
		}
		slices.Sort(list)
		all = append(all, strings.Join(list, ","))
	}
	return strings.Join(all, " ")
}

func run(t *testing.T, f func(t *testing.T, s *files, c *stripetest.Cluster, folder *Folder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := stripetest.New(6, wanted)
		p, err := stripe.New(stripe.Config{Cluster: c, IDs: c})
		if err != nil {
			t.Fatal(err)
		}
		s := &files{path: p, limit: 100, all: make(map[uint64]*file)}
		folder, err := New(Config{Files: s, Data: p})
		if err != nil {
			t.Fatal(err)
		}
		f(t, s, c, folder)
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

func once(t *testing.T, f *Folder) {
	t.Helper()
	time.Sleep(DefaultSettle)
	if err := f.Once(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestFold(t *testing.T) {
	for _, test := range []struct {
		name  string
		write func(t *testing.T, s *files)
		want  string
	}{
		{"small stays inline", func(t *testing.T, s *files) { s.write(t, 1, 0, random(4000)) }, "inline"},
		{"appends of 4 KiB", func(t *testing.T, s *files) {
			for i := range 16 {
				s.write(t, 1, int64(i)*4096, random(4096))
			}
		}, "1+2/65536"},
		{"appends of 100 KB over two windows", func(t *testing.T, s *files) {
			for i := range 80 {
				s.write(t, 1, int64(i)*100_000, random(100_000+i))
			}
		}, "4+2/4194304 4+2/3805775"},
		{"a full stripe stays", func(t *testing.T, s *files) { s.write(t, 1, 0, random(4<<20)) }, "4+2/4194304"},
		{"a full stripe with a page overwritten", func(t *testing.T, s *files) {
			s.write(t, 1, 0, random(4<<20))
			s.write(t, 1, 8192, random(4096))
		}, "4+2/4194304"},
		{"holes stay holes", func(t *testing.T, s *files) {
			s.write(t, 1, 10, random(5))
			s.write(t, 1, 1<<20, random(100_000))
			s.write(t, 1, 3<<20, random(4096))
			s.write(t, 1, 40<<20, random(100))
		}, "4+2/104101          1+2/100"},
		{"more pieces than an answer holds", func(t *testing.T, s *files) {
			for i := range 350 {
				s.write(t, 1, int64(i)*2000, random(1000))
			}
			s.write(t, 1, 4<<20, random(1000))
		}, "4+2/350000 1+2/1000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, func(t *testing.T, s *files, c *stripetest.Cluster, folder *Folder) {
				test.write(t, s)
				once(t, folder)
				s.check(t, 1)
				if got := s.all[1].windows(); got != test.want {
					t.Errorf("windows %q, want %q", got, test.want)
				}
				if st := folder.Status(); s.all[1].pending || st.Files != 1 || st.Errors != 0 || st.Conflicts != 0 {
					t.Errorf("not done: %+v", st)
				}
				if low := s.path.Low(); low == 0 {
					t.Log("no stripe was begun")
				}
			})
		})
	}
}

// A window of more pieces than one command may replace is folded in parts.
func TestVeryManyPieces(t *testing.T) {
	run(t, func(t *testing.T, s *files, c *stripetest.Cluster, folder *Folder) {
		pieces := 5_000
		if testing.Short() {
			pieces /= 5
		}
		s.limit = 1024
		for i := range pieces {
			s.write(t, 1, int64(i)*300, random(300))
		}
		for range 5 {
			once(t, folder)
		}
		s.check(t, 1)
		if n := len(s.all[1].extents); n != 1 || s.all[1].pending {
			t.Errorf("%d extents are left, to be folded: %v", n, s.all[1].pending)
		}
		if st := folder.Status(); st.Errors != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestSettle(t *testing.T) {
	run(t, func(t *testing.T, s *files, c *stripetest.Cluster, folder *Folder) {
		s.write(t, 1, 0, random(4096))
		s.write(t, 1, 4096, random(4096))
		if err := folder.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := folder.Status(); st.Windows != 0 || st.Candidates != 1 {
			t.Errorf("folded a file that has just changed: %+v", st)
		}
		once(t, folder)
		if st := folder.Status(); st.Windows != 1 {
			t.Errorf("not folded after it settled: %+v", st)
		}
	})
}

// Stripes written while stores were away get the code wanted when they are back.
func TestShort(t *testing.T) {
	run(t, func(t *testing.T, s *files, c *stripetest.Cluster, folder *Folder) {
		c.Faulty(1).Down(true)
		c.Faulty(2).Down(true)
		s.write(t, 1, 0, random(1<<20))
		once(t, folder)
		if got := s.all[1].windows(); got != "2+2/1048576" {
			t.Errorf("with four stores: %q", got)
		}
		s.all[1].pending = true // what was done is a candidate again when stores return
		c.Faulty(1).Down(false)
		c.Faulty(2).Down(false)
		once(t, folder)
		s.check(t, 1)
		if got := s.all[1].windows(); got != "4+2/1048576" {
			t.Errorf("with six stores: %q", got)
		}
	})
}

// A file that changes between layout and swap is left, its writer's bytes stay,
// and the stripe that was written for nothing is deleted.
func TestConflict(t *testing.T) {
	run(t, func(t *testing.T, s *files, c *stripetest.Cluster, folder *Folder) {
		s.write(t, 1, 0, random(4096))
		s.write(t, 1, 4096, random(4096))
		fired := false
		s.hook = func() {
			if !fired {
				fired = true
				s.write(t, 1, 100, random(50))
			}
		}
		once(t, folder)
		if st := folder.Status(); st.Conflicts != 1 || st.Windows != 0 {
			t.Errorf("status %+v, want a conflict", st)
		}
		for _, id := range c.Stores() {
			if left := c.Faulty(id).Shards(); len(left) != 0 {
				t.Errorf("store %d keeps %v", id, left)
			}
		}
		s.check(t, 1)
		once(t, folder)
		s.check(t, 1)
		if got := s.all[1].windows(); got != "1+2/8192" {
			t.Errorf("after the conflict: %q", got)
		}
	})
}

func TestTroubles(t *testing.T) {
	run(t, func(t *testing.T, s *files, c *stripetest.Cluster, folder *Folder) {
		for n := range uint64(3) {
			s.write(t, n+1, 0, random(100_000))
			s.write(t, n+1, 100_000, random(100_000))
		}
		s.hook = func() { // a file is removed before it is done
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.all, 2)
		}
		for i := range 3 {
			c.Faulty(chunk.StoreID(i + 1)).Fail(chunk.ErrLost)
		}
		once(t, folder)
		if st := folder.Status(); st.Errors == 0 || st.LastError == "" || st.Windows != 0 {
			t.Errorf("with three stores failing: %+v", st)
		}
		for i := range 3 {
			c.Faulty(chunk.StoreID(i + 1)).Fail(nil)
		}
		once(t, folder)
		s.check(t, 1)
		s.check(t, 3)
		if st := folder.Status(); st.Files != 2 {
			t.Errorf("afterwards: %+v, want 2 files done", st)
		}
	})
}

// Run folds while writers write: no byte is lost, and at rest all is folded.
func TestRunWithWriters(t *testing.T) {
	run(t, func(t *testing.T, s *files, c *stripetest.Cluster, folder *Folder) {
		folder.config.Settle = time.Millisecond
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- folder.Run(ctx) }()
		r := rand.New(rand.NewPCG(7, 7))
		for range 150 {
			n := uint64(1 + r.IntN(3))
			s.write(t, n, int64(r.IntN(6<<20)), random(1+r.IntN(20_000)))
			time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
			s.check(t, n)
		}
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for n := range s.all {
			s.check(t, n)
			if strings.Contains(s.all[n].windows(), ",") || s.all[n].pending {
				t.Errorf("file %d at rest: %s", n, s.all[n].windows())
			}
		}
		if st := folder.Status(); st.Windows == 0 || st.Errors != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

func TestRate(t *testing.T) {
	run(t, func(t *testing.T, s *files, c *stripetest.Cluster, folder *Folder) {
		folder.config.Rate = 1 << 20
		for i := range 5 { // windows of 1 MiB in two stripes each
			s.write(t, 1, int64(i)*Window, random(1<<19))
			s.write(t, 1, int64(i)*Window+1<<19, random(1<<19))
		}
		time.Sleep(DefaultSettle)
		start := time.Now()
		if err := folder.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 4*time.Second {
			t.Errorf("5 MiB at 1 MiB/s took %v, want 4s after the first", d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := folder.Once(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Once with an ended context: %v", err)
		}
	})
}
