package redis

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestFrame(t *testing.T) {
	for in, want := range map[string]string{
		"*1\r\n$4\r\nPING\r\n":        `["PING"] 14 <nil>`,
		"*1\r\n$4\r\nPING\r\nrest":    `["PING"] 14 <nil>`,
		"*2\r\n$0\r\n\r\n$1\r\na\r\n": `["" "a"] 17 <nil>`,
		"PING\r\n":                    `["PING"] 6 <nil>`,
		"set a \"b c\"\n":             `["set" "a" "b c"] 12 <nil>`,
		"set a \"b\r\n":               `[] 10 ERR Protocol error: unbalanced quotes in request`,
		"\r\n":                        `[] 2 <nil>`,
		"*0\r\n":                      `[] 4 <nil>`,
		"*-1\r\n":                     `[] 5 <nil>`,
		"*-9\r\n":                     `[] 5 <nil>`,
		"*x\r\n":                      `[] 0 ERR Protocol error: invalid multibulk length`,
		"*1000000000\r\n":             `[] 0 ERR Protocol error: invalid multibulk length`,
		"*99999999999999999999\r\n":   `[] 0 ERR Protocol error: invalid multibulk length`,
		"*1\n$4\r\nPING\r\n":          `[] 0 ERR Protocol error: invalid multibulk length`,
		"*1\r\n:4\r\n":                `[] 0 ERR Protocol error: expected '$', got ':'`,
		"*1\r\n\x00":                  `[] 0 ERR Protocol error: expected '$', got '?'`,
		"*1\r\n$-2\r\n":               `[] 0 ERR Protocol error: invalid bulk length`,
		"*1\r\n$999999999\r\n":        `[] 0 ERR Protocol error: invalid bulk length`,
		"*1\r\n$1\r\nabcd":            `[] 0 ERR Protocol error: invalid bulk length`,
		"$1\r\na\r\n":                 `[] 4 ERR Protocol error: unexpected '$'`,
		"*2\r\n$67108864\r\n":         `[] 67108881 there is more to come`,
		"*1\r\n$4\r\nPIN":             `[] 14 there is more to come`,
		"*1\r\n$4":                    `[] 7 there is more to come`,
		"":                            `[] 1 there is more to come`,
		"get":                         `[] 4 there is more to come`,
		"*1\r\n$" + strings.Repeat("0", 40) + "1\r\n": `[] 0 ERR Protocol error: invalid bulk length`,
		strings.Repeat("x", inlineMax+2):              `[] 0 ERR Protocol error: too big inline request`,
	} {
		args, n, err := new(frame).split([]byte(in), nil)
		if got := fmt.Sprintf("%q %d %v", args, n, err); got != want {
			t.Errorf("%.40q: %s, want %s", in, got, want)
		}
	}
}

var seeds = []string{
	"*1\r\n$4\r\nPING\r\n", "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n*1\r\n$4\r\nQUIT\r\n", "set a 'b c'\r\nget a\r\n",
	"*1\r\n$-2\r\n", "*-1\r\n", "*1\r\n$99999999999\r\n", "$4\r\nPING\r\n", "\"\\x\r\n", "*2\r\n$4\r\nEVAL\r\n$0\r\n\r\n",
	"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$3\r\n0.1\r\n", "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n", "*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nEXEC\r\n",
	"*4\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n$2\r\nEX\r\n", "*2\r\n$4\r\nKEYS\r\n$5\r\n[a-\\*\r\n", "*4\r\n$4\r\nSCAN\r\n$1\r\n0\r\n$5\r\nCOUNT\r\n$2\r\n-1\r\n",
	"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", "*3\r\n$6\r\nEXPIRE\r\n$1\r\na\r\n$20\r\n-9223372036854775808\r\n", "*3\r\n$4\r\nLPOP\r\n$1\r\na\r\n$1\r\n5\r\n",
}

// A command is the same however it comes in pieces, and nothing that comes is a panic.
func FuzzFrame(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		args, n, err := new(frame).split(b, nil)
		var pieces frame
		for i := 0; i <= len(b); i++ {
			part, m, e := pieces.split(b[:i], nil)
			if e == errShort {
				if m <= i {
					t.Fatalf("%q is short, and %d bytes are enough", b[:i], m)
				}
				continue
			}
			if fmt.Sprint(e) != fmt.Sprint(err) || fmt.Sprintf("%q", part) != fmt.Sprintf("%q", args) {
				t.Fatalf("%q in pieces: %q %v, whole: %q %v", b, part, e, args, err)
			}
			if e == nil && m != n {
				t.Fatalf("%q: %d bytes in pieces, %d whole", b, m, n)
			}
			return
		}
		if err != errShort {
			t.Fatalf("%q whole: %q %v, in pieces it is short", b, args, err)
		}
	})
}

// Whatever somebody sends, others are served.
func FuzzServer(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	addr, _, _ := start(f, &passes{})
	f.Fuzz(func(t *testing.T, b []byte) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		other := dial(t, addr)
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		conn.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, conn) //nolint:errcheck // it may be cut off
		if got := other.do("ping"); got != "PONG" {
			t.Fatalf("after %q another gets %s", b, got)
		}
	})
}

