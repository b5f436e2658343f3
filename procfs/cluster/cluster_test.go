package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
	"dos/procfs"
)

var update = flag.Bool("update", false, "write the golden files anew")

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fine is a cluster with nothing wrong; each case of the tests breaks it.
func fine() Status {
	s := Status{
		Name: "n1", Version: "v0.1", Since: meta.At(began), Now: meta.At(began.Add(26 * time.Hour)),
		Code: "4+2", Want: "4+2", Spare: 2,
		Stripes:  Redundancy{Full: 1200},
		Meta:     Metadata{Leader: "n1", Members: 1, Alive: 1, Term: 3, Applied: 4711},
		Capacity: 100 << 30, Free: 97 << 30, Used: 3 << 30, Files: 1234, Dirty: 5 << 20,
		Scrub: Scrub{Done: 600, Total: 7200, Finished: meta.At(began.Add(time.Hour))},
	}
	for i := range 6 {
		s.Stores = append(s.Stores, Store{ID: uint32(i + 1), Path: fmt.Sprintf("/d/chunk/%d", i), State: Up, Capacity: 50 << 30, Free: 40 << 30, Used: 768 << 20, Shards: 1200})
	}
	return s
}

// three is a cluster of three machines with nothing wrong.
func three() Status {
	s := fine()
	s.Name, s.Code, s.Want, s.Spare = "a", "2+1", "2+1", 1
	s.Stripes = Redundancy{Full: 341}
	s.Meta = Metadata{Leader: "a", Members: 3, Alive: 3, Term: 3, Applied: 4711}
	s.Stores = nil
	for i, name := range []string{"a", "b", "c"} {
		m := Machine{Name: name, Addr: fmt.Sprintf("10.0.0.%d:7600", i+1), Roles: []string{"meta", "chunk"}, State: Up, Meta: Voter}
		if name == "a" {
			m.Meta = Leader
		}
		s.Machines = append(s.Machines, m)
		s.Stores = append(s.Stores, Store{ID: uint32(i + 1), Node: name, Path: "/srv/dos/chunk/0", State: Up, Capacity: 50 << 30, Free: 40 << 30, Used: 768 << 20, Shards: 341})
	}
	return s
}

func cases() map[string]Status {
	repairing := fine()
	repairing.Stores[2].State, repairing.Stores[2].Error = Lost, "the folder was deleted\nreally"
	repairing.Stores[4].State = Rebuilding
	repairing.Stripes = Redundancy{Full: 400, Short: 5, Degraded: 795}
	repairing.Code, repairing.Spare = "3+2", 1
	repairing.Scrub.Done = 9000 // most of which was deleted since
	repairing.Repair = Repair{Running: true, Done: 400, Total: 1195, Rate: 50 << 20, Left: 95 * time.Second}

	lost := fine()
	for i := range 3 {
		lost.Stores[i].State, lost.Stores[i].Error = Lost, "no identity file"
	}
	lost.Stripes = Redundancy{Endangered: 900, Lost: 300}
	lost.Spare = 0
	lost.Repair.Error = "3 live stores cannot hold 4+2"
	lost.Garbage = Garbage{Stripes: 1, Bytes: 4 << 20}

	leaderless := fine()
	leaderless.Meta = Metadata{Members: 3, Alive: 1, Term: 9, Applied: 12}

	empty := Status{Version: "v0.1", Code: "4+2", Want: "4+2", Meta: Metadata{Leader: "n1", Members: 1, Alive: 1}, Fold: Fold{Waiting: 1}}

	down := three()
	down.Machines[2].State, down.Machines[2].Seen = Down, meta.At(began.Add(26*time.Hour-40*time.Second))
	down.Stores[2].State = Down
	down.Stripes, down.Spare, down.Code = Redundancy{Endangered: 300, Full: 41}, 0, "1+1"
	down.Meta.Alive = 2

	first := three()
	first.Machines, first.Stores, first.Stripes, first.Code, first.Spare = first.Machines[:1], first.Stores[:1], Redundancy{}, "", 0
	first.Meta = Metadata{Leader: "a", Members: 1, Alive: 1, Term: 2, Applied: 9}
	first.Used, first.Files, first.Free = 0, 1, 0

	emptying := three()
	emptying.Machines = append(emptying.Machines, Machine{Name: "d", Addr: "10.0.0.4:7600", Roles: []string{"chunk"}, State: Up, Draining: true, Left: 12})
	emptying.Stores = append(emptying.Stores, Store{ID: 4, Node: "d", Path: "/srv/dos/chunk/0", State: Up, Used: 1 << 20, Free: 1 << 30, Shards: 14})

	bare := three()
	bare.Machines[1].Lacks = "cpu memory (cgroup: permission denied)"

	full := three()
	full.Stores[1].Free = 100 << 20

	return map[string]Status{"bare": bare,
		"full": full, "fine": fine(), "repairing": repairing, "lost": lost, "leaderless": leaderless, "empty": empty,
		"three": three(), "down": down, "first": first, "emptying": emptying,
	}
}

