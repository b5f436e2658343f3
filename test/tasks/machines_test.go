package tasks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
)

// three is a cluster whose machines run tasks; points are where they mount.
func three(t *testing.T) (c *cluster.Cluster, points map[string]string) {
	t.Helper()
	cluster.NeedFuse(t)
	cluster.Need(t, "flock")
	points = make(map[string]string)
	for _, name := range []string{"a", "b", "c"} { // they are removed when nothing is mounted there any more
		points[name] = filepath.Join(cluster.Dir(t), "m")
	}
	spec := func(name string) cluster.Spec {
		return cluster.Spec{Name: name, Flags: []string{"--mount", points[name]}}
	}
	c = cluster.Founded(t, "2+1", spec("a"))
	c.Join(t, spec("b"))
	c.Join(t, spec("c"))
	c.AwaitWhole(t, 4*soon)
	for _, point := range points {
		cluster.Await(t, 4*soon, func() error {
			_, err := os.Stat(filepath.Join(point, "tasks", "new"))
			return err
		})
	}
	return c, points
}

// running is the machine that runs a task, and another one.
func running(t *testing.T, c *cluster.Cluster, points map[string]string, task string) (its, other *cluster.Machine) {
	t.Helper()
	cluster.Await(t, soon, func() error {
		node := field(task, "node")
		for _, m := range c.Machines {
			if m.Name == node {
				its = m
			} else {
				other = m
			}
		}
		if its == nil {
			return fmt.Errorf("it runs on %q", node)
		}
		return nil
	})
	return its, other
}

// A machine's dosd is started again while a task runs there, which does not notice.
func TestRestarted(t *testing.T) {
	c, points := three(t)
	dir := cluster.Dir(t)
	task := submit(t, points["a"], script(dir))
	process(t, dir, 1)
	its, other := running(t, c, points, task)
	task = filepath.Join(points[other.Name], "tasks", filepath.Base(task))
	awaitText(t, filepath.Join(task, "stdout"), "line 5\n", soon)
	began := time.Now()
	its.Stop(t)
	if took := time.Since(began); took >= 10*time.Second {
		t.Errorf("it took %v to stop while a task uses the mount", took)
	}
	its.Again(t)
	awaitText(t, filepath.Join(task, "stdout"), "line 100\n", 4*soon)
	finish(t, task, dir, 1)
}

// The task of a machine that is cut off is over there by the time that another has it. What it
// has asked its mount for, and was not answered, does not happen when that is heard of again.
func TestCut(t *testing.T) {
	c, points := three(t)
	dir := cluster.Dir(t)
	task := submit(t, points["a"], "(while :; do echo $DOS_ATTEMPT >>$DOS_MOUNT/said; sleep 0.01; done) &\n"+script(dir))
	first := process(t, dir, 1)
	its, other := running(t, c, points, task)
	task = filepath.Join(points[other.Name], "tasks", filepath.Base(task))
	said := filepath.Join(points[other.Name], "said")
	awaitText(t, said, "1\n", soon)
	session := filepath.Join(points[its.Name], "cluster", "self", "session")
	before := read(session)
	its.Cut(t)
	process(t, dir, 2)
	if lives(first) {
		t.Error("the first attempt lives")
	}
	if again, _ := running(t, c, points, task); again == its {
		t.Errorf("it runs on %s again, which is cut off", its.Name)
	}
	awaitText(t, said, "\n2\n", 2*soon)
	its.Heal(t)
	awaitNewSession(t, session, before)
	awaitText(t, filepath.Join(points[its.Name], "said"), "\n2\n", soon) // it can be read there, and what waited has gone on
	finish(t, task, dir, 2)
	if _, rest, _ := strings.Cut(read(said), "\n2\n"); strings.Contains("\n"+rest, "\n1\n") {
		t.Errorf("the first attempt writes after the second: %q", rest)
	}
}

// awaitNewSession waits until a mount has another session than before.
func awaitNewSession(t *testing.T, file, before string) {
	t.Helper()
	cluster.Await(t, 2*soon, func() error {
		if now := read(file); now == "" || now == before {
			return fmt.Errorf("the mount has session %q, and had %q", now, before)
		}
		return nil
	})
}

// The task of a machine that is gone runs again elsewhere.
func TestLost(t *testing.T) {
	c, points := three(t)
	dir := cluster.Dir(t)
	task := submit(t, points["a"], script(dir))
	process(t, dir, 1)
	its, other := running(t, c, points, task)
	task = filepath.Join(points[other.Name], "tasks", filepath.Base(task))
	pid := runner(t, its.Data)
	t.Cleanup(func() { _ = cluster.Detach(points[its.Name]) }) // it is dead, and nobody clears it
	its.Kill(t)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	process(t, dir, 2)
	finish(t, task, dir, 2)
}
