package services

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dos/test/cluster"
)

const (
	// serving and calling are how many programs do so on each mount.
	serving, calling = 2, 3
	// kills is how many programs that serve, and how many that call, are killed at least, and
	// lost how many of the former have a call then.
	kills, lost = 8, 2
	killsMax    = 50
	// callTimeout is the service's: what a call waits for at a time.
	callTimeout = 4 * time.Second
	// callBound is how long a call may take on a mount that reaches the cluster, on a very
	// busy machine: it waits to be taken, and for the reply.
	callBound = 2*callTimeout + 30*time.Second
	// lostBound is how long one may take on a mount that does not.
	lostBound = 45 * time.Second
	// recovery is how soon calls go to those who live, on a very busy machine.
	recovery = 40 * time.Second
	// streak is how many calls in a row succeed then.
	streak = 60
)

// server serves a line at a time, and writes down what it began. It takes its time, so that
// it may be killed meanwhile.
const server = `exec 9<> <(:); while :; do
	exec 3<>rpc/w/serve && read -r id <&3 && echo "$id" >>"$1" && { read -rt 0.02 -u 9; echo "did $id" >&3; }; exec 3>&-
done 2>/dev/null`

// caller calls, and tells of each reply; what is not a reply is not told.
const caller = `for ((n = 0; ; n++)); do
	exec 3<>rpc/w/call && echo "$1.$n" >&3 && read -r reply <&3 && echo "$reply"; exec 3>&-
done 2>/dev/null`

// A program is a process that runs a script on a mount, until it is killed.
type program struct {
	site *site
	file string // that it writes to
	cmd  *exec.Cmd
}

func begin(t *testing.T, s *site, script, file string) *program {
	t.Helper()
	p := &program{site: s, file: file, cmd: exec.CommandContext(t.Context(), "bash", "-c", script, "bash", file)}
	p.cmd.Dir = s.Point
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *program) kill() {
	_ = p.cmd.Process.Kill() // it runs until then
	_ = p.cmd.Wait()
}

// A made is a call that somebody made, and how it ended.
type made struct {
	id           string
	site         *site
	began, ended time.Duration
	err          error
}

