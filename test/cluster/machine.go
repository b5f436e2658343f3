package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Machine is a dosd and the place where it runs. Its methods are for one
// goroutine at a time.
type Machine struct {
	Name string
	Data string // its --data
	Addr string // HOST:PORT

	daemon
}

// A Spec is what is asked of a machine. The zero value is a machine with all roles.
type Spec struct {
	Name  string // by default a, b, c, … in the order of joining
	Roles string // of --roles
	Data  string // a new directory by default
	Clock *Clock
	Flags []string
}

// Again starts it once more, after Stop or Kill, and returns when it serves.
func (m *Machine) Again(tb testing.TB) {
	tb.Helper()
	if err := m.start(); err != nil {
		tb.Fatal(err)
	}
	m.ready(tb)
}

// start starts it and does not wait.
func (m *Machine) start() (err error) {
	m.proc, err = start(m.clock.command(m.host, "dosd", m.args...), &m.log)
	return err
}

func (m *Machine) ready(tb testing.TB) {
	tb.Helper()
	if err := m.proc.up("dosd: serving on " + m.Addr); err != nil {
		tb.Fatalf("machine %s: %v\n%s", m.Name, err, m.log.tail())
	}
}

// Stop ends it as SIGTERM does and checks that it ended well.
func (m *Machine) Stop(tb testing.TB) {
	tb.Helper()
	p := m.proc
	m.proc = nil
	if err := p.end(syscall.SIGTERM, downLimit); err != nil {
		tb.Fatalf("machine %s: %s after SIGTERM: %v\n%s", m.Name, p, err, m.log.tail())
	}
}

// Kill ends it as a crash does.
func (m *Machine) Kill(tb testing.TB) {
	tb.Helper()
	p := m.proc
	m.proc = nil
	if err := p.kill(); err != nil {
		tb.Fatalf("machine %s: %s after SIGKILL: %v", m.Name, p, err)
	}
}

// Crash ends all that runs on it, its tasks too, as when its power fails. It must be on a
// network. What it had mounted stays behind, dead.
func (m *Machine) Crash(tb testing.TB) {
	tb.Helper()
	Await(tb, downLimit, func() error {
		pids := m.host.pids(tb)
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
				return err
			}
		}
		if len(pids) > 0 {
			return fmt.Errorf("machine %s: %d processes are there still", m.Name, len(pids))
		}
		return nil
	})
	<-m.proc.done
	m.proc = nil
}

// KillAgain kills it and starts it once more at once, as a supervisor does that
// does not wait for what is left of it.
func (m *Machine) KillAgain(tb testing.TB) {
	tb.Helper()
	p := m.proc
	m.signal(tb, syscall.SIGKILL)
	m.Again(tb)
	<-p.done
}

// Refused starts it, expects that it ends by itself, and returns how.
func (m *Machine) Refused(tb testing.TB) Result {
	tb.Helper()
	cmd := m.clock.command(m.host, "dosd", m.args...)
	return Run(tb, cmd.Path, cmd.Args[1:]...)
}

// Ended returns how it ended by itself, which it must within a time.
func (m *Machine) Ended(tb testing.TB) Result {
	tb.Helper()
	p := m.proc
	select {
	case <-p.done:
	case <-time.After(downLimit):
		tb.Fatalf("machine %s has not ended by itself in %v\n%s", m.Name, downLimit, m.log.tail())
	}
	m.proc = nil
	return Result{Code: p.cmd.ProcessState.ExitCode(), Stderr: m.log.String()}
}

// Mute has everything vanish that this machine sends to another one, which goes on being
// heard: what it asks is done, and it does not hear so. Unmute ends it. They must be on
// a network.
func (m *Machine) Mute(tb testing.TB, to *Machine) {
	tb.Helper()
	m.host.mute(tb, to.host)
}

// Unmute ends a Mute.
func (m *Machine) Unmute(tb testing.TB, to *Machine) {
	tb.Helper()
	m.host.unmute(tb, to.host)
}

// Wipe deletes all that its store in the data directory has, as a disk that dies
// does. The machine runs or not.
func (m *Machine) Wipe(tb testing.TB) {
	tb.Helper()
	if err := os.RemoveAll(filepath.Join(m.Data, "chunk", "0")); err != nil {
		tb.Fatal(err)
	}
}

// Alive reports whether the process runs.
func (m *Machine) Alive() bool { return m.proc.alive() }

// Ctl runs dosctl on this machine.
func (m *Machine) Ctl(tb testing.TB, args ...string) Result {
	tb.Helper()
	return Run(tb, Bin("dosctl"), append([]string{"--data", m.Data}, args...)...)
}

// Status is what dosctl status --long says on this machine: lines of a key and a value.
func (m *Machine) Status(tb testing.TB) (map[string]string, error) {
	tb.Helper()
	r := m.Ctl(tb, "status", "--long")
	if r.Code != 0 {
		return nil, fmt.Errorf("dosctl status on %s: exit status %d: %s", m.Name, r.Code, strings.TrimSpace(r.Stderr))
	}
	return parseStatus(r.Stdout), nil
}

