package procfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"dos/meta"
)

// memValue is a value in memory.
type memValue struct {
	data    []byte
	version uint64 // 0: there is none
	stores  int
	meddle  int // how often somebody else appends between Load and Store
}

func (v *memValue) Load(context.Context) ([]byte, uint64, error) {
	if v.version == 0 {
		return nil, 0, meta.NotExist
	}
	data, version := v.data, v.version
	if v.meddle > 0 {
		v.meddle--
		v.data, v.version = append(bytes.Clone(v.data), '+'), v.version+1
	}
	return data, version, nil
}

func (v *memValue) Check(_ context.Context, size int, only *uint64) error {
	switch {
	case size == 13:
		return meta.Quota
	case only != nil && *only != v.version:
		return meta.Conflict
	}
	return nil
}

func (v *memValue) Store(ctx context.Context, data []byte, only *uint64) (uint64, error) {
	if err := v.Check(ctx, len(data), only); err != nil {
		return 0, err
	}
	v.stores++
	v.data, v.version = bytes.Clone(data), v.version+1
	return v.version, nil
}

func (v *memValue) Remove(_ context.Context, version uint64) error {
	if v.version != version {
		return meta.Conflict
	}
	v.data, v.version = nil, 0
	return nil
}

var opener = Closer{Known: true, Opener: true, Wrote: true}

