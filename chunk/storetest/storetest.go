// Package storetest checks that a chunk.Store keeps the promises written at
// chunk.Store. Every implementation passes the same suite; what only some can do
// (chunk.Scrubber) is checked where it is there.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"dos/chunk"
)

// Run checks the stores that open returns; each subtest gets its own, empty one.
func Run(t *testing.T, open func(t *testing.T) chunk.Store) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s chunk.Store)
	}{
		{"missing", missing},
		{"put twice", putTwice},
		{"sizes", sizes},
		{"bad sizes", badSizes},
		{"ranges", ranges},
		{"not retained", notRetained},
		{"delete", deleteBatch},
		{"list", list},
		{"list while changing", listWhileChanging},
		{"usage", usage},
		{"cancelled", cancelled},
		{"concurrent", concurrent},
		{"concurrent same id", concurrentSame},
		{"verify", verify},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// Data returns n bytes that differ from id to id and from block to block.
func Data(id chunk.ID, n int) []byte {
	b := make([]byte, n)
	x := uint64(id.Stripe)*0x9e3779b97f4a7c15 + uint64(id.Index)*0xbf58476d1ce4e5b9 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

func put(t *testing.T, s chunk.Store, id chunk.ID, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), id, data); err != nil {
		t.Fatalf("Put(%v, %d bytes) = %v", id, len(data), err)
	}
}

// Expect checks that s holds exactly data under id.
func Expect(t *testing.T, s chunk.Store, id chunk.ID, data []byte) {
	t.Helper()
	info, err := s.Stat(t.Context(), id)
	if want := (chunk.Info{ID: id, Size: int64(len(data))}); err != nil || info != want {
		t.Errorf("Stat(%v) = %v, %v, want %v", id, info, err, want)
	}
	p := make([]byte, len(data))
	n, err := s.ReadAt(t.Context(), id, p, 0)
	if n != len(data) || (err != nil && err != io.EOF) || !bytes.Equal(p, data) {
		t.Errorf("ReadAt(%v, 0) = %d, %v, same bytes %t; want %d", id, n, err, bytes.Equal(p, data), len(data))
	}
}

func missing(t *testing.T, s chunk.Store) {
	id := chunk.ID{Stripe: 1}
	if _, err := s.Stat(t.Context(), id); !errors.Is(err, chunk.ErrNotExist) {
		t.Errorf("Stat(%v) = %v, want ErrNotExist", id, err)
	}
	if n, err := s.ReadAt(t.Context(), id, make([]byte, 1), 0); n != 0 || !errors.Is(err, chunk.ErrNotExist) {
		t.Errorf("ReadAt(%v) = %d, %v, want 0, ErrNotExist", id, n, err)
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Errorf("Delete(%v) = %v, want success", id, err)
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Errorf("Delete() = %v, want success", err)
	}
	for info, err := range s.List(t.Context(), chunk.ID{}) {
		t.Errorf("List of nothing yields %v, %v", info, err)
	}
}

func putTwice(t *testing.T, s chunk.Store) {
	id := chunk.ID{Stripe: 1, Index: 2}
	for _, test := range []struct {
		data string
		want error
	}{
		{"same", nil},
		{"same", nil},
		{"other", chunk.ErrExist},
		{"sane", chunk.ErrExist},
		{"sam", chunk.ErrExist},
		{"same", nil},
	} {
		if err := s.Put(t.Context(), id, []byte(test.data)); !errors.Is(err, test.want) {
			t.Errorf("Put(%v, %q) = %v, want %v", id, test.data, err, test.want)
		}
		Expect(t, s, id, []byte("same"))
	}
	big := Data(id, 100_000)
	other := chunk.ID{Stripe: 1, Index: 3}
	put(t, s, other, big)
	put(t, s, other, big)
	big[99_999]++
	if err := s.Put(t.Context(), other, big); !errors.Is(err, chunk.ErrExist) {
		t.Errorf("Put with the last of 100000 bytes changed = %v, want ErrExist", err)
	}
}

func sizes(t *testing.T, s chunk.Store) {
	for i, n := range []int{
		1, 2, 511, 512, 3000, 4000, 4010, 4012, 4013, 4016, 4095, 4096, 4097, 5000, 8100, 8191, 8192, 8193,
		chunk.CopyMax, 1<<20 - 1, 1 << 20, 1<<20 + 1, 1003 * chunk.Block, 1004 * chunk.Block, 1004*chunk.Block + 1, chunk.MaxShard - 1, chunk.MaxShard,
	} {
		id := chunk.ID{Stripe: 1 << 63, Index: uint8(i)}
		data := Data(id, n)
		put(t, s, id, data)
		Expect(t, s, id, data)
	}
}

func badSizes(t *testing.T, s chunk.Store) {
	for _, n := range []int{0, chunk.MaxShard + 1} {
		id := chunk.ID{Stripe: 5}
		if err := s.Put(t.Context(), id, make([]byte, n)); err == nil {
			t.Errorf("Put of %d bytes succeeded", n)
		}
		if _, err := s.Stat(t.Context(), id); !errors.Is(err, chunk.ErrNotExist) {
			t.Errorf("Stat after a refused Put of %d bytes = %v, want ErrNotExist", n, err)
		}
	}
}

