package client_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"dos/chunk"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/queue"
)

// heap is stores in memory.
type heap struct {
	ids client.Session

	mu    sync.Mutex
	data  map[chunk.StripeID][]byte
	begun map[chunk.StripeID]bool
	left  int // writes until there is no space; < 0: any number
}

func (h *heap) Begin(ctx context.Context) (chunk.StripeID, error) {
	id, err := h.ids.Reserve(ctx, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begun[id] = true
	return id, err
}

func (h *heap) Write(_ context.Context, id chunk.StripeID, data []byte) (chunk.Stripe, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left == 0 {
		return chunk.Stripe{}, chunk.ErrFull
	}
	h.left--
	h.data[id] = bytes.Clone(data)
	return chunk.Stripe{ID: id, Len: uint32(len(data)), Code: chunk.Code{K: 1}, Stores: []chunk.StoreID{1}}, nil
}

func (h *heap) Read(_ context.Context, s chunk.Stripe, b []byte, off int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	data, ok := h.data[s.ID]
	if !ok {
		return chunk.ErrTooFew
	}
	copy(b, data[off:])
	return nil
}

func (h *heap) End(id chunk.StripeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.begun, id)
}

// all are the stripes that were written.
func (h *heap) all() (ids []chunk.StripeID) {
	for id := range h.data {
		ids = append(ids, id)
	}
	return ids
}

// gone are stores that have nothing of a stripe any more, and say so.
type gone struct {
	*heap
	stripe chunk.StripeID
}

func (g gone) Read(ctx context.Context, s chunk.Stripe, b []byte, off int64) error {
	if s.ID == g.stripe {
		return chunk.ErrGone
	}
	return g.heap.Read(ctx, s, b, off)
}