// calls has programs on three mounts call a service that programs on all three serve,
// while some of both are killed, a mount is cut off, and the machine that leads is killed.
// Each call ends in time; what it is told is so; none is executed twice; and as soon as may
// be those who live have all calls.
func calls(t *testing.T, c *cluster.Cluster, sites []*site, rnd *rand.Rand) {
	if err := os.Mkdir(sites[0].Path("rpc", "w"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sites[0].Path("rpc", "w", "ctl"), fmt.Appendf(nil, "timeout %v\n", callTimeout), 0); err != nil {
		t.Fatal(err)
	}
	dir := cluster.Dir(t)
	var servers []*program
	serve := func(s *site) *program {
		p := begin(t, s, server, filepath.Join(dir, fmt.Sprintf("%s-%d", s.name, len(servers))))
		servers = append(servers, p)
		return p
	}
	defer func() {
		for _, p := range servers {
			p.kill()
		}
	}()
	alive := make([]*program, 0, serving*len(sites))
	for range serving {
		for _, s := range sites {
			alive = append(alive, serve(s))
		}
	}
	awaitServing := func(n int) {
		t.Helper()
		cluster.Await(t, wholeLimit, func() error {
			list, err := os.ReadDir(sites[0].Path("rpc", "w", "instances"))
			if err == nil && len(list) < n {
				err = fmt.Errorf("%d instances, want %d", len(list), n)
			}
			return err
		})
	}
	awaitServing(len(sites))

	var mu sync.Mutex
	var all []made // guarded by mu
	row := make(map[*site]*atomic.Int64)
	var ends []io.Closer // of who calls
	var working sync.WaitGroup
	for i, s := range sites {
		row[s] = new(atomic.Int64)
		for n := range calling {
			cmd := exec.CommandContext(t.Context(), os.Args[0], fmt.Sprintf("%d.%d", i, n))
			cmd.Env = append(os.Environ(), callerEnv+"="+s.Path("rpc", "w", "call"))
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, in)
			working.Go(func() {
				for lines := bufio.NewScanner(out); lines.Scan(); {
					m := made{site: s}
					var began, ended int64 // ns since 1970
					var number int
					if _, err := fmt.Sscan(lines.Text(), &m.id, &began, &ended, &number); err != nil {
						t.Errorf("who calls on %s says %q", s.name, lines.Text())
						continue
					}
					m.began, m.ended = time.Unix(0, began).Sub(s.began), time.Unix(0, ended).Sub(s.began)
					if row[s].Add(1); number != 0 {
						m.err = syscall.Errno(number)
						row[s].Store(0)
					}
					mu.Lock()
					all = append(all, m)
					mu.Unlock()
				}
				if err := cmd.Wait(); err != nil {
					t.Errorf("who calls on %s: %v", s.name, err)
				}
			})
		}
	}
	stop := sync.OnceFunc(func() {
		for _, end := range ends {
			end.Close()
		}
		working.Wait()
	})
	defer stop()
	// well returns when many calls in a row have succeeded on each of these.
	well := func(what string, sites ...*site) {
		t.Helper()
		began := time.Now()
		for _, s := range sites {
			row[s].Store(0)
		}
		cluster.Await(t, recovery, func() error {
			for _, s := range sites {
				if n := row[s].Load(); n < streak {
					return fmt.Errorf("%s: %d calls in a row on %s", what, n, s.name)
				}
			}
			return nil
		})
		t.Logf("%s: %d calls in a row on each of %d after %v", what, streak, len(sites), time.Since(began).Round(time.Millisecond))
	}
	failures := func(since int) (n int, list []made) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range all[since:] {
			if m.err != nil {
				list = append(list, m)
			}
		}
		return len(all), list
	}
	well("at first", sites...)
	at, bad := failures(0)
	for _, m := range bad {
		t.Errorf("call %s on %s failed before anything was disturbed: %v", m.id, m.site.name, m.err)
	}

	// Who serves is killed: that call is lost, if it had one, and no other.
	killed := 0
	for ; killed < kills || len(bad) < lost && killed < killsMax; killed++ {
		i := rnd.IntN(len(alive))
		time.Sleep(time.Duration(rnd.Int64N(int64(50 * time.Millisecond)))) // at any moment
		alive[i].kill()
		alive[i] = serve(alive[i].site)
		_, bad = failures(at)
	}
	well("servers killed", sites...)
	at, bad = failures(at)
	for _, m := range bad {
		if !errors.Is(m.err, syscall.EPROTO) {
			t.Errorf("call %s, whose server may have been killed: %v", m.id, m.err)
		}
	}
	if len(bad) < lost || len(bad) > killed {
		t.Errorf("%d calls failed when %d servers were killed", len(bad), killed)
	}
	t.Logf("%d servers killed, %d calls lost", killed, len(bad))

	// Who calls is killed: the others do not notice.
	told := make(map[string]bool)
	for n := 0; n < kills || len(told) == 0 && n < killsMax; n++ {
		var out bytes.Buffer
		p := &program{site: sites[n%len(sites)], cmd: exec.CommandContext(t.Context(), "bash", "-c", caller, "bash", fmt.Sprintf("killed%d", n))}
		p.cmd.Dir, p.cmd.Stdout = p.site.Point, &out
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(500 * time.Millisecond)))) // at any moment
		p.kill()
		for line := range strings.Lines(out.String()) {
			if id, is := strings.CutPrefix(line, "did "); is && strings.HasSuffix(id, "\n") {
				told[strings.TrimSpace(id)] = true
			}
		}
	}
	well("callers killed", sites...)
	at, bad = failures(at)
	for _, m := range bad {
		t.Errorf("call %s failed when others were killed that call: %v", m.id, m.err)
	}
	if len(told) == 0 {
		t.Error("no program that was killed had called before")
	}

	// A mount is cut off, with who serves on it.
	away := sites[rnd.IntN(len(sites))]
	var rest []*site
	for _, s := range sites {
		if s != away {
			rest = append(rest, s)
		}
	}
	done := away.disturb()
	away.Cut(t)
	well("a mount cut off", rest...)
	away.Heal(t)
	well("and back", sites...)
	done()
	at, bad = failures(at)
	there := 0
	for _, m := range bad {
		if m.site != away {
			there++
			t.Logf("on %s, after %v: %v", m.site.name, m.ended-m.began, m.err)
		}
	}
	if there > serving { // those that were under way where nobody is reached
		t.Errorf("%d calls failed elsewhere when a mount with %d that served was cut off", there, serving)
	}

	// So is the machine that leads, where calls are handed over too.
	leader := c.Leader(t)
	leader.Kill(t)
	well("the leader killed", sites...)
	leader.Again(t)
	c.AwaitWhole(t, wholeLimit)
	well("and back", sites...)
	total, bad := failures(at)
	for _, m := range bad {
		t.Logf("on %s, after %v: %v", m.site.name, m.ended-m.began, m.err)
		if errors.Is(m.err, syscall.ECONNREFUSED) {
			t.Errorf("call %s on %s was refused, though others served", m.id, m.site.name)
		}
	}
	t.Logf("%d calls; %d failed when the leader was killed", total, len(bad))

	stop()
	for _, p := range servers {
		p.kill()
	}
	cluster.Await(t, recovery, func() error { // nobody serves any more
		if err := callOnce(sites[0].Path("rpc", "w", "call"), "none"); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("without anybody who serves: %v", err)
		}
		return nil
	})

	begun := make(map[string]int)
	for _, p := range servers {
		text, err := os.ReadFile(p.file)
		if err != nil && !os.IsNotExist(err) { // it had no call
			t.Fatal(err)
		}
		for id := range strings.FieldsSeq(string(text)) {
			begun[id]++
		}
	}
	for id, n := range begun {
		if n > 1 {
			t.Errorf("call %s was executed %d times", id, n)
		}
	}
	for id := range told {
		if begun[id] == 0 {
			t.Errorf("call %s was replied to, and nobody executed it", id)
		}
	}
	var longest, longestLost time.Duration
	kinds := make(map[string]int)
	for _, m := range all {
		took, disturbed := m.ended-m.began, m.site.disturbed(m.began, m.ended)
		switch {
		case m.err == nil && begun[m.id] == 0:
			t.Errorf("call %s was replied to, and nobody executed it", m.id)
		case errors.Is(m.err, syscall.ECONNREFUSED) && begun[m.id] > 0:
			t.Errorf("call %s was executed, and refused", m.id)
		case m.err != nil && !ended(m.err) && !(disturbed && unsure(m.err)):
			t.Errorf("call %s on %s ended with %v", m.id, m.site.name, m.err)
		}
		if m.err != nil {
			kinds[m.err.Error()]++
		}
		if disturbed {
			longestLost = max(longestLost, took)
		} else {
			longest = max(longest, took)
		}
	}
	if longest > callBound || longestLost > lostBound {
		t.Errorf("a call took %v, and %v on a mount that was cut off; want %v and %v", longest, longestLost, callBound, lostBound)
	}
	t.Logf("%d calls begun; the longest took %v, and %v on a mount that was cut off; errors: %v", len(begun), longest, longestLost, kinds)
}

