package tasks

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"dos/test/cluster"
)

// What does not want to end, gets away, eats memory, floods or leaves its dead lying about
// is held to its task, all of it at once; and others run meanwhile.
func TestContained(t *testing.T) {
	m := start(t)
	dir := cluster.Dir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	told := func(name string) int {
		t.Helper()
		awaitText(t, at(name), "\n", soon)
		pid, err := strconv.Atoi(strings.TrimSpace(read(at(name))))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}

	deaf := submit(t, m.Point, "#DOS cpu=0.1\ntrap 'echo TERM >>"+at("got")+"' TERM HUP INT\necho $$ >"+at("deaf")+"\nwhile :; do sleep 0.05; done")
	flood := submit(t, m.Point, "#DOS cpu=0.1\ntrap '' TERM\n(trap '' TERM; exec yes) & echo $! >"+at("flood")+"\nwait")
	away := submit(t, m.Point, fmt.Sprintf(`#DOS cpu=0.1
setsid sh -c '(trap "" TERM HUP INT; cd /; exec setsid sh -c "echo \$\$ >%s; while :; do sleep 0.05; done") & exit' &
until test -s %[1]s; do sleep 0.05; done
exit 4`, at("away")))
	hog := submit(t, m.Point, "#DOS cpu=0.1 mem=64m\nexec awk 'BEGIN { s = \"0123456789abcdef\"; while (1) s = s s }'")
	const children = 50
	dead := submit(t, m.Point, fmt.Sprintf("#DOS cpu=0.1 stdin=-\nfor i in $(seq %d); do (sh -c 'echo x >>%s & exit' &); done; read x", children, at("dead")))

	// A task whose first process has ended is over with all that came of it.
	awaitField(t, away, "state", "failed", soon)
	if got := field(away, "exit"); got != "4" || lives(told("away")) {
		t.Errorf("it ended with %s; what got away lives: %v", got, lives(told("away")))
	}
	awaitField(t, hog, "state", "failed", soon)
	if peak, err := strconv.ParseInt(field(hog, "peak"), 10, 64); err != nil || peak > 64<<20 {
		t.Errorf("with 64 MiB it had %d: %v", peak, err)
	}
	awaitText(t, at("dead"), strings.Repeat("x\n", children), soon)
	pid := runner(t, m.Data)
	cluster.Await(t, soon, func() error {
		if n := zombies(pid); n > 0 {
			return fmt.Errorf("%d zombies", n)
		}
		return nil
	})
	if err := os.WriteFile(filepath.Join(dead, "stdin"), []byte("x\n"), 0); err != nil {
		t.Error(err)
	}
	awaitField(t, dead, "state", "done", soon)

	// They were asked to end, and go on; then they are not asked.
	for _, task := range []string{deaf, flood} {
		if err := os.WriteFile(filepath.Join(task, "ctl"), []byte("cancel\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	awaitText(t, at("got"), "TERM\n", soon)
	if !lives(told("deaf")) || !lives(told("flood")) {
		t.Error("what ignores TERM has ended by it")
	}
	awaitField(t, submit(t, m.Point, "#DOS cpu=0.1\ntrue"), "state", "done", soon)
	for _, task := range []string{deaf, flood} {
		if err := os.WriteFile(filepath.Join(task, "ctl"), []byte("cancel KILL\n"), 0); err != nil {
			t.Fatal(err)
		}
		awaitField(t, task, "state", "cancelled", soon)
	}
	if lives(told("deaf")) || lives(told("flood")) {
		t.Error("a task that was killed lives")
	}
	awaitField(t, flood, "exit", fmt.Sprint(128+int(syscall.SIGKILL)), soon)
	out, err := os.Open(filepath.Join(flood, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	first := make([]byte, 4)
	if _, err := out.Read(first); err != nil || string(first) != "y\ny\n" {
		t.Errorf("its output begins with %q, %v", first, err)
	}
}

// zombies counts the dead below a process that nobody has looked at.
func zombies(above int) (n int) {
	all := parents()
	for pid := range all {
		if lives(pid) {
			continue
		}
		for at := all[pid]; at > 1; at = all[at] {
			if at == above {
				n++
				break
			}
		}
	}
	return n
}

// parents is who began which process.
func parents() map[int]int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	all := make(map[int]int)
	for _, stat := range stats {
		text := read(stat)
		var pid, parent int
		var state string
		begin, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
		if begin < 0 || end < begin {
			continue // it has gone
		}
		if _, err := fmt.Sscan(text[:begin]+text[end+1:], &pid, &state, &parent); err == nil {
			all[pid] = parent
		}
	}
	return all
}
