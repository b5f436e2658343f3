package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dos/fuse/vfs"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/session"
	"dos/meta/state"
)

var _ vfs.Meta = client.Files{}

// A lossy is a service that is reached over a bad connection: fate says for each
// attempt whether the request arrives and whether its answer does.
type lossy struct {
	*metatest.Memory
	fate func(cmd state.Command) (arrives, answered bool)
}

func (l *lossy) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	arrives, answered := l.fate(cmd)
	var reply state.Reply
	var err error
	if arrives {
		reply, err = l.Memory.Do(ctx, cmd)
	}
	if !answered {
		return state.Reply{}, fmt.Errorf("the line is dead: %w", meta.Unavailable)
	}
	return reply, err
}

// open returns a service with a root directory, and a session of it.
func open(t *testing.T) (*lossy, meta.SessionID) {
	t.Helper()
	l := &lossy{metatest.NewMemory(node.Machine()), func(state.Command) (bool, bool) { return true, true }}
	direct := client.Direct(l, 0)
	if _, err := (client.Files{Caller: direct}).Init(t.Context(), 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	info, err := client.Session{Caller: direct}.Open(t.Context(), "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return l, info.ID
}

func names(t *testing.T, s client.Sender) string {
	t.Helper()
	list, _, err := client.Files{Caller: client.Direct(s, 0)}.Entries(t.Context(), meta.Root, "", 100, false)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		all = append(all, e.Name)
	}
	return strings.Join(all, " ")
}

func create(ctx context.Context, f client.Files, name string) error {
	_, err := f.Create(ctx, meta.Root, name, meta.Node{Mode: meta.TypeFile | 0o600})
	return err
}

// A request whose answer is lost is sent again and executed once.
func TestResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, id := open(t)
		f := client.Files{Caller: client.NewRemote(l, id)}
		n := 0
		l.fate = func(state.Command) (bool, bool) {
			n++
			return n%3 != 0, n%3 != 0 && n%5 == 0
		}
		for i := range 20 {
			if err := create(t.Context(), f, fmt.Sprint(i)); err != nil {
				t.Errorf("create %d: %v", i, err)
			}
			if _, err := f.Lookup(t.Context(), meta.Root, fmt.Sprint(i)); err != nil {
				t.Errorf("lookup %d: %v", i, err)
			}
		}
	})
}

// A request is given up after Patience. It is never executed once the next one
// was, whether or not it arrived.
func TestPatience(t *testing.T) {
	for _, arrived := range []bool{false, true} {
		t.Run(fmt.Sprintf("arrived=%v", arrived), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, id := open(t)
				f := client.Files{Caller: client.NewRemote(l, id)}
				if err := create(t.Context(), f, "first"); err != nil {
					t.Fatal(err)
				}
				var lost state.Command
				l.fate = func(cmd state.Command) (bool, bool) {
					lost = cmd
					return arrived, false
				}
				began := time.Now()
				err := create(t.Context(), f, "lost")
				if !errors.Is(err, meta.TimedOut) || !strings.Contains(err.Error(), "outcome unknown") || !strings.Contains(err.Error(), "line is dead") {
					t.Errorf("create = %v, want TimedOut, its outcome unknown and why", err)
				}
				if took := time.Since(began); took != client.Patience {
					t.Errorf("it took %v, want %v", took, client.Patience)
				}
				l.fate = func(state.Command) (bool, bool) { return true, true }
				if err := create(t.Context(), f, "next"); err != nil {
					t.Errorf("create after it: %v", err)
				}
				// It was on its way all the time.
				if _, err := l.Do(t.Context(), lost); err != nil {
					t.Fatal(err)
				}
				want := "first next"
				if arrived {
					want = "first lost next"
				}
				if got := names(t, l); got != want {
					t.Errorf("the directory has %q, want %q", got, want)
				}
			})
		})
	}
}

// While it is not known what became of a request, the next one is not sent.
func TestDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, id := open(t)
		f := client.Files{Caller: client.NewRemote(l, id)}
		l.fate = func(state.Command) (bool, bool) { return false, false }
		for _, name := range []string{"a", "b"} {
			if err := create(t.Context(), f, name); !errors.Is(err, meta.TimedOut) {
				t.Errorf("create %s = %v, want TimedOut", name, err)
			}
		}
		l.fate = func(state.Command) (bool, bool) { return true, true }
		if got := names(t, l); got != "" {
			t.Errorf("the directory has %q, want nothing", got)
		}
		if err := create(t.Context(), f, "c"); err != nil {
			t.Error(err)
		}
	})
}

// The caller's own cancellation ends a request at once.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, id := open(t)
		f := client.Files{Caller: client.NewRemote(l, id)}
		ctx, cancel := context.WithCancel(t.Context())
		l.fate = func(state.Command) (bool, bool) { cancel(); return true, false }
		began := time.Now()
		if err := create(ctx, f, "a"); !errors.Is(err, context.Canceled) || time.Since(began) > time.Second {
			t.Errorf("create = %v after %v, want Canceled at once", err, time.Since(began))
		}
		if _, err := f.Lookup(ctx, meta.Root, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("lookup = %v, want Canceled", err)
		}
	})
}

// What the service refuses to look at is not sent again, and its slot goes on.
func TestRefused(t *testing.T) {
	l, id := open(t)
	r := client.NewRemote(l, id)
	sent := 0
	l.fate = func(state.Command) (bool, bool) { sent++; return true, true }
	if err := r.Call(t.Context(), 0x0f3f, struct{}{}, nil); !errors.Is(err, meta.Unsupported) || strings.Contains(err.Error(), "unknown:") {
		t.Errorf("an operation that nobody knows = %v, want Unsupported", err)
	}
	if sent != 1 {
		t.Errorf("it was sent %d times", sent)
	}
	if err := create(t.Context(), client.Files{Caller: r}, "a"); err != nil {
		t.Errorf("the next request: %v", err)
	}
}

// No more than the slots there are is under way, and all come to their turn.
func TestSlots(t *testing.T) {
	l, id := open(t)
	r := client.NewRemote(l, id)
	used := make(map[uint16]uint64)
	var mu sync.Mutex
	l.fate = func(cmd state.Command) (bool, bool) {
		mu.Lock()
		defer mu.Unlock()
		if cmd.Seq != used[cmd.Slot]+1 {
			t.Errorf("slot %d goes from %d to %d", cmd.Slot, used[cmd.Slot], cmd.Seq)
		}
		used[cmd.Slot] = cmd.Seq
		return true, true
	}
	var wg sync.WaitGroup
	for range 4 * state.Slots {
		wg.Go(func() {
			if _, err := (client.Session{Caller: r}).Reserve(t.Context(), 1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(used) > state.Slots {
		t.Errorf("%d slots were used, there are %d", len(used), state.Slots)
	}
	clear(used) // alone, a caller keeps to one slot
	l.fate = func(cmd state.Command) (bool, bool) { used[cmd.Slot]++; return true, true }
	for range 5 {
		if _, err := (client.Session{Caller: r}).Reserve(t.Context(), 1); err != nil {
			t.Error(err)
		}
	}
	if len(used) != 1 {
		t.Errorf("one caller alone used %d slots", len(used))
	}
}

func TestReserve(t *testing.T) {
	l, id := open(t)
	s := client.Session{Caller: client.NewRemote(l, id)}
	for _, n := range []int{0, -1, session.ReserveMax + 1} {
		if _, err := s.Reserve(t.Context(), n); !errors.Is(err, meta.Invalid) {
			t.Errorf("Reserve(%d) = %v, want Invalid", n, err)
		}
	}
}
