// Package redis runs what people have for Redis against the port of a mount and of
// machines: its own tools, a client library's program, and locks while machines are
// killed.
package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dos/test/cluster"
)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// free is a port of 127.0.0.1 that nobody uses.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// A shell's redis-cli and files see the same values, and they are there after a kill.
func TestTools(t *testing.T) {
	cluster.NeedFuse(t)
	cluster.Need(t, "redis-cli", "redis-benchmark")
	port := free(t)
	m := cluster.Start(t, filepath.Join(cluster.Dir(t), "data"), "--redis", "127.0.0.1:"+port)
	cli := func(want string, args ...string) {
		t.Helper()
		if got := tool(t, "redis-cli", append([]string{"-p", port}, args...)...); got != want {
			t.Errorf("redis-cli %.80q: %.80q, want %.80q", args, got, want)
		}
	}
	file := func(path, want string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(m.Point, path))
		if err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s: %q, %v, want %q", path, b, err, want)
		}
	}
	cli("OK", "set", "a/b", "value")
	cli("OK", "set", "lock", "me", "NX", "EX", "1000")
	cli("3", "lpush", "jobs", "one", "two", "three")
	cli("OK", "-n", "1", "set", "page", "text")
	large := strings.Repeat("large", 20_000) // as an argument may be
	cli("4", "lpush", "jobs", large)
	if os.Geteuid() == 0 { // others are not nobody
		file("kv/redis/a%2Fb", "value")
		file("cache/redis/page", "text")
		file("queues/jobs/pop", "one")
		if err := os.WriteFile(filepath.Join(m.Point, "kv/redis/shell"), []byte("5"), 0o600); err != nil {
			t.Error(err)
		}
		cli("6", "incr", "shell")
	} else {
		cli("one", "rpop", "jobs")
	}
	for _, db := range []string{"0", "1"} {
		for _, pipeline := range []string{"1", "16"} {
			out := tool(t, "redis-benchmark", "-p", port, "--dbnum", db, "-P", pipeline, "-n", "2000", "-c", "20", "-q", "-t", "ping,set,get,incr,lpush,rpop,mset")
			if n := strings.Count(out, "requests per second"); n != 8 || strings.Contains(strings.ToLower(out), "err") {
				t.Errorf("redis-benchmark --dbnum %s -P %s: %d results\n%s", db, pipeline, n, out)
			}
		}
	}
	m.KillAgain(t)
	cli("value", "get", "a/b")
	cli("", "set", "lock", "another", "NX", "EX", "1000")
	cli("two", "rpop", "jobs")
	cli("three", "rpop", "jobs")
	cli(large, "rpop", "jobs")
	cli("", "rpop", "jobs")
}

// A program of a client library runs unchanged.
func TestLibrary(t *testing.T) {
	cluster.NeedFuse(t)
	python := ""
	for _, p := range []string{"python3", "/usr/bin/python3"} { // the system's has the system's packages
		if exec.CommandContext(t.Context(), p, "-c", "import redis").Run() == nil {
			python = p
		}
	}
	if python == "" {
		t.Skip("redis-py is not installed (apt-get install python3-redis)")
	}
	port := free(t)
	cluster.Start(t, filepath.Join(cluster.Dir(t), "data"), "--redis", "127.0.0.1:"+port)
	if got := tool(t, python, "testdata/lock.py", port); got != "ok" {
		t.Error(got)
	}
}