// What is too large is refused, and the connection lives on; a lie ends it alone.
func TestOversize(t *testing.T) {
	addr, _, _ := start(t, &passes{})
	c, other := dial(t, addr), dial(t, addr)
	big := strings.Repeat("x", 1<<20)
	for _, talk := range []struct {
		args []string
		want string
	}{
		{[]string{"set", "a", big}, "OK"},
		{[]string{"set", "b", big + "x"}, "-" + errTooLarge},
		{[]string{"append", "a", "x"}, "-" + errTooLarge},
		{[]string{"set", strings.Repeat("k", keyMax+1), "x"}, "-" + errKeyLength},
		{[]string{"getset", "a", "small"}, fmt.Sprintf("%q", big)},
		{[]string{"set", "a", big[:200_000]}, "OK"},
		{[]string{"append", "a", "y"}, "200001"},
		{[]string{"getrange", "a", "-2", "-1"}, `"xy"`},
		{[]string{"mset", "m", big[:100_000], "n", big[:100_000], "o", big[:100_000]}, "OK"},
		{[]string{"getdel", "a"}, fmt.Sprintf("%q", big[:200_000]+"y")},
		{[]string{"exists", "a"}, "0"},
		{[]string{"rpush", "l", big[:100_000]}, "-ERR messages over 65536 bytes need a mount: not supported"},
		{[]string{"publish", "l", big}, "-ERR a channel has at most 128 bytes and a message 64 KiB here"},
	} {
		if got := c.do(talk.args...); got != talk.want {
			t.Errorf("%.40q: %.100s, want %.100s", talk.args, got, talk.want)
		}
	}
	c.send("*3\r\n$3\r\nset\r\n$1\r\na\r\n$536870912\r\n")
	if got := c.reply(); got != "-ERR Protocol error: invalid bulk length" {
		t.Error(got)
	}
	if _, err := c.read(); !errors.Is(err, io.EOF) {
		t.Errorf("after that: %v", err)
	}
	if got := other.do("get", "b"); got != "nil" {
		t.Error(got)
	}
}

// All clients together have what memoryMax says, and no more; then it is free again.
func TestMemory(t *testing.T) {
	addr, _, _ := start(t, &passes{})
	var held []net.Conn
	for range memoryMax/bulkMax + 2 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "*2\r\n$4\r\necho\r\n$%d\r\nx", bulkMax)
		held = append(held, conn)
	}
	refused := 0
	for _, conn := range held {
		conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		b := make([]byte, 1024)
		if n, err := conn.Read(b); n > 0 && bytes.HasPrefix(b[:n], []byte("-OOM")) {
			refused++
		} else if n > 0 || !errors.As(err, new(net.Error)) {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
	if refused < 2 || refused > len(held)-2 {
		t.Errorf("%d of %d were refused", refused, len(held))
	}
	for _, conn := range held {
		conn.Close()
	}
	c := dial(t, addr)
	for got := ""; got != fmt.Sprint(bulkMax/2+2); { // until the others are seen to be gone
		c.send(encode("echo", strings.Repeat("x", bulkMax/2)))
		text, err := c.read()
		if err != nil || strings.HasPrefix(text, "-OOM") {
			c = dial(t, addr)
			continue
		}
		got = fmt.Sprint(len(text))
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, key string
		want         bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a*c", "abbc", true}, {"a*c", "abbd", false}, {"a?c", "abc", true}, {"a?c", "ac", false},
		{"[a-c]x", "bx", true}, {"[c-a]x", "bx", true}, {"[^a-c]x", "bx", false}, {"[^a-c]x", "dx", true}, {"[ab", "a", true}, {"[", "[", false},
		{`\*`, "*", true}, {`\*`, "a", false}, {`a\`, `a\`, true}, {"**a", "ba", true}, {"*/*", "a/b", true}, {`[\]]`, "]", true}, {"h[ae]llo", "hallo", true},
		{strings.Repeat("a*", 50) + "b", strings.Repeat("a", 1000), false},
	} {
		if got := match([]byte(c.pattern), c.key); got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.key, got)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"", ".", "..a", "%", "a/b", "%2E", "\x00", "%00", "%25", "a%2Fb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		name := nameOf(key)
		if keyOf(name) != key || name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
			t.Errorf("%q is called %q, which is %q", key, name, keyOf(name))
		}
	})
}

// Every script is known however it is written, and nothing that is nearly one.
func TestScripts(t *testing.T) {
	if len(byText) != len(scripts) {
		t.Errorf("%d scripts, %d are different", len(scripts), len(byText))
	}
	for i, s := range scripts {
		loud := strings.NewReplacer(`"`, "'", "\n", "\n-- a word\n\t", "get", "GeT").Replace(s.text + ";")
		if byText[normal(loud)] != &scripts[i] {
			t.Errorf("%s is not known as %q", s.from, normal(loud))
		}
		for _, change := range [][2]string{{"ARGV[1]", "ARGV[2]"}, {"KEYS[1]", "KEYS[2]"}, {"==", "~="}, {"return", "local x ="}, {"if", "if not"}} {
			if text := strings.Replace(s.text, change[0], change[1], 1); text != s.text && byText[normal(text)] != nil {
				t.Errorf("%s with %s in the place of %s is known", s.from, change[1], change[0])
			}
		}
	}
	for _, text := range []string{"", "'", `"\"`, "--", "return redis.call('flushall')"} {
		if byText[normal(text)] != nil {
			t.Errorf("%q is known", text)
		}
	}
}
