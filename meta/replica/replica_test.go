package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/state"
)

const (
	opAppend state.Op = 0x0001
	opBulk   state.Op = 0x0002
	opGone   state.Op = 0x0003
)

type put struct {
	Key string `cbor:"1,keyasint,omitempty"`
	Val []byte `cbor:"2,keyasint,omitempty"`
}

type bulk struct {
	Prefix string `cbor:"1,keyasint,omitempty"`
	Count  int    `cbor:"2,keyasint,omitempty"`
	Size   int    `cbor:"3,keyasint,omitempty"`
}

// testMachine has a command that shows whether it was executed twice, and one
// that changes a great many rows.
func testMachine() *state.Machine {
	m := new(state.Machine)
	state.Handle(m, opAppend, "test.append", func(tx *state.Tx, p put) (int, error) {
		old, _ := tx.Get([]byte(p.Key))
		val := append(bytes.Clone(old), p.Val...)
		tx.Set([]byte(p.Key), val)
		return len(val), nil
	})
	state.Handle(m, opBulk, "test.bulk", func(tx *state.Tx, b bulk) (int, error) {
		for i := range b.Count {
			key := fmt.Appendf(nil, "%s%06d", b.Prefix, i)
			old, _ := tx.Get(key)
			val := bytes.Repeat([]byte{byte(i)}, b.Size)
			if len(old) > 0 {
				val[0] = old[0] + 1 // shows how often
			}
			tx.Set(key, val)
		}
		return b.Count, nil
	})
	state.Adds(m, opAppend, func(put) bool { return true })
	state.Handle(m, opGone, "test.gone", func(tx *state.Tx, key string) (struct{}, error) {
		if _, ok := tx.Get([]byte(key)); !ok {
			return struct{}{}, meta.NotExist
		}
		tx.Delete([]byte(key))
		return struct{}{}, nil
	})
	return m
}

func testConfig(tb testing.TB, dir string) Config {
	return Config{
		Dir:       dir,
		ID:        "a",
		Machine:   testMachine(),
		Bootstrap: true,
		Fatal:     func(err error) { tb.Errorf("fatal: %v", err) },
		Log:       slog.New(slog.DiscardHandler),
	}
}

func open(tb testing.TB, cfg Config) *Replica {
	tb.Helper()
	r, err := Open(cfg)
	if err != nil {
		tb.Fatalf("Open(%s): %v", cfg.Dir, err)
	}
	return r
}

func shut(tb testing.TB, r *Replica) {
	tb.Helper()
	if err := r.Close(); err != nil {
		tb.Fatalf("Close: %v", err)
	}
}

func propose(tb testing.TB, r *Replica, op state.Op, req any) state.Reply {
	tb.Helper()
	reply, err := r.Propose(tb.Context(), state.Command{Op: op, Body: state.Marshal(req)})
	if err != nil {
		tb.Fatalf("Propose(%#x): %v", op, err)
	}
	return reply
}

func read(tb testing.TB, r *Replica, key string) string {
	tb.Helper()
	var got string
	err := r.View(tb.Context(), func(s state.Reader) error {
		val, _ := s.Get([]byte(key))
		got = string(val)
		return nil
	})
	if err != nil {
		tb.Fatalf("View: %v", err)
	}
	return got
}

func TestReplica(t *testing.T) {
	cfg := testConfig(t, t.TempDir())
	r := open(t, cfg)
	for i := range 20 {
		propose(t, r, opAppend, put{"k", fmt.Appendf(nil, "%d,", i)})
	}
	want := "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,"
	if got := read(t, r, "k"); got != want {
		t.Errorf("read %q, want %q", got, want)
	}
	if reply := propose(t, r, opGone, "nothing"); reply.Kind != meta.NotExist {
		t.Errorf("a command that fails: %+v", reply)
	}
	before, err := r.Status()
	if err != nil {
		t.Fatal(err)
	}
	shut(t, r)
	r = open(t, cfg)
	defer shut(t, r)
	if got := read(t, r, "k"); got != want {
		t.Errorf("after a restart read %q, want %q", got, want)
	}
	after, err := r.Status()
	if err != nil {
		t.Fatal(err)
	}
	if after.Snapshot != before.Applied || after.Durable < before.Applied {
		t.Errorf("a clean stop at %+v left %+v: not all is durable", before, after)
	}
	if _, err := Open(cfg); !errors.Is(err, meta.Busy) {
		t.Errorf("a second process: %v, want %v", err, meta.Busy)
	}
}

