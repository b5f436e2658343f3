package run

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// fault starts a task of a host in a process of its own that writes numbers of processes to a
// file: of its first, and of one that got away.
func fault(t *testing.T, bare bool) (s separate, pids []int) {
	if !bare {
		openHost(t, false) // it skips where there are no cgroups
	}
	said := filepath.Join(t.TempDir(), "said")
	f, err := os.Create(said)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	s = separateHost(t, t.TempDir(), bare, "f1", "exec >>"+said+"\ntrap '' TERM\necho first $$\n"+escape+"while :; do sleep 0.05; done")
	r := ran{out: f}
	pids = []int{r.number(t, "first "), r.number(t, "away ")}
	for _, pid := range pids {
		if !lives(pid) {
			t.Fatalf("process %d does not run", pid)
		}
	}
	t.Cleanup(func() {
		s.Process.Kill()
		s.Wait()
		h, err := Open(context.Background(), Config{Dir: s.dir, Bare: bare})
		if err != nil {
			t.Fatal(err)
		}
		removeAll(t, h)
		for _, pid := range pids {
			if lives(pid) {
				t.Errorf("process %d lives although there is a new host", pid)
			}
		}
	})
	return s, pids
}

func noneLives(pids []int) func() bool {
	return func() bool {
		for _, pid := range pids {
			if lives(pid) {
				return false
			}
		}
		return true
	}
}

func eachFault(t *testing.T, test func(t *testing.T, s separate, pids []int)) {
	for name, bare := range map[string]bool{"cgroups": false, "bare": true} {
		t.Run(name, func(t *testing.T) {
			s, pids := fault(t, bare)
			test(t, s, pids)
		})
	}
}

func TestHostKilled(t *testing.T) {
	eachFault(t, func(t *testing.T, s separate, pids []int) {
		began := time.Now()
		s.Process.Kill()
		eventually(t, "their death", noneLives(pids))
		if took := time.Since(began); took > hostTasks/2 {
			t.Errorf("it took %v", took)
		}
	})
}

