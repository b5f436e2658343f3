package machines

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"

	"github.com/anishathalye/porcupine"

	"dos/test/cluster"
)

// A cell is a value of a table with its version; 0 is none.
type cell struct{ val, version uint64 }

// A valueRequest puts a value, or two at once if the version of the first is the
// one named, or asks for one.
type valueRequest struct {
	op      string // put, swap, get
	a, b    int
	val     uint64
	version uint64
}

// A valueAnswer is how it ended.
type valueAnswer struct {
	err     string
	got     cell   // of a; of put and swap its version alone
	version uint64 // of b
}

// values is a table as its cells; a transaction is one operation.
var values = porcupine.Model{
	Init: func() any { return [linearNames]cell{} },
	Step: func(state, in, out any) (bool, any) {
		s, q, a := state.([linearNames]cell), in.(valueRequest), out.(valueAnswer)
		switch {
		case q.op == "get":
			return a.err == "" && a.got == s[q.a], s
		case q.op == "swap" && s[q.a].version != q.version:
			return strings.Contains(a.err, "stale"), s
		case q.op == "swap":
			s[q.b] = cell{q.val, a.version}
		}
		s[q.a] = cell{q.val, a.got.version}
		return a.err == "", s
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprint(in, out) },
}

// seen are the versions that somebody was told of last.
type seen [linearNames]atomic.Uint64

func (s *seen) next(rnd *rand.Rand) valueRequest {
	q := valueRequest{op: []string{"put", "swap", "swap", "get", "get"}[rnd.IntN(5)], a: rnd.IntN(linearNames), val: rnd.Uint64()}
	q.b = (q.a + 1) % linearNames
	q.version = s[q.a].Load()
	return q
}

func (s *seen) do(m *cluster.Mount, q valueRequest) valueAnswer {
	a := doValue(m, q)
	if a.err == "" {
		s[q.a].Store(a.got.version)
	}
	return a
}

// doValue asks in one system call: what it is told is then of one moment.
func doValue(m *cluster.Mount, q valueRequest) (a valueAnswer) {
	name, text := ".txn", ""
	switch q.op {
	case "get":
		name, text = ".scan", fmt.Sprintf("from %d limit 1\n", q.a)
	case "put":
		text = fmt.Sprintf("put %d %d\ncommit\n", q.a, q.val)
	case "swap":
		text = fmt.Sprintf("if %d version %d\nput %d %d\nput %d %d\ncommit\n", q.a, q.version, q.a, q.val, q.b, q.val)
	}
	f, err := os.OpenFile(m.Path("kv", "t", name), os.O_RDWR, 0)
	if err != nil {
		return valueAnswer{err: err.Error()}
	}
	defer f.Close()
	if _, err := io.WriteString(f, text); err != nil {
		return valueAnswer{err: err.Error()}
	}
	reply, err := io.ReadAll(f)
	if err != nil {
		return valueAnswer{err: err.Error()}
	}
	for line := range strings.Lines(string(reply)) {
		var key int
		switch words := strings.Fields(line); {
		case q.op == "get":
			var found cell
			if n, _ := fmt.Sscan(line, &key, &found.version, &found.val); n == 3 && key == q.a {
				a.got = found
			}
		case words[0] == "put":
			var version uint64
			if n, _ := fmt.Sscanf(line, "put t/%d %d", &key, &version); n != 2 {
				a.err = "cannot read " + line
			} else if key == q.a {
				a.got.version = version
			} else {
				a.version = version
			}
		}
	}
	return a
}
