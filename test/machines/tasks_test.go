package machines

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

// A town is three machines that run tasks, each with a mount of its own.
type town struct {
	*cluster.Cluster
	points map[string]string // where the tree is mounted, by machine
}

// newTown returns when all three offer to run tasks.
func newTown(t *testing.T) *town {
	cluster.NeedFuse(t)
	cluster.NeedRoot(t)
	cluster.Need(t, "bash", "make", "gcc", "setpriv")
	w := &town{points: make(map[string]string)}
	dir := cluster.Dir(t)
	spec := func(name string) cluster.Spec {
		w.points[name] = filepath.Join(dir, name)
		return cluster.Spec{Name: name, Flags: []string{"--mount", w.points[name], "--label", "home=" + name}}
	}
	w.Cluster = cluster.FoundedLocal(t, "2+1", spec("a"))
	w.joinByFile(t, "a", spec("b"))
	w.Join(t, spec("c"))
	w.AwaitWhole(t, 2*time.Minute)
	for name := range w.points {
		w.until(t, name, "grep -c ^node tasks/status 2>/dev/null", "3\n", time.Minute)
	}
	return w
}

// joinByFile has a machine join with a token of nodes/join, which tells when it has.
func (w *town) joinByFile(t *testing.T, by string, spec cluster.Spec) {
	t.Helper()
	w.until(t, by, "stat -c %A nodes/join 2>/dev/null", "-rw-------\n", time.Minute)
	ask := func(line string) string {
		return w.bash(t, by, "exec 3<>nodes/join; echo '"+line+"' >&3 && read -r name <&3 && echo $name; cut -d' ' -f3- cluster/self/error >&2")
	}
	token := strings.TrimSpace(w.bash(t, by, "exec 3<>nodes/join; echo new "+spec.Name+" >&3; read -r token <&3; echo $token"))
	for line, want := range map[string]string{
		"new two names":                           "Invalid argument\n\"new two names\" is neither new, new NAME nor a token",
		token[:len(token)-4]:                      "Invalid argument\n",
		strings.TrimSpace(w.Token(t, "--client")): "the token is for a client",
	} {
		if got := ask(line); !strings.Contains(got, want) {
			t.Errorf("%s to nodes/join says\n%swant\n%s", line, got, want)
		}
	}
	w.says(t, by, "setpriv --reuid 1000 --regid 1000 --clear-groups bash -c 'exec 3<>nodes/join' 2>&1 | sed 's/.*: //'", "Permission denied\n")
	// Nobody has joined with it: it waits, and who gives up takes nothing away.
	if got := w.bash(t, by, "timeout 0.3 bash -c 'exec 3<>nodes/join; echo "+token+" >&3'"); !strings.HasPrefix(got, "exit 124") {
		t.Errorf("nobody has joined, and nodes/join says %s", got)
	}
	joined := make(chan string, 1)
	go func() {
		defer close(joined) // whatever ends it
		joined <- ask(token)
	}()
	m := w.New(t, spec, "--join", token)
	m.Again(t)
	w.Machines = append(w.Machines, m)
	if got := <-joined; !strings.HasPrefix(got, spec.Name+"\n") {
		t.Errorf("who has joined? nodes/join says %q, want %s", got, spec.Name)
	}
}

// bash runs a script in the mount of a machine, and returns what it says.
func (w *town) bash(t *testing.T, on, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = w.points[on]
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+filepath.Dir(cluster.Bin("dosctl"))+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("on %s: %s does not end; it says\n%s", on, script, out)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Sprintf("%sexit %d %v\n", out, code, err)
	}
	return string(out)
}

func (w *town) says(t *testing.T, on, script, want string) {
	t.Helper()
	if got := w.bash(t, on, script); got != want {
		t.Errorf("on %s: %s\nsays\n%swant\n%s", on, script, got, want)
	}
}

