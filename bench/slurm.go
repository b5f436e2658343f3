package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"dos/bench/load"
)

// A slurm is one machine with Slurm: a controller that notes jobs on disk, and a daemon
// that runs them, without cgroups. It is as by default, but for one thing: it would gather jobs
// for three seconds before it looks at them.
type slurm struct {
	dir   string
	conf  string
	procs []*exec.Cmd

	options []string // of each submission
}

// newSlurm prepares one, or says why it cannot be.
func newSlurm(work string) (*slurm, error) {
	for _, bin := range []string{"munged", "slurmctld", "slurmd", "sbatch"} {
		if _, err := exec.LookPath(bin); err != nil {
			return nil, fmt.Errorf("%s is not installed: apt-get install munge slurmctld slurmd slurm-client (or your distribution's packages)", bin)
		}
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("slurmd needs root")
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	host, _, _ = strings.Cut(host, ".")
	s := &slurm{dir: filepath.Join(work, "slurm")}
	s.conf = filepath.Join(s.dir, "slurm.conf")
	ports := make([]string, 2)
	for i := range ports {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		_, ports[i], _ = strings.Cut(addr, ":")
	}
	key := make([]byte, 1024)
	rand.Read(key)
	text := fmt.Sprintf(`ClusterName=bench
SlurmctldHost=%[1]s(127.0.0.1)
SlurmctldPort=%[3]s
SlurmdPort=%[4]s
AuthType=auth/munge
AuthInfo=socket=%[2]s/munge.sock
SlurmUser=root
StateSaveLocation=%[2]s/state
SlurmdSpoolDir=%[2]s/spool
SlurmctldPidFile=%[2]s/slurmctld.pid
SlurmdPidFile=%[2]s/slurmd.pid
SlurmctldLogFile=%[2]s/slurmctld.log
SlurmdLogFile=%[2]s/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0
ReturnToService=2
NodeName=%[1]s NodeAddr=127.0.0.1 CPUs=%[5]d State=UNKNOWN
PartitionName=bench Nodes=ALL Default=YES MaxTime=INFINITE State=UP
`, host, s.dir, ports[0], ports[1], runtime.NumCPU())
	return s, errors.Join(
		os.MkdirAll(filepath.Join(s.dir, "state"), 0o755),
		os.MkdirAll(filepath.Join(s.dir, "spool"), 0o755),
		os.WriteFile(filepath.Join(s.dir, "munge.key"), key, 0o600),
		os.WriteFile(s.conf, []byte(text), 0o644),
	)
}

// measure measures the same as dosTasks does.
func (s *slurm) measure(ctx context.Context, say func(cell string, v float64)) (err error) {
	defer func() { err = errors.Join(err, s.down()) }()
	if err := s.up(ctx); err != nil {
		return err
	}
	ended, err := load.Jobs(ctx, s, jobClients, slurmCount)
	if err != nil {
		return err
	}
	say("jobs", ended)
	took, err := load.Starts(ctx, s, slurmStarts)
	if err != nil {
		return err
	}
	say("start", float64(took)/1e6)
	s.options = []string{"--begin", "now+1hour"}
	defer func() { s.options = nil }()
	submitted, err := load.Submissions(ctx, s, submitClients, submitCount/4)
	if err != nil {
		return err
	}
	say("submit", submitted)
	_, err = s.ask(ctx, "scancel", "--user", "root")
	return err
}

// up starts it and waits until its machine is idle.
func (s *slurm) up(ctx context.Context) error {
	for _, args := range [][]string{
		{"munged", "--foreground", "--force", "--socket=" + s.dir + "/munge.sock", "--key-file=" + s.dir + "/munge.key",
			"--pid-file=" + s.dir + "/munged.pid", "--log-file=" + s.dir + "/munged.log", "--seed-file=" + s.dir + "/munged.seed"},
		{"slurmctld", "-D", "-c", "-f", s.conf},
		{"slurmd", "-D", "-c", "-f", s.conf},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		s.procs = append(s.procs, cmd)
		if args[0] == "munged" {
			if err := s.await(ctx, func() bool { _, err := os.Stat(s.dir + "/munge.sock"); return err == nil }); err != nil {
				return err
			}
		}
	}
	return s.await(ctx, func() bool {
		out, err := s.ask(ctx, "sinfo", "-h", "-o", "%T")
		return err == nil && strings.TrimSpace(out) == "idle"
	})
}

// down ends it, the last that was started first.
func (s *slurm) down() (err error) {
	for len(s.procs) > 0 {
		cmd := s.procs[len(s.procs)-1]
		s.procs = s.procs[:len(s.procs)-1]
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM))
		kill := time.AfterFunc(upLimit, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // a signal ended it, ours
		kill.Stop()
	}
	return err
}

func (s *slurm) await(ctx context.Context, is func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, upLimit)
	defer cancel()
	for !is() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			logs, _ := filepath.Glob(s.dir + "/*.log")
			var text []byte
			for _, name := range logs {
				log, _ := os.ReadFile(name)
				text = append(text, log[max(0, len(log)-2000):]...)
			}
			return fmt.Errorf("it does not come: %w\n%s", ctx.Err(), text)
		}
	}
	return nil
}

func (s *slurm) ask(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "SLURM_CONF="+s.conf)
	cmd.Dir = s.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", cmd, err, stderr.Bytes())
	}
	return string(out), err
}

func (s *slurm) submit(ctx context.Context, script, output string) error {
	args := append([]string{"sbatch", "--parsable", "-n1", "-o", output, "--wrap", script}, s.options...)
	_, err := s.ask(ctx, args...)
	return err
}

func (s *slurm) Submit(ctx context.Context) error { return s.submit(ctx, "true", "/dev/null") }

func (s *slurm) Settle(ctx context.Context) error {
	return s.await(ctx, func() bool {
		out, err := s.ask(ctx, "squeue", "-h", "-t", "PENDING,CONFIGURING,RUNNING,COMPLETING")
		return err == nil && strings.TrimSpace(out) == ""
	})
}

func (s *slurm) Start(ctx context.Context) (time.Time, error) {
	file := filepath.Join(s.dir, "when")
	if err := os.RemoveAll(file); err != nil {
		return time.Time{}, err
	}
	if err := s.submit(ctx, saysWhen, file); err != nil {
		return time.Time{}, err
	}
	if err := s.Settle(ctx); err != nil {
		return time.Time{}, err
	}
	return when(file)
}
