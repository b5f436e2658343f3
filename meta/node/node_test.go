package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/namespace"
	"dos/meta/replica"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/state/statetest"
)

func open(t testing.TB, dir string) *Node {
	t.Helper()
	return openWith(t, replica.Config{Dir: dir, ID: "a", Bootstrap: true, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
}

func openWith(t testing.TB, c replica.Config) *Node {
	t.Helper()
	n, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// start opens a member and runs it until the test ends.
func start(t testing.TB, dir string) *Node { return run(t, open(t, dir)) }

func startWith(t testing.TB, c replica.Config) *Node { return run(t, openWith(t, c)) }

// run runs a member until the test ends, and closes it.
func run(t testing.TB, n *Node) *Node {
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return n
}

func TestConformance(t *testing.T) {
	t.Run("member", func(t *testing.T) {
		metatest.Run(t, func(t *testing.T) client.Sender { return start(t, t.TempDir()) })
	})
	t.Run("memory", func(t *testing.T) {
		metatest.Run(t, func(*testing.T) client.Sender { return metatest.NewMemory(Machine()) })
	})
}

// The numbers of operations stand in logs and on the wire: a line may be added,
// none changed or taken away.
func TestOps(t *testing.T) {
	statetest.Golden(t, "testdata/ops.golden", strings.Join(Machine().Ops(), "\n")+"\n")
}

// Clients tell queries from commands by their number.
func TestQueryNumbers(t *testing.T) {
	m := Machine()
	for op := range state.Op(0x1000) {
		if known := m.IsQuery(op) || m.IsCommand(op); known && client.IsQuery(op) != m.IsQuery(op) {
			t.Errorf("operation %#04x: IsQuery = %v, the machine says %v", uint16(op), client.IsQuery(op), m.IsQuery(op))
		}
	}
}

// A file with more extents than one step removes is deleted in the background.
func TestPurge(t *testing.T) {
	n := start(t, t.TempDir())
	ctx := t.Context()
	files, ino := bigFile(t, n)
	if _, err := files.Unlink(ctx, meta.Root, "big", 0); err != nil {
		t.Fatal(err)
	}
	await(t, n, "the purge queue to be empty", func() bool {
		list, _, err := client.Stripes{Caller: n}.Purging(ctx, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list) == 0
	})
	if _, err := files.Attr(ctx, ino); !errors.Is(err, meta.NotExist) {
		t.Errorf("Attr of what was deleted = %v, want NotExist", err)
	}
	if usage, err := files.Usage(ctx); err != nil || usage.Bytes != 0 {
		t.Errorf("Usage = %+v, %v, want no bytes", usage, err)
	}
}

// What a member left undone is done by its next life.
func TestPurgeAfterRestart(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir) // it is not run, so nothing is purged
	files, _ := bigFile(t, n)
	if _, err := files.Unlink(t.Context(), meta.Root, "big", 0); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = start(t, dir)
	await(t, n, "the purge queue to be empty", func() bool {
		list, _, err := client.Stripes{Caller: n}.Purging(t.Context(), 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list) == 0
	})
	if check, err := (client.Stripes{Caller: n}).Check(t.Context()); err != nil || len(check.Problems) != 0 {
		t.Errorf("Check = %+v, %v", check, err)
	}
}

// bigFile makes a file with so many extents that removing them takes several steps.
func bigFile(t *testing.T, n *Node) (client.Files, meta.Ino) {
	t.Helper()
	ctx := t.Context()
	info, err := client.Session{Caller: n}.Open(ctx, "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	files := client.Files{Caller: n.Session(info.ID)}
	if _, err := files.Init(ctx, 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	attr, err := files.Create(ctx, meta.Root, "big", meta.Node{Mode: meta.TypeFile | 0o600})
	if err != nil {
		t.Fatal(err)
	}
	for part := range int64(2) {
		w := meta.Write{Ino: attr.Ino}
		for i := range int64(purgeRows) {
			w.Extents = append(w.Extents, meta.Extent{Off: (part*purgeRows + i) * 8192, Len: 1, Inline: []byte("x")})
		}
		if _, err := files.Write(ctx, w); err != nil {
			t.Fatal(err)
		}
	}
	return files, attr.Ino
}

// A session with more than one step can give up, whose end was only begun.
func TestEndSessions(t *testing.T) {
	n := start(t, t.TempDir())
	ctx := t.Context()
	info, err := client.Session{Caller: n}.Open(ctx, "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	files := client.Files{Caller: n.Session(info.ID)}
	if _, err := files.Init(ctx, 0o755, 0, 0); err != nil {
		t.Fatal(err)
	}
	for i := range 2*session.EndMax + 1 {
		name := fmt.Sprint(i)
		attr, err := files.Create(ctx, meta.Root, name, meta.Node{Mode: meta.TypeFile | 0o600})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := files.Unlink(ctx, meta.Root, name, attr.Ino); err != nil {
			t.Fatal(err)
		}
	}
	var reply session.Ended
	if err := n.Call(ctx, session.OpEnd, session.End{ID: info.ID}, &reply); err != nil || !reply.More {
		t.Fatalf("End = %+v, %v, want more to do", reply, err)
	}
	await(t, n, "the session to be gone", func() bool {
		_, err := client.Session{Caller: n}.Info(ctx, info.ID)
		return errors.Is(err, meta.NotExist)
	})
	if usage, err := files.Usage(ctx); err != nil || usage.Inodes != 1 {
		t.Errorf("Usage = %+v, %v, want the root alone", usage, err)
	}
}

// await waits for a condition on the state, looking when the state has moved.
func await(t *testing.T, n *Node, what string, done func() bool) {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		moved := n.Replica().Moved()
		if done() {
			return
		}
		select {
		case <-moved:
		case <-late:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir)
	m := client.Members{Caller: n}
	if err := m.Init(t.Context(), [16]byte{1}, chunk.Code{K: 4, M: 2}); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Init(t.Context(), [16]byte{1}, chunk.Code{K: 4, M: 2}); !errors.Is(err, meta.Unavailable) {
		t.Errorf("Init on a closed member = %v, want Unavailable", err)
	}
	n = start(t, dir)
	now, err := client.Members{Caller: n}.Map(t.Context(), 0)
	if err != nil || now.Code != (chunk.Code{K: 4, M: 2}) {
		t.Errorf("Map = %+v, %v", now, err)
	}
}

func BenchmarkAttr(b *testing.B) {
	n := start(b, b.TempDir())
	files := client.Files{Caller: n}
	if _, err := files.Init(b.Context(), 0o755, 0, 0); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := files.Attr(b.Context(), meta.Root); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	n := start(b, b.TempDir())
	files := client.Files{Caller: n}
	if _, err := files.Init(b.Context(), 0o755, 0, 0); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if err := n.Call(b.Context(), namespace.OpCreate, namespace.Create{Parent: meta.Root, Name: fmt.Sprint(i), Node: meta.Node{Mode: meta.TypeFile}}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