// loopback is an address that no other process uses: they share 127/8 by their ids.
func loopback(tb testing.TB, n int) string {
	tb.Helper()
	pid := os.Getpid()
	host := fmt.Sprintf("127.%d.%d.%d", 1+pid>>8&0x7f, pid&0xff, n)
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// port is what machines with addresses of their own listen on.
const port = 7600

// statusLimit bounds how long a change may take to show in the status.
const statusLimit = time.Minute

// A Cluster is machines that know each other, and mounts of it.
type Cluster struct {
	Machines []*Machine // those that are or were members, in the order of joining

	net    *network // nil: they are on loopback addresses
	dir    string
	all    []*Machine // members or not
	mounts int        // that there were
}

// Founded starts the first machine of a new cluster, with a network on which
// each machine has its own address.
func Founded(tb testing.TB, code string, first Spec) *Cluster {
	tb.Helper()
	return found(tb, &Cluster{net: newNetwork(tb)}, code, first)
}

// FoundedLocal is Founded without such a network: on loopback addresses.
// It is faster and needs no rights, and nothing can be cut.
func FoundedLocal(tb testing.TB, code string, first Spec) *Cluster {
	tb.Helper()
	return found(tb, new(Cluster), code, first)
}

func found(tb testing.TB, c *Cluster, code string, first Spec) *Cluster {
	tb.Helper()
	c.dir = Dir(tb)
	tb.Cleanup(func() { c.cleanup(tb) })
	m := c.New(tb, first, "--bootstrap", "--ec", code)
	m.Again(tb)
	c.Machines = append(c.Machines, m)
	c.Leader(tb)
	return c
}

// Three founds a cluster of three machines with all roles, and waits until all take
// part: found is Founded or FoundedLocal.
func Three(tb testing.TB, found func(testing.TB, string, Spec) *Cluster, code string) *Cluster {
	tb.Helper()
	c := found(tb, code, Spec{})
	c.Join(tb, Spec{})
	c.Join(tb, Spec{})
	c.AwaitWhole(tb, 2*statusLimit)
	return c
}

// New prepares a machine that is not a member yet. Again starts it.
func (c *Cluster) New(tb testing.TB, s Spec, flags ...string) *Machine {
	tb.Helper()
	m := &Machine{Name: s.Name, Data: s.Data, daemon: daemon{clock: s.Clock}}
	if m.Name == "" {
		m.Name = string(rune('a' + len(c.all)))
	}
	if m.Data == "" {
		m.Data = filepath.Join(c.dir, m.Name)
	}
	if c.net == nil {
		m.Addr = loopback(tb, len(c.all)+1)
	} else {
		m.host = c.net.addHost(tb)
		m.Addr = net.JoinHostPort(m.host.addr, strconv.Itoa(port))
	}
	m.args = append([]string{"--data", m.Data, "--listen", m.Addr, "--name", m.Name}, flags...)
	if s.Roles != "" {
		m.args = append(m.args, "--roles", s.Roles)
	}
	m.args = append(m.args, s.Flags...)
	c.all = append(c.all, m)
	return m
}

// Token makes a token: with --node for a machine, with --client for a mount.
func (c *Cluster) Token(tb testing.TB, flags ...string) string {
	tb.Helper()
	r := c.Ctl(tb, append([]string{"token", "create"}, flags...)...)
	if r.Code != 0 {
		tb.Fatalf("dosctl token create: exit status %d\n%s", r.Code, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// Join has one more machine join, and returns when it takes part.
func (c *Cluster) Join(tb testing.TB, s Spec) *Machine {
	tb.Helper()
	m := c.New(tb, s, "--join", c.Token(tb, "--node"))
	m.Again(tb)
	c.Machines = append(c.Machines, m)
	return m
}

// alive is a machine that runs.
func (c *Cluster) alive() (*Machine, error) {
	for _, m := range c.Machines {
		if m.Alive() {
			return m, nil
		}
	}
	return nil, errors.New("no machine runs")
}

// Ctl runs dosctl on a machine that runs.
func (c *Cluster) Ctl(tb testing.TB, args ...string) Result {
	tb.Helper()
	m, err := c.alive()
	if err != nil {
		tb.Fatal(err)
	}
	return m.Ctl(tb, args...)
}

// Status is what dosctl status says on a machine that runs.
func (c *Cluster) Status(tb testing.TB) (map[string]string, error) {
	tb.Helper()
	m, err := c.alive()
	if err != nil {
		return nil, err
	}
	return m.Status(tb)
}

// Leader is the machine in charge, once there is one.
func (c *Cluster) Leader(tb testing.TB) (m *Machine) {
	tb.Helper()
	Await(tb, statusLimit, func() (err error) {
		m, err = c.leader(tb)
		return err
	})
	return m
}

func (c *Cluster) leader(tb testing.TB) (*Machine, error) {
	s, err := c.Status(tb)
	if err != nil {
		return nil, err
	}
	words := strings.Fields(s["meta"])
	for i, w := range words[:max(0, len(words)-1)] {
		if w != "leader" {
			continue
		}
		for _, m := range c.Machines {
			if m.Name == words[i+1] && m.Alive() {
				return m, nil
			}
		}
	}
	return nil, fmt.Errorf("no leader that runs: meta %s", s["meta"])
}

// AwaitHealth waits until the health that dosctl status tells is the one given.
func (c *Cluster) AwaitHealth(tb testing.TB, word string, limit time.Duration) {
	tb.Helper()
	Await(tb, limit, func() error {
		s, err := c.Status(tb)
		if err == nil && s["health"] != word {
			err = fmt.Errorf("health is %s (%s), want %s", s["health"], s["why"], word)
		}
		return err
	})
}

// AwaitWhole waits until all machines that there are take part, and all is well.
func (c *Cluster) AwaitWhole(tb testing.TB, limit time.Duration) {
	tb.Helper()
	c.AwaitMembers(tb, len(c.Machines), limit)
	c.AwaitHealth(tb, "ok", limit)
}

// AwaitMembers waits until so many machines have a vote in the metadata and all
// of them take part.
func (c *Cluster) AwaitMembers(tb testing.TB, n int, limit time.Duration) {
	tb.Helper()
	want := fmt.Sprintf(" members %d alive %d ", n, n)
	Await(tb, limit, func() error {
		s, err := c.Status(tb)
		if err == nil && !strings.Contains(s["meta"], want) {
			err = fmt.Errorf("meta %s, want%s", s["meta"], want)
		}
		return err
	})
}

// Promoted lists the members on a machine that the one in charge gave a vote, in
// order. A member that begins again with an empty directory is another one, and
// the one before it is thought to answer for a moment after it has ended.
func (c *Cluster) Promoted(tb testing.TB, m *Machine) (ids []string) {
	tb.Helper()
	r := c.Ctl(tb, "events")
	for line := range strings.Lines(r.Stdout) {
		if _, text, ok := strings.Cut(line, "metadata member "+m.Name+"/"); ok && strings.Contains(text, ": promote,") {
			id, _, _ := strings.Cut(text, ":")
			ids = append(ids, id)
		}
	}
	return ids
}

// Mount mounts the cluster at a place of its own, with an identity of its own.
func (c *Cluster) Mount(tb testing.TB, flags ...string) *Mount {
	tb.Helper()
	return c.mount(tb, nil, "rw", flags)
}

// MountAdmin is Mount for an administrator, who alone submits root's tasks.
func (c *Cluster) MountAdmin(tb testing.TB) *Mount {
	tb.Helper()
	return c.mount(tb, nil, "admin", nil)
}

// MountBy is Mount on a machine whose clock is set so.
func (c *Cluster) MountBy(tb testing.TB, clock *Clock, flags ...string) *Mount {
	tb.Helper()
	return c.mount(tb, clock, "rw", flags)
}

func (c *Cluster) mount(tb testing.TB, clock *Clock, rights string, flags []string) *Mount {
	tb.Helper()
	m := &Mount{Point: filepath.Join(Dir(tb), "m"), daemon: daemon{clock: clock}}
	var addrs []string
	for _, machine := range c.Machines {
		addrs = append(addrs, machine.Addr)
	}
	if c.net != nil {
		m.host = c.net.addHost(tb)
	}
	c.mounts++
	identity := filepath.Join(c.dir, fmt.Sprint("client", c.mounts))
	login := clock.command(m.host, "dosctl", "login", c.Token(tb, "--client", "--rights", rights), "--name", filepath.Base(identity), "--identity", identity)
	if out, err := login.CombinedOutput(); err != nil {
		tb.Fatalf("dosctl login: %v\n%s", err, out)
	}
	m.args = append([]string{"--cluster", strings.Join(addrs, ","), "--identity", identity}, flags...)
	m.args = append(m.args, m.Point)
	tb.Cleanup(func() { m.cleanup(tb) })
	m.Again(tb)
	return m
}

// Restart starts all machines at once, after all were stopped or killed.
func (c *Cluster) Restart(tb testing.TB) {
	tb.Helper()
	for _, m := range c.Machines {
		if err := m.start(); err != nil {
			tb.Fatal(err)
		}
	}
	for _, m := range c.Machines {
		m.ready(tb)
	}
}

// cleanup ends all machines at once: each may need another to leave well.
func (c *Cluster) cleanup(tb testing.TB) {
	var wg sync.WaitGroup
	for _, m := range c.all {
		switch p := m.proc; {
		case p == nil:
		case !m.Alive():
			tb.Errorf("machine %s: %s ended by itself: %v", m.Name, p, p.err)
		default:
			wg.Go(func() {
				// One that is paused would never hear that it is to end.
				err := p.cmd.Process.Signal(syscall.SIGCONT)
				if err = errors.Join(err, p.end(syscall.SIGTERM, downLimit)); err != nil {
					tb.Errorf("machine %s: %s at the end of the test: %v", m.Name, p, err)
				}
			})
		}
	}
	wg.Wait()
	for _, m := range c.all {
		if tb.Failed() {
			tb.Logf("log of machine %s:\n%s", m.Name, m.log.tail())
		}
	}
}
