package rpc

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// taken keeps what is written to it, until it breaks.
type taken struct {
	net.Conn
	writes [][]byte
	breaks int // with which write; 0: never
}

var errBroken = errors.New("broken")

func (w *taken) Write(p []byte) (int, error) {
	if w.breaks > 0 && len(w.writes)+1 >= w.breaks {
		return 0, errBroken
	}
	w.writes = append(w.writes, bytes.Clone(p))
	return len(p), nil
}

func TestRecordsGather(t *testing.T) {
	var w taken
	r := newRecords(&w)
	write := func(b byte, n int) {
		t.Helper()
		if got, err := r.Write(bytes.Repeat([]byte{b}, n)); got != n || err != nil {
			t.Fatalf("writing: %d, %v", got, err)
		}
	}
	write('a', 1) // nobody says that more comes: it leaves
	if len(w.writes) != 1 {
		t.Fatalf("%d writes", len(w.writes))
	}
	const record = 16 << 10
	r.hold()
	for range 20 {
		write('b', record)
	}
	if err := r.release(); err != nil {
		t.Fatal(err)
	}
	if most := 1 + 20*record/wireBuffer + 1; len(w.writes) > most {
		t.Errorf("%d writes, at most %d are needed", len(w.writes), most)
	}
	want := append([]byte("a"), bytes.Repeat([]byte("b"), 20*record)...)
	if got := bytes.Join(w.writes, nil); !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived of %d, or others", len(got), len(want))
	}
	n := len(w.writes)
	if err := r.release(); err != nil || len(w.writes) != n {
		t.Errorf("releasing nothing: %v, %d writes", err, len(w.writes)-n)
	}
	write('c', 1) // and not held any more
	if len(w.writes) != n+1 {
		t.Error("a write waits after the release")
	}
}

// given is a connection on which all that comes is there already.
type given struct {
	net.Conn
	r io.Reader
}

func (g given) Read(p []byte) (int, error) { return g.r.Read(p) }

// TestRecordsShaking: TLS gets no byte that comes after its last record.
func TestRecordsShaking(t *testing.T) {
	r := newRecords(given{r: strings.NewReader("\x16\x03\x03\x00\x03one\x16\x03\x03\x00\x00\x14\x03\x03\x00\x01!the rest")})
	p := make([]byte, 100)
	for _, want := range []string{"\x16\x03\x03\x00\x03", "one", "\x16\x03\x03\x00\x00", "\x14\x03\x03\x00\x01", "!"} {
		if n, err := r.Read(p); string(p[:n]) != want || err != nil {
			t.Fatalf("%q, %v, want %q", p[:n], err, want)
		}
	}
	if rest, err := io.ReadAll(r.Conn); string(rest) != "the rest" || err != nil {
		t.Errorf("left is %q, %v", rest, err)
	}
}

func TestRecordsBroken(t *testing.T) {
	r := newRecords(&taken{breaks: 1})
	r.hold()
	if _, err := r.Write(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := r.release(); !errors.Is(err, errBroken) {
		t.Errorf("releasing: %v", err)
	}
	r.hold()
	if _, err := r.Write(make([]byte, wireBuffer)); !errors.Is(err, errBroken) {
		t.Errorf("more than is collected: %v", err)
	}
}