// So does one of Go's libraries. It is a module of its own, so that they are no
// dependencies of dos.
func TestGoLibrary(t *testing.T) {
	cluster.NeedFuse(t)
	program := filepath.Join(t.TempDir(), "library")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "library", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		if exec.CommandContext(t.Context(), "go", "-C", "library", "mod", "download").Run() != nil {
			t.Skipf("its libraries are not there: %v\n%s", err, out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	port := free(t)
	cluster.Start(t, filepath.Join(cluster.Dir(t), "data"), "--redis", "127.0.0.1:"+port)
	if got := tool(t, program, "127.0.0.1:"+port); got != "ok" {
		t.Error(got)
	}
}

// errReply is an error that the server told.
type errReply string

func (e errReply) Error() string { return string(e) }

// A conn is one client. It is dialled anew after a failure.
type conn struct {
	addr string
	conn net.Conn
	in   *bufio.Reader
}

// do sends a command whose reply is one line, or one value.
func (c *conn) do(args ...string) (reply string, err error) {
	if c.conn == nil {
		if c.conn, err = net.DialTimeout("tcp", c.addr, time.Second); err != nil {
			return "", err
		}
		c.in = bufio.NewReader(c.conn)
	}
	defer func() {
		if err != nil && !errors.As(err, new(errReply)) {
			c.conn.Close()
			c.conn = nil
		}
	}()
	c.conn.SetDeadline(time.Now().Add(30 * time.Second))
	text := fmt.Sprintf("*%d\r\n", len(args))
	for _, a := range args {
		text += fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c.conn, text); err != nil {
		return "", err
	}
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	switch {
	case line[0] == '-':
		return "", errReply(line)
	case line[0] != '$' || line == "$-1":
		return line, nil
	}
	n, err := strconv.Atoi(line[1:])
	if err != nil {
		return "", err
	}
	b := make([]byte, n+2)
	_, err = io.ReadFull(c.in, b)
	return string(b[:n]), err
}

const unlock = `if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end`

// SET NX PX is a lock that one has at a time, whichever machine is asked, also while the
// one that leads is killed and comes back.
func TestLockWhileKilled(t *testing.T) {
	const (
		life    = 6 * time.Second // of a lock
		trusted = 3 * time.Second // from when it was asked for
	)
	var addrs []string
	spec := func() cluster.Spec {
		addr := "127.0.0.1:" + free(t)
		addrs = append(addrs, addr)
		return cluster.Spec{Flags: []string{"--redis", addr}}
	}
	c := cluster.FoundedLocal(t, "2+1", spec())
	c.Join(t, spec())
	c.Join(t, spec())
	c.AwaitWhole(t, 2*time.Minute)

	var inside atomic.Int32
	var taken [6]atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for w := range taken {
		work.Go(func() {
			me := &conn{addr: addrs[w%len(addrs)]}
			for n := 0; ctx.Err() == nil; n++ {
				token := fmt.Sprintf("%d-%d", w, n)
				asked := time.Now()
				got, err := me.do("SET", "lock", token, "NX", "PX", strconv.Itoa(int(life.Milliseconds())))
				if err == nil && got == "+OK" && time.Since(asked) < trusted {
					if now := inside.Add(1); now != 1 {
						t.Errorf("%d have the lock", now)
					}
					if val, err := me.do("GET", "lock"); err == nil && val != token && time.Since(asked) < trusted {
						t.Errorf("%s has the lock, and it is of %s", token, val)
					}
					if time.Since(asked) < trusted {
						taken[w].Add(1)
					}
					inside.Add(-1)
				}
				if err == nil && got == "+OK" || err != nil { // else it is another's
					_, err = me.do("EVAL", unlock, "1", "lock", token)
				}
				if err != nil {
					pause := time.NewTimer(50 * time.Millisecond)
					select {
					case <-pause.C:
					case <-ctx.Done():
					}
				}
			}
		})
	}
	sum := func() (n int64) {
		for i := range taken {
			n += taken[i].Load()
		}
		return n
	}
	more := func(what string, n int64) {
		t.Helper()
		began := sum()
		for deadline := time.Now().Add(time.Minute); sum() < began+n; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the lock was taken %d times in a minute", what, sum()-began)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	more("at first", 30)
	for round := range 2 {
		leader := c.Leader(t)
		leader.Kill(t)
		more(fmt.Sprintf("round %d, without machine %s", round, leader.Name), 30)
		leader.Again(t)
		c.AwaitWhole(t, 2*time.Minute)
		more("with all again", 30)
	}
	stop()
	work.Wait()
	for i := range taken {
		t.Logf("client %d had the lock %d times", i, taken[i].Load())
	}
}

// From elsewhere nobody comes in without a password, and dosctl makes one.
func TestPassword(t *testing.T) {
	c := cluster.FoundedLocal(t, "1+1", cluster.Spec{})
	addr := "0.0.0.0:" + free(t)
	m := c.Machines[0]
	m.Stop(t)
	open := c.New(t, cluster.Spec{Name: m.Name, Data: m.Data, Flags: []string{"--listen", m.Addr, "--redis", addr}})
	open.Addr = m.Addr
	if r := open.Refused(t); r.Code != 1 || !strings.Contains(r.Stderr, "without a password only") {
		t.Errorf("exit status %d: %s", r.Code, r.Stderr)
	}
	m.Again(t)
	c.Leader(t)
	password := c.Token(t, "web", "--password", "--rights", "ro")
	if r := c.Ctl(t, "token", "list"); !strings.Contains(r.Stdout, "password") || strings.Contains(r.Stdout, password) {
		t.Errorf("token list: %s", r.Stdout)
	}
	m.Stop(t)
	open.Again(t)
	_, port, _ := net.SplitHostPort(addr)
	me := &conn{addr: "127.0.0.1:" + port}
	for _, talk := range []struct{ command, want string }{
		{"GET a", "-NOAUTH Authentication required."}, {"AUTH nonsense", "-WRONGPASS"}, {"AUTH " + password, "+OK"},
		{"GET a", "$-1"}, {"SET a 1", "-NOPERM"},
	} {
		got, err := me.do(strings.Fields(talk.command)...)
		for deadline := time.Now().Add(time.Minute); err != nil && !errors.As(err, new(errReply)) && time.Now().Before(deadline); {
			time.Sleep(50 * time.Millisecond) // it is not served yet
			got, err = me.do(strings.Fields(talk.command)...)
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, talk.want) {
			t.Errorf("%.20s: %s, want %s", talk.command, got, talk.want)
		}
	}
}
