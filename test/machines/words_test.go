package machines

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dos/test/cluster"
)

// exampleScript is the README's worked example, which has all of it.
const exampleScript = "../../deploy/count-words.sh"

const (
	texts     = 60
	longTexts = 300
	// exampleLimit bounds each half of it, before the machine dies and after that.
	exampleLimit = 6 * time.Minute
)

// The README shows the script that TestCountWords runs, as it is.
func TestReadme(t *testing.T) {
	script, err := os.ReadFile(exampleScript)
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```sh\n"+string(script)+"```\n") {
		t.Errorf("README.md has not all of %s", exampleScript)
	}
	if n := strings.Count(string(script), "\n"); n > 30 {
		t.Errorf("%s has %d lines, want 30 at most", exampleScript, n)
	}
}

// A corpus is texts, and how often each word is in them.
type corpus struct {
	words int
	count map[string]int
}

// write makes n texts of random words in dir.
func (c *corpus) write(t *testing.T, dir string, n int) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c.count = make(map[string]int)
	for i := range n {
		var text strings.Builder
		for range 20 + rnd.IntN(200) {
			word := fmt.Sprint("w", min(rnd.IntN(1000), rnd.IntN(1000))) // some are more frequent
			c.words++
			c.count[word]++
			text.WriteString(word + []string{" ", "\n", "  "}[rnd.IntN(3)])
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.txt", i)), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// table is what words.txt is to be: the most frequent word first.
func (c *corpus) table() string {
	var lines []string
	for word, n := range c.count {
		lines = append(lines, fmt.Sprintf("%d %s\n", n, word))
	}
	slices.SortFunc(lines, func(a, b string) int {
		return cmp.Or(c.count[strings.Fields(b)[1]]-c.count[strings.Fields(a)[1]], strings.Compare(b, a))
	})
	return strings.Join(lines, "")
}

// TestCountWords runs the README's worked example on three machines, of which one dies
// in the middle, with what it has of tasks, values and messages; with -long there are more
// texts, and then the one dies that adds the results up, and the one that makes the table.
func TestCountWords(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.Need(t, "bash", "awk", "sort", "uniq", "tr")
	w := &town{points: make(map[string]string)}
	names := []string{"a", "b", "c"}
	for _, name := range names {
		w.points[name] = filepath.Join(cluster.Dir(t), "m")
	}
	t.Cleanup(func() { // what a machine that died had mounted is dead, and nobody clears it
		for _, name := range names {
			if on, err := cluster.Mounted(w.points[name]); on || err != nil {
				if err := errors.Join(err, cluster.Detach(w.points[name])); err != nil {
					t.Errorf("the mount of machine %s: %v", name, err)
				}
			}
		}
	})
	spec := func(name string) cluster.Spec {
		return cluster.Spec{Name: name, Flags: []string{"--mount", w.points[name]}}
	}
	w.Cluster = cluster.Founded(t, "2+1", spec("a"))
	w.Join(t, spec("b"))
	w.Join(t, spec("c"))
	w.AwaitWhole(t, 2*time.Minute)
	w.points["me"] = w.MountAdmin(t).Point // any machine may die
	w.until(t, "me", "grep -c ^node tasks/status", "3\n", time.Minute)
	var c corpus
	n := texts
	if *long {
		n = longTexts
	}
	c.write(t, filepath.Join(w.points["me"], "texts"), n)

	rounds := []struct{ name, victim string }{ // victim prints the machine that is to die, when it is time
		{"counting", fmt.Sprintf("awk '$1 == \"pushed\" { exit $2 < %d }' queues/words/status && awk '$1 == \"node\" && $4 > 0 { print $2 }' tasks/status | tail -1", n/4)},
		{"adding", "[[ $(<kv/words/total) != 0 ]] && tr '\\0' '\n' </proc/$(awk '$1 == \"holder\" { print $4 }' locks/words)/environ | sed -n s/^DOS_NODE=//p"},
		{"the table", "awk '$9 == \"name\" && $10 == \"table\" { print $12 }' tasks/status"},
	}
	if !*long {
		rounds = rounds[:1]
	}
	for _, r := range rounds {
		t.Run(r.name, func(t *testing.T) {
			w.countWords(t, &c, r.victim)
			again := strings.TrimSpace(w.bash(t, "me", "cat tasks/by-name/*/*/attempts | grep '^2 ' | wc -l"))
			t.Logf("%s tasks were begun again", again)
			if again == "0" {
				t.Error("no task was begun again: nothing ran where the machine died")
			}
			w.says(t, "me", "rm -r words.txt kv/words/* cache/words/*; rmdir {kv,cache,queues}/words; ls tasks | grep -x '[0-9]*' | sed s,^,tasks/, | xargs rmdir", "")
		})
	}
}

// countWords runs the script, has a machine die when it is time, and come back afterwards.
func (w *town) countWords(t *testing.T, c *corpus, victim string) {
	script := exec.CommandContext(t.Context(), exampleScript, w.points["me"])
	var out, complaints strings.Builder
	script.Stdout, script.Stderr = &out, &complaints
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- script.Wait() }()
	var dies *cluster.Machine
	cluster.Await(t, exampleLimit, func() error {
		select {
		case err := <-done:
			t.Fatalf("it ended early: %v\n%s%s", err, out.String(), complaints.String())
		default:
		}
		name := strings.TrimSpace(w.bash(t, "me", "{ "+victim+"; } 2>/dev/null; true"))
		i := slices.IndexFunc(w.Machines, func(m *cluster.Machine) bool { return m.Name == name })
		if i < 0 {
			return errors.New("it is not time for a machine to die")
		}
		dies = w.Machines[i]
		return nil
	})
	dies.Crash(t)
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%s: %v\n%s", exampleScript, err, complaints.String())
		}
	case <-time.After(exampleLimit):
		t.Fatalf("it does not end; there are\n%s", w.bash(t, "me", "cat tasks/status queues/words/status locks/words"))
	}
	table := c.table()
	top := strings.SplitAfterN(table, "\n", 4)
	if want := fmt.Sprintf("%d\n%s", c.words, strings.Join(top[:3], "")); out.String() != want {
		t.Errorf("it says\n%swant\n%s", out.String(), want)
	}
	if got, err := os.ReadFile(filepath.Join(w.points["me"], "words.txt")); err != nil || string(got) != table {
		t.Errorf("words.txt has %d lines, want these %d, or it is another (%v)", strings.Count(string(got), "\n"), len(c.count), err)
	}
	dies.Again(t)
	w.AwaitWhole(t, 2*time.Minute)
	w.until(t, "me", "grep -c ^node tasks/status", "3\n", time.Minute)
}
