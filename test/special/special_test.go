package special

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dos/test/cluster"
)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// limit bounds one script, and the wait for what is tried again.
const limit = time.Minute

// bash runs a script at the mount point.
func bash(t *testing.T, m *cluster.Mount, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "umask 022; "+script)
	cmd.Dir = m.Point
	cmd.Env = append(os.Environ(), "LC_ALL=C", "M="+m.Point, "DATA="+m.Data, "PATH="+filepath.Dir(cluster.Bin("dosctl"))+":"+os.Getenv("PATH"))
	cmd.WaitDelay = time.Second // what it leaves running has its output
	out, err := cmd.CombinedOutput()
	text := plain(string(out))
	if ctx.Err() != nil {
		t.Fatalf("%s: does not end; so far it says\n%s", script, text)
	}
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		text += fmt.Sprintf("exit %d\n", code)
	} else if err != nil {
		text += err.Error() + "\n"
	}
	return text
}

func start(t *testing.T) *cluster.Mount {
	cluster.NeedFuse(t)
	cluster.NeedRoot(t)
	cluster.Need(t, "bash", "setfattr", "getfattr", "python3", "timeout", "setpriv", "flock")
	m := cluster.Start(t, filepath.Join(cluster.Dir(t), "data"))
	if err := os.Chmod(m.Point, 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d conversations, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			turns, err := parse(string(text))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			m := start(t)
			for _, turn := range turns {
				converse(t, m, file, turn)
			}
		})
	}
}

func converse(t *testing.T, m *cluster.Mount, file string, turn turn) {
	t.Helper()
	switch turn.verb + turn.say {
	case "!stop":
		m.Stop(t)
		m.Again(t)
		return
	case "!kill":
		m.Kill(t)
		m.Again(t)
		return
	}
	late := time.Now().Add(limit)
	for {
		got := bash(t, m, turn.say)
		if alike(got, turn.want) {
			return
		}
		if turn.verb == "$" || time.Now().After(late) {
			t.Errorf("%s:%d: %s\nsays\n%swant\n%s", file, turn.line, turn.say, got, turn.want)
			return
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

// TestHelp types what each help shows, in order. What waits for long waits less.
func TestHelp(t *testing.T) {
	m := start(t)
	bash(t, m, "echo > FILE") // of the examples
	helps, err := filepath.Glob(m.Path("*", "help"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range helps {
		dir := filepath.Base(filepath.Dir(path))
		if dir == "cluster" { // its are for looking, and mail somebody
			continue
		}
		t.Run(dir, func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			scripts := examples(string(text))
			if len(scripts) == 0 {
				t.Fatalf("no examples in\n%s", text)
			}
			for _, script := range scripts {
				script = strings.NewReplacer("/dos/", m.Point+"/", "timeout 60", "timeout 0.3").Replace(script)
				if out := bash(t, m, script); strings.Contains(out, "exit ") && !strings.Contains(script, "timeout") || strings.Contains(out, ": ") {
					t.Errorf("%s says\n%s", script, out)
				}
			}
		})
	}
}

// Whatever runs over the whole tree passes by what would wait or consume.
func TestTheWholeTree(t *testing.T) {
	m := start(t)
	bash(t, m, "mkdir kv/t; echo needle > kv/t/k")
	for _, script := range []string{
		"grep -r needle kv",
		"find . -type f -exec head -c1 {} + > /dev/null",
		"tar cf - kv cluster nodes | tar tf - | grep -q kv/t/k",
		"cp -r kv /tmp/special.$$ 2>/dev/null; cat /tmp/special.$$/t/k; rm -r /tmp/special.$$",
		"wc -c kv/help | grep -qv '^0'",
	} {
		if out := bash(t, m, script); strings.Contains(out, "exit") {
			t.Errorf("%s says\n%s", script, out)
		}
	}
}
