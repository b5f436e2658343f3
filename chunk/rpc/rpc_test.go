package rpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/chunk/mem"
	"dos/chunk/storetest"
	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
)

// serve serves stores by ID over TLS and returns a way to reach them.
func serve(t testing.TB, stores map[chunk.StoreID]chunk.Store) *rpc.Client {
	server, client := rpctest.TLS(t)
	l := rpctest.Listen(t)
	rpctest.Serve(t, l, rpc.ServerConfig{TLS: server}, Serve(finder(stores)))
	return rpctest.Dial(t, l.Addr().String(), rpc.ClientConfig{TLS: client})
}

func finder(stores map[chunk.StoreID]chunk.Store) func(chunk.StoreID) (chunk.Store, bool) {
	return func(id chunk.StoreID) (chunk.Store, bool) {
		s, ok := stores[id]
		return s, ok
	}
}

func TestStore(t *testing.T) {
	server, client := rpctest.TLS(t)
	storetest.Run(t, func(t *testing.T) chunk.Store {
		l := rpctest.Listen(t)
		rpctest.Serve(t, l, rpc.ServerConfig{TLS: server}, Serve(finder(map[chunk.StoreID]chunk.Store{7: new(mem.Store)})))
		return Open(rpctest.Dial(t, l.Addr().String(), rpc.ClientConfig{TLS: client}), 7)
	})
}

// The same where shards go in bulk.
func TestBulkStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) chunk.Store { return inBulk(t, new(mem.Store)) })
}

// inBulk returns a store at the other end of connections for bulk calls.
func inBulk(t testing.TB, below chunk.Store) *Store {
	server, client := rpctest.TLS(t)
	protos := []string{rpc.HTTP2, rpc.Bulk}
	server.NextProtos = protos
	port := rpc.NewPort(rpctest.Listen(t), server, slog.New(slog.DiscardHandler), protos...)
	service := Serve(finder(map[chunk.StoreID]chunk.Store{1: below}))
	ctx, cancel := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return port.Run(ctx) })
	g.Go(func() error { return rpc.ServeBulk(ctx, port.Listener(rpc.Bulk), service) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	rpctest.Serve(t, port.Listener(rpc.HTTP2), rpc.ServerConfig{}, service)
	s := Open(rpctest.Dial(t, port.Addr().String(), rpc.ClientConfig{TLS: client, Bulk: true, Conns: 1}), 1)
	if _, err := s.Stat(t.Context(), chunk.ID{Stripe: 1}); err != nil && !errors.Is(err, chunk.ErrNotExist) { // and it is connected
		t.Fatal(err)
	}
	return s
}

// Several stores on one port do not mix.
// filed is a store whose shards lie in files as well.
type filed struct {
	*mem.Store
	dir   string
	reads atomic.Int32 // calls of ReadAt
}

func (f *filed) path(id chunk.ID) string { return filepath.Join(f.dir, id.String()) }

func (f *filed) Put(ctx context.Context, id chunk.ID, data []byte) error {
	if err := f.Store.Put(ctx, id, data); err != nil {
		return err
	}
	return os.WriteFile(f.path(id), data, 0o600)
}

func (f *filed) ReadAt(ctx context.Context, id chunk.ID, p []byte, off int64) (int, error) {
	f.reads.Add(1)
	return f.Store.ReadAt(ctx, id, p, off)
}

func (f *filed) Place(ctx context.Context, id chunk.ID, n int, off int64) (chunk.Extent, error) {
	p := make([]byte, n)
	if got, err := f.Store.ReadAt(ctx, id, p, off); got < n || off%chunk.Block != 0 || n%chunk.Block != 0 {
		return chunk.Extent{}, errors.Join(err, errors.ErrUnsupported)
	}
	file, err := os.Open(f.path(id)) // closed with the test
	if err != nil {
		return chunk.Extent{}, err
	}
	x := chunk.Extent{File: file, Off: off, Len: n}
	for ; len(p) > 0; p = p[chunk.Block:] {
		x.Sums = binary.LittleEndian.AppendUint32(x.Sums, crc32.Checksum(p[:chunk.Block], castagnoli))
	}
	return x, nil
}

func TestFiledStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) chunk.Store { return inBulk(t, &filed{Store: new(mem.Store), dir: t.TempDir()}) })
}

