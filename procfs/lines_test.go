package procfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"dos/meta"
)

func TestControlLines(t *testing.T) {
	long := strings.Repeat("x", LineMax)
	for _, c := range []struct {
		writes []string
		n      []int // what each returns
		err    []error
		said   []string
	}{
		{[]string{"a\n"}, []int{2}, []error{nil}, []string{"a"}},
		{[]string{"a\nb\n"}, []int{4}, []error{nil}, []string{"a", "b"}},
		{[]string{"a", "b", "\nc\n"}, []int{1, 1, 3}, []error{nil, nil, nil}, []string{"ab", "c"}},
		{[]string{"a"}, []int{1}, []error{nil}, []string{"a"}}, // by Flush
		{[]string{"\n # x\n  \na\n"}, []int{11}, []error{nil}, []string{"a"}},
		{[]string{"bad\n"}, []int{0}, []error{meta.Invalid}, nil},
		{[]string{"a\nbad\nc\n", "bad\nc\n", "c\n"}, []int{2, 0, 2}, []error{nil, meta.Invalid, nil}, []string{"a", "c"}},
		{[]string{"a\n#\nbad\n", "bad\n"}, []int{4, 0}, []error{nil, meta.Invalid}, []string{"a"}},
		{[]string{"b", "ad\nc\n", "c\n"}, []int{1, 0, 2}, []error{nil, meta.Invalid, nil}, []string{"c"}},
		{[]string{long + "\n"}, []int{LineMax + 1}, []error{nil}, []string{long}},
		{[]string{long + "x\n"}, []int{0}, []error{meta.TooLong}, nil},
		{[]string{long, "x"}, []int{LineMax, 0}, []error{nil, meta.TooLong}, nil},
		{[]string{"a\n" + long + "x"}, []int{2}, []error{nil}, []string{"a"}},
		// The end of what was refused is no command.
		{[]string{long, "x", "x"}, []int{LineMax, 0, 0}, []error{nil, meta.TooLong, meta.TooLong}, nil},
		{[]string{long, "x\nb\n", "x\nb\n"}, []int{LineMax, 0, 0}, []error{nil, meta.TooLong, meta.TooLong}, nil},
		{[]string{"b", "ad\nc\n", "ad\nc\n", "c\n"}, []int{1, 0, 0, 2}, []error{nil, meta.Invalid, meta.Invalid, nil}, []string{"c"}},
	} {
		var said []string
		bad := 0
		h, err := Control{Do: func(_ context.Context, line string) error {
			if line == "bad" {
				bad++
				return fmt.Errorf("verb %q: %w", line, meta.Invalid)
			}
			said = append(said, line)
			return nil
		}}.Open(t.Context(), Open{Write: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range c.writes {
			n, err := h.WriteAt(t.Context(), []byte(p), 99)
			if n != c.n[i] || !errors.Is(err, c.err[i]) || err != nil && c.err[i] == nil {
				t.Errorf("%.20q: write %d gives %d, %v, want %d, %v", c.writes, i, n, err, c.n[i], c.err[i])
			}
		}
		if err := h.(Flusher).Flush(t.Context(), Closer{Known: true, Opener: true}); err != nil {
			t.Errorf("%.20q: closing: %v", c.writes, err)
		}
		if !slices.Equal(said, c.said) || bad > 1 {
			t.Errorf("%.20q did %.40q, and failed %d times, want %.40q", c.writes, said, bad, c.said)
		}
	}
}

func TestControlBatch(t *testing.T) {
	var got [][]string
	h, err := Control{Verbatim: true, Batch: func(_ context.Context, lines []string) (int, error) {
		got = append(got, lines)
		if n := slices.Index(lines, "bad"); n >= 0 {
			return n, meta.Quota
		}
		return len(lines), nil
	}}.Open(t.Context(), Open{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p   string
		n   int
		err error
	}{{"a\n#\n\nb\n", 7, nil}, {"c\nbad\n", 2, nil}, {"bad\nd\n", 0, meta.Quota}, {"d\n", 2, nil}} {
		if n, err := h.WriteAt(t.Context(), []byte(c.p), 0); n != c.n || !errors.Is(err, c.err) {
			t.Errorf("%q: %d, %v, want %d, %v", c.p, n, err, c.n, c.err)
		}
	}
	if want := "[[a #  b] [c bad] [d]]"; fmt.Sprint(got) != want {
		t.Errorf("executed %v, want %v", got, want)
	}
}

// A killed writer's last words are not a command.
func TestControlKilled(t *testing.T) {
	var said []string
	h, err := Control{Do: func(_ context.Context, line string) error { said = append(said, line); return nil }}.Open(t.Context(), Open{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteAt(t.Context(), []byte("release all but th"), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.(Flusher).Flush(t.Context(), Closer{Known: true, Wrote: true, Killed: true}), h.Close(t.Context())); err != nil || said != nil {
		t.Errorf("it said %q, %v", said, err)
	}
}

func TestTransaction(t *testing.T) {
	h, err := Transaction{Say: func(_ context.Context, line string) (string, error) { return line + "!\n", nil }}.Open(t.Context(), Open{Read: true, Write: true})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 3)
	read := func(want string, end error) {
		t.Helper()
		if n, err := h.ReadAt(t.Context(), buf, 7); string(buf[:n]) != want || err != end {
			t.Errorf("read %q, %v, want %q, %v", buf[:n], err, want, end)
		}
	}
	read("", io.EOF)
	if _, err := h.WriteAt(t.Context(), []byte("ab\n"), 0); err != nil {
		t.Fatal(err)
	}
	read("ab!", nil)
	read("\n", nil)
	read("", io.EOF)
}

func TestPatience(t *testing.T) {
	for name, want := range map[string]string{
		"pop": "pop -", "pop@0": "pop 0s", "pop@5s": "pop 5s", "pop@7": "pop 7s", "pop@2d": "pop 48h0m0s", "pop@100ms": "pop 100ms",
		"pop@": "error", "pop@-1s": "error", "pop@x": "error", "pop@99999999d": "error", "pop@1e300s": "error",
	} {
		base, patience, err := Patience(name)
		got := base + " -"
		if patience != nil {
			got = fmt.Sprint(base, " ", *patience)
		}
		if err != nil {
			got = "error"
		}
		if got != want || err != nil && !errors.Is(err, meta.Invalid) {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
}

func TestHelp(t *testing.T) {
	const want = `/dos/x: a thing.

Q/push  one line
        or two
          echo a > Q/push
help    this text
`
	got := Help{"/dos/x: a thing.", []Topic{{"Q/push", "one line\nor two", []string{"echo a > Q/push"}}}}.File()
	if got.Text != want || got.Name != "help" {
		t.Errorf("got\n%s\nwant\n%s", got.Text, want)
	}
}