func TestObject(t *testing.T) {
	write := func(text string) func(*testing.T, *ObjectHandle) error {
		return func(t *testing.T, h *ObjectHandle) error {
			_, err := h.WriteAt(t.Context(), []byte(text), h.Size())
			return err
		}
	}
	at := func(off int64, text string) func(*testing.T, *ObjectHandle) error {
		return func(t *testing.T, h *ObjectHandle) error {
			_, err := h.WriteAt(t.Context(), []byte(text), off)
			return err
		}
	}
	flush := func(by Closer) func(*testing.T, *ObjectHandle) error {
		return func(t *testing.T, h *ObjectHandle) error { return h.Flush(t.Context(), by) }
	}
	closed := flush(opener)
	killed := flush(Closer{Known: true, Wrote: true, Killed: true})
	truncate := func(size int64) func(*testing.T, *ObjectHandle) error {
		return func(t *testing.T, h *ObjectHandle) error { return h.Truncate(t.Context(), size) }
	}
	only := func(v uint64) func(*testing.T, *ObjectHandle) error {
		return func(_ *testing.T, h *ObjectHandle) error { h.Only(v); return nil }
	}
	type steps []func(*testing.T, *ObjectHandle) error
	for _, c := range []struct {
		what   string
		old    string // "-": there is none
		how    Open
		steps  steps
		err    error // of the last step, or of Open
		want   string
		stores int
		meddle int
	}{
		{"echo v >f", "old", Open{Write: true, Truncate: true}, steps{closed, write("v\n"), closed}, nil, "v\n", 1, 0},
		{"two children", "old", Open{Write: true, Truncate: true}, steps{write("a"), flush(Closer{Known: true, Wrote: true}), write("b"), closed}, nil, "ab", 1, 0},
		{"closed between", "old", Open{Write: true, Truncate: true}, steps{write("a"), closed, write("b"), closed}, nil, "ab", 2, 0},
		{"truncated only", "old", Open{Write: true, Truncate: true}, steps{closed}, nil, "", 1, 0},
		{"made empty", "-", Open{Write: true, Create: true}, steps{closed}, nil, "", 1, 0},
		{"opened and closed", "old", Open{Write: true}, steps{closed}, nil, "old", 0, 0},
		{"never closed", "old", Open{Write: true, Truncate: true}, steps{write("v")}, nil, "old", 0, 0},
		{"killed", "old", Open{Write: true, Truncate: true}, steps{write("v"), killed}, meta.Canceled, "old", 0, 0},
		{"one of two killed", "old", Open{Write: true, Truncate: true}, steps{write("v"), killed, closed}, meta.Canceled, "old", 0, 0},
		{"a killed reader", "old", Open{Write: true, Truncate: true}, steps{write("v"), flush(Closer{Known: true, Killed: true}), closed}, nil, "v", 1, 0},
		{"nobody knows who closed", "old", Open{Write: true, Truncate: true}, steps{write("v"), flush(Closer{})}, nil, "v", 1, 0},
		{"appended", "old", Open{Write: true, Append: true}, steps{at(0, "a"), at(0, "b"), closed, at(1, "c"), closed}, nil, "oldabc", 2, 0},
		{"appended, and others did", "old", Open{Write: true, Append: true}, steps{write("a"), closed}, nil, "old++++a", 1, 4},
		{"appended to nothing", "-", Open{Write: true, Append: true, Create: true}, steps{write("a"), closed}, nil, "a", 1, 0},
		{"in the middle", "old", Open{Read: true, Write: true}, steps{at(1, "XYZ"), closed}, nil, "oXYZ", 1, 0},
		{"behind the end", "-", Open{Write: true, Create: true}, steps{at(2, "x"), closed}, nil, "\x00\x00x", 1, 0},
		{"shorter", "old", Open{Write: true}, steps{truncate(1), closed}, nil, "o", 1, 0},
		{"longer", "old", Open{Write: true}, steps{truncate(4), closed}, nil, "old\x00", 1, 0},
		{"made by one", "-", Open{Write: true, Create: true, Exclusive: true}, steps{write("v"), closed}, nil, "v", 2, 0},
		{"made by one that is killed", "-", Open{Write: true, Create: true, Exclusive: true}, steps{write("v"), killed}, meta.Canceled, "-", 1, 0},
		{"made by one that is refused", "-", Open{Write: true, Create: true, Exclusive: true}, steps{write(strings.Repeat("x", 2000))}, meta.TooLarge, "-", 1, 0},
		{"not made by a second", "old", Open{Write: true, Create: true, Exclusive: true}, nil, meta.Exist, "old", 0, 0},
		{"not there", "-", Open{Write: true}, nil, meta.NotExist, "-", 0, 0},
		{"too large", "old", Open{Write: true, Truncate: true}, steps{write(strings.Repeat("x", 2000))}, meta.TooLarge, "old", 0, 0},
		{"over quota", "old", Open{Write: true, Truncate: true}, steps{write(strings.Repeat("x", 13))}, meta.Quota, "old", 0, 0},
		{"the right version", "old", Open{Write: true, Truncate: true}, steps{only(1), write("v"), closed, write("w"), closed}, nil, "vw", 2, 0},
		{"stored when it is written", "old", Open{Write: true, Truncate: true}, steps{only(1), write("v")}, nil, "v", 1, 0},
		{"refused in the middle", "old", Open{Write: true, Truncate: true}, steps{write("v"), write(strings.Repeat("x", 2000))}, meta.TooLarge, "old", 0, 0},
		{"the wrong version", "old", Open{Write: true, Truncate: true}, steps{only(7), write("v")}, meta.Conflict, "old", 0, 0},
		{"changed meanwhile", "old", Open{Read: true, Write: true}, steps{at(0, "v")}, meta.Conflict, "old+", 0, 1},
	} {
		t.Run(c.what, func(t *testing.T) {
			v := &memValue{meddle: c.meddle}
			if c.old != "-" {
				v.data, v.version = []byte(c.old), 1
			}
			h, err := Object{v, 1000}.Open(t.Context(), c.how)
			for _, step := range c.steps {
				if err != nil {
					break
				}
				err = step(t, h)
				if errors.Is(err, meta.Canceled) && c.err == error(meta.Canceled) {
					err = nil // it may go on
					if e := h.Flush(t.Context(), opener); !errors.Is(e, meta.Canceled) {
						t.Errorf("the next is told %v", e)
					}
				}
			}
			if want := c.err; want != error(meta.Canceled) && !errors.Is(err, want) || err != nil && want == nil {
				t.Fatalf("the last step gives %v, want %v", err, want)
			}
			if h != nil {
				if c.err == error(meta.TooLarge) { // the program closes it all the same
					if err := h.Flush(t.Context(), opener); err != nil && !errors.Is(err, meta.TooLarge) {
						t.Errorf("closing gives %v", err)
					}
				}
				if err := h.Close(t.Context()); err != nil {
					t.Errorf("closing: %v", err)
				}
			}
			got := "-"
			if v.version > 0 {
				got = string(v.data)
			}
			if got != c.want || v.stores != c.stores {
				t.Errorf("stored %q in %d steps, want %q in %d", got, v.stores, c.want, c.stores)
			}
		})
	}
}

func TestObjectReads(t *testing.T) {
	v := &memValue{data: []byte("old"), version: 1}
	h, err := Object{v, 1000}.Open(t.Context(), Open{Read: true})
	if err != nil {
		t.Fatal(err)
	}
	v.data = []byte("other") // does not reach the handle
	buf := make([]byte, 10)
	if n, err := h.ReadAt(t.Context(), buf, 1); string(buf[:n]) != "ld" || err != io.EOF || h.Size() != 3 {
		t.Errorf("read %q, %v of %d", buf[:n], err, h.Size())
	}
}