// TestPlaced: large reads come from the file. What is wrong there the store itself is
// asked for.
func TestPlaced(t *testing.T) {
	below := &filed{Store: new(mem.Store), dir: t.TempDir()}
	s := inBulk(t, below)
	id := chunk.ID{Stripe: 7, Index: 2}
	data := make([]byte, 1<<20)
	rand.Read(data) //nolint:errcheck // it never fails
	if err := s.Put(t.Context(), id, data); err != nil {
		t.Fatal(err)
	}
	read := func(what string, off, n int, asked int32) {
		t.Helper()
		below.reads.Store(0)
		p := make([]byte, n)
		if got, err := s.ReadAt(t.Context(), id, p, int64(off)); got != n || err != nil || !bytes.Equal(p, data[off:off+n]) {
			t.Errorf("%s: %d bytes, %v", what, got, err)
		}
		if n := below.reads.Load(); n != asked {
			t.Errorf("%s: the store was asked %d times, want %d", what, n, asked)
		}
	}
	read("all", 0, len(data), 0)
	read("a part", 64<<10, 512<<10, 0)
	read("little", 0, 4096, 1)
	read("no blocks", 100, 512<<10, 1)
	if err := os.Truncate(below.path(id), 640<<10); err != nil {
		t.Fatal(err)
	}
	read("before the file ends", 0, 512<<10, 0)
	read("the file ends too early", 0, len(data), 1)
	data[5]++ // as the store has it now, and no file
	if err := below.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := below.Store.Put(t.Context(), id, data); err != nil {
		t.Fatal(err)
	}
	read("other bytes in the file", 0, 512<<10, 1)
}

func TestStores(t *testing.T) {
	peer := serve(t, map[chunk.StoreID]chunk.Store{1: new(mem.Store), 2: new(mem.Store)})
	id := chunk.ID{Stripe: 1}
	if err := Open(peer, 1).Put(t.Context(), id, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := Open(peer, 2).Put(t.Context(), id, []byte("two")); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 3)
	if _, err := Open(peer, 1).ReadAt(t.Context(), id, p, 0); err != nil || string(p) != "one" {
		t.Errorf("store 1 has %q, %v", p, err)
	}
	err := Open(peer, 3).Put(t.Context(), id, []byte("three"))
	if !errors.Is(err, chunk.ErrLost) || !strings.Contains(err.Error(), "no store 3") {
		t.Errorf("Put to a store that is not there = %v, want ErrLost", err)
	}
}

// A failing is a store whose every method fails with err.
type failing struct{ err error }

func (f failing) Put(context.Context, chunk.ID, []byte) error { return f.err }
func (f failing) ReadAt(context.Context, chunk.ID, []byte, int64) (int, error) {
	return 0, f.err
}
func (f failing) Stat(context.Context, chunk.ID) (chunk.Info, error) { return chunk.Info{}, f.err }
func (f failing) Delete(context.Context, ...chunk.ID) error          { return f.err }
func (f failing) Usage(context.Context) (chunk.Usage, error)         { return chunk.Usage{}, f.err }
func (f failing) Verify(context.Context, chunk.ID) error             { return f.err }
func (f failing) List(context.Context, chunk.ID) iter.Seq2[chunk.Info, error] {
	return func(yield func(chunk.Info, error) bool) {
		_ = yield(chunk.Info{ID: chunk.ID{Stripe: 9}, Size: 1}, nil) && yield(chunk.Info{}, f.err)
	}
}