func ranges(t *testing.T, s chunk.Store) {
	for i, size := range []int64{1, 100, 4096, 5000, 4096*3 + 77, 100_000} {
		id := chunk.ID{Stripe: 7, Index: uint8(i)}
		data := Data(id, int(size))
		put(t, s, id, data)
		for _, off := range []int64{0, 1, 50, 4095, 4096, 4097, 8192, 12288, 12300, size - 1, size, size + 1, size + 5000} {
			for _, n := range []int{0, 1, 10, 4095, 4096, 4097, 8192, 200_000} {
				var want []byte
				if off < size {
					want = data[off:min(size, off+int64(n))]
				}
				p := bytes.Repeat([]byte{0xAA}, n)
				got, err := s.ReadAt(t.Context(), id, p, off)
				switch {
				case got != len(want) || !bytes.Equal(p[:got], want):
					t.Errorf("size %d: ReadAt(%d bytes, %d) = %d, right bytes %t; want %d", size, n, off, got, bytes.Equal(p[:min(got, len(want))], want), len(want))
				case got < n && err != io.EOF, got == n && err != nil && err != io.EOF:
					t.Errorf("size %d: ReadAt(%d bytes, %d) = %d, %v", size, n, off, got, err)
				}
			}
		}
		if n, err := s.ReadAt(t.Context(), id, make([]byte, 1), -1); n != 0 || err == nil || err == io.EOF {
			t.Errorf("ReadAt at -1 = %d, %v, want an error", n, err)
		}
	}
}

func notRetained(t *testing.T, s chunk.Store) {
	id := chunk.ID{Stripe: 9}
	data := Data(id, 9000)
	buf := slices.Clone(data)
	put(t, s, id, buf)
	clear(buf)
	Expect(t, s, id, data)
}

func deleteBatch(t *testing.T, s chunk.Store) {
	var ids []chunk.ID
	for i := range 600 {
		ids = append(ids, chunk.ID{Stripe: chunk.StripeID(i / 3), Index: uint8(i % 3)})
	}
	var wg sync.WaitGroup
	for part := range slices.Chunk(ids, 50) {
		wg.Go(func() {
			for _, id := range part {
				if err := s.Put(t.Context(), id, Data(id, 100)); err != nil {
					t.Errorf("Put(%v) = %v", id, err)
				}
			}
		})
	}
	wg.Wait()
	gone := append([]chunk.ID{{Stripe: 12345}, ids[0], ids[0]}, ids[1:500]...)
	if err := s.Delete(t.Context(), gone...); err != nil {
		t.Fatalf("Delete(%d ids) = %v", len(gone), err)
	}
	for i, id := range ids {
		_, err := s.Stat(t.Context(), id)
		if i < 500 && !errors.Is(err, chunk.ErrNotExist) || i >= 500 && err != nil {
			t.Errorf("Stat(%v) = %v after Delete of the first 500, this is %d", id, err, i)
		}
	}
	other := Data(chunk.ID{Stripe: 77}, 200)
	put(t, s, ids[3], other) // a deleted id can be put again, with other bytes
	Expect(t, s, ids[3], other)
}

func collect(t *testing.T, s chunk.Store, from chunk.ID) []chunk.Info {
	t.Helper()
	var all []chunk.Info
	for info, err := range s.List(t.Context(), from) {
		if err != nil {
			t.Fatalf("List(%v): %v", from, err)
		}
		all = append(all, info)
	}
	return all
}

func list(t *testing.T, s chunk.Store) {
	var want []chunk.Info
	for i := range 40 {
		for index := range uint8(3) {
			id := chunk.ID{Stripe: chunk.StripeID(i*i*1_000_003 + 1), Index: index * 100}
			want = append(want, chunk.Info{ID: id, Size: int64(i + 1)})
		}
	}
	for i := range want { // in another order
		info := want[(i*71)%len(want)]
		put(t, s, info.ID, Data(info.ID, int(info.Size)))
	}
	for _, from := range []chunk.ID{{}, {Stripe: 1}, want[1].ID, {Stripe: want[60].ID.Stripe, Index: 1}, want[119].ID, {Stripe: 1 << 62}} {
		var rest []chunk.Info
		for _, info := range want {
			if info.ID.Compare(from) >= 0 {
				rest = append(rest, info)
			}
		}
		if got := collect(t, s, from); !slices.Equal(got, rest) {
			t.Errorf("List(%v) yields %d: %v\nwant %d: %v", from, len(got), got, len(rest), rest)
		}
	}
	n := 0
	for range s.List(t.Context(), chunk.ID{}) {
		if n++; n == 5 {
			break
		}
	}
}

