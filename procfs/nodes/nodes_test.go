package nodes

import (
	"context"
	"errors"
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
	stale := sample
	stale.State, stale.Now = "down", meta.At(start.Add(2*time.Hour))
	for _, c := range []struct {
		kind string
		node Node
		want string
	}{
		{"status", sample, "name n1\nstate up\nroles meta chunk\naddr 10.0.0.1:7000\nzone a\nversion v1.2\nstarted 2026-03-01T12:00:00Z\nup 5400 1h30m0s\n"},
		{"status", stale, "name n1\nstate down\nstale 30m0s\nroles meta chunk\naddr 10.0.0.1:7000\nzone a\nversion v1.2\nstarted 2026-03-01T12:00:00Z\nup 5400 1h30m0s\n"},
		{"capacity", sample, "capacity 1000\nfree 600\nused 400\nshards 7\nstores 2\n"},
		{"load", sample, "load 0.25 1.00 12.50\nrunning 2\nthreads 80\ncpus 4\n"},
		{"memory", sample, "total 8589934592\nfree 1073741824\navailable 4294967296\ndos.resident 209715200\n"},
		{"disks", sample, "store 1 up used 400 free 600 capacity 1000 shards 7 path /d/chunk/0\nstore 2 lost used 0 free 0 capacity 0 shards 0 path /d/my disk /1\n"},
		{"version", sample, "v1.2\n"},
		{"roles", sample, "meta\nchunk\n"},
		{"roles", Node{}, ""},
	} {
		text, ok := render(c.kind)
		if !ok {
			t.Fatalf("no file %q", c.kind)
		}
		if got := text(c.node); got != c.want {
			t.Errorf("%s of %s:\ngot\n%swant\n%s", c.kind, c.node.State, got, c.want)
		}
	}
}

type fakeNodes struct{ nodes []Node }

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

func TestDirectory(t *testing.T) {
	ctx := t.Context()
	other := sample
	other.Name = "n2"
	dir := New(&fakeNodes{[]Node{sample, other}})
	if got, want := names(t, dir), []string{"n1", "n2", "help"}; !slices.Equal(got, want) {
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
	if want := []string{"status", "capacity", "load", "memory", "disks", "version", "roles"}; !slices.Equal(files, want) {
		t.Fatalf("files %q, want %q", files, want)
	}
	for _, name := range files {
		file, err := n1.(procfs.Dir).Lookup(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		info, err := file.Stat(ctx)
		if err != nil || info.Name != name || info.Mode != meta.TypeFile|0o444 {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
		if text := read(t, file.(procfs.File)); int64(len(text)) != info.Size || text == "" {
			t.Errorf("%s: size %d, contents %q", name, info.Size, text)
		}
	}
	help, err := dir.Lookup(ctx, "help")
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, help.(procfs.File))
	for _, name := range files {
		if !strings.Contains(text, "NODE/"+name) {
			t.Errorf("help does not tell of %s", name)
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
