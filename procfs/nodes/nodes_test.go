package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/meta"
	"dos/procfs"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var sample = Node{
	Name: "n1", State: "up", Addr: "10.0.0.1:7000", Zone: "a", Roles: []string{"meta", "chunk"}, Version: "v1.2",
	Since: meta.At(start), Seen: meta.At(start.Add(90 * time.Minute)), Now: meta.At(start.Add(90*time.Minute + time.Second)),
	Load:   Load{One: 0.25, Five: 1, Fifteen: 12.5, Running: 2, Threads: 80, CPUs: 4},
	Memory: Memory{Total: 8 << 30, Free: 1 << 30, Available: 4 << 30, Resident: 200 << 20},
	Disks: []Disk{
		{ID: 1, State: "up", Path: "/d/chunk/0", Capacity: 1000, Free: 600, Used: 400, Shards: 7},
		{ID: 2, State: "lost", Path: "/d/my disk\n/1"},
	},
}

func TestTexts(t *testing.T) {
	bare := sample
	bare.Lacks = "cpu (no\ncgroup)"
	stale := sample
	stale.State, stale.Now = "down", meta.At(start.Add(2*time.Hour))
	for _, c := range []struct {
		kind string
		node Node
		want string
	}{
		{"status", sample, "name n1\nstate up\nhealth alive\nroles meta chunk\naddr 10.0.0.1:7000\nzone a\nversion v1.2\nstarted 2026-03-01T12:00:00Z\nup 5400 1h30m0s\n"},
		{"status", stale, "name n1\nstate down\nhealth dead\nstale 30m0s\nroles meta chunk\naddr 10.0.0.1:7000\nzone a\nversion v1.2\nstarted 2026-03-01T12:00:00Z\nup 5400 1h30m0s\n"},
		{"status", bare, "name n1\nstate up\nhealth alive\nroles meta chunk\nlacks cpu (no cgroup)\naddr 10.0.0.1:7000\nzone a\nversion v1.2\nstarted 2026-03-01T12:00:00Z\nup 5400 1h30m0s\n"},
		{"capacity", sample, "capacity 1000\nfree 600\nused 400\nshards 7\nstores 2\n"},
		{"load", sample, "load 0.25 1.00 12.50\nrunning 2\nthreads 80\ncpus 4\n"},
		{"memory", sample, "total 8589934592\nfree 1073741824\navailable 4294967296\ndos.resident 209715200\n"},
		{"disks", sample, "store 1 up used 400 free 600 capacity 1000 shards 7 path /d/chunk/0\nstore 2 lost used 0 free 0 capacity 0 shards 0 path /d/my disk /1\n"},
		{"version", sample, "v1.2\n"},
		{"roles", sample, "meta\nchunk\n"},
		{"roles", Node{}, ""},
		{"labels", Node{Labels: map[string]string{"ssd": "", "rack": "7"}}, "rack 7\nssd\n"},
		{"ctl", Node{}, "resume\nweight 1\n"},
		{"ctl", Node{Draining: true, Why: "old\nfan", Weight: 0.25}, "drain old fan\nweight 0.25\n"},
		{"ctl", Node{Held: true}, "hold\nweight 1\n"},
	} {
		k, ok := find(c.kind)
		if !ok {
			t.Fatalf("no file %q", c.kind)
		}
		if got := k.text(c.node); got != c.want {
			t.Errorf("%s of %s:\ngot\n%swant\n%s", c.kind, c.node.State, got, c.want)
		}
	}
}

// fakeNodes are some machines, and what an administrator did.
type fakeNodes struct {
	nodes []Node
	did   []string
	err   error
}

func (f *fakeNodes) Names(context.Context) ([]string, error) {
	var names []string
	for _, n := range f.nodes {
		names = append(names, n.Name)
	}
	return names, nil
}

func (f *fakeNodes) Node(_ context.Context, name string) (Node, error) {
	for _, n := range f.nodes {
		if n.Name == name {
			return n, nil
		}
	}
	return Node{}, meta.NotExist
}

func (f *fakeNodes) tasks(_ context.Context, node string) ([]string, error) {
	if node != "n1" {
		return nil, nil
	}
	return []string{"12", "13_4"}, nil
}

