package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/lease"
	"dos/meta/session"
	"dos/meta/state"
)

// A peer is a client with a session, without anything of its own.
type peer struct {
	t  *testing.T
	n  *Node
	id meta.SessionID
	client.Caller
	files client.Files
}

func newPeer(t *testing.T, n *Node) *peer {
	t.Helper()
	info, err := client.Session{Caller: n}.Open(t.Context(), "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	remote := client.NewRemote(n, info.ID)
	return &peer{t: t, n: n, id: info.ID, Caller: remote, files: client.Files{Caller: remote}}
}

func (p *peer) take(ino meta.Ino) error {
	return p.Call(p.t.Context(), lease.OpTake, lease.Take{Ino: ino}, nil)
}

func (p *peer) give(inos ...meta.Ino) {
	p.t.Helper()
	if err := p.Call(p.t.Context(), lease.OpGive, lease.Give{Inos: inos}, nil); err != nil {
		p.t.Error(err)
	}
}

// wanted waits until something is wanted of the peer after the point given.
func (p *peer) wanted(after lease.Want) lease.Wanted {
	p.t.Helper()
	for {
		var got lease.Wanted
		if err := p.Call(p.t.Context(), lease.OpWanted, after, &got); err != nil {
			p.t.Fatal(err)
		}
		if len(got.Inos) > 0 {
			return got
		}
		after = lease.Want{Term: got.Term, After: got.After}
	}
}

func newTree(t *testing.T, p *peer, names ...string) (inos []meta.Ino) {
	t.Helper()
	ctx := t.Context()
	if _, err := p.files.Init(ctx, 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		attr, err := p.files.Create(ctx, meta.Root, name, meta.Node{Mode: meta.TypeFile | 0o600})
		if err != nil {
			t.Fatal(err)
		}
		inos = append(inos, attr.Ino)
	}
	return inos
}

// Who is in the way of others is told once, and they go on when it gives back.
func TestRecall(t *testing.T) {
	n := start(t, t.TempDir())
	a, b := newPeer(t, n), newPeer(t, n)
	ino := newTree(t, a, "f")[0]
	for range 3 {
		if err := a.take(ino); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := b.files.Attr(t.Context(), ino); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			mode := uint32(0o644)
			if _, err := b.files.SetAttr(t.Context(), ino, meta.SetAttr{Mode: &mode}); err != nil {
				t.Error(err)
			}
		})
		got := a.wanted(lease.Want{})
		if len(got.Inos) != 1 || got.Inos[0] != ino {
			t.Errorf("wanted are %v, want %d", got.Inos, ino)
		}
		a.give(ino)
		wg.Wait()
	}
	// It goes from hand to hand.
	var wg sync.WaitGroup
	for _, p := range []*peer{a, b} {
		wg.Go(func() {
			for range 10 {
				if err := p.take(ino); err != nil {
					t.Error(err)
				}
				p.give(ino)
			}
		})
	}
	wg.Wait()
}

