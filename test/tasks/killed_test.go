package tasks

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
)

var (
	seed = flag.Uint64("seed", 0, "of what is killed, and when; 0: some")
	long = flag.Bool("long", false, "kill everything at every step, and at many moments")
)

// A scene is one task of a cluster, of which somebody is killed.
type scene struct {
	*cluster.Cluster
	points map[string]string
	dir    string // what the task says outside of the tree

	leader *cluster.Machine
	its    *cluster.Machine // the task's first machine
	other  *cluster.Machine // where it is submitted and looked at: nobody is killed there
	runner int              // of its
	task   string           // its directory
}

// The moments at which somebody is killed. Each is there for certain: what would go on is
// stopped, or does not hear that it may.
var moments = []struct {
	name string
	// to goes there from when the task is assigned to its machine, of which the runner
	// stands still; back lets go on whoever still can.
	to   func(s *scene, t *testing.T)
	back func(s *scene, t *testing.T, victim string)
	// begins: there is an attempt afterwards that waits for the file go.
	begins bool
}{
	{"assigned, not claimed", func(*scene, *testing.T) {}, (*scene).wake, true},
	{"claimed, which is not heard", func(s *scene, t *testing.T) {
		s.leader.Mute(t, s.its)
		s.wake(t, "")
		s.awaitLine(t, "claimed ")
		s.hasNotBegun(t)
	}, (*scene).unmute, true},
	{"claimed, not begun", func(s *scene, t *testing.T) {
		s.its.Pause(t) // and with it the mount, which a task needs to begin
		s.wake(t, "")
		s.awaitLine(t, "claimed ")
		s.hasNotBegun(t)
	}, func(s *scene, t *testing.T, _ string) {
		if s.its.Alive() {
			s.its.Resume(t)
		}
	}, true},
	{"begun", func(s *scene, t *testing.T) {
		s.wake(t, "")
		process(t, s.dir, 1)
		s.awaitLine(t, "started ")
	}, func(*scene, *testing.T, string) {}, true},
	{"ended, not reported", func(s *scene, t *testing.T) {
		s.wake(t, "")
		first := process(t, s.dir, 1)
		s.awaitLine(t, "started ")
		s.stop(t)
		s.ends(t, first)
	}, (*scene).wake, false},
	{"reported, which is not heard", func(s *scene, t *testing.T) {
		s.wake(t, "")
		first := process(t, s.dir, 1)
		s.awaitLine(t, "started ")
		s.leader.Mute(t, s.its)
		s.ends(t, first)
		s.awaitEnd(t)
	}, (*scene).unmute, false},
}

var victims = []string{"runner", "dosd", "machine", "leader"}