// Who stands still does not keep its tasks alive.
func TestHostStopped(t *testing.T) {
	eachFault(t, func(t *testing.T, s separate, pids []int) {
		if err := s.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		eventually(t, "their death", noneLives(pids))
		if took := time.Since(began); took > hostTasks+time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestShimKilled(t *testing.T) {
	eachFault(t, func(t *testing.T, s separate, pids []int) {
		began := time.Now()
		if err := syscall.Kill(s.shim(t, "f1"), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "their death", noneLives(pids))
		if took := time.Since(began); took > hostTasks/2 {
			t.Errorf("it took %v", took)
		}
	})
}

// When both die at once something may get away: until the next host begins.
func TestBothKilled(t *testing.T) {
	eachFault(t, func(t *testing.T, s separate, pids []int) {
		shim := s.shim(t, "f1")
		s.Process.Signal(syscall.SIGSTOP)
		if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.Process.Kill()
		eventually(t, "the death of the first", noneLives(pids[:1]))
		if !lives(pids[1]) {
			t.Log("nothing got away: the new host has nothing to do")
		}
	})
}

// What a host has started, and it itself, is known as its own by others, also when it and the shim are
// killed. Nobody else is.
func TestOwns(t *testing.T) {
	eachFault(t, func(t *testing.T, s separate, pids []int) {
		shim, host := s.shim(t, "f1"), s.Process.Pid
		for what, pid := range map[string]int{"its first process": pids[0], "what got away": pids[1], "the shim": shim, "the host": host, "who is gone": 1 << 22} {
			if !Owns(s.dir, host, pid) {
				t.Errorf("%s, process %d, is not its own", what, pid)
			}
		}
		for what, pid := range map[string]int{"this process": os.Getpid(), "a thread of it": syscall.Gettid(), "the first of all": 1} {
			if Owns(s.dir, host, pid) {
				t.Errorf("%s is its own", what)
			}
		}
		if Owns(t.TempDir(), 0, pids[0]) || Owns(filepath.Join(s.dir, "none"), 0, pids[0]) {
			t.Error("it is of a host that is none")
		}
		s.Process.Signal(syscall.SIGSTOP)
		if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.Process.Kill()
		for range 100 {
			if !Owns(s.dir, host, pids[1]) {
				t.Fatal("what is left is nobody's")
			}
		}
		if Owns(s.dir, host, os.Getpid()) {
			t.Error("now this process is its own")
		}
	})
}

// What stood still in its group when both died is killed by the next host.
func TestFrozenLeft(t *testing.T) {
	s, pids := fault(t, false)
	var r record
	text, err := os.ReadFile(filepath.Join(s.dir, "f1"+recordSuffix))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	g, err := openGroup(r.Group, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := g.freeze(true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.freeze(false) })
	if err := syscall.Kill(r.Shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.Wait() // it was killed
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h, err := Open(ctx, Config{Dir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	removeAll(t, h)
	if !noneLives(pids)() {
		t.Error("what stood still lives")
	}
}

// A shim that somebody stopped does not save its task from being killed.
func TestShimStopped(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		r := begin(t, h, Spec{Script: []byte("while :; do sleep 0.1; done")})
		if err := r.shim.process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		r.Kill()
		if end := r.wait(t); !end.Lost || lives(r.PID()) {
			t.Errorf("%v", end)
		}
	})
}

// BenchmarkStart is how long a task takes that does nothing, when as many run at
// once as a busy machine has.
func BenchmarkStart(b *testing.B) {
	for _, bare := range []bool{false, true} {
		name := "cgroups"
		if bare {
			name = "bare"
		}
		b.Run(name, func(b *testing.B) {
			h := openHost(b, bare)
			var n atomic.Int64
			var waited atomic.Int64
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					began := time.Now()
					p, err := h.Start(Spec{ID: fmt.Sprintf("b%d", n.Add(1)), Script: []byte("exit 0"), Until: forever(), Limits: Limits{CPU: 1, Memory: 1 << 30, Processes: 100}})
					if err != nil {
						b.Error(err)
						return
					}
					waited.Add(int64(time.Since(began)))
					<-p.Done()
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
			b.ReportMetric(float64(waited.Load())/float64(b.N)/1e6, "ms/start")
		})
	}
}

// The next task has the shim of the one before, and nothing else of it. One that somebody
// killed meanwhile is not used.
func TestNextTask(t *testing.T) {
	each(t, func(t *testing.T, h *Host) {
		var pids []int
		for i, test := range []struct {
			spec Spec
			kill bool
			want string
		}{
			{Spec{Script: []byte("umask 077; exec 7>/dev/null; echo $A; sleep 60 & exit 3"), Env: []string{"A=1"}}, false, "1\n"},
			{Spec{Script: []byte("umask; echo $A; exec ls /proc/self/fd")}, true, fmt.Sprintf("%04o\n\n0\n1\n2\n3\n4\n", umask())},
			{Spec{Argv: []string{"/bin/sh", "-c", "ls /proc/self/fd; exec ps -o comm= --ppid $PPID"}}, false, "0\n1\n2\n3\nps\n"},
		} {
			r := begin(t, h, test.spec)
			pids = append(pids, r.shim.process.Pid)
			if r.wait(t); r.text(t) != test.want {
				t.Errorf("task %d said %q, want %q", i, r.text(t), test.want)
			}
			if test.kill {
				if err := syscall.Kill(r.shim.process.Pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				eventually(t, "its death", func() bool { return !r.shim.host.silent() })
			}
		}
		if pids[0] != pids[1] || pids[1] == pids[2] {
			t.Errorf("the shims of three tasks are %d, the second was killed", pids)
		}
	})
}

func umask() int {
	n := syscall.Umask(0)
	syscall.Umask(n)
	return n
}