// All who share a file are asked at once, and who waits goes on when the last has
// given back. Reading it waits for nobody.
func TestRecallShared(t *testing.T) {
	n := start(t, t.TempDir())
	writer := newPeer(t, n)
	ino := newTree(t, writer, "f")[0]
	var readers []*peer
	for range 5 {
		readers = append(readers, newPeer(t, n))
	}
	for range 3 {
		for _, p := range readers {
			if err := p.Call(t.Context(), lease.OpTake, lease.Take{Ino: ino, Shared: true}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := writer.files.Attr(t.Context(), ino); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			mode := uint32(0o644)
			_, err := writer.files.SetAttr(t.Context(), ino, meta.SetAttr{Mode: &mode})
			done <- err
		}()
		for _, p := range readers { // nobody has given back before all were asked
			if got := p.wanted(lease.Want{}); len(got.Inos) != 1 || got.Inos[0] != ino {
				t.Errorf("wanted are %v, want %d", got.Inos, ino)
			}
		}
		for _, p := range readers {
			select {
			case err := <-done:
				t.Fatalf("it was changed under a lease: %v", err)
			default:
			}
			p.give(ino)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// A holder's own S becomes X, when the others have given theirs back.
	a, b := readers[0], readers[1]
	for _, p := range []*peer{a, b} {
		if err := p.Call(t.Context(), lease.OpTake, lease.Take{Ino: ino, Shared: true}, nil); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- a.take(ino) }()
	b.wanted(lease.Want{})
	b.give(ino)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var held lease.Held
	if err := a.Call(t.Context(), lease.OpHolder, lease.Take{Ino: ino}, &held); err != nil || held.Session != a.id {
		t.Errorf("%+v, %v", held, err)
	}
}

// A lease that was given back and taken again is another wish.
func TestRecallTakenAgain(t *testing.T) {
	n := open(t, t.TempDir())
	defer n.Close()
	a := newPeer(t, n)
	ino := newTree(t, a, "f")[0]
	held := func() (h lease.Held) {
		if err := a.Call(t.Context(), lease.OpHolder, lease.Take{Ino: ino}, &h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	if err := a.take(ino); err != nil {
		t.Fatal(err)
	}
	first := n.recalls.wanted(held(), 0)
	if n.recalls.wanted(held(), 1) != first {
		t.Error("one lease is wanted twice")
	}
	a.give(ino)
	if err := a.take(ino); err != nil {
		t.Fatal(err)
	}
	n.settleLeases(t.Context())
	select {
	case <-first.over:
	default:
		t.Error("the first lease is still waited for")
	}
	second := n.recalls.wanted(held(), 2)
	if inos, last := n.recalls.of(a.id, first.number); len(inos) != 1 || last != second.number {
		t.Errorf("%v up to %d", inos, last)
	}
	if inos, _ := n.recalls.of(a.id, second.number); len(inos) != 0 {
		t.Errorf("told again of %v", inos)
	}
}

// Who does not give back is not renewed, and so loses its session, unless it
// gives back yet.
func TestRecallMax(t *testing.T) {
	n := open(t, t.TempDir())
	defer n.Close()
	var ahead atomic.Int64
	n.clock = func() time.Duration { return time.Duration(ahead.Load()) }
	ctx := t.Context()
	a, b := newPeer(t, n), newPeer(t, n)
	inos := newTree(t, b, "f", "g")
	info, err := client.Session{Caller: n}.Open(ctx, "test", "", session.TTLMin)
	if err != nil {
		t.Fatal(err)
	}
	a.id, a.Caller = info.ID, client.NewRemote(n, info.ID)
	renew := func() error { return a.Call(ctx, session.OpRenew, session.Ask{ID: a.id}, nil) }
	// wait has b wait for more than a holder may take.
	wait := func(ino meta.Ino) <-chan error {
		t.Helper()
		if err := a.take(ino); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- b.take(ino) }()
		a.wanted(lease.Want{})
		n.settleLeases(ctx)
		if err := renew(); err != nil {
			t.Fatalf("not renewed before its time: %v", err)
		}
		ahead.Add(int64(recallMax + time.Second))
		n.settleLeases(ctx)
		if err := renew(); !errors.Is(err, meta.Busy) {
			t.Fatalf("renewed although it does not give back: %v", err)
		}
		return done
	}
	done := wait(inos[0])
	a.give(inos[0])
	n.settleLeases(ctx)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := renew(); err != nil {
		t.Fatalf("not renewed although it has given back: %v", err)
	}
	done = wait(inos[1])
	var over []meta.SessionID
	for range session.TTLMin/expireEvery + 3 {
		ahead.Add(int64(expireEvery))
		if err := renew(); !errors.Is(err, meta.Busy) {
			t.Fatalf("renewed: %v", err)
		}
		over = n.overdue()
	}
	if len(over) != 1 || over[0] != a.id {
		t.Fatalf("over are %v, want %d", over, a.id)
	}
	if err := (client.Session{Caller: n}).End(ctx, a.id); err != nil {
		t.Fatal(err)
	}
	n.settleLeases(ctx)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A request does not wait for ever, and who leads no more says so.
func TestRecallEnds(t *testing.T) {
	n := open(t, t.TempDir())
	var ahead atomic.Int64
	clock := n.clock
	n.clock = func() time.Duration { return clock() + time.Duration(ahead.Add(int64(recallWait))) }
	run(t, n)
	a, b := newPeer(t, n), newPeer(t, n)
	ino := newTree(t, a, "f")[0]
	if err := a.take(ino); err != nil {
		t.Fatal(err)
	}
	reply, err := n.Do(t.Context(), state.Command{Op: lease.OpTake, Session: b.id, Body: state.Marshal(lease.Take{Ino: ino})})
	if err != nil || reply.Kind != meta.Leased {
		t.Errorf("%+v, %v", reply, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(meta.TimedOut)
	if err := b.Call(ctx, lease.OpTake, lease.Take{Ino: ino}, nil); !errors.Is(err, meta.TimedOut) {
		t.Errorf("%v", err)
	}
	if err := n.Call(t.Context(), lease.OpWanted, lease.Want{}, nil); !errors.Is(err, meta.Invalid) {
		t.Errorf("what is wanted of nobody: %v", err)
	}
}
