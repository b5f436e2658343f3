package locks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/named"
	"dos/meta/node"
	"dos/meta/state"
	"dos/procfs"
)

// A world is the directory as mounts of one service show it.
type world struct {
	t       *testing.T
	service client.Sender
}

// A mount is one of them, in a session of its own.
type mount struct {
	t     *testing.T
	locks *client.Named
	root  procfs.Dir
}

// paced answers what a service holds back a while later, if not when there is news.
type paced struct{ client.Sender }

func (p paced) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	if cmd.Op == named.OpAwait || cmd.Op == named.OpFollow {
		pause := time.NewTimer(time.Millisecond)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
	return p.Sender.Do(ctx, cmd)
}

func newWorld(t *testing.T) *world {
	return &world{t, paced{metatest.NewMemory(node.Machine())}}
}

func (w *world) mount() *mount {
	w.t.Helper()
	info, err := client.Session{Caller: client.Direct(w.service, 0)}.Open(w.t.Context(), "test", "", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	locks := client.NewNamed(client.Always(client.NewRemote(w.service, info.ID), info.ID))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- locks.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	return &mount{w.t, locks, New(locks, fmt.Sprint("node", info.ID))}
}

var (
	alice = procfs.Caller{UID: 7, GID: 8, PID: 70}
	bob   = procfs.Caller{UID: 9, GID: 9, PID: 90}
	root  = procfs.Caller{PID: 1}
)

// find returns what a path leads to.
func (m *mount) find(p string) (procfs.Node, error) {
	at := procfs.Node(m.root)
	for name := range strings.SplitSeq(p, "/") {
		dir, ok := at.(procfs.Dir)
		if !ok {
			return nil, meta.NotDir
		}
		var err error
		if at, err = dir.Lookup(m.t.Context(), name); err != nil {
			return nil, err
		}
	}
	return at, nil
}

// open opens a lock as O_CREAT does.
func (m *mount) open(name string, by procfs.Caller) *handle {
	m.t.Helper()
	n, err := m.root.(procfs.Creator).Create(m.t.Context(), name, meta.TypeFile|0o644, by)
	if err != nil {
		m.t.Fatal(err)
	}
	h, err := n.(procfs.File).Open(m.t.Context(), procfs.Open{Read: true, Write: true, Caller: by})
	if err != nil {
		m.t.Fatal(err)
	}
	return h.(*handle)
}

func (h *handle) say(t *testing.T, line string) error {
	t.Helper()
	_, err := h.WriteAt(t.Context(), []byte(line+"\n"), 0)
	return err
}

func (h *handle) close(t *testing.T) {
	t.Helper()
	if err := h.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

func text(t *testing.T, h procfs.Handle) string {
	t.Helper()
	p := make([]byte, 4096)
	n, err := h.ReadAt(t.Context(), p, 0)
	if err != nil && (err != io.EOF || n == 0) {
		t.Fatal(err)
	}
	return string(p[:n])
}

// shows waits until reading a lock gives lines that match.
func shows(t *testing.T, h *handle, want string) {
	t.Helper()
	is := regexp.MustCompile(want)
	got := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		h.reading.Lock()
		h.rest = nil
		h.reading.Unlock()
		if got = text(t, h); is.MatchString(got) {
			return
		}
	}
	t.Errorf("it says\n%swant %s", got, want)
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// What is written to a lock, by whom, what it answers and what the lock is then.
func TestCommands(t *testing.T) {
	m := newWorld(t).mount()
	h, other := m.open("x", alice), m.open("x", bob)
	for _, c := range []struct {
		by   *handle
		line string
		want error
		is   string
	}{
		{h, "try", nil, `^state held\nmode exclusive\nholder node1 pid 70 uid 7 cmd \S+ since \S+\ntoken 1\nwaiters 0\n$`},
		{other, "try", meta.WouldWait, "pid 70"},
		{other, "try shared", meta.WouldWait, "pid 70"},
		{other, "release", meta.Conflict, "pid 70"},
		{h, "release", nil, "^state free\nwaiters 0\n$"},
		{h, "acquire shared", nil, "mode shared"},
		{other, "try shared", nil, `(?s)mode shared.*token 2.*token 3`},
		{h, "release", nil, "token 3"},
		{other, "release", nil, "free"},
		{h, "limit 2", nil, "limit 2"},
		{h, "acquire", nil, "pid 70"},
		{other, "acquire", nil, "(?s)pid 70.*pid 90"},
		{other, "release", nil, "pid 70"},
		{h, "release", nil, "free"},
		{h, "limit 0", nil, "waiters 0\n$"},
		{h, "delay 10s", nil, "delay 10s"},
		{h, "delay 0", nil, "waiters 0\n$"},
		{h, "value node a", nil, "value node a"},
		{h, "value", nil, "waiters 0\n$"},
		{h, "acquire id one ttl 60s", nil, `id one\nttl \d`},
		{other, "try id two ttl 60s", meta.WouldWait, "id one"},
		{other, "renew one", meta.Permission, "id one"}, // another's
		{h, "renew one ttl 90s", nil, `ttl (89|90)\.`},
		{h, "renew none", meta.Conflict, "id one"},
		{other, "release one", meta.Permission, "id one"},
		{h, "release one", nil, "free"},
		{h, "acquire id one", meta.Invalid, "free"},
		{h, "acquire ttl 5s", meta.Invalid, "free"},
		{h, "acquire id one ttl soon", meta.Invalid, "free"},
		{h, "acquire now", meta.Invalid, "free"},
		{h, "renew", meta.Invalid, "free"},
		{h, "release a b", meta.Invalid, "free"},
		{h, "limit many", meta.Invalid, "free"},
		{h, "delay x", meta.Invalid, "free"},
		{h, "fenced perhaps", meta.Invalid, "free"},
		{h, "fenced yes", nil, "fenced yes"},
		{h, "fenced no", nil, "waiters 0\n$"},
		{h, "onloss NONE", meta.Invalid, "free"},
		{h, "lock", meta.Invalid, "free"},
		{h, "# lock", nil, "free"},
		{h, "acquire", nil, "pid 70"},
		{h, "break", meta.Permission, "pid 70"},
	} {
		err := c.by.say(t, c.line)
		wantErr(t, c.line, err, c.want)
		shows(t, other, c.is)
	}
	wantErr(t, "root breaks it", m.open("x", root).say(t, "break"), nil)
	shows(t, other, "free")
	<-h.held.Lost()
	_, err := h.ReadAt(t.Context(), make([]byte, 9), 0)
	wantErr(t, "reading what was lost", err, meta.Conflict)
	wantErr(t, "locking what was lost", h.Lock(t.Context(), meta.Exclusive, false), meta.Conflict)
	wantErr(t, "giving it up", h.Lock(t.Context(), meta.Unlocked, false), nil)
	wantErr(t, "locking it then", h.Lock(t.Context(), meta.Exclusive, false), nil)
	h.close(t)
	other.close(t)
}

// flock(2): shared and exclusive, one in the place of the other, and closing.
func TestFlock(t *testing.T) {
	w := newWorld(t)
	a, b := w.mount(), w.mount()
	x, y := a.open("x", alice), b.open("x", bob)
	ctx := t.Context()
	wantErr(t, "exclusive", x.Lock(ctx, meta.Exclusive, true), nil)
	wantErr(t, "again", x.Lock(ctx, meta.Exclusive, false), nil)
	wantErr(t, "of another", y.Lock(ctx, meta.Exclusive, false), meta.Busy)
	wantErr(t, "shared", x.Lock(ctx, meta.Shared, true), nil)
	wantErr(t, "shared by both", y.Lock(ctx, meta.Shared, false), nil)
	wantErr(t, "no more than shared", x.Lock(ctx, meta.Exclusive, false), meta.Busy)
	y.close(t)
	wantErr(t, "when the other has closed", x.Lock(ctx, meta.Exclusive, true), nil)
	x.close(t)
	if _, err := a.find("x"); !errors.Is(err, meta.NotExist) {
		t.Errorf("a lock that nobody has or has set anything of is there: %v", err)
	}
}

// interrupted waits for a lock until it certainly has a place, and is interrupted then.
func interrupted(t *testing.T, h *handle, seen *handle, place string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Lock(ctx, meta.Exclusive, true) }()
	shows(t, seen, place)
	cancel()
	wantErr(t, "who is interrupted", <-ended, context.Canceled)
}

// Who is interrupted while he waits and comes back at once has his place still.
func TestInterruptedComesBack(t *testing.T) {
	m := newWorld(t).mount()
	first, second, third := m.open("x", alice), m.open("x", bob), m.open("x", root)
	wantErr(t, "first", first.Lock(t.Context(), meta.Exclusive, true), nil)
	interrupted(t, second, first, "waiter 1 .* pid 90")
	got := make(chan error, 2)
	go func() { got <- third.Lock(t.Context(), meta.Exclusive, true) }()
	shows(t, first, "(?s)waiter 1 .* pid 90.*waiter 2 .* pid 1 ")
	go func() { got <- second.Lock(t.Context(), meta.Exclusive, true) }()
	second.mu.Lock()
	for second.wait != nil { // until it waits again
		second.mu.Unlock()
		time.Sleep(time.Millisecond)
		second.mu.Lock()
	}
	second.mu.Unlock()
	first.close(t)
	wantErr(t, "second", <-got, nil)
	shows(t, second, "(?s)holder .* pid 90 .*waiter 1 .* pid 1 ")
	second.close(t)
	wantErr(t, "third", <-got, nil)
	third.close(t)
}

// Who is interrupted and does not come back has no place soon, and if he was granted
// the lock meanwhile he has that no longer: it would be nobody's.
func TestInterruptedGone(t *testing.T) {
	m := newWorld(t).mount()
	first, second, third := m.open("x", alice), m.open("x", bob), m.open("x", root)
	wantErr(t, "first", first.Lock(t.Context(), meta.Exclusive, true), nil)
	interrupted(t, second, first, "waiter 1 .* pid 90")
	shows(t, first, "waiters 0")

	interrupted(t, second, first, "waiter 1 .* pid 90")
	first.close(t)
	shows(t, third, "holder .* pid 90")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	wantErr(t, "who comes later", third.Lock(ctx, meta.Exclusive, true), nil)

	interrupted(t, second, third, "waiter 1 .* pid 90")
	second.close(t) // at once
	shows(t, third, "waiters 0")
	third.close(t)
}

// What gives up a lock is done, whoever is interrupted: saying it again would be saying
// it of what is not held.
func TestReleaseInterrupted(t *testing.T) {
	m := newWorld(t).mount()
	h, other := m.open("x", alice), m.open("x", bob)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, lines := range [][2]string{{"acquire", "release"}, {"acquire id one ttl 60s", "release one"}} {
		wantErr(t, lines[0], h.say(t, lines[0]), nil)
		_, err := h.WriteAt(ctx, []byte(lines[1]+"\n"), 0)
		wantErr(t, lines[1], err, nil)
		shows(t, other, "free")
	}
	wantErr(t, "acquire", h.say(t, "acquire"), nil)
	_, err := other.WriteAt(ctx, []byte("acquire\n"), 0)
	wantErr(t, "acquire of who is interrupted", err, context.Canceled)
	h.close(t)
	other.close(t)
}

// A file in .hold is the lock.
func TestHold(t *testing.T) {
	m := newWorld(t).mount()
	take := func(name string) (procfs.Handle, error) {
		t.Helper()
		n, err := m.find(".hold/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return n.(procfs.File).Open(t.Context(), procfs.Open{Read: true, Caller: alice})
	}
	h, err := take("x")
	if err != nil || text(t, h) != "1\n" {
		t.Fatalf("holding it: %v", err)
	}
	_, err = take("x@0")
	wantErr(t, "@0", err, meta.WouldWait)
	_, err = take("x@20ms")
	wantErr(t, "@20ms", err, meta.TimedOut)
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	again, err := take("x@5s")
	if err != nil || text(t, again) != "2\n" {
		t.Fatalf("when it is free: %v", err)
	}
	if err := again.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for info := range m.root.Entries(t.Context()) {
		if info.Name != "help" {
			t.Errorf("%q is listed", info.Name)
		}
	}
}

// A file in .watch tells of each change.
func TestWatch(t *testing.T) {
	w := newWorld(t)
	m, far := w.mount(), w.mount()
	n, err := m.find(".watch/x")
	if err != nil {
		t.Fatal(err)
	}
	f, err := n.(procfs.File).Open(t.Context(), procfs.Open{Read: true, Caller: alice})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want string) {
		t.Helper()
		if got := text(t, f); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("it says %q, want %s", got, want)
		}
	}
	next("^free\n$")
	h := far.open("x", bob)
	wantErr(t, "acquire", h.say(t, "acquire"), nil)
	next(`^held token=1 node=node2 pid=90\n$`)
	wantErr(t, "value", h.say(t, "value me"), nil)
	next("^value me\n$")
	h.close(t)
	next("^free\n$")
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
	_, err = n.(procfs.File).Open(t.Context(), procfs.Open{Write: true, Caller: alice})
	wantErr(t, "writing it", err, meta.Permission)
}