// callerEnv has a process of this program call at the path that it says until its input
// ends, and tell of each call: its id, when it began and ended, and the number of its error.
// It is a process of its own: while a mount is cut off nobody else has to wait for that.
const callerEnv = "DOS_TEST_CALLER"

func keepCalling(path, name string) {
	over := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(over) }()
	for n := 0; ; n++ {
		select {
		case <-over:
			return
		default:
		}
		id, began := fmt.Sprintf("%s.%d", name, n), time.Now()
		err := callOnce(path, id)
		number, known := err.(syscall.Errno)
		if err != nil && !known {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(id, began.UnixNano(), time.Now().UnixNano(), int(number))
		if err != nil {
			time.Sleep(pace) // so that what fails at once is not all there is
		}
	}
}

// callOnce makes one call, whose reply it checks. Its errors are numbers, but when that is
// another.
func callOnce(path, id string) error {
	f, err := open(path, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = f.close() }() // the call is over
	buf := make([]byte, 256)
	reply, err := f.say(buf, id+"\n")
	if err == nil && reply != "did "+id+"\n" {
		err = fmt.Errorf("call %s has the reply %q", id, reply)
	}
	return err
}

// ended says that an error is one that tells how a call ended.
func ended(err error) bool {
	for _, e := range []syscall.Errno{syscall.EPROTO, syscall.EHOSTDOWN, syscall.ETIMEDOUT, syscall.ECONNREFUSED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