// Every error arrives as the kind it was, with its text, by every method.
func TestErrors(t *testing.T) {
	ctx, id := t.Context(), chunk.ID{Stripe: 1}
	for n, kind := range kinds() {
		if kind == nil {
			if n != 0 {
				t.Errorf("failure %d has no kind", n)
			}
			continue
		}
		for _, sent := range []error{kind, fmt.Errorf("disk 3: %w", kind)} {
			s := Open(serve(t, map[chunk.StoreID]chunk.Store{1: failing{sent}}), 1)
			for name, got := range map[string]error{
				"Put":    s.Put(ctx, id, []byte("x")),
				"ReadAt": second(s.ReadAt(ctx, id, make([]byte, 1), 0)),
				"Stat":   second(s.Stat(ctx, id)),
				"Delete": s.Delete(ctx, id),
				"Usage":  second(s.Usage(ctx)),
				"Verify": s.Verify(ctx, id),
				"List":   last(s.List(ctx, chunk.ID{})),
			} {
				// A store that was interrupted though its caller was not is lost.
				interrupted := (kind == context.DeadlineExceeded || kind == context.Canceled) && name != "List"
				if !errors.Is(got, kind) || interrupted != errors.Is(got, chunk.ErrLost) && kind != chunk.ErrLost || !interrupted && got.Error() != sent.Error() {
					t.Errorf("%s: %v arrived as %v", name, sent, got)
				}
			}
		}
	}
	s := Open(serve(t, map[chunk.StoreID]chunk.Store{1: failing{errors.New("odd")}}), 1)
	if err := s.Put(ctx, id, []byte("x")); err == nil || err.Error() != "odd" {
		t.Errorf("an error without a kind arrived as %v", err)
	}
	long := failed(fmt.Errorf("%s: %w", strings.Repeat("x", 1<<20), chunk.ErrFull))
	if len(long.Text) > textMax || !errors.Is(long.err(), chunk.ErrFull) {
		t.Errorf("a long error travels as %d bytes, %v", len(long.Text), long.Failure)
	}
}

// The kinds of package chunk are all in the table.
func TestAllKinds(t *testing.T) {
	for _, err := range []error{chunk.ErrNotExist, chunk.ErrExist, chunk.ErrCorrupt, chunk.ErrFull, chunk.ErrLost, chunk.ErrTooFew} {
		if r := failed(err); r.Failure == other || r.err() != err {
			t.Errorf("%v travels as %d and arrives as %v", err, r.Failure, r.err())
		}
	}
}

func second[T any](_ T, err error) error { return err }

func last(list iter.Seq2[chunk.Info, error]) (err error) {
	for _, err = range list {
	}
	return err
}

// A store without Verify says so.
func TestNoScrubber(t *testing.T) {
	type plain struct{ chunk.Store }
	s := Open(serve(t, map[chunk.StoreID]chunk.Store{1: plain{new(mem.Store)}}), 1)
	if err := s.Verify(t.Context(), chunk.ID{Stripe: 1}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Verify = %v, want ErrUnsupported", err)
	}
}

