package procfs

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"dos/meta"
)

func TestText(t *testing.T) {
	text := "one"
	f := Text("t", func(context.Context) (string, error) { return text, nil })
	h, err := f.Open(t.Context(), Open{Read: true})
	if err != nil {
		t.Fatal(err)
	}
	text = "three" // does not reach the handle
	buf := make([]byte, 10)
	for _, c := range []struct {
		off  int64
		want string
		err  error
	}{{0, "one", io.EOF}, {1, "ne", io.EOF}, {3, "", io.EOF}, {99, "", io.EOF}} {
		if n, err := h.ReadAt(t.Context(), buf, c.off); string(buf[:n]) != c.want || err != c.err {
			t.Errorf("ReadAt(%d) = %q, %v, want %q, %v", c.off, buf[:n], err, c.want, c.err)
		}
	}
	if size := h.(Sizer).Size(); size != 3 {
		t.Errorf("the handle's size is %d, want 3", size)
	}
	if info, err := f.Stat(t.Context()); err != nil || info.Size != 5 {
		t.Errorf("Stat: %+v, %v, want size 5", info, err)
	}
	if _, err := h.WriteAt(t.Context(), buf, 0); !errors.Is(err, meta.Permission) {
		t.Errorf("WriteAt: %v", err)
	}
	if _, err := f.Open(t.Context(), Open{Write: true}); !errors.Is(err, meta.Permission) {
		t.Errorf("opening for writing: %v", err)
	}
}

func TestMux(t *testing.T) {
	var m Mux
	nodes, locks := Folder("x"), Folder("y")
	m.Mount("nodes", nodes)
	m.Mount("locks", locks)
	if n, err := m.Lookup(t.Context(), "nodes"); err != nil || n != Node(nodes) {
		t.Errorf("nodes: %v, %v", n, err)
	}
	if _, err := m.Lookup(t.Context(), "kv"); err != error(meta.NotExist) {
		t.Errorf("a name where nothing is mounted: %v", err)
	}
	var names []string
	for info, err := range m.Entries(t.Context()) {
		if err != nil || info.Mode&meta.TypeMask != meta.TypeDir {
			t.Errorf("%+v, %v", info, err)
		}
		names = append(names, info.Name)
	}
	if want := []string{"nodes", "locks"}; !slices.Equal(names, want) || m.Len() != 2 {
		t.Errorf("entries %q, want %q", names, want)
	}
	for name, mount := range map[string]func(){
		"twice":        func() { m.Mount("nodes", locks) },
		"not reserved": func() { m.Mount("music", locks) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			mount()
		}()
	}
	if m.Has("kv") || !m.Has("nodes") || !Reserved("kv") || Reserved("music") {
		t.Error("Has or Reserved is wrong")
	}
}

func TestStreamEnds(t *testing.T) {
	left := []string{"a\nb\n", "", "c\n"}
	f := Stream("s", func(context.Context) (Next, error) {
		return func(context.Context) (string, error) {
			if len(left) == 0 {
				return "", io.EOF
			}
			text := left[0]
			left = left[1:]
			return text, nil
		}, nil
	})
	if _, ok := f.(Unlisted); !ok {
		t.Error("a stream is listed: grep -r would hang")
	}
	if _, err := f.Open(t.Context(), Open{Write: true}); !errors.Is(err, meta.Permission) {
		t.Errorf("opening for writing: %v", err)
	}
	h, err := f.Open(t.Context(), Open{Read: true})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	buf := make([]byte, 3)
	for {
		n, err := h.ReadAt(t.Context(), buf, 0)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(buf[:n]))
	}
	if want := []string{"a\n", "b\n", "c\n"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	if n, err := h.ReadAt(t.Context(), nil, 0); n != 0 || err != nil {
		t.Errorf("reading nothing: %d, %v", n, err)
	}
}
