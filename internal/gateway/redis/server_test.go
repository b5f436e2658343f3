package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dos/internal/gateway/passwords"
	"dos/internal/trust"
	"dos/meta"
	metaclient "dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/node"
)

// passes are passwords by their hashes; it implements passwords.Records.
type passes struct {
	mu    sync.Mutex
	known map[string]trust.Rights // guarded by mu
}

func (p *passes) Any(context.Context) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.known) > 0, nil
}

func (p *passes) Check(_ context.Context, hash string) (trust.Rights, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[hash], nil
}

func (p *passes) set(password string, r trust.Rights) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[trust.HashSecret(password)] = r
}

// start serves a cluster in memory until the test ends. What is in it can be asked
// through the Taker.
func start(t testing.TB, p *passes) (addr string, queues *metaclient.Taker, values metaclient.KV) {
	t.Helper()
	service := metatest.NewMemory(node.Machine())
	info, err := metaclient.Session{Caller: metaclient.Direct(service, 0)}.Open(t.Context(), "test", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	stay := metaclient.Always(metaclient.Direct(service, info.ID), info.ID)
	taker := metaclient.NewTaker(stay, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	values = metaclient.KV{Caller: metaclient.NewRemote(service, info.ID)}
	door, err := passwords.New(t.Context(), "--redis", l.Addr(), p)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{
		Listener: l, Strings: NewTable(values, 65534), Cache: NewCache(new(fakeEntries), 65534), Queues: taker, Feed: taker,
		Open: func(name, group, who string) Reader { return taker.Open(name, group, who) },
		Door: door, Node: "here", UID: 65534, Version: "test",
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- taker.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := s.memory.used.Load(); n != 0 {
			t.Errorf("%d bytes of buffers are not given back", n)
		}
	})
	return l.Addr().String(), taker, values
}

// A caller is a client of the test.
type caller struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func dial(t testing.TB, addr string) *caller {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &caller{t, conn, bufio.NewReader(conn)}
}

func encode(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

func (c *caller) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *caller) do(args ...string) string {
	c.t.Helper()
	c.send(encode(args...))
	return c.reply()
}

// reply reads one reply, as one line.
func (c *caller) reply() string {
	c.t.Helper()
	text, err := c.read()
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

func (c *caller) read() (string, error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimSuffix(line[1:], "\r\n")
	switch kind {
	case '+', ':':
		return rest, nil
	case '-':
		return "-" + rest, nil
	case '_':
		return "null", nil
	}
	n, err := strconv.Atoi(rest)
	switch {
	case err != nil:
		return "", fmt.Errorf("%q: %w", line, err)
	case n < 0 && kind == '$':
		return "nil", nil
	case n < 0:
		return "nothing", nil
	case kind == '$':
		b := make([]byte, n+2)
		_, err := io.ReadFull(c.in, b)
		return strconv.Quote(string(b[:n])), err
	case kind == '%':
		n *= 2
	}
	parts := make([]string, n)
	for i := range parts {
		if parts[i], err = c.read(); err != nil {
			return "", err
		}
	}
	return map[byte]string{'*': "", '%': "map", '>': "push"}[kind] + "[" + strings.Join(parts, " ") + "]", nil
}

// Two clients at the same time are two clients; a pipeline is answered in its order.
func TestPipeline(t *testing.T) {
	addr, _, _ := start(t, &passes{})
	c := dial(t, addr)
	var text strings.Builder
	var want []string
	for i := range 1000 {
		key := fmt.Sprint("k", i%7)
		switch i % 5 {
		case 0:
			text.WriteString(encode("set", key, strconv.Itoa(i)))
			want = append(want, "OK")
		case 1:
			text.WriteString(encode("incr", "n"))
			want = append(want, strconv.Itoa(i/5+1))
		case 2:
			text.WriteString(encode("nonsense"))
			want = append(want, "-ERR unknown command 'nonsense', with args beginning with: ")
		case 3:
			text.WriteString(encode("rpush", "list", strconv.Itoa(i)))
			want = append(want, strconv.Itoa(i/5+1))
		case 4:
			text.WriteString(encode("get", "n"))
			want = append(want, strconv.Quote(strconv.Itoa(i/5+1)))
		}
	}
	go c.send(text.String())
	for i, w := range want {
		if got := c.reply(); got != w {
			t.Fatalf("reply %d: %s, want %s", i, got, w)
		}
	}
	if got := c.do("llen", "list"); got != "200" {
		t.Errorf("llen: %s", got)
	}
	c.send(strings.Repeat(encode("lpop", "list"), 201))
	for i := range 200 {
		if got, w := c.reply(), strconv.Quote(strconv.Itoa(i*5+3)); got != w {
			t.Fatalf("pop %d: %s, want %s", i, got, w)
		}
	}
	if got := c.reply(); got != "nil" {
		t.Errorf("after the last: %s", got)
	}
}

// Who sends much before he reads is not stuck, and gets everything.
func TestReadsLater(t *testing.T) {
	addr, _, _ := start(t, &passes{})
	c := dial(t, addr)
	big := strings.Repeat("x", 100_000)
	if got := c.do("set", "big", big); got != "OK" {
		t.Fatal(got)
	}
	const n = 200
	for range n {
		c.send(encode("get", "big") + strings.Repeat(encode("ping"), 100)) // 20 MB of replies
	}
	for range n {
		if got := c.reply(); len(got) != len(big)+2 {
			t.Fatalf("%.40s", got)
		}
		for range 100 {
			if got := c.reply(); got != "PONG" {
				t.Fatal(got)
			}
		}
	}
}

// A blocked client that goes takes nothing with it.
func TestBlockedGoes(t *testing.T) {
	addr, queues, _ := start(t, &passes{})
	gone, other := dial(t, addr), dial(t, addr)
	waiters := func(want int64) {
		t.Helper()
		for {
			st, err := queues.Status(t.Context(), "list")
			if err == nil && st.Groups[0].Waiters == want {
				return
			}
			if err != nil && !errors.Is(err, meta.NotExist) {
				t.Fatal(err)
			}
		}
	}
	gone.send(encode("blpop", "list", "0"))
	waiters(1)
	gone.conn.Close()
	waiters(0)
	if got := other.do("rpush", "list", "a") + other.do("blpop", "other", "list", "0"); got != `1["list" "a"]` {
		t.Error(got)
	}
	// What is sent while it waits is executed after.
	other.send(encode("blpop", "x", "list", "0") + encode("ping"))
	waiters(1)
	if got := dial(t, addr).do("rpush", "list", "b"); got != "1" {
		t.Error(got)
	}
	if got := other.reply() + other.reply(); got != `["list" "b"]PONG` {
		t.Error(got)
	}
}

func TestPasswords(t *testing.T) {
	p := &passes{known: make(map[string]trust.Rights)}
	addr, queues, _ := start(t, p)
	early := dial(t, addr)
	if got := early.do("set", "a", "1"); got != "OK" {
		t.Fatal(got)
	}
	p.set("read", trust.ReadOnly)
	p.set("write", trust.ReadWrite)
	p.set("root", trust.Admin)
	for got := ""; got != "-"+errNoAuth; { // it is looked for once a second
		got = early.do("get", "a")
	}
	c := dial(t, addr)
	if err := queues.Make(t.Context(), "private", 0o700, 0, 0); err != nil {
		t.Fatal(err)
	}
	for _, talk := range [][2]string{
		{"get a", "-" + errNoAuth}, {"ping", "-" + errNoAuth}, {"nonsense", "-" + errNoAuth},
		{"hello 3", "-NOAUTH HELLO must be called"}, {"auth wrong", "-" + errWrongPass}, {"hello 2 auth default wrong", "-" + errWrongPass},
		{"get a", "-" + errNoAuth}, {"auth read", "OK"}, {"get a", `"1"`},
		{"set a 2", "-NOPERM this user has no permissions to run the 'set' command"}, {"rpush l 1", "-NOPERM"},
		{"eval x 0", "-NOPERM"}, {"publish a b", "-NOPERM"}, {"auth wrong", "-" + errWrongPass}, {"get a", `"1"`},
		{"auth someone write", "OK"}, {"set a 2", "OK"}, {"rpush private x", "-NOPERM"}, {"llen private", "-NOPERM"}, {"lpop private", "-NOPERM"},
		{"blpop private 0", "-NOPERM"}, {"del private", "-NOPERM"}, {"hello 3 auth default root", "map["}, {"rpush private x", "1"}, {"del private", "1"},
		{"reset", "RESET"}, {"get a", "-" + errNoAuth},
	} {
		if got := c.do(strings.Fields(talk[0])...); !strings.HasPrefix(got, talk[1]) {
			t.Errorf("%s: %s, want %s", talk[0], got, talk[1])
		}
	}
}