func TestProposeRefusals(t *testing.T) {
	r := open(t, testConfig(t, t.TempDir()))
	for _, tc := range []struct {
		name string
		cmd  state.Command
		want meta.Kind
	}{
		{"unknown", state.Command{Op: 0x99}, meta.Unsupported},
		{"too large", state.Command{Op: opAppend, Body: make([]byte, maxCommand)}, meta.TooLarge},
	} {
		if _, err := r.Propose(t.Context(), tc.cmd); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	// Larger than an entry is allowed, alone.
	var w sync.WaitGroup
	for i := range 3 {
		w.Go(func() {
			for j := range 5 {
				body := state.Marshal([]put{{"large", make([]byte, 600<<10)}}[0])
				reply, err := r.Propose(t.Context(), state.Command{Op: opAppend, Body: body})
				if err != nil || reply.Kind != meta.TooLarge { // of the row, which the machine says
					t.Errorf("large %d.%d: %+v, %v", i, j, reply.Err(), err)
				}
			}
		})
	}
	w.Wait()
	shut(t, r)
	if _, err := r.Propose(t.Context(), state.Command{Op: opAppend}); !errors.Is(err, meta.Unavailable) {
		t.Errorf("closed: %v, want %v", err, meta.Unavailable)
	}
	if err := r.View(t.Context(), func(state.Reader) error { return nil }); !errors.Is(err, meta.Unavailable) {
		t.Errorf("View when closed: %v, want %v", err, meta.Unavailable)
	}
	if err := r.Local(func(state.Reader) error { return nil }); !errors.Is(err, meta.Unavailable) {
		t.Errorf("Local when closed: %v, want %v", err, meta.Unavailable)
	}
}

func TestViewAndMoved(t *testing.T) {
	r := open(t, testConfig(t, t.TempDir()))
	defer shut(t, r)
	propose(t, r, opAppend, put{"k", []byte("1")})
	at, moved := r.Applied(), r.Moved()
	if err := r.Await(t.Context(), at); err != nil {
		t.Error(err)
	}
	err := r.View(t.Context(), func(s state.Reader) error {
		propose(t, r, opAppend, put{"k", []byte("2")})
		if val, _ := s.Get([]byte("k")); string(val) != "1" {
			t.Errorf("a view sees %q, which was written after it began", val)
		}
		return meta.Quota
	})
	if !errors.Is(err, meta.Quota) {
		t.Errorf("View returned %v, not what its function did", err)
	}
	select {
	case <-moved:
	default:
		t.Error("the applied index moved and the channel is open")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := r.Await(ctx, at+1000); !errors.Is(err, meta.Unavailable) {
		t.Errorf("Await of the future: %v", err)
	}
}

// Closing under load ends, and everybody is answered.
func TestCloseUnderLoad(t *testing.T) {
	for range 10 {
		r := open(t, testConfig(t, t.TempDir()))
		propose(t, r, opAppend, put{"k", nil})
		var busy sync.WaitGroup
		for range 20 {
			busy.Go(func() {
				for {
					if _, err := r.Propose(t.Context(), state.Command{Op: opAppend, Body: state.Marshal(put{"k", []byte("v")})}); err != nil {
						return
					}
				}
			})
		}
		for range 20 {
			propose(t, r, opGone, "nothing")
		}
		shut(t, r)
		busy.Wait()
	}
}
