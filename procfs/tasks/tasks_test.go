package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

var user = procfs.Caller{UID: 7, GID: 8, PID: 9}

// What is written to new is a task: when it is read, or closed.
func TestNew(t *testing.T) {
	closing := procfs.Closer{Known: true, Opener: true, Wrote: true}
	for _, c := range []struct {
		name   string
		read   bool // the handle can be read
		writes []string
		get    bool // it is read
		flush  []procfs.Closer
		want   []string // scripts that are submitted
	}{
		{"read", true, []string{"a\n"}, true, nil, []string{"a\n"}},
		{"closed by a shell after each echo, then read", true, []string{"a\n", "b\n"}, true, []procfs.Closer{closing}, []string{"a\nb\n"}},
		{"closed unread", true, []string{"a\n"}, false, []procfs.Closer{closing}, []string{"a\n"}},
		{"only written", false, []string{"a\n", "b"}, false, []procfs.Closer{closing}, []string{"a\nb"}},
		{"a child closes", false, []string{"a\n"}, false, []procfs.Closer{{Known: true, Wrote: true}}, []string{"a\n"}},
		{"killed", false, []string{"a\n"}, false, []procfs.Closer{{Known: true, Opener: true, Wrote: true, Killed: true}}, nil},
		{"nothing", false, nil, false, []procfs.Closer{closing}, nil},
		{"nothing, read", true, nil, true, []procfs.Closer{closing}, nil},
	} {
		f := newFake()
		h := open(t, New(f, f, 0), "new", procfs.Open{Read: c.read, Write: true, Caller: user})
		for _, w := range c.writes {
			if n, err := h.WriteAt(t.Context(), []byte(w), 0); n != len(w) || err != nil {
				t.Fatalf("%s: %d, %v", c.name, n, err)
			}
			if c.read {
				if err := h.(procfs.Flusher).Flush(t.Context(), closing); err != nil {
					t.Error(err)
				}
			}
		}
		if len(f.list) > 0 {
			t.Errorf("%s: submitted too early", c.name)
		}
		if c.get {
			want := ""
			if len(c.want) > 0 {
				want = "1\n"
			}
			if got := readAll(t, h); got != want {
				t.Errorf("%s: read %q, want %q", c.name, got, want)
			}
		}
		for _, by := range c.flush {
			_ = h.(procfs.Flusher).Flush(t.Context(), by)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var got []string
		for _, one := range f.list {
			got = append(got, string(f.specs[one.ID].Script))
			if want := (task.Owner{UID: 7, GID: 8, Groups: []uint32{4, 5}, Umask: 0o27}); !reflect.DeepEqual(one.Owner, want) {
				t.Errorf("%s: owner %+v", c.name, one.Owner)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: submitted %q, want %q", c.name, got, c.want)
		}
	}
}

// What is wrong is refused in the write that says it, and nothing is submitted.
func TestNewWrong(t *testing.T) {
	f := newFake()
	dir := New(f, f, 0)
	for _, c := range []struct {
		name string
		text string
		want error
	}{
		{"an option", "#DOS cpu=many\n", meta.Invalid},
		{"no option", "#DOS fly=1\n", meta.Invalid},
		{"a partition", "#DOS queue=nope\n", meta.Invalid},
		{"too much", "#DOS cpu=99999999\n", meta.Invalid},
		{"what does not go together", "#DOS every=1h\n#DOS array=0-9\n", meta.Unsupported},
		{"too long", strings.Repeat("x", task.ScriptMax+1), meta.TooLarge},
		{"binary", "\x7fELF\x00", meta.Invalid},
		{"JSON", `{"script": 7}`, meta.Invalid},
		{"JSON too long", `{"script": "` + strings.Repeat("x", draftMax), meta.TooLarge},
		{"nothing to run", `{"cpu": 1}`, meta.Invalid},
	} {
		h := open(t, dir, "new", procfs.Open{Read: true, Write: true, Caller: user})
		if _, err := h.WriteAt(t.Context(), []byte(c.text), 0); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if _, err := h.ReadAt(t.Context(), make([]byte, 9), 0); err == nil && len(f.list) > 0 {
			t.Errorf("%s: was submitted", c.name)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	// Who does not read whether it was submitted hears what its partition says.
	f.queues = append(f.queues, task.Queue{Name: "short", Rules: task.Rules{Timeout: time.Minute}})
	for _, text := range []string{"#DOS queue=short\n# x\n#DOS timeout=2m\n\ntrue\n", `{"script": "true", "queue": "short", "timeout": "2m"}`} {
		h := open(t, dir, "new", procfs.Open{Write: true, Caller: user})
		if _, err := h.WriteAt(t.Context(), []byte(text), 0); !errors.Is(err, meta.Invalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
	f.queues = append(f.queues, task.Queue{Name: "small", Rules: task.Rules{Limits: task.Limits{Need: task.Resources{CPU: 500}}}})
	small := open(t, dir, "new", procfs.Open{Write: true, Caller: user})
	for _, text := range []string{"#DOS queue=small\n", "#DOS cpu=0.5\n", "true\n"} {
		if _, err := small.WriteAt(t.Context(), []byte(text), 0); err != nil {
			t.Errorf("line by line: %s: %v", text, err)
		}
	}
	if _, err := small.WriteAt(t.Context(), []byte("#DOS cpu=1\n"), 0); !errors.Is(err, meta.Invalid) {
		t.Errorf("more than the partition takes: %v", err)
	}
	f.wrong = fmt.Errorf("near=/x: %w", meta.NotExist)
	h := open(t, dir, "new", procfs.Open{Write: true, Caller: user})
	if _, err := h.WriteAt(t.Context(), []byte("#DOS near=/x\n"), 0); !errors.Is(err, meta.NotExist) {
		t.Errorf("near what is not there: %v", err)
	}
	if len(f.list) > 0 {
		t.Errorf("submitted %+v", f.list)
	}
	// One open is one task.
	f.wrong = nil
	h = open(t, dir, "new", procfs.Open{Read: true, Write: true, Caller: user})
	_, _ = h.WriteAt(t.Context(), []byte("a\n"), 0)
	readAll(t, h)
	if _, err := h.WriteAt(t.Context(), []byte("b\n"), 0); !errors.Is(err, meta.Invalid) {
		t.Errorf("a second task in one open: %v", err)
	}
}

// What spec says can be submitted again, and is the same.
func TestSpec(t *testing.T) {
	f := newFake()
	f.queues = append(f.queues, task.Queue{Name: "night"})
	f.list = append(f.list, task.Task{ID: task.ID{Job: 1}, State: task.Done}, task.Task{ID: task.ID{Job: 2}, State: task.Done})
	dir := New(f, f, 0)
	script := "#DOS cpu=0.5 mem=1g gpu=2 res=lic:3 label=ssd,zone=a node=n prio=-3 after=ok:1,any:2 array=0-4,7%2 at=2030-01-02T03:04:05Z timeout=90s retries=2 name=x queue=night cwd=/dos/a stdin=f env='A=1 2' near=g hold\necho hi\n"
	submit := func(text string) task.Spec {
		h := open(t, dir, "new", procfs.Open{Read: true, Write: true, Caller: user})
		if _, err := h.WriteAt(t.Context(), []byte(text), 0); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		readAll(t, h)
		return f.specs[f.list[len(f.list)-1].ID]
	}
	first := submit(script)
	text := read(t, dir, f.list[len(f.list)-1].ID.String()+"/spec")
	if again := submit(text); !reflect.DeepEqual(first, again) {
		t.Errorf("first %+v\nagain %+v\nby %s", first, again, text)
	}
}

func TestBatch(t *testing.T) {
	f := newFake()
	h := open(t, New(f, f, 0), "batch", procfs.Open{Write: true, Caller: user})
	if n, err := h.WriteAt(t.Context(), []byte("a\nb\n# no\n\nc\n"), 0); n != 12 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if !slices.Equal(f.bulks, []int{3}) || string(f.specs[task.ID{Job: 3}].Script) != "c" {
		t.Errorf("commits %v", f.bulks)
	}
	// Those before the one that is wrong are submitted, and its write is short.
	if n, err := h.WriteAt(t.Context(), []byte("d\n\x00\ne\n"), 0); n != 2 || err != nil || len(f.list) != 4 {
		t.Errorf("%d, %v, %d tasks", n, err, len(f.list))
	}
	if _, err := h.WriteAt(t.Context(), []byte("\x00\ne\n"), 0); !errors.Is(err, meta.Invalid) {
		t.Errorf("the retry: %v", err)
	}
}

func TestFiles(t *testing.T) {
	f := newFake()
	code := task.Exit{Code: 3}
	f.list = []task.Task{
		{ID: task.ID{Job: 1}, State: task.Failed, Exit: &code, Node: "n1", Owner: task.Owner{UID: 7, GID: 8}, Attempt: 2, Name: "a/b", Usage: task.Usage{CPU: 1500 * time.Millisecond, Peak: 4096, Wall: 2 * time.Second},
			Past: []task.Past{{Node: "n1", Exit: &code}, {Node: "n0", Text: "gone"}}},
		{ID: task.ID{Job: 2}, State: task.Running, Node: "n1", Owner: task.Owner{UID: 9}, Attempt: 1},
		{ID: task.ID{Job: 3}.Element(4), State: task.Pending, Reason: "resources", Owner: task.Owner{UID: 9}},
	}
	f.specs[task.ID{Job: 1}] = task.Spec{Script: []byte("exit 3\n")}
	f.data[key(task.ID{Job: 1}, Stdout)] = []byte("hello\n")
	dir := New(f, f, 0)
	if got, want := names(t, dir), []string{"new", "batch", "status", "by-state", "by-node", "by-name", "by-user", "queues", "help", "1", "2", "3_4"}; !slices.Equal(got, want) {
		t.Errorf("entries %q, want %q", got, want)
	}
	for path, want := range map[string]string{
		"1/state": "failed\n", "1/exit": "3\n", "2/exit": "", "1/node": "n1\n", "3_4/reason": "resources\n", "1/reason": "",
		"1/usage": "cpu 1.500\npeak 4096\nwall 2.000\n", "1/stdout": "hello\n", "1/stderr": "", "1/wait": "3\n", "1/wait@0": "3\n",
		"1/ctl": "prio 0\n", "new": manual.String(),
	} {
		if got := read(t, dir, path); got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	if got := read(t, dir, "1/attempts"); !strings.Contains(got, "2 exited exit 3 node n1") || !strings.Contains(got, "1 lost node n0") {
		t.Errorf("attempts %q", got)
	}
	if got := read(t, dir, "status"); !strings.Contains(got, "failed 1\n") || !strings.Contains(got, "task 3_4 pending") || !strings.Contains(got, "node n1 tasks 1 of 8 used cpu=0.5 of cpu=2 mem=4g") {
		t.Errorf("status %q", got)
	}
	info, err := find(t, dir, "1").Stat(t.Context())
	if err != nil || info.Mode != meta.TypeDir|0o700 || info.UID != 7 || info.GID != 8 {
		t.Errorf("the directory is %+v, %v", info, err)
	}
	for info, err := range find(t, dir, "1").(procfs.Dir).Entries(t.Context()) {
		if err != nil || info.Mode&0o077 != 0 || info.UID != 7 {
			t.Errorf("%+v, %v", info, err)
		}
		if stat, err := find(t, dir, "1/"+info.Name).Stat(t.Context()); err != nil || info.Mode&0o400 != 0 && stat.Size != int64(len(read(t, dir, "1/"+info.Name))) && info.Name != "ctl" {
			t.Errorf("%s has size %d, %v", info.Name, stat.Size, err)
		}
	}
	if info, _ := find(t, dir, "1/stdout").Stat(t.Context()); info.Size != 6 {
		t.Errorf("stdout has size %d", info.Size)
	}
	if _, err := find(t, dir, "1/stdout").(procfs.File).Open(t.Context(), procfs.Open{Write: true, Caller: user}); !errors.Is(err, meta.Permission) {
		t.Errorf("writing to stdout: %v", err)
	}
	// Who runs tasks without root's rights writes what its own say, and nobody else's.
	for uid, allowed := range map[uint32]bool{7: true, 8: false} {
		out := find(t, New(f, f, uid), "1/stdout").(procfs.File)
		_, err := out.Open(t.Context(), procfs.Open{Write: true, Caller: procfs.Caller{UID: 7}})
		if info, e := out.Stat(t.Context()); e != nil || (err == nil) != allowed || (info.Mode&0o200 != 0) != allowed {
			t.Errorf("run by %d: mode %o, %v, writing: %v", uid, info.Mode, e, err)
		}
	}
	for _, name := range []string{"4", "01", "3", "x", ".x", "1_0"} {
		if _, err := dir.Lookup(t.Context(), name); !errors.Is(err, meta.NotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for path, want := range map[string][]string{
		"by-state": {"held", "pending", "running", "done", "failed", "cancelled", "lost"}, "by-state/failed": {"1"}, "by-state/done": nil,
		"by-node": {"n1"}, "by-node/n1": {"2"}, "by-name": {"a%2Fb"}, "by-name/a%2Fb": {"1"}, "by-user": {"7", "9"}, "by-user/9": {"2", "3_4"},
	} {
		if got := names(t, find(t, dir, path).(procfs.Dir)); !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", path, got, want)
		}
	}
	if target, err := find(t, dir, "by-user/9/3_4").(procfs.Link).Target(t.Context()); target != "../../3_4" || err != nil {
		t.Errorf("a link to %s, %v", target, err)
	}
	for _, path := range []string{"by-user/8", "by-name/b", "by-node/n2", "by-state/fine", "by-state/done/1"} {
		dir, name := path[:strings.LastIndexByte(path, '/')], path[strings.LastIndexByte(path, '/')+1:]
		if _, err := find(t, New(f, f, 0), dir).(procfs.Dir).Lookup(t.Context(), name); !errors.Is(err, meta.NotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	remover := dir.(procfs.Remover)
	for name, want := range map[string]error{"2": meta.Busy, "9": meta.NotExist, "new": meta.Fixed} {
		if err := remover.Remove(t.Context(), name, user); !errors.Is(err, want) {
			t.Errorf("rmdir %s: %v, want %v", name, err, want)
		}
	}
	if err := remover.Remove(t.Context(), "1", user); err != nil || len(f.list) != 2 {
		t.Errorf("rmdir 1: %v", err)
	}
}

func TestControl(t *testing.T) {
	for line, want := range map[string]string{
		"cancel": "1 cancel 0 by 7", "cancel KILL": "1 cancel 9 by 7", "hold": "1 hold 0 by 7", "release": "1 release 0 by 7", "prio -5": "1 prio -5 by 7",
		"requeue": "1 requeue 0 by 7", "signal TERM": "1 signal 15 by 7", "signal sigusr1": "1 signal 10 by 7", "signal 34": "1 signal 34 by 7", "freeze": "1 freeze 0 by 7", "thaw": "1 thaw 0 by 7",
		"cancel TERM": "", "prio": "", "prio x": "", "prio 1001": "", "signal": "", "signal NOPE": "", "signal 0": "", "signal 65": "", "hold it": "", "nothing": "", "fly": "",
	} {
		f := newFake()
		f.list = []task.Task{{ID: task.ID{Job: 1}, State: task.Running, Owner: task.Owner{UID: 7}}}
		h := open(t, New(f, f, 0), "1/ctl", procfs.Open{Write: true, Caller: user})
		_, err := h.WriteAt(t.Context(), []byte(line+"\n"), 0)
		if got := strings.Join(f.did, ";"); got != want || (want == "") != errors.Is(err, meta.Invalid) {
			t.Errorf("%s did %q, %v, want %q", line, got, err, want)
		}
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.list = []task.Task{{ID: task.ID{Job: 1}, Version: 1, State: task.Running}}
		dir := New(f, f, 0)
		if _, err := find(t, dir, "1/wait@0").(procfs.File).Open(t.Context(), procfs.Open{Read: true}); !errors.Is(err, meta.WouldWait) {
			t.Errorf("wait@0: %v", err)
		}
		began := time.Now()
		if _, err := find(t, dir, "1/wait@5s").(procfs.File).Open(t.Context(), procfs.Open{Read: true}); !errors.Is(err, meta.TimedOut) || time.Since(began) != 5*time.Second {
			t.Errorf("wait@5s: %v after %v", err, time.Since(began))
		}
		done := make(chan string)
		go func() { done <- read(t, dir, "1/wait") }()
		synctest.Wait()
		f.list[0].State, f.list[0].Version = task.Done, 2
		f.moved <- struct{}{}
		if got := <-done; got != "0\n" {
			t.Errorf("wait gives %q", got)
		}
	})
}

func TestEvents(t *testing.T) {
	f := newFake()
	one, two := task.ID{Job: 1}, task.ID{Job: 2}
	f.list = []task.Task{{ID: one, State: task.Done}, {ID: two, State: task.Running}}
	f.events = []task.Event{{Seq: 4, ID: one, State: task.Pending}, {Seq: 5, ID: two, State: task.Running}, {Seq: 6, ID: one, State: task.Done, Node: "n1", Text: "a\nb"}}
	dir := New(f, f, 0)
	if got, want := read(t, dir, "1/events"), "4 1970-01-01T00:00:00Z 1 pending\n6 1970-01-01T00:00:00Z 1 done node n1 a b\n"; got != want {
		t.Errorf("events of 1: %q, want %q", got, want)
	}
	all := open(t, dir, "events", procfs.Open{Read: true})
	f.events = append(f.events, task.Event{Seq: 7, ID: two, State: task.Failed})
	buf := make([]byte, 100)
	n, err := all.ReadAt(t.Context(), buf, 0)
	if got, want := string(buf[:n]), "7 1970-01-01T00:00:00Z 2 failed\n"; got != want || err != nil {
		t.Errorf("events from now on: %q, %v, want %q", got, err, want)
	}
	if slices.Contains(names(t, dir), "events") || slices.Contains(names(t, find(t, dir, "1").(procfs.Dir)), "wait") {
		t.Error("what blocks is listed")
	}
}

func TestStdin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.list = []task.Task{{ID: task.ID{Job: 1}, State: task.Running, Owner: task.Owner{UID: 7}}, {ID: task.ID{Job: 2}, State: task.Running}}
		f.specs[task.ID{Job: 1}] = task.Spec{Stdin: StdinPipe}
		f.specs[task.ID{Job: 2}] = task.Spec{}
		dir := New(f, f, 0)
		if _, err := find(t, dir, "2/stdin").(procfs.File).Open(t.Context(), procfs.Open{Write: true, Caller: user}); !errors.Is(err, meta.Canceled) {
			t.Errorf("the stdin of a task that has none: %v", err)
		}
		if got := read(t, dir, "2/stdin"); got != "" {
			t.Errorf("a task that has no stdin reads %q", got)
		}
		got := make(chan string)
		r := open(t, dir, "1/stdin", procfs.Open{Read: true})
		go func() {
			buf := make([]byte, 10)
			for {
				n, err := r.ReadAt(t.Context(), buf, 0)
				if err == io.EOF {
					close(got)
					return
				}
				got <- string(buf[:n])
			}
		}()
		w := open(t, dir, "1/stdin", procfs.Open{Write: true, Caller: user})
		for _, text := range []string{"a\n", "b\n"} {
			if _, err := w.WriteAt(t.Context(), []byte(text), 0); err != nil {
				t.Fatal(err)
			}
			if line := <-got; line != text {
				t.Errorf("read %q, want %q", line, text)
			}
		}
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if line, more := <-got; more {
			t.Errorf("after the end %q", line)
		}
		if _, err := find(t, dir, "1/stdin").(procfs.File).Open(t.Context(), procfs.Open{Write: true, Caller: user}); !errors.Is(err, meta.Canceled) {
			t.Errorf("writing after the end: %v", err)
		}
	})
}

func TestPartitions(t *testing.T) {
	f := newFake()
	dir := New(f, f, 0)
	parts := find(t, dir, "queues").(interface {
		procfs.Dir
		procfs.Creator
		procfs.Remover
	})
	if _, err := parts.Create(t.Context(), "night", meta.TypeDir|0o755, user); err != nil {
		t.Fatal(err)
	}
	if got := names(t, parts); !slices.Equal(got, []string{"default", "night"}) {
		t.Errorf("partitions %q", got)
	}
	if _, err := parts.Create(t.Context(), "default", meta.TypeDir|0o755, user); !errors.Is(err, meta.Exist) {
		t.Errorf("another default one: %v", err)
	}
	if err := parts.Remove(t.Context(), "default", user); !errors.Is(err, meta.Fixed) {
		t.Errorf("removing the default one: %v", err)
	}
	lines := "weight 3\nmax tasks=10 cpu=8 mem=4g gpu=1 res=lic:2\nuser cpu=1.5\ntimeout 1h0m0s\ndefault 30m0s\npreempt requeue\nlabel ssd\nshare 1000 5\npause\n"
	h := open(t, dir, "queues/night/ctl", procfs.Open{Write: true, Caller: user})
	if n, err := h.WriteAt(t.Context(), []byte(lines), 0); n != len(lines) || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	want := task.Rules{
		Weight: 3, Limits: task.Limits{Tasks: 10, Need: task.Resources{CPU: 8000, Mem: 4 << 30, Count: map[string]int64{"gpu": 1, "lic": 2}}},
		PerUser: task.Limits{Need: task.Resources{CPU: 1500}}, Timeout: time.Hour, Default: 30 * time.Minute, Preempt: task.PreemptRetry, Label: "ssd",
		Paused: true, Shares: map[uint32]int{1000: 5},
	}
	if got := f.queues[1].Rules; !reflect.DeepEqual(got, want) {
		t.Errorf("rules %+v, want %+v", got, want)
	}
	// What it says it takes, and is the same.
	text := read(t, dir, "queues/night/ctl")
	f.queues[1].Rules = task.Rules{}
	if n, err := h.WriteAt(t.Context(), []byte(text), 0); n != len(text) || err != nil || !reflect.DeepEqual(f.queues[1].Rules, want) {
		t.Errorf("%q gives %+v, %v", text, f.queues[1].Rules, err)
	}
	none := "max none\nuser none\ntimeout none\ndefault none\npreempt off\nlabel none\nshare 1000 1\nresume\nweight 1\n"
	if _, err := h.WriteAt(t.Context(), []byte(none), 0); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, dir, "queues/night/ctl"), "weight 1\nmax none\nuser none\ntimeout none\ndefault none\npreempt off\nlabel none\n"; got != want {
		t.Errorf("without rules %q, want %q", got, want)
	}
	for _, line := range []string{"weight 0", "weight", "max", "max cpu", "max tasks=0", "max fly=1", "timeout soon", "preempt maybe", "share 1", "share x 1", "share -1 1", "share 4294967295 1", "pause it", "fly"} {
		if _, err := h.WriteAt(context.Background(), []byte(line+"\n"), 0); !errors.Is(err, meta.Invalid) {
			t.Errorf("%s: %v", line, err)
		}
	}
	if err := parts.Remove(t.Context(), "night", user); err != nil || len(f.queues) != 1 {
		t.Errorf("rmdir: %v", err)
	}
}
