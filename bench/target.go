package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// upLimit bounds the time until a mount is usable, downLimit that until it
	// has ended cleanly, with all its data written.
	upLimit   = time.Minute
	downLimit = 2 * time.Minute
	// sampleEvery is how often the memory of dosmount is looked at.
	sampleEvery = 100 * time.Millisecond
)

// A target is a directory to measure, mounted only while it is measured.
type target interface {
	name() string
	// up mounts it and returns the directory; down unmounts it.
	up(ctx context.Context) (dir string, err error)
	down() error
}

// plain is a directory on the file system of --data.
type plain struct{ dir string }

func newPlain(work string) (*plain, error) {
	p := &plain{filepath.Join(work, "plain")}
	return p, os.Mkdir(p.dir, 0o755)
}

func (p *plain) name() string                       { return "plain" }
func (p *plain) up(context.Context) (string, error) { return p.dir, nil }
func (p *plain) down() error                        { return nil }

// pt is the pass-through mount of a directory on the same file system.
type pt struct {
	self, source, point string
	readAhead           int // KiB; 0: as the kernel has it
	proc                *process
}

func newPT(self, work string, readAhead int) (*pt, error) {
	p := &pt{self: self, source: filepath.Join(work, "pt-source"), point: filepath.Join(work, "pt"), readAhead: readAhead}
	return p, errors.Join(os.Mkdir(p.source, 0o755), os.Mkdir(p.point, 0o755))
}

func (p *pt) name() string { return "PT" }

func (p *pt) up(ctx context.Context) (string, error) {
	proc, err := start(ctx, p.point, p.self, ptFlag, p.source, p.point)
	if err != nil {
		return "", err
	}
	p.proc = proc
	if p.readAhead > 0 && os.Geteuid() == 0 {
		file, err := readAheadFile(p.point)
		if err == nil {
			err = os.WriteFile(file, []byte(strconv.Itoa(p.readAhead)), 0o644)
		}
		if err != nil {
			return "", errors.Join(err, p.down())
		}
	}
	return p.point, nil
}

func (p *pt) down() error { return stop(&p.proc) }

// dos is dosmount with an embedded cluster on the same file system.
type dos struct {
	bin, data, point string
	readAhead        int // KiB, of its mount

	proc    *process
	sampler sync.WaitGroup
	quit    chan struct{}
	maxRSS  int64 // bytes, anonymous; written by the sampler, read after down
}

// newDos mounts once, to learn the read-ahead that PT is to have too.
func newDos(ctx context.Context, bin, work string) (*dos, error) {
	d := &dos{bin: bin, data: filepath.Join(work, "dos-data"), point: filepath.Join(work, "dos")}
	if _, err := d.up(ctx); err != nil {
		return nil, err
	}
	err := func() error {
		file, err := readAheadFile(d.point)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		d.readAhead, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err
	}()
	return d, errors.Join(err, d.down())
}

func (d *dos) name() string { return "dos" }

func (d *dos) up(ctx context.Context) (string, error) {
	proc, err := start(ctx, d.point, d.bin, "--data", d.data, d.point)
	if err != nil {
		return "", err
	}
	d.proc, d.quit = proc, make(chan struct{})
	d.sampler.Go(func() { d.sample(proc.cmd.Process.Pid, d.quit) })
	// The root belongs to the user; the rest of it stays as it is.
	dir := filepath.Join(d.point, "bench")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", errors.Join(err, d.down())
	}
	return dir, nil
}

func (d *dos) down() error {
	if d.proc != nil {
		close(d.quit)
		d.sampler.Wait()
	}
	return stop(&d.proc)
}

// sample keeps the largest anonymous memory of the process until quit closes.
func (d *dos) sample(pid int, quit <-chan struct{}) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return // the process has ended; whoever waits for it says why
		}
		d.maxRSS = max(d.maxRSS, rssAnon(b))
	}
}

// rssAnon finds the anonymous memory, in bytes, in what /proc/PID/status says.
func rssAnon(status []byte) int64 {
	for line := range bytes.Lines(status) {
		if f := bytes.Fields(line); len(f) >= 2 && string(f[0]) == "RssAnon:" {
			kib, err := strconv.ParseInt(string(f[1]), 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// readAheadFile is where the kernel keeps the read-ahead of a mount.
func readAheadFile(point string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(point, &st); err != nil {
		return "", fmt.Errorf("%s: %w", point, err)
	}
	return fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev)), nil
}

// process is a server that mounts.
type process struct {
	cmd    *exec.Cmd
	point  string
	stderr bytes.Buffer // to be read after done
	done   chan struct{}
	err    error // how it ended; valid after done
}

// start runs a server and returns when it has printed its first line: that
// it is mounted.
func start(ctx context.Context, point, bin string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(bin, args...), point: point, done: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	// An interrupt at the terminal is for us, who unmount in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	up := make(chan bool, 1)
	started := p // stop forgets p
	go func() {
		p := started
		defer close(p.done)
		lines := bufio.NewScanner(stdout)
		up <- lines.Scan()
		for lines.Scan() {
			continue // whatever else it prints is not for us
		}
		p.err = p.cmd.Wait()
	}()
	select {
	case ok := <-up:
		if ok {
			return p, nil
		}
		<-p.done
		return nil, fmt.Errorf("%s: %w\n%s", p.cmd, p.err, p.stderr.Bytes())
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(upLimit):
		err = fmt.Errorf("%s is not up after %v", p.cmd, upLimit)
	}
	return nil, errors.Join(err, stop(&p))
}

// stop ends a server in order, else by force; nothing stays mounted. It
// forgets the process, so that stopping twice is no error.
func stop(proc **process) error {
	p := *proc
	if p == nil {
		return nil
	}
	*proc = nil
	var err error
	for _, step := range []struct {
		sig   os.Signal
		limit time.Duration
	}{{syscall.SIGTERM, downLimit}, {syscall.SIGKILL, upLimit}} {
		if e := p.cmd.Process.Signal(step.sig); e != nil && !errors.Is(e, os.ErrProcessDone) {
			err = errors.Join(err, e)
		}
		select {
		case <-p.done:
			if p.err != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w\n%s", p.cmd, p.err, p.stderr.Bytes()))
			}
			return errors.Join(err, detach(p.point))
		case <-time.After(step.limit):
			err = errors.Join(err, fmt.Errorf("%s did not end within %v of %v", p.cmd, step.limit, step.sig))
		}
	}
	return errors.Join(err, detach(p.point))
}

// detach takes away what is still mounted at a point, whoever uses it.
func detach(point string) error {
	for {
		on, err := mounted(point)
		if err != nil || !on {
			return err
		}
		if os.Geteuid() == 0 {
			err = unix.Unmount(point, unix.MNT_DETACH)
		} else {
			err = exec.Command("fusermount3", "-u", "-z", point).Run()
		}
		if err != nil {
			return fmt.Errorf("unmounting %s: %w", point, err)
		}
	}
}

// mounted reports whether something is mounted at or below a path.
func mounted(path string) (bool, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false, err
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) > 1 && (string(f[1]) == path || strings.HasPrefix(string(f[1]), path+"/")) {
			return true, nil
		}
	}
	return false, nil
}

// removeUnmounted removes a directory, but not through a mount that is still there.
func removeUnmounted(dir string) error {
	if on, err := mounted(dir); err != nil || on {
		return errors.Join(err, fmt.Errorf("%s is left: something is still mounted below it", dir))
	}
	return os.RemoveAll(dir)
}

// dropCaches empties the kernel's caches; only root can.
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200)
}
