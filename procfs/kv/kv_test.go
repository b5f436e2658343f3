package kv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/kv"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/procfs"
)

// A world is the directory over a service in memory.
type world struct {
	t    *testing.T
	kv   client.KV
	root procfs.Dir
}

func newWorld(t *testing.T) *world {
	k := client.KV{Caller: client.Direct(metatest.NewMemory(node.Machine()), 0)}
	return &world{t, k, New(k, map[string]Verb{"fence": {Allow: Anyone}})}
}

var alice = procfs.Caller{UID: 7, GID: 8}

// at finds a node by its path below the directory.
func (w *world) at(path string) (procfs.Node, error) {
	n := procfs.Node(w.root)
	for name := range strings.SplitSeq(path, "/") {
		d, ok := n.(procfs.Dir)
		if !ok {
			return nil, meta.NotDir
		}
		var err error
		if n, err = d.Lookup(w.t.Context(), name); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// say writes to a file as a caller and returns what can be read then.
func (w *world) say(path string, by procfs.Caller, text string) (string, error) {
	w.t.Helper()
	n, err := w.at(path)
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := n.(procfs.File).Open(w.t.Context(), procfs.Open{Read: true, Write: true, Caller: by})
	if err != nil {
		return "", err
	}
	for len(text) > 0 { // as write(2) is used: the rest again, until there is an error
		done, err := h.WriteAt(w.t.Context(), []byte(text), 0)
		if err != nil {
			return "", err
		}
		text = text[done:]
	}
	var b strings.Builder
	for buf := make([]byte, 1000); ; {
		n, err := h.ReadAt(w.t.Context(), buf, 0)
		b.Write(buf[:n])
		if err == io.EOF {
			return b.String(), h.Close(w.t.Context())
		}
		if err != nil {
			return b.String(), err
		}
	}
}

func (w *world) mkdir(path string, mode uint32) {
	w.t.Helper()
	d, name := procfs.Node(w.root), path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		var err error
		if d, err = w.at(path[:i]); err != nil {
			w.t.Fatal(err)
		}
		name = path[i+1:]
	}
	if _, err := d.(procfs.Creator).Create(w.t.Context(), name, meta.TypeDir|mode, alice); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) put(table, key, val string, mode uint32) {
	w.t.Helper()
	if _, err := w.kv.Put(w.t.Context(), kv.Put{Table: table, Key: key, Data: []byte(val), UID: alice.UID, GID: alice.GID, Mode: mode}); err != nil {
		w.t.Fatal(err)
	}
}

// Nodes are equal while they are the same thing.
func TestNodes(t *testing.T) {
	w := newWorld(t)
	w.mkdir("t", 0o750)
	w.mkdir("t/d", 0o700)
	w.put("t", "d/k", "v", 0o640)
	for path, want := range map[string]string{
		"t": "drwxr-x--- 7 8 0", "t/d": "drwx------ 7 8 0", "t/d/k": "-rw-r----- 7 8 1",
		"t/.ctl": "-rw-r--r-- 7 8 20", "t/.txn": "-rw------- 7 8 0", "t/.scan": "-rw-rw---- 7 8 0",
	} {
		a, err := w.at(path)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := w.at(path); a != b {
			t.Errorf("%s: %v and %v", path, a, b)
		}
		info, err := a.Stat(t.Context())
		kind := "-"
		if info.Mode&meta.TypeMask == meta.TypeDir {
			kind = "d"
		}
		if got := fmt.Sprintf("%s%s %d %d %d", kind, permissions(info.Mode), info.UID, info.GID, info.Size); got != want || err != nil {
			t.Errorf("%s is %s, %v, want %s", path, got, err, want)
		}
	}
	for _, path := range []string{"none", "t/none", "t/.none", "t/d/.ctl", "t/d/k/x"} {
		if _, err := w.at(path); !errors.Is(err, meta.NotExist) && !errors.Is(err, meta.NotDir) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func permissions(mode uint32) string {
	text := []byte("rwxrwxrwx")
	for i := range text {
		if mode&(1<<(8-i)) == 0 {
			text[i] = '-'
		}
	}
	return string(text)
}

func TestTransactionRights(t *testing.T) {
	w := newWorld(t)
	w.mkdir("t", 0o777)
	w.mkdir("private", 0o700)
	w.put("t", "open", "v", 0o666)
	w.put("t", "closed", "v", 0o600)
	w.put("private", "k", "v", 0o666)
	bob := procfs.Caller{UID: 9, GID: 9}
	for _, c := range []struct {
		by    procfs.Caller
		steps string
		want  error
	}{
		{alice, "put closed x\ncommit\n", nil},
		{bob, "put open x\nput new y\ndel open\ncommit\n", nil},
		{bob, "put closed x\n", meta.Permission},
		{bob, "del /private/k\n", meta.Permission},
		{bob, "if /private/k absent\n", meta.Permission},
		{procfs.Caller{}, "put /private/k x\ncommit\n", nil},
		{bob, "fly x\n", meta.Invalid},
		{bob, "put\n", meta.NameTooLong},
		{bob, "commit\n", meta.Invalid},
		{bob, "put a 1\nabort\ncommit\n", meta.Invalid},
		{bob, strings.Repeat("put a 1\n", 257), meta.TooLarge},
	} {
		if _, err := w.say("t/.txn", c.by, c.steps); !errors.Is(err, c.want) || err != nil && c.want == nil {
			t.Errorf("%d says %.40q: %v, want %v", c.by.UID, c.steps, err, c.want)
		}
	}
}

// A step that is refused takes the others with it, though each is written by itself.
func TestRefusedStep(t *testing.T) {
	w := newWorld(t)
	w.mkdir("t", 0o777)
	n, err := w.at("t/.txn")
	if err != nil {
		t.Fatal(err)
	}
	h, err := n.(procfs.File).Open(t.Context(), procfs.Open{Read: true, Write: true, Caller: alice})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	for _, c := range []struct {
		line string
		want error
	}{
		{"put a 1", nil}, {"fly x", meta.Invalid}, {"put b 2", meta.Invalid}, {"commit", meta.Invalid},
		{"put c 3", nil}, {"commit", nil},
		{"fly x", meta.Invalid}, {"abort", nil}, {"put d 4", nil}, {"commit", nil},
	} {
		if _, err := h.WriteAt(t.Context(), []byte(c.line+"\n"), 0); !errors.Is(err, c.want) || err != nil && c.want == nil {
			t.Errorf("%s: %v, want %v", c.line, err, c.want)
		}
	}
	for key, there := range map[string]bool{"a": false, "b": false, "c": true, "d": true} {
		if _, err := w.kv.Get(t.Context(), "t", key); errors.Is(err, meta.NotExist) == there {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestScan(t *testing.T) {
	w := newWorld(t)
	w.mkdir("t", 0o777)
	w.put("t", "a", "two\nlines\tand a \\\n", 0o644)
	w.put("t", "b", "secret\n", 0o600)
	w.put("t", "b\x00\xff", "\n", 0o644)
	w.put("t", "d/e", "", 0o644)
	all, err := w.say("t/.scan", procfs.Caller{UID: 9, GID: 9}, "all\n")
	if want := "a\t1\ttwo\\nlines\\tand a \\\\\nb\\0\xff\t3\t\nd/e\t4\t\n"; all != want || err != nil {
		t.Errorf("%q, %v, want %q", all, err, want)
	}
	for line, want := range map[string]string{
		"from b limit 1": "b", "from b to c": "b b\\0\xff", "prefix d": "d/e", "prefix \xff": "", "limit 2": "a b",
	} {
		got, err := w.say("t/.scan", alice, line+"\n")
		var keys []string
		for row := range strings.Lines(got) {
			key, _, _ := strings.Cut(row, "\t")
			keys = append(keys, key)
		}
		if strings.Join(keys, " ") != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", line, keys, err, want)
		}
	}
	for _, line := range []string{"limit 0", "limit x", "from", "fly x"} {
		if _, err := w.say("t/.scan", alice, line+"\n"); !errors.Is(err, meta.Invalid) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestControl(t *testing.T) {
	w := newWorld(t)
	w.mkdir("t", 0o777)
	if _, err := w.say("t/.ctl", alice, "ttl 5m\nquota 1k\n"); err != nil {
		t.Fatal(err)
	}
	table, err := w.kv.Table(t.Context(), "t")
	if err != nil || table.TTL != 5*time.Minute || table.Quota != 1024 {
		t.Errorf("%+v, %v", table, err)
	}
	text, err := w.say("t/.ctl", alice, "")
	if err != nil || text != "ttl 5m0s\nquota 1024\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := w.say("t/.ctl", alice, text+"ttl none\n"); err != nil {
		t.Errorf("what it prints, said again: %v", err)
	}
	for _, line := range []string{"ttl", "ttl x", "quota -1", "fly 1", "ttl 1 2"} {
		if _, err := w.say("t/.ctl", alice, line+"\n"); !errors.Is(err, meta.Invalid) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestWatchFromARevision(t *testing.T) {
	w := newWorld(t)
	w.mkdir("t", 0o777)
	for range kv.FeedMax + 2 {
		w.put("t", "k", "", 0o644)
	}
	n, err := w.at("t/.watch")
	if err != nil {
		t.Fatal(err)
	}
	if _, listed := n.(procfs.Unlisted); !listed {
		t.Error("what waits is listed")
	}
	for after, want := range map[int]string{kv.FeedMax + 1: "10002 put k\n", 1: "conflict"} {
		h, err := n.(procfs.File).Open(t.Context(), procfs.Open{Read: true, Write: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.WriteAt(t.Context(), fmt.Appendf(nil, "after %d\n", after), 0); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		size, err := h.ReadAt(t.Context(), buf, 0)
		got := string(buf[:size])
		if errors.Is(err, meta.Conflict) {
			got = "conflict"
		}
		if got != want {
			t.Errorf("after %d: %q, %v, want %q", after, got, err, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	h, err := n.(procfs.File).Open(t.Context(), procfs.Open{Read: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.ReadAt(ended, make([]byte, 9), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