// until asks again until the answer is the one that is wanted.
func (w *town) until(t *testing.T, on, script, want string, limit time.Duration) {
	t.Helper()
	late := time.Now().Add(limit)
	for {
		got := w.bash(t, on, script)
		if got == want {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("on %s, for %v: %s\nsays\n%swant\n%s", on, limit, script, got, want)
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}

// submit submits a script on a machine and returns its id.
func (w *town) submit(t *testing.T, on, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(w.bash(t, on, "exec 3<>tasks/new; cat "+file+" >&3; read -r id <&3; exec 3>&-; echo $id"))
}

// The cluster is one machine: a task goes where its options say, what it writes is
// read everywhere, also when its machine is dead, and make -j is spread.
func TestTasks(t *testing.T) {
	w := newTown(t)

	// Labels, by --label and by an administrator on another machine.
	w.says(t, "a", "cat nodes/b/labels; echo 'disk ssd' > nodes/b/labels; cat nodes/b/labels", "home b\ndisk ssd\nhome b\n")
	w.until(t, "c", "cat nodes/b/labels", "disk ssd\nhome b\n", 5*time.Second)
	for label, node := range map[string]string{"home=c": "c", "disk=ssd": "b"} {
		id := w.submit(t, "a", "#DOS label="+label+"\necho on $DOS_NODE\n")
		w.says(t, "c", "cat tasks/"+id+"/wait tasks/"+id+"/stdout tasks/"+id+"/node", "0\non "+node+"\n"+node+"\n")
	}

	w.weigh(t)

	// Held, a machine takes nothing, and goes on with what it has.
	w.says(t, "c", "echo hold a new fan > nodes/b/ctl; grep -E '^(health|why)' nodes/b/status", "health held\nwhy a new fan\n")
	held := w.submit(t, "a", "#DOS node=b\ntrue\n")
	w.until(t, "a", "cat tasks/"+held+"/reason", "every node for it is drained or closed\n", 10*time.Second)
	w.says(t, "c", "echo resume > nodes/b/ctl; cat tasks/"+held+"/wait", "0\n")

	// Output is read elsewhere as it comes, and when the machine is dead.
	id := w.submit(t, "a", "#DOS node=b stdin=-\necho ready; read line; echo got $line\n")
	w.until(t, "c", "cat tasks/"+id+"/stdout", "ready\n", 10*time.Second)
	w.says(t, "a", "ls -l nodes/b/tasks | grep -c tasks/"+id+"; echo hello > tasks/"+id+"/stdin; cat tasks/"+id+"/wait", "1\n0\n")
	w.says(t, "c", "cat tasks/"+id+"/stdout", "ready\ngot hello\n")

	w.makeProject(t)

	w.Machines[1].Kill(t)
	w.says(t, "c", "cat tasks/"+id+"/stdout tasks/"+id+"/node", "ready\ngot hello\nb\n")
	w.until(t, "c", "grep ^health nodes/b/status", "health suspect\n", 10*time.Second)
	w.until(t, "c", "grep -c '^stale' nodes/b/status", "1\n", 10*time.Second)
	w.until(t, "c", "grep ^health nodes/b/status", "health dead\n", time.Minute)
	w.Machines[1].Again(t)
	w.until(t, "c", "grep ^health nodes/b/status", "health alive\n", time.Minute)
}

// weigh has tasks go where there is weight, and everywhere if there is as much everywhere.
func (w *town) weigh(t *testing.T) {
	t.Helper()
	run := func(file string) (spread string) {
		id := w.submit(t, "a", "#DOS array=0-8 cpu=0.1\nuntil test -e "+file+"; do sleep 0.1; done\n")
		w.until(t, "a", "grep -o 'running 9' tasks/"+id+"/status", "running 9\n", 30*time.Second)
		spread = w.bash(t, "b", "for n in a b c; do ls nodes/$n/tasks | grep -c ^"+id+"_; done")
		w.says(t, "c", "touch "+file+"; cat tasks/"+id+"/wait", "0\n")
		return spread
	}
	w.says(t, "b", "for n in a b; do echo weight 0.01 > nodes/$n/ctl; done; echo weight 100 > nodes/c/ctl; grep weight nodes/c/ctl", "weight 100\n")
	if got := run("go1"); got != "0\n0\n9\n" {
		t.Errorf("c has all the weight, and the machines have\n%swant all with c", got)
	}
	w.says(t, "b", "for n in a b c; do echo weight 1 > nodes/$n/ctl; done; grep weight nodes/c/ctl", "weight 1\n")
	if got := run("go2"); got != "3\n3\n3\n" {
		t.Errorf("of equal weight the machines have\n%swant 3 each", got)
	}
}

// makeProject builds a small project with each compilation a task.
func (w *town) makeProject(t *testing.T) {
	t.Helper()
	w.says(t, "a", `mkdir proj && cd proj
for i in $(seq 12); do printf 'int f%d(int x){int s=0;for(int i=0;i<x;i++)s+=i*%d;return s;}\n' $i $i > f$i.c; done
{ for i in $(seq 12); do echo "int f$i(int);"; done; echo '#include <stdio.h>'; echo 'int main(){int s=0;'
  for i in $(seq 12); do echo "s+=f$i(10);"; done; echo 'printf("%d\n",s);return 0;}'; } > main.c
cat > Makefile <<'E'
CC = dosctl run cpu=0.5 -- sh -c 'echo $$DOS_NODE >> nodes; exec "$$@"' - gcc
OBJ = $(patsubst %.c,%.o,$(wildcard *.c))
prog: $(OBJ)
	$(CC) -o $@ $^
%.o: %.c
	$(CC) -c -o $@ $<
E
make -s -j6 && ./prog && wc -l < nodes`, "3510\n14\n")
	if spread := w.bash(t, "b", "sort -u proj/nodes | wc -l"); spread != "3\n" {
		t.Errorf("make -j6 ran on %s machines, want 3", strings.TrimSpace(spread))
	}
	w.says(t, "c", "cd proj; echo broken > f3.c; make -s f3.o 2>&1 | grep -c error:", "1\n")
}