// newLarge returns a Taker with stores, and a queue.
func newLarge(t *testing.T) (*client.Taker, *heap, client.Sender, meta.SessionID) {
	t.Helper()
	service := metatest.NewMemory(node.Machine())
	info, err := (client.Session{Caller: client.Direct(service, 0)}).Open(t.Context(), "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	stay := client.Always(client.Direct(service, info.ID), info.ID)
	h := &heap{ids: client.Session{Caller: stay}, data: make(map[chunk.StripeID][]byte), begun: make(map[chunk.StripeID]bool), left: -1}
	taker := client.NewTaker(stay, h)
	if err := taker.Make(t.Context(), "q", 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	return taker, h, service, info.ID
}

func noise(n int) []byte {
	b := make([]byte, n)
	random := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func TestLargeMessages(t *testing.T) {
	taker, h, service, _ := newLarge(t)
	ctx := t.Context()
	for _, size := range []int{queue.BodyMax, queue.BodyMax + 1, chunk.MaxStripe + 1} {
		data := noise(size)
		if err := taker.Put(ctx, "q", data); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		r, m, err := taker.Take(ctx, "q", "", "test", client.Process{}, false)
		if err != nil || !bytes.Equal(m.Body, data) || !m.Whole {
			t.Fatalf("%d bytes come back as %d, %v", size, len(m.Body), err)
		}
		if err := r.Close(ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.begun) > 0 || len(h.data) != 3 {
		t.Errorf("%d stripes of %d are not ended", len(h.begun), len(h.data))
	}
	// What was acknowledged is dead.
	care := client.Stripes{Caller: client.Direct(service, 0)}
	if list, err := care.Stripe(ctx, h.all()...); err != nil || len(list) != 3 || list[0].Live+list[1].Live+list[2].Live != 0 {
		t.Errorf("stripes of what was acknowledged: %+v, %v", list, err)
	}
	if err := taker.Put(ctx, "q", make([]byte, queue.SizeMax+1)); !errors.Is(err, meta.TooLarge) {
		t.Errorf("too large: %v", err)
	}
}

// What is not sent leaves stripes that can be collected, and that none will name.
func TestLargeNotSent(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(taker *client.Taker, h *heap) error
		want error
	}{
		"no space": {func(_ *client.Taker, h *heap) error { h.left = 1; return nil }, meta.NoSpace},
		"full": {func(taker *client.Taker, _ *heap) error {
			one := 1
			if _, err := taker.Push(context.Background(), "q", queue.Message{Body: []byte("x")}); err != nil {
				return err
			}
			return taker.Set(context.Background(), queue.Set{Name: "q", Max: &one})
		}, meta.WouldWait},
		"gone": {func(taker *client.Taker, _ *heap) error { return taker.Remove(context.Background(), "q") }, meta.NotExist},
	} {
		taker, h, service, id := newLarge(t)
		if err := test.do(taker, h); err != nil {
			t.Fatal(err)
		}
		if err := taker.Put(t.Context(), "q", noise(chunk.MaxStripe+1)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if len(h.begun) > 0 || len(h.data) == 0 {
			t.Errorf("%s: %d of %d stripes are not ended", name, len(h.begun), len(h.data))
		}
		anyone := client.Direct(service, 0)
		care := client.Stripes{Caller: anyone}
		if list, err := care.Unnamed(t.Context(), h.all()...); err != nil || len(list) > 0 {
			t.Errorf("%s: %v may be collected while their session could name them, %v", name, list, err)
		}
		if err := (client.Session{Caller: anyone}).End(t.Context(), id); err != nil { // as that of who was killed
			t.Fatal(err)
		}
		if list, err := care.Unnamed(t.Context(), h.all()...); err != nil || len(list) != len(h.data) {
			t.Errorf("%s: %d of %d are garbage, %v", name, len(list), len(h.data), err)
		}
	}
}

// A message whose stripes cannot be read is where it was, for who comes later.
func TestLargeUnreadable(t *testing.T) {
	taker, h, service, id := newLarge(t)
	ctx := t.Context()
	data := noise(queue.BodyMax + 1)
	if err := taker.Put(ctx, "q", data); err != nil {
		t.Fatal(err)
	}
	stored := h.data
	h.data = nil
	if _, _, err := taker.Take(ctx, "q", "", "test", client.Process{}, false); !errors.Is(err, meta.Unavailable) {
		t.Errorf("taken without its bytes: %v", err)
	}
	stream := taker.Open("q", "", "test")
	for range 2 {
		if _, err := stream.Next(ctx, false); !errors.Is(err, meta.Unavailable) {
			t.Errorf("read without its bytes: %v", err)
		}
	}
	h.data = stored
	if m, err := stream.Next(ctx, false); err != nil || !bytes.Equal(m.Body, data) || m.Attempt != 1 {
		t.Errorf("%d bytes, attempt %d, %v", len(m.Body), m.Attempt, err)
	}
	without := client.NewTaker(client.Always(client.Direct(service, id), id), nil)
	if err := without.Put(ctx, "q", data); !errors.Is(err, meta.Unsupported) {
		t.Errorf("put without stores: %v", err)
	}
}

// A message whose stripes are lost for good is a dead letter, and in nobody's way.
func TestLargeLost(t *testing.T) {
	taker, h, _, id := newLarge(t)
	ctx := t.Context()
	put := func(n int) {
		t.Helper()
		if err := taker.Put(ctx, "q", noise(queue.BodyMax+n)); err != nil {
			t.Fatal(err)
		}
	}
	put(1)
	put(2)
	lost := gone{h, h.all()[0]}
	for _, s := range h.all() {
		lost.stripe = min(lost.stripe, s)
	}
	reader := client.NewTaker(taker.Caller.(client.Stay), lost)
	r, m, err := reader.Take(ctx, "q", "", "test", client.Process{}, false)
	if err != nil || len(m.Body) != queue.BodyMax+2 {
		t.Fatalf("behind a lost message: %d bytes, %v", len(m.Body), err)
	}
	if err := r.Close(ctx, true); err != nil {
		t.Error(err)
	}
	dead, err := reader.Dead(ctx, queue.Dead{Name: "q", Limit: 9})
	if err != nil || len(dead.List) != 1 || dead.List[0].Got.Number != 1 {
		t.Fatalf("dead letters: %+v, %v", dead, err)
	}
	if err := reader.Load(ctx, &dead.List[0].Got); !errors.Is(err, meta.Lost) {
		t.Errorf("reading the lost one: %v", err)
	}
	if _, _, err := reader.Take(ctx, "q", "", "test", client.Process{}, false); !errors.Is(err, meta.WouldWait) {
		t.Errorf("there is something left: %v", err)
	}

	put(3)
	for _, s := range h.all() {
		lost.stripe = max(lost.stripe, s)
	}
	put(4)
	reader = client.NewTaker(taker.Caller.(client.Stay), lost)
	stream := reader.Open("q", "", "test")
	if m, err := stream.Next(ctx, false); err != nil || len(m.Body) != queue.BodyMax+4 {
		t.Errorf("a stream behind a lost message: %d bytes, %v", len(m.Body), err)
	}
	if err := stream.Close(ctx, false); err != nil {
		t.Error(err)
	}
	if st, err := reader.Status(ctx, "q"); err != nil || st.Dead != 2 || st.Depth() != 1 {
		t.Errorf("in the end, of session %d: %+v, %v", id, st, err)
	}
}