func (f *fakeNodes) note(format string, args ...any) error {
	f.did = append(f.did, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakeNodes) Change(_ context.Context, node string, c Change) error {
	text := node
	if c.Label != "" && c.Value == nil {
		text += " without " + c.Label
	} else if c.Label != "" {
		text += fmt.Sprintf(" %s=%q", c.Label, *c.Value)
	}
	if c.Weight != nil {
		text += fmt.Sprint(" weight ", *c.Weight)
	}
	if c.Hold != nil {
		text += fmt.Sprintf(" hold %v %q", *c.Hold, c.Why)
	}
	return f.note("%s", text)
}

func (f *fakeNodes) Drain(_ context.Context, node, why string, on bool) error {
	return f.note("%s drain %v %q", node, on, why)
}

func (f *fakeNodes) Remove(_ context.Context, node string) error { return f.note("%s remove", node) }

func (f *fakeNodes) Token(_ context.Context, name string) (string, error) {
	return "h:1/ca/secret", f.note("token for %q", name)
}

func (f *fakeNodes) Joined(_ context.Context, token string) (string, error) {
	return "n9", f.note("who has joined with %s", token)
}

func TestDirectory(t *testing.T) {
	ctx := t.Context()
	other := sample
	other.Name = "n2"
	all := &fakeNodes{nodes: []Node{sample, other}}
	dir := New(all, all, all.tasks, 7)
	if got, want := names(t, dir), []string{"n1", "n2", "join", "help"}; !slices.Equal(got, want) {
		t.Fatalf("entries %q, want %q", got, want)
	}
	if _, err := dir.Lookup(ctx, "n3"); !errors.Is(err, meta.NotExist) {
		t.Errorf("looking up a node that is not there: %v", err)
	}
	n1, err := dir.Lookup(ctx, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := dir.Lookup(ctx, "n1"); again != n1 {
		t.Errorf("two lookups of one node are not equal")
	}
	if _, err := n1.(procfs.Dir).Lookup(ctx, "nothing"); !errors.Is(err, meta.NotExist) {
		t.Errorf("looking up a file that is not there: %v", err)
	}
	files := names(t, n1.(procfs.Dir))
	if want := []string{"status", "capacity", "load", "memory", "disks", "version", "roles", "labels", "ctl", "tasks"}; !slices.Equal(files, want) {
		t.Fatalf("files %q, want %q", files, want)
	}
	help := read(t, lookup(t, dir, "help"))
	running, err := n1.(procfs.Dir).Lookup(ctx, "tasks")
	if err != nil || !slices.Equal(names(t, running.(procfs.Dir)), []string{"12", "13_4"}) {
		t.Errorf("tasks of n1: %v, %v", running, err)
	}
	link, err := running.(procfs.Dir).Lookup(ctx, "13_4")
	if err != nil {
		t.Fatal(err)
	}
	if target, err := link.(procfs.Link).Target(ctx); target != "../../../tasks/13_4" || err != nil {
		t.Errorf("a link to %s, %v", target, err)
	}
	if _, err := running.(procfs.Dir).Lookup(ctx, "14"); !errors.Is(err, meta.NotExist) {
		t.Errorf("a task that does not run there: %v", err)
	}
	for _, name := range files[:len(files)-1] {
		file := lookup(t, n1.(procfs.Dir), name)
		info, err := file.Stat(ctx)
		want := procfs.Info{Name: name, Mode: meta.TypeFile | 0o444, Size: int64(len(read(t, file)))}
		if name == "labels" || name == "ctl" {
			want.Mode, want.UID = meta.TypeFile|0o644, 7
		}
		if err != nil || info != want {
			t.Errorf("%s: %+v, %v, want %+v", name, info, err, want)
		}
		if !strings.Contains(help, "N/"+name) {
			t.Errorf("help does not tell of %s", name)
		}
	}
	join := lookup(t, dir, "join")
	if info, err := join.Stat(ctx); err != nil || info.Mode != meta.TypeFile|0o600 || info.UID != 7 {
		t.Errorf("join: %+v, %v", info, err)
	}
}

func lookup(t *testing.T, d procfs.Dir, name string) procfs.File {
	t.Helper()
	n, err := d.Lookup(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return n.(procfs.File)
}

func TestCommands(t *testing.T) {
	all := &fakeNodes{nodes: []Node{sample}}
	dir := New(all, all, all.tasks, 0)
	n1, err := dir.Lookup(t.Context(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file, line string
		want       string // what is done; empty: Invalid
	}{
		{"ctl", "drain", `n1 drain true ""`},
		{"ctl", "drain a new  fan", `n1 drain true "a new  fan"`},
		{"ctl", "hold it", `n1 hold true "it"`},
		{"ctl", "resume", `n1 hold false "";n1 drain false ""`},
		{"ctl", "weight 2", `n1 weight 200`},
		{"ctl", "weight 0.015", `n1 weight 2`},
		{"ctl", "remove", `n1 remove`},
		{"ctl", "weight", ""},
		{"ctl", "weight 0", ""},
		{"ctl", "weight NaN", ""},
		{"ctl", "weight 1e9", ""},
		{"ctl", "remove now", ""},
		{"ctl", "resume it", ""},
		{"ctl", "explode", ""},
		{"labels", "ssd", `n1 ssd=""`},
		{"labels", "disk ssd", `n1 disk="ssd"`},
		{"labels", "-disk", `n1 without disk`},
		{"labels", "-", ""},
		{"labels", "-disk ssd", ""},
		{"labels", "disk ssd hdd", ""},
		{"join", "new", `token for ""`},
		{"join", "new n2", `token for "n2"`},
		{"join", "h:1/ca/secret", `who has joined with h:1/ca/secret`},
		{"join", "new n2 n3", ""},
		{"join", "two words", ""},
	} {
		all.did = nil
		from := n1.(procfs.Dir)
		if c.file == "join" {
			from = dir
		}
		h, err := lookup(t, from, c.file).Open(t.Context(), procfs.Open{Read: true, Write: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.WriteAt(t.Context(), []byte(c.line+"\n"), 0)
		if got := strings.Join(all.did, ";"); got != c.want || (c.want == "") != errors.Is(err, meta.Invalid) {
			t.Errorf("%s of %q did %q, %v; want %q", c.file, c.line, got, err, c.want)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Who does not answer is suspect at first, and dead when its sessions are over.
func TestHealth(t *testing.T) {
	for _, c := range []struct {
		node Node
		away time.Duration
		want string
	}{
		{Node{State: "up"}, 0, "alive"},
		{Node{State: "up", Held: true}, 0, "held"},
		{Node{State: "up", Held: true, Draining: true}, 0, "draining"},
		{Node{State: "down"}, 3 * time.Second, "suspect"},
		{Node{State: "down", Draining: true}, deadAfter, "suspect"},
		{Node{State: "down"}, deadAfter + 1, "dead"},
	} {
		c.node.Seen, c.node.Now = meta.At(start), meta.At(start.Add(c.away))
		if got := c.node.Health(); got != c.want {
			t.Errorf("%+v is %s, want %s", c.node, got, c.want)
		}
	}
}

func names(t *testing.T, d procfs.Dir) []string {
	t.Helper()
	var list []string
	for info, err := range d.Entries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, info.Name)
	}
	return list
}

func read(t *testing.T, f procfs.File) string {
	t.Helper()
	h, err := f.Open(t.Context(), procfs.Open{Read: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	buf := make([]byte, 64<<10)
	n, err := h.ReadAt(t.Context(), buf, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestReadProc(t *testing.T) {
	load, memory, err := ReadProc("/proc")
	if err != nil {
		t.Fatal(err)
	}
	if load.Threads <= 0 || load.CPUs <= 0 || memory.Total <= 0 || memory.Available > memory.Total || memory.Resident <= 0 {
		t.Errorf("this machine has %+v and %+v", load, memory)
	}
	if _, _, err := ReadProc(t.TempDir()); err == nil {
		t.Error("a directory that is no proc file system was read")
	}
}

func TestParse(t *testing.T) {
	if l, err := parseLoad("0.20 0.18 0.12 1/80 11206\n"); err != nil || l != (Load{0.2, 0.18, 0.12, 1, 80, 0}) {
		t.Errorf("parseLoad: %+v, %v", l, err)
	}
	for _, bad := range []string{"", "x", "0.1 0.2", "0.1 0.2 0.3 5 6"} {
		if l, err := parseLoad(bad); err == nil {
			t.Errorf("parseLoad(%q) = %+v, want an error", bad, l)
		}
	}
	for _, c := range []struct {
		text string
		want int64 // -1: an error
	}{
		{"A: 1 kB\nB:\t20 kB\n", 20 << 10},
		{"B: 0 kB", 0},
		{"B: x kB", -1},
		{"B: -1 kB", -1},
		{"B: 99999999999999999999 kB", -1},
		{"C: 1 kB", -1},
	} {
		got, err := parseSizes([]byte(c.text), "B")
		if (err != nil) != (c.want < 0) || err == nil && got[0] != c.want {
			t.Errorf("parseSizes(%q) = %v, %v, want %d", c.text, got, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("0.20 0.18 0.12 1/80 11206")
	f.Add("MemTotal:  8000000 kB\nMemFree: 1 kB")
	f.Fuzz(func(t *testing.T, text string) {
		if l, err := parseLoad(text); err == nil && math.IsInf(l.One, 0) {
			t.Logf("a load of infinity: %q", text)
		}
		if sizes, err := parseSizes([]byte(text), "MemTotal", "MemFree"); err == nil && (sizes[0] < 0 || sizes[1] < 0) {
			t.Errorf("negative sizes %v from %q", sizes, text)
		}
	})
}
