package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"dos/meta/client"
	"dos/meta/task"
)

const (
	// runnerPoll is how often it is looked whether the runner is there.
	runnerPoll = 250 * time.Millisecond
	// runnerUp bounds how long a runner may take until it holds its lock.
	runnerUp = 5 * time.Second
	// runnerPause is between the start of a runner and the next one, if it does not stay.
	runnerPause = 2 * time.Second
	// runnerHangs is for how long a runner may not beat until it is killed: by then its session is
	// over, and its tasks' hour has come, so another can have them.
	runnerHangs = client.SessionTTL + 5*time.Second
	// runnerLogMax is when the log of runners is begun anew, in bytes.
	runnerLogMax = 4 << 20
)

const (
	// endWait bounds how long a runner that is told to end is waited for: it kills its
	// tasks. One that may have tasks is asked whether it has for idleWait.
	endWait  = 10 * time.Second
	idleWait = time.Second
)

// beginRunner keeps a runner until ctx ends. What it returns ends that: an embedded
// cluster, which is all that there is, takes its tasks with it; those of a machine of a
// cluster go on.
func beginRunner(ctx context.Context, c runnerConfig) (leave func()) {
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := keepRunner(ctx, c); err != nil {
			slog.Error("node: no tasks run here", "err", err)
		}
	}()
	return func() {
		stop()
		<-done
		if c.Embedded {
			leaveRunner(c, syscall.SIGTERM, endWait)
		} else {
			leaveRunner(c, syscall.SIGUSR1, idleWait)
		}
	}
}

// keepRunner has a runner run until ctx ends: the one that a process before this one
// started, if it is there, else a new one. Those of other versions and configurations
// are told to end with their last task. One that stands still is killed.
func keepRunner(ctx context.Context, c runnerConfig) error {
	if err := os.MkdirAll(c.dir(), 0o700); err != nil {
		return err
	}
	told := make(map[string]bool)
	beats := make(beats)
	var last time.Time
	for {
		others, err := runDirs(c)
		if err != nil {
			return err
		}
		for _, dir := range others {
			if !told[dir] {
				told[dir] = true
				tellRunner(dir, syscall.SIGHUP)
			}
		}
		for _, dir := range append(others, c.dir()) {
			if beats.hangs(dir) {
				slog.Error("node: a runner of the machine's tasks stands still, and is killed", "dir", dir)
				tellRunner(dir, syscall.SIGKILL)
			}
		}
		lock, err := takeRunDir(c.dir())
		if err != nil {
			return err
		}
		if lock != nil {
			lock.Close()
			if !last.IsZero() {
				slog.Warn("node: the runner of the machine's tasks ended; another begins", "log", filepath.Join(runsDir(c.Data), "log"))
			}
			if wait := runnerPause - time.Since(last); !last.IsZero() && wait > 0 && sleep(ctx, wait) != nil {
				return nil
			}
			last = time.Now()
			if err := startRunner(ctx, c); err != nil {
				slog.Error("node: no task runs here", "err", err)
			}
		}
		if sleep(ctx, runnerPoll) != nil {
			return nil
		}
	}
}

// beats are what was seen of runners, by their folders.
type beats map[string]*beat

type beat struct {
	at    time.Time // of the runner
	polls int       // since that was another
}

// hangs is asked at each poll, and says whether a runner has not beaten for as many as
// runnerHangs has: a time in which this process stood still too does not count.
func (b beats) hangs(dir string) bool {
	info, err := os.Stat(lockFile(dir))
	if err != nil || !heldRunDir(dir) {
		delete(b, dir)
		return false
	}
	seen := b[dir]
	if seen == nil || !seen.at.Equal(info.ModTime()) {
		b[dir] = &beat{at: info.ModTime()}
		return false
	}
	seen.polls++
	return seen.polls > int(runnerHangs/runnerPoll)
}