// Lists and deletions of many more shards than a frame holds arrive whole.
func TestMany(t *testing.T) {
	const n = 3*deleteBatch + 1
	below := new(mem.Store)
	s := Open(serve(t, map[chunk.StoreID]chunk.Store{1: below}), 1)
	var ids []chunk.ID
	for i := range n {
		// The largest numbers, so that the frames are the largest too.
		id := chunk.ID{Stripe: ^chunk.StripeID(0) - n + chunk.StripeID(i), Index: 255}
		ids = append(ids, id)
		if err := below.Put(t.Context(), id, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	count := 0
	for info, err := range s.List(t.Context(), ids[1]) {
		if count++; err != nil || info.ID != ids[count] || info.Size != 1 {
			t.Fatalf("shard %d of the list = %+v, %v, want %v", count, info, err, ids[count])
		}
	}
	if count != n-1 {
		t.Errorf("%d shards, want %d", count, n-1)
	}
	for range s.List(t.Context(), chunk.ID{}) {
		break // and nothing is left behind
	}
	if err := s.Delete(t.Context(), ids...); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Shards != 0 {
		t.Errorf("Usage = %+v, %v, want no shards", u, err)
	}
}

// A connection that is cut, or leads nowhere, is a lost store, and works again
// when it is back.
func TestLost(t *testing.T) {
	began := make(chan struct{}, 16)
	block := make(chan struct{})
	slow := &stuck{Store: new(mem.Store), began: began, block: block}
	l := rpctest.Listen(t)
	rpctest.Serve(t, l, rpc.ServerConfig{Plain: true}, Serve(finder(map[chunk.StoreID]chunk.Store{1: slow})))
	t.Cleanup(func() { close(block) })
	proxy := rpctest.NewProxy(t, l.Addr().String())
	s := Open(rpctest.Dial(t, proxy.Addr(), rpc.ClientConfig{Plain: true}), 1)
	id := chunk.ID{Stripe: 1}
	if err := s.Put(t.Context(), id, []byte("x")); err != nil {
		t.Fatal(err)
	}
	slow.on.Store(true)
	failed := make(chan error, 2)
	go func() { failed <- second(s.Stat(t.Context(), id)) }()
	go func() { failed <- last(s.List(t.Context(), id)) }()
	<-began
	<-began
	proxy.Cut()
	for range 2 {
		if err := <-failed; !errors.Is(err, chunk.ErrLost) || !errors.Is(err, rpc.ErrDown) || !strings.Contains(err.Error(), proxy.Addr()) {
			t.Errorf("a call whose connection was cut: %v, want ErrLost with the address", err)
		}
	}
	slow.on.Store(false)
	late := time.Now().Add(10 * time.Second)
	for {
		err := second(s.Stat(t.Context(), id))
		if err == nil {
			break
		}
		if !errors.Is(err, chunk.ErrLost) || time.Now().After(late) {
			t.Fatalf("after the cut: %v", err)
		}
	}
	none, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	none.Close()
	s = Open(rpctest.Dial(t, none.Addr().String(), rpc.ClientConfig{Plain: true}), 1)
	if err := s.Put(t.Context(), id, []byte("x")); !errors.Is(err, chunk.ErrLost) {
		t.Errorf("Put where nobody listens = %v, want ErrLost", err)
	}
}

// stuck is a store that hangs while it is on.
type stuck struct {
	chunk.Store
	on    atomic.Bool
	began chan<- struct{}
	block <-chan struct{}
}

func (s *stuck) wait(ctx context.Context) {
	if !s.on.Load() {
		return
	}
	s.began <- struct{}{}
	select {
	case <-ctx.Done():
	case <-s.block:
	}
}

func (s *stuck) Stat(ctx context.Context, id chunk.ID) (chunk.Info, error) {
	s.wait(ctx)
	return s.Store.Stat(ctx, id)
}

func (s *stuck) List(ctx context.Context, from chunk.ID) iter.Seq2[chunk.Info, error] {
	s.wait(ctx)
	return s.Store.List(ctx, from)
}

// A store that does not answer is lost when the connection's timeout is over;
// the caller's own deadline and interruption stay what they are.
func TestTimeout(t *testing.T) {
	began := make(chan struct{}, 3)
	block := make(chan struct{})
	slow := &stuck{Store: new(mem.Store), began: began, block: block}
	slow.on.Store(true)
	l := rpctest.Listen(t)
	rpctest.Serve(t, l, rpc.ServerConfig{Plain: true}, Serve(finder(map[chunk.StoreID]chunk.Store{1: slow})))
	t.Cleanup(func() { close(block) })
	s := Open(rpctest.Dial(t, l.Addr().String(), rpc.ClientConfig{Plain: true, Timeout: 50 * time.Millisecond}), 1)
	if _, err := s.Stat(t.Context(), chunk.ID{Stripe: 1}); !errors.Is(err, chunk.ErrLost) {
		t.Errorf("Stat of a store that hangs = %v, want ErrLost", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := s.Stat(short, chunk.ID{Stripe: 1}); err != context.DeadlineExceeded {
		t.Errorf("Stat with a deadline = %v, want DeadlineExceeded", err)
	}
}

// What is no request is refused, and hurts nothing.
func TestBadRequests(t *testing.T) {
	peer := serve(t, map[chunk.StoreID]chunk.Store{1: new(mem.Store)})
	for method, header := range map[string][]byte{
		"Put":    []byte("garbage"),
		"Stat":   nil,
		"ReadAt": rpc.Encode(request{Store: 1, Stripe: 1, Size: chunk.MaxShard + 1}),
		"Usage":  rpc.Encode([]int{1, 2, 3}),
	} {
		var resp rpc.Frame
		if err := peer.Call(t.Context(), Name, method, &rpc.Frame{Header: header}, &resp); err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		var rep reply
		if err := rpc.Decode(resp.Header, &rep); err != nil || rep.Failure != other || rep.Text == "" {
			t.Errorf("%s of %q = %+v, %v, want a refusal", method, header, rep, err)
		}
		resp.Free()
	}
	if _, err := Open(peer, 1).ReadAt(t.Context(), chunk.ID{Stripe: 1}, make([]byte, 1), -1); err == nil || err == io.EOF {
		t.Errorf("ReadAt before the beginning = %v, want an error", err)
	}
}

// A change here is a change of format: numbers may be added, none changed.
func TestGolden(t *testing.T) {
	for _, test := range []struct {
		v    any
		want string
	}{
		{request{Store: 1, Stripe: 2, Index: 3, Off: 4, Size: 5, Shards: []shard{{Stripe: 6, Index: 7}}}, "a601010202030304040505068183060700"},
		{reply{Failure: corrupt, Text: "t", Size: 3, Shards: []shard{{Stripe: 4, Index: 5, Size: 6}}, Last: true, Usage: &usage{1, 2, 3, 4}}, "a60103026174030304818304050605f506a401010202030304" + "04"},
	} {
		if got := hex.EncodeToString(rpc.Encode(test.v)); got != test.want {
			t.Errorf("%+v is\n%s, want\n%s", test.v, got, test.want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(rpc.Encode(request{Store: 1, Stripe: 2, Index: 3, Off: 4, Size: 5, Shards: []shard{{Stripe: 6, Index: 7}}}), []byte("x"))
	f.Add([]byte{0xa1, 0x06, 0x9a, 0xff, 0xff, 0xff, 0xff}, []byte{})
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		service := Serve(finder(map[chunk.StoreID]chunk.Store{1: new(mem.Store)}))
		for name, call := range service.Calls {
			resp, err := call(context.Background(), &rpc.Frame{Header: header, Payload: rpc.Own(payload)})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var rep reply
			if err := rpc.Decode(resp.Header, &rep); err != nil {
				t.Errorf("%s: answered what cannot be read: %v", name, err)
			}
			resp.Free()
		}
		var rep reply
		if rpc.Decode(header, &rep) == nil {
			_ = rep.err()
		}
	})
}

func BenchmarkPut(b *testing.B) {
	for _, way := range ways {
		s := bench(b, way, discard{})
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		b.Run(way, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			defer perCore(b, len(data))()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := s.Put(context.Background(), chunk.ID{Stripe: 1}, data); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkReadAt(b *testing.B) {
	for _, way := range ways {
		s := bench(b, way, discard{})
		for _, size := range []int{4 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", way, size>>10), func(b *testing.B) {
				b.SetBytes(int64(size))
				defer perCore(b, size)()
				b.RunParallel(func(pb *testing.PB) {
					p := make([]byte, size)
					for pb.Next() {
						if _, err := s.ReadAt(context.Background(), chunk.ID{Stripe: 1}, p, 0); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}

// BenchmarkTCP is the limit: the same bytes, framed by nothing, and an answer of one byte.
func BenchmarkTCP(b *testing.B) {
	const size = 1 << 20
	l := rpctest.Listen(b)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				p := make([]byte, size)
				for {
					if _, err := io.ReadFull(conn, p); err != nil {
						return
					}
					if _, err := conn.Write(p[:1]); err != nil {
						return
					}
				}
			}()
		}
	}()
	b.SetBytes(size)
	defer perCore(b, size)()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		p := make([]byte, size)
		for pb.Next() {
			if _, err := conn.Write(p); err != nil {
				b.Error(err)
			}
			if _, err := io.ReadFull(conn, p[:1]); err != nil {
				b.Error(err)
			}
		}
	})
}

// perCore reports the megabytes that a second of processor time carries, both
// ends together: unlike the time on the clock it does not depend on who else
// uses the machine. The caller defers what it returns.
func perCore(b *testing.B, size int) func() {
	began := processorTime(b)
	return func() {
		b.ReportMetric(float64(b.N)*float64(size)/1e6/(processorTime(b)-began).Seconds(), "MB/s-core")
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ways are how a store is reached.
var ways = []string{"plain", "tls", "bulk"}

func bench(b *testing.B, way string, below chunk.Store) *Store {
	if way == "bulk" {
		return inBulk(b, below)
	}
	server, client := rpctest.TLS(b)
	sc, cc := rpc.ServerConfig{Plain: true}, rpc.ClientConfig{Plain: true}
	if way == "tls" {
		sc, cc = rpc.ServerConfig{TLS: server}, rpc.ClientConfig{TLS: client}
	}
	l := rpctest.Listen(b)
	rpctest.Serve(b, l, sc, Serve(finder(map[chunk.StoreID]chunk.Store{1: below})))
	return Open(rpctest.Dial(b, l.Addr().String(), cc), 1)
}

// discard is a store that costs nothing: what is measured is the way to it.
type discard struct{ failing }

func (discard) ReadAt(_ context.Context, _ chunk.ID, p []byte, _ int64) (int, error) {
	return len(p), nil
}

func (discard) Stat(context.Context, chunk.ID) (chunk.Info, error) { return chunk.Info{}, nil }
