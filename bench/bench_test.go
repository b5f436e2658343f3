package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseFio(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     rate
		err      string
	}{
		{"one job", `{"jobs":[{"jobname":"a","error":0,"read":{"bw_bytes":1048576,"iops":2.5},"write":{"bw_bytes":0,"iops":0}}]}`, rate{1 << 20, 2.5}, ""},
		{"a note before, two jobs", "fio: a note\n{\"jobs\":[{\"read\":{\"bw_bytes\":1,\"iops\":2}},{\"write\":{\"bw_bytes\":3,\"iops\":4}}]}", rate{4, 6}, ""},
		{"failed", `{"jobs":[{"jobname":"verify","error":84}]}`, rate{}, "job verify: error 84"},
		{"no jobs", `{"jobs":[]}`, rate{}, "no jobs"},
		{"no JSON", "fio: unable to open", rate{}, "no JSON"},
		{"cut", `{"jobs":[{`, rate{}, "unexpected end"},
	} {
		got, err := parseFio([]byte(c.in))
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %v, %v, want %v, %q", c.name, got, err, c.want, c.err)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 100}, 3}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v): got %v, want %v", c.in, got, c.want)
		}
	}
}

func TestRSSAnon(t *testing.T) {
	if got := rssAnon([]byte("Name:\tx\nVmRSS:\t  900 kB\nRssAnon:\t     512 kB\n")); got != 512<<10 {
		t.Errorf("got %d, want %d", got, 512<<10)
	}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if got := rssAnon(b); got <= 0 {
		t.Errorf("of this process: got %d", got)
	}
}

// TestCells holds the names to being distinct, for the report goes by them,
// and each cell's goal to a cell that is also part of a quick run.
func TestCells(t *testing.T) {
	seen := make(map[string]bool)
	goals := 0
	for _, g := range groups() {
		for _, c := range g.cells {
			if seen[c.name] {
				t.Errorf("two cells are called %q", c.name)
			}
			seen[c.name] = true
			if c.goal > 0 {
				goals++
				if !c.quick {
					t.Errorf("%q has an aim and is left out of quick runs", c.name)
				}
			}
		}
	}
	if goals != 5 {
		t.Errorf("%d cells have an aim, want 5", goals)
	}
}

func TestReport(t *testing.T) {
	var r report
	c := cell{name: "x", unit: "op/s", goal: 0.5}
	for _, v := range []float64{10, 30, 20} {
		r.add("g", c, "PT", v)
		r.add("g", c, "dos", v/4)
		r.add("g", c, "plain", v*2)
	}
	var out strings.Builder
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"20.0", "5.0", "0.250", "0.125", ">= 0.5 MISSED"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"--nonsense"}, {"--data", "/tmp", "extra"}, {ptFlag, "one"}} {
		if err := run(t.Context(), args, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("bench %q: got %v, want wrong use", args, err)
		}
	}
}

// TestPT mounts the pass-through in this process's child, as a run does.
func TestPT(t *testing.T) {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("FUSE is not available: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPT(self, t.TempDir(), 512)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := p.up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.down(); err != nil {
			t.Error(err)
		}
		if on, err := mounted(dir); on || err != nil {
			t.Errorf("still mounted after down: %v, %v", on, err)
		}
	}()
	want := bytes.Repeat([]byte("through"), 100000)
	if err := os.WriteFile(filepath.Join(dir, "f"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "f"), filepath.Join(p.source, "f")} {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
	if os.Geteuid() == 0 {
		file, err := readAheadFile(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != "512\n" {
			t.Errorf("%s: %q, %v, want 512", file, got, err)
		}
	}
	for _, c := range metaCells(2) {
		if v, err := c.run(t.Context(), dir, size{runtime: 20 * time.Millisecond, entries: 20}); err != nil || v <= 0 {
			t.Errorf("%s: %v, %v", c.name, v, err)
		}
	}
}

// TestMain lets the test binary be the server that up starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ptFlag {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestServices holds what is measured of services to verdicts: of ratios, and of what
// is held to an aim itself.
func TestServices(t *testing.T) {
	table := make(tableau)
	for _, v := range []float64{900, 50000, 1100} {
		table.add("dos", "lock", v)
	}
	table.add("dos", "queue", 10)
	table.add("dos", "watch", 1.5)
	table.add("dos", "lock x16 share", 0.9)
	table.add("dos", "port kv set", 5)
	if err := readCells(strings.NewReader("{\"Cell\":\"lock\",\"Value\":50}\n{\"Cell\":\"lock x16\",\"Value\":2}\n"),
		func(cell string, v float64) { table.add("etcd", cell, v) }); err != nil {
		t.Fatal(err)
	}
	if err := readCells(strings.NewReader("nonsense\n"), func(string, float64) {}); err == nil {
		t.Error("nonsense is read as a measurement")
	}
	var out bytes.Buffer
	if err := table.print(&out, servicesList); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"etcd 50.0   22.000  >= 20 met", ">= 1, and nothing to compare with", "1.500  <= 1 MISSED", "0.900  >= 0.8 met", "for information"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}