// startRunner starts a runner, and returns when it is there. It does not end with
// this process.
func startRunner(ctx context.Context, c runnerConfig) error {
	name := filepath.Join(runsDir(c.Data), "log")
	if info, err := os.Stat(name); err == nil && info.Size() > runnerLogMax {
		if err := os.Rename(name, name+".old"); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{runnerName, c.text()}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { // ends with the runner, which may outlive this process
		_ = cmd.Wait()
		close(ended)
	}()
	for began := time.Now(); time.Since(began) < runnerUp; {
		if heldRunDir(c.dir()) {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("the runner ended: %v, as %s says", cmd.ProcessState, name)
		default:
		}
		if sleep(ctx, 5*time.Millisecond) != nil {
			// It may not hold its folder yet, so that nobody else finds it.
			_ = cmd.Process.Signal(syscall.SIGUSR1) // or it has ended
			select {
			case <-ended:
			case <-time.After(idleWait):
			}
			return nil
		}
	}
	return fmt.Errorf("the runner does not begin within %v", runnerUp)
}

// heldRunDir reports whether a runner has a folder.
func heldRunDir(dir string) bool {
	lock, err := os.Open(lockFile(dir))
	if err != nil {
		return false
	}
	defer lock.Close()
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// tellRunner sends the runner of a folder a signal, if there is one.
func tellRunner(dir string, sig syscall.Signal) {
	lock, err := os.Open(lockFile(dir))
	if err != nil {
		return
	}
	defer lock.Close()
	var pid int
	if n, _ := fmt.Sscanf(holder(lock), "process %d", &pid); n == 1 && heldRunDir(dir) {
		_ = syscall.Kill(pid, sig)
	}
}

// leaveRunner ends the runners of a machine that stops, before its tree is
// unmounted: with TERM and all they run, with USR1 those without tasks. It waits for
// that, as long as limit.
func leaveRunner(c runnerConfig, sig syscall.Signal, limit time.Duration) {
	dirs, err := runDirs(c)
	if err != nil {
		return
	}
	dirs = append(dirs, c.dir())
	for began := time.Now(); time.Since(began) < limit; time.Sleep(5 * time.Millisecond) {
		for _, dir := range dirs { // again and again: one that has just begun has no name yet
			tellRunner(dir, sig)
		}
		if !heldRunDir(c.dir()) {
			return
		}
	}
}

// offerOf is what a machine has for tasks: all of its processors, its memory but for a part that
// it needs itself, its graphics processors, and what its administrator says.
func offerOf(node string, labels map[string]string, said task.Resources) task.Offer {
	have := task.Resources{CPU: int64(runtime.NumCPU()) * 1000, Count: make(map[string]int64)}
	_, memory := loadAndMemory()
	have.Mem = max(memory.Total-max(memory.Total/8, memoryReserve), memory.Total/2)
	if gpus, err := filepath.Glob("/dev/nvidia[0-9]*"); err == nil && len(gpus) > 0 {
		have.Count["gpu"] = int64(len(gpus))
	}
	if said.CPU > 0 {
		have.CPU = said.CPU
	}
	if said.Mem > 0 {
		have.Mem = said.Mem
	}
	for name, n := range said.Count {
		have.Count[name] = n
	}
	return task.Offer{Node: node, Have: have, Labels: labels, Slots: task.SlotsMax}
}

// ParseResources reads what a machine's administrator says that tasks may use: KEY=N
// each, as tasks ask for it, cpu, mem and gpu among them.
func ParseResources(list []string) (task.Resources, error) {
	var s task.Spec
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return s.Need, fmt.Errorf("%q is not KEY=N", text)
		}
		switch key {
		case "cpu", "mem", "gpu":
		default:
			key, value = "res", key+":"+value
		}
		if err := s.Set(key, value, time.Time{}); err != nil {
			return s.Need, err
		}
	}
	return s.Need, nil
}

// memoryReserve is what is kept of a machine's memory for the machine, in bytes.
const memoryReserve = 1 << 30