// Directories of locks.
func TestDirectories(t *testing.T) {
	m := newWorld(t).mount()
	ctx := t.Context()
	create := func(name string, mode uint32) error {
		_, err := m.root.(procfs.Creator).Create(ctx, name, mode, alice)
		return err
	}
	remove := func(name string) error { return m.root.(procfs.Remover).Remove(ctx, name, alice) }
	wantErr(t, "mkdir", create("d", meta.TypeDir|0o750), nil)
	wantErr(t, "mkdir again", create("d", meta.TypeDir|0o750), meta.Exist)
	wantErr(t, "a symlink", create("s", meta.TypeSymlink), meta.Fixed)
	wantErr(t, "help", create("help", meta.TypeFile), meta.Exist)
	wantErr(t, "a hidden name", create(".x", meta.TypeFile), meta.Invalid)
	wantErr(t, "rm of help", remove("help"), meta.Fixed)
	wantErr(t, "rm of nothing", remove("none"), meta.NotExist)
	d, err := m.find("d")
	if err != nil {
		t.Fatal(err)
	}
	info, err := d.Stat(ctx)
	if err != nil || info.Mode != meta.TypeDir|0o750 || info.UID != alice.UID || info.GID != alice.GID {
		t.Errorf("d is %+v, %v", info, err)
	}
	in, err := d.(procfs.Creator).Create(ctx, "x", meta.TypeFile, alice)
	if err != nil {
		t.Fatal(err)
	}
	h, err := in.(procfs.File).Open(ctx, procfs.Open{Write: true, Caller: alice})
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for info := range d.(procfs.Dir).Entries(ctx) {
		names += info.Name + " "
	}
	if names != "x " {
		t.Errorf("in d there are %s", names)
	}
	wantErr(t, "acquire", h.(*handle).say(t, "acquire"), nil)
	wantErr(t, "rmdir", remove("d"), meta.NotEmpty)
	h.(*handle).close(t)
	wantErr(t, "rmdir of an empty one", remove("d"), nil)
}