// TestText pins what people and their scripts read. Changing a key breaks scripts.
func TestText(t *testing.T) {
	for name, s := range cases() {
		t.Run(name, func(t *testing.T) {
			got := s.Health().Line() + "\n" + s.Text() + "\n" + s.Screen()
			path := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestLines checks what awk relies on: each line is a key, a space and a value.
func TestLines(t *testing.T) {
	for name, s := range cases() {
		for line := range strings.Lines(s.Text()) {
			key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if !ok || key == "" || strings.TrimSpace(value) == "" || !strings.HasSuffix(line, "\n") {
				t.Errorf("%s: line %q is not a key and a value", name, line)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	want := cases()["repairing"]
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Status
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Text() != want.Text() {
		t.Errorf("after JSON and back:\n%s\nwant\n%s", got.Text(), want.Text())
	}
}

func TestHealth(t *testing.T) {
	for name, want := range map[string]string{"fine": OK, "repairing": Degraded, "lost": DataLost, "leaderless": NoQuorum, "empty": Degraded,
		"three": OK, "down": Endangered, "first": Degraded, "emptying": OK} {
		if got := cases()[name].Health(); got.Word != want {
			t.Errorf("%s: health %q, want %q", name, got.Word, want)
		}
	}
	s := fine()
	s.Meta.Members = 3
	if got := s.Health().Line(); got != "degraded 2 metadata members down\n" {
		t.Errorf("two of three members down: %q", got)
	}
	s = fine()
	s.Stripes.Endangered, s.Stripes.Full = 1, 0
	if got := s.Health().Line(); got != "endangered 1 stripe cannot lose another shard\n" {
		t.Errorf("one stripe endangered: %q", got)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1.0KiB", 1536: "1.5KiB", 5 << 30: "5.0GiB", 1<<63 - 1: "8.0EiB", -2048: "-2.0KiB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j Journal
		if got := j.Log(); len(got) != 0 || j.Last() != 0 {
			t.Fatalf("an empty journal has %v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		type result struct {
			events []Event
			err    error
		}
		wait := func(after uint64) <-chan result {
			c := make(chan result, 1)
			go func() {
				events, err := j.Since(ctx, after)
				c <- result{events, err}
			}()
			return c
		}
		first, second := wait(0), wait(1)
		synctest.Wait()
		j.Add("store %d lost", 3)
		if r := <-first; r.err != nil || len(r.events) != 1 || r.events[0].Text != "store 3 lost" || r.events[0].Seq != 1 {
			t.Fatalf("waiting for the first event: %+v", r)
		}
		synctest.Wait()
		select {
		case r := <-second:
			t.Fatalf("waiting for what comes after the first event gave %+v", r)
		default:
		}
		cancel()
		if r := <-second; !errors.Is(r.err, context.Canceled) {
			t.Fatalf("an interrupted wait gave %+v", r)
		}
		for i := 2; i <= 5*journalMax; i++ {
			j.Add("event %d", i)
		}
		log := j.Log()
		if len(log) != journalMax || log[0].Seq != 4*journalMax+1 || log[len(log)-1].Seq != 5*journalMax {
			t.Errorf("the log has %d events, %d to %d", len(log), log[0].Seq, log[len(log)-1].Seq)
		}
		if e, err := j.Since(t.Context(), 5*journalMax-2); err != nil || len(e) != 2 || e[0].Seq != 5*journalMax-1 {
			t.Errorf("since the last but two: %v, %v", e, err)
		}
		if got, want := (Event{Seq: 7, Time: meta.At(began), Text: "a\nb"}).Line(), "7 2026-03-01T12:00:00Z a b\n"; got != want {
			t.Errorf("line %q, want %q", got, want)
		}
	})
}

type fakeCluster struct {
	Journal
	status Status
	err    error
	said   []string // what was configured
}

func (f *fakeCluster) Settings(context.Context) ([]Setting, error) {
	return []Setting{{"rebuild-after", "10m"}}, nil
}

func (f *fakeCluster) Configure(_ context.Context, name, value string) error {
	f.said = append(f.said, name+"="+value)
	if value == "bad" {
		return meta.Invalid
	}
	return nil
}

func TestConfig(t *testing.T) {
	c := &fakeCluster{status: fine()}
	dir := New(Parts{Cluster: c, Settings: c, Owner: 7, Self: Self{Error: new(LastError)}})
	f := find(t, dir, "config/rebuild-after")
	if info, err := f.Stat(t.Context()); err != nil || info != (procfs.Info{Name: "rebuild-after", Mode: meta.TypeFile | 0o644, UID: 7, Size: 4}) {
		t.Errorf("%+v, %v", info, err)
	}
	for _, line := range []string{"20m", "default", "bad"} {
		h, err := f.Open(t.Context(), procfs.Open{Write: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.WriteAt(t.Context(), []byte(line+"\n"), 0); (line == "bad") != errors.Is(err, meta.Invalid) {
			t.Errorf("%s: %v", line, err)
		}
	}
	if want := []string{"rebuild-after=20m", "rebuild-after=", "rebuild-after=bad"}; !slices.Equal(c.said, want) {
		t.Errorf("configured %q, want %q", c.said, want)
	}
	config, err := dir.Lookup(t.Context(), "config")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.(procfs.Dir).Lookup(t.Context(), "nope"); !errors.Is(err, meta.NotExist) {
		t.Errorf("a setting that is not there: %v", err)
	}
	for info, err := range config.(procfs.Dir).Entries(t.Context()) {
		if err != nil || info.Name != "rebuild-after" {
			t.Errorf("listed %+v, %v", info, err)
		}
	}
}

func (f *fakeCluster) Status(context.Context) (Status, error) { return f.status, f.err }

func TestDirectory(t *testing.T) {
	ctx := t.Context()
	c := &fakeCluster{status: fine()}
	var last LastError
	dir := New(Parts{
		Cluster: c, Settings: c, Owner: 7,
		Metrics: func(context.Context) (string, error) { return "dos_files 1\n", nil },
		Self: Self{
			Node: "n1", Session: func() meta.SessionID { return 42 }, Error: &last,
			Locks: func() string { return "build 7 exclusive\n" },
			Tasks: func(_ context.Context, uid uint32) (string, error) {
				return fmt.Sprintf("12 pending of %d\n", uid), nil
			},
		},
	})
	var listed []string
	for info, err := range dir.Entries(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, info.Name)
	}
	if want := []string{"status", "health", "version", "log", "metrics", "config", "self", "help"}; !slices.Equal(listed, want) {
		t.Errorf("listed %q, want %q: what blocks must not be", listed, want)
	}
	for path, want := range map[string]string{
		"status": c.status.Text(), "health": "ok\n", "version": "v0.1\n", "log": "", "help": help,
		"self/error": "", "self/session": "42\n", "self/node": "n1\n", "self/locks": "build 7 exclusive\n", "self/tasks": "12 pending of 0\n",
		"metrics": "dos_files 1\n", "config/rebuild-after": "10m\n",
	} {
		if got := read(t, find(t, dir, path)); got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
		if name := path[strings.LastIndexByte(path, '/')+1:]; !strings.Contains(help, name) {
			t.Errorf("help does not tell of %s", path)
		}
	}
	last.Record("write", fmt.Errorf("verb %q: %w", "fly", meta.Invalid))
	if got := read(t, find(t, dir, "self/error")); !strings.HasSuffix(got, " write: verb \"fly\": invalid request\n") {
		t.Errorf("self/error holds %q", got)
	}

	// What cannot be rendered is listed all the same, and says why when opened.
	c.err = fmt.Errorf("no leader: %w", meta.Unavailable)
	n := 0
	for info, err := range dir.Entries(ctx) {
		if err != nil || info.Name == "" || info.Mode == 0 {
			t.Errorf("listing without a status: %+v, %v", info, err)
		}
		n++
	}
	if n != len(listed) {
		t.Errorf("%d entries without a status, want %d", n, len(listed))
	}
	if _, err := find(t, dir, "status").Open(ctx, procfs.Open{Read: true}); !errors.Is(err, meta.Unavailable) {
		t.Errorf("opening a status that cannot be had: %v", err)
	}
	if _, err := find(t, dir, "help").Open(ctx, procfs.Open{Write: true}); !errors.Is(err, meta.Permission) {
		t.Errorf("opening help for writing: %v", err)
	}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{status: fine()}
		c.Add("before")
		dir := New(Parts{Cluster: c, Self: Self{Session: func() meta.SessionID { return 1 }, Error: new(LastError)}})
		h, err := find(t, dir, "events").Open(t.Context(), procfs.Open{Read: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := h.(procfs.Streamer); !ok {
			t.Fatal("events is not a stream: two readers of one open would hang")
		}
		ctx, cancel := context.WithCancel(t.Context())
		interrupted := make(chan error, 2)
		for range 2 { // the second waits for its turn
			go func() {
				_, err := h.ReadAt(ctx, make([]byte, 100), 0)
				interrupted <- err
			}()
		}
		synctest.Wait()
		cancel()
		for range 2 {
			if err := <-interrupted; !errors.Is(err, context.Canceled) {
				t.Errorf("an interrupted reader got %v", err)
			}
		}
		c.Add("one")
		c.Add("two")
		buf := make([]byte, 40) // room for one line and a part of the other
		n, err := h.ReadAt(t.Context(), buf, 0)
		if got := string(buf[:n]); err != nil || !strings.HasSuffix(got, " one\n") || strings.Count(got, "\n") != 1 {
			t.Errorf("the first read gave %q, %v", got, err)
		}
		var rest string
		for !strings.HasSuffix(rest, "\n") {
			n, err := h.ReadAt(t.Context(), buf[:3], 0)
			if err != nil {
				t.Fatal(err)
			}
			rest += string(buf[:n])
		}
		if !strings.HasSuffix(rest, " two\n") || !strings.HasPrefix(rest, "3 ") {
			t.Errorf("then came %q", rest)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func find(t *testing.T, d procfs.Dir, path string) procfs.File {
	t.Helper()
	var n procfs.Node = d
	for name := range strings.SplitSeq(path, "/") {
		var err error
		if n, err = n.(procfs.Dir).Lookup(t.Context(), name); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	return n.(procfs.File)
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
	if size := h.(procfs.Sizer).Size(); size != int64(n) {
		t.Errorf("the size is said to be %d, and is %d", size, n)
	}
	return string(buf[:n])
}