// stop has the runner stand still, and wake go on, if it was not killed.
func (s *scene) stop(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(s.runner, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cluster.Await(t, soon, func() error { // a thread in a system call that cannot be interrupted stops after it
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", s.runner))
		for _, thread := range threads {
			if text := read(thread); !strings.Contains(text, "\nState:\tT") {
				return fmt.Errorf("process %d does not stand still:\n%s", s.runner, text)
			}
		}
		return err
	})
}

func (s *scene) wake(t *testing.T, victim string) {
	t.Helper()
	if victim == "runner" || victim == "machine" {
		return
	}
	if err := syscall.Kill(s.runner, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) unmute(t *testing.T, _ string) { s.leader.Unmute(t, s.its) }

// awaitLine waits until the status has a line that begins so.
func (s *scene) awaitLine(t *testing.T, prefix string) {
	t.Helper()
	awaitText(t, filepath.Join(s.task, "status"), "\n"+prefix, soon)
}

func (s *scene) trace() string { return read(filepath.Join(s.dir, "trace")) }

func (s *scene) hasNotBegun(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(s.dir, "trace")); err == nil {
		t.Errorf("it has begun:\n%s", s.trace())
	}
}

func (s *scene) letEnd(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// ends lets an attempt end, and waits until it has.
func (s *scene) ends(t *testing.T, pid int) {
	t.Helper()
	s.letEnd(t)
	cluster.Await(t, soon, func() error {
		if lives(pid) {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	})
}

// endStatus is how the task ends, when it does.
const endStatus = 7

// awaitEnd waits until the task is said to have ended, and holds that against what it did.
func (s *scene) awaitEnd(t *testing.T) {
	t.Helper()
	cluster.Await(t, 2*sessionTime+2*soon, func() error {
		if got := field(s.task, "state"); got != "failed" {
			return fmt.Errorf("it is %q:\n%s\ntrace:\n%s", got, read(filepath.Join(s.task, "status")), s.trace())
		}
		return nil
	})
	trace := s.trace()
	if end := "end of " + field(s.task, "attempt") + "\n"; !strings.Contains(trace, end) {
		t.Errorf("it is said to have ended, and has not:\n%s\ntrace:\n%s", read(filepath.Join(s.task, "status")), trace)
	}
	if got := field(s.task, "exit"); got != fmt.Sprint(endStatus) {
		t.Errorf("it ended as %q, want %d", got, endStatus)
	}
}

func (s *scene) kill(t *testing.T, victim string) {
	t.Helper()
	if victim == "runner" || victim == "machine" {
		if err := syscall.Kill(s.runner, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	switch victim {
	case "dosd", "machine":
		s.its.Kill(t)
	case "leader":
		s.leader.Kill(t)
	}
}

// play has a task run on a machine that is not the leader, and somebody killed when to has come.
func (s *scene) play(t *testing.T, rnd *rand.Rand, victim string, to func(*scene, *testing.T), back func(*scene, *testing.T, string), begins bool) {
	s.leader = s.Leader(t)
	s.its, s.other = nil, nil
	for _, i := range rnd.Perm(len(s.Machines)) {
		switch m := s.Machines[i]; {
		case m == s.leader:
		case s.its == nil:
			s.its = m
		default:
			s.other = m
		}
	}
	point := s.points[s.other.Name]
	for _, m := range s.Machines {
		s.awaitWorks(t, m)
	}
	for _, m := range s.Machines {
		weight := "weight 0.01\n"
		if m == s.its {
			weight = "weight 100\n"
		}
		if err := os.WriteFile(filepath.Join(point, "nodes", m.Name, "ctl"), []byte(weight), 0); err != nil {
			t.Fatal(err)
		}
	}
	s.dir, s.runner = cluster.Dir(t), runner(t, s.its.Data)
	s.stop(t)
	s.task = submit(t, point, fmt.Sprintf(`exec 9>%[1]s/lock
flock -n 9 || echo "two at once" >>%[1]s/trace
echo "attempt $DOS_ATTEMPT on $DOS_NODE process $$" >>%[1]s/trace
until test -e %[1]s/go; do sleep 0.05; done
echo "end of $DOS_ATTEMPT" >>%[1]s/trace
exit %[2]d`, s.dir, endStatus))
	awaitField(t, s.task, "node", s.its.Name, soon)
	if status := read(filepath.Join(s.task, "status")); strings.Contains(status, "\nclaimed ") {
		t.Errorf("it was claimed by a runner that stands still:\n%s", status)
	}
	to(s, t)
	s.kill(t, victim)
	back(s, t, victim)
	if victim == "dosd" {
		s.its.Again(t)
	}
	if begins {
		s.awaitAttempt(t)
	}
	s.letEnd(t)
	s.awaitEnd(t)
	trace := s.trace()
	if strings.Contains(trace, "two at once") {
		t.Errorf("it ran twice at once:\n%s", trace)
	}
	t.Logf("ran %d times, attempt %s", strings.Count(trace, "attempt "), field(s.task, "attempt"))
	switch {
	case victim == "machine":
		s.its.Again(t)
	case victim == "leader":
		s.leader.Again(t)
	}
	s.AwaitMembers(t, len(s.Machines), 4*soon)
}

// awaitWorks returns when the runner that a machine has now has run a task. What it is said to
// offer may be an earlier one's, until that one's session ends.
func (s *scene) awaitWorks(t *testing.T, m *cluster.Machine) {
	t.Helper()
	task := submit(t, s.points[s.other.Name], "#DOS node="+m.Name+"\ntrue")
	awaitField(t, task, "state", "done", 2*sessionTime+4*soon)
	if got := field(task, "node"); got != m.Name {
		t.Fatalf("what is for machine %s alone ran on %q", m.Name, got)
	}
}

// awaitAttempt waits until an attempt runs, and looks that it is not said to have ended before.
func (s *scene) awaitAttempt(t *testing.T) {
	t.Helper()
	cluster.Await(t, 2*sessionTime+2*soon, func() error {
		if state := field(s.task, "state"); state != "" && state != "pending" && state != "running" {
			t.Fatalf("nothing of it has ended, and it is %s:\n%s", state, read(filepath.Join(s.task, "status")))
		}
		trace := s.trace()
		if i := strings.LastIndex(trace, " process "); i >= 0 {
			var pid int
			if _, err := fmt.Sscan(trace[i+len(" process "):], &pid); err == nil && lives(pid) {
				return nil
			}
		}
		return fmt.Errorf("nothing runs:\n%s\n%s", trace, read(filepath.Join(s.task, "status")))
	})
}

// Whoever is killed in a cluster of machines, and at whatever step of a task: it ends as it
// ended, it is said to have ended when it has, it is not lost, and there are never two of it
// at once. Without -long everybody but a whole machine, which takes a session's time, is killed at
// one step.
func TestKilled(t *testing.T) {
	from := *seed
	if from == 0 {
		from = rand.Uint64N(1 << 32)
	}
	t.Logf("-seed=%d", from)
	rnd := rand.New(rand.NewPCG(from, 0))
	s := new(scene)
	s.Cluster, s.points = three(t)
	for _, m := range s.Machines { // of one that is dead when the test fails
		t.Cleanup(func() { _ = cluster.Detach(s.points[m.Name]) })
	}
	scenes := rnd.Perm(len(moments) * len(victims))
	if !*long {
		scenes = nil
		for i, victim := range victims {
			if victim != "machine" {
				scenes = append(scenes, rnd.IntN(len(moments))*len(victims)+i)
			}
		}
	}
	for _, i := range scenes {
		m, victim := moments[i/len(victims)], victims[i%len(victims)]
		t.Run(victim+" when "+m.name, func(t *testing.T) { s.play(t, rnd, victim, m.to, m.back, m.begins) })
		if t.Failed() {
			return
		}
	}
	if !*long {
		return
	}
	for range 24 { // and at whatever step it is then
		after, victim := time.Duration(rnd.Int64N(int64(300*time.Millisecond))), victims[rnd.IntN(len(victims))]
		t.Run(fmt.Sprint(victim, " after ", after), func(t *testing.T) {
			s.play(t, rnd, victim, func(s *scene, t *testing.T) {
				s.wake(t, "")
				time.Sleep(after)
			}, func(*scene, *testing.T, string) {}, true)
		})
		if t.Failed() {
			return
		}
	}
}