func listWhileChanging(t *testing.T, s chunk.Store) {
	for i := range 100 {
		put(t, s, chunk.ID{Stripe: chunk.StripeID(i)}, []byte{1})
	}
	last := chunk.ID{}
	for info, err := range s.List(t.Context(), chunk.ID{}) {
		if err != nil {
			t.Fatal(err)
		}
		if info.ID.Stripe != 0 && info.ID.Compare(last) <= 0 {
			t.Errorf("List yields %v after %v", info.ID, last)
		}
		last = info.ID
		if err := s.Delete(t.Context(), info.ID); err != nil {
			t.Fatal(err)
		}
	}
	if got := collect(t, s, chunk.ID{}); len(got) != 0 {
		t.Errorf("%d shards are left, want none", len(got))
	}
}

func usage(t *testing.T, s chunk.Store) {
	before, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := chunk.ID{Stripe: 3}
	put(t, s, id, Data(id, 1<<20))
	after, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.Shards != before.Shards+1 || after.Used < before.Used+1<<20 || after.Capacity <= 0 || after.Free < 0 {
		t.Errorf("Usage was %+v and is %+v after a Put of 1 MiB", before, after)
	}
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if last, err := s.Usage(t.Context()); err != nil || last.Shards != before.Shards || last.Used != before.Used {
		t.Errorf("Usage was %+v and is %+v, %v after Put and Delete", before, last, err)
	}
}

func cancelled(t *testing.T, s chunk.Store) {
	id := chunk.ID{Stripe: 4}
	put(t, s, id, []byte("here"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, read := s.ReadAt(ctx, id, make([]byte, 1), 0)
	_, stat := s.Stat(ctx, id)
	_, usage := s.Usage(ctx)
	for name, err := range map[string]error{
		"Put":    s.Put(ctx, chunk.ID{Stripe: 5}, []byte("x")),
		"Delete": s.Delete(ctx, id),
		"ReadAt": read, "Stat": stat, "Usage": usage,
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that has ended = %v, want Canceled", name, err)
		}
	}
	var last error
	for _, err := range s.List(ctx, chunk.ID{}) {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("List with a context that has ended yields %v last, want Canceled", last)
	}
	Expect(t, s, id, []byte("here"))
}

func concurrent(t *testing.T, s chunk.Store) {
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 12 {
				id := chunk.ID{Stripe: chunk.StripeID(w), Index: uint8(i)}
				data := Data(id, 1+(w*7919+i*104729)%50_000)
				if err := cycle(t.Context(), s, id, data, i%3 == 0); err != nil {
					t.Errorf("shard %v of %d bytes: %v", id, len(data), err)
				}
			}
		})
	}
	wg.Wait()
	for w := range 16 {
		for i := range 12 {
			id := chunk.ID{Stripe: chunk.StripeID(w), Index: uint8(i)}
			if i%3 != 0 {
				Expect(t, s, id, Data(id, 1+(w*7919+i*104729)%50_000))
			}
		}
	}
	if got := collect(t, s, chunk.ID{}); len(got) != 16*8 {
		t.Errorf("List yields %d shards, want %d", len(got), 16*8)
	}
}

func cycle(ctx context.Context, s chunk.Store, id chunk.ID, data []byte, remove bool) error {
	if err := s.Put(ctx, id, data); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	p := make([]byte, len(data))
	if n, err := s.ReadAt(ctx, id, p, 0); n != len(p) || !bytes.Equal(p, data) {
		return fmt.Errorf("read %d bytes: %v", n, err)
	}
	if !remove {
		return nil
	}
	if err := s.Delete(ctx, id); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if _, err := s.Stat(ctx, id); !errors.Is(err, chunk.ErrNotExist) {
		return fmt.Errorf("stat of a deleted shard: %v", err)
	}
	return nil
}

// concurrentSame lets many put different bytes under one id: one kind wins.
func concurrentSame(t *testing.T, s chunk.Store) {
	id := chunk.ID{Stripe: 11}
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for w := range errs {
		wg.Go(func() { errs[w] = s.Put(t.Context(), id, Data(chunk.ID{Stripe: chunk.StripeID(w % 2)}, 5000)) })
	}
	wg.Wait()
	for winner := range 2 {
		if errs[winner] != nil {
			continue
		}
		for w, err := range errs {
			if w%2 == winner && err != nil || w%2 != winner && !errors.Is(err, chunk.ErrExist) {
				t.Errorf("writer %d of 16 got %v, writer %d won", w, err, winner)
			}
		}
		Expect(t, s, id, Data(chunk.ID{Stripe: chunk.StripeID(winner)}, 5000))
		return
	}
	t.Errorf("nobody won: %v", errs)
}

func verify(t *testing.T, s chunk.Store) {
	scrubber, ok := s.(chunk.Scrubber)
	if !ok {
		t.Skip("no Scrubber")
	}
	for i, n := range []int{1, 4096, 5000, 1 << 20, chunk.MaxShard} {
		id := chunk.ID{Stripe: 8, Index: uint8(i)}
		if err := scrubber.Verify(t.Context(), id); !errors.Is(err, chunk.ErrNotExist) {
			t.Errorf("Verify(%v) before Put = %v, want ErrNotExist", id, err)
		}
		put(t, s, id, Data(id, n))
		if err := scrubber.Verify(t.Context(), id); err != nil {
			t.Errorf("Verify(%v) of %d bytes = %v", id, n, err)
		}
	}
}
