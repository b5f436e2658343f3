package fuse

import (
	"context"
	"io"
	"iter"
	"os"
	"strings"
	"sync"
	"testing"

	"dos/meta"
	"dos/procfs"
)

// A shelf is a directory of texts, which others change too. Each open of one finds it a
// letter longer than whoever looked it up.
type shelf struct {
	mu    sync.Mutex
	mode  uint32 // guarded by mu, as all below
	texts map[string]string
	asked int // how often a text was asked what it is, by itself
}

func (s *shelf) info() procfs.Info {
	return procfs.Info{Name: "kv", Mode: meta.TypeDir | s.mode, Good: procfs.Always}
}

func (s *shelf) Stat(context.Context) (procfs.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info(), nil
}

func (s *shelf) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	n, _, _, err := s.Find(ctx, name)
	return n, err
}

func (s *shelf) Find(_ context.Context, name string) (procfs.Node, procfs.Info, procfs.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, is := s.texts[name]
	if !is {
		return nil, procfs.Info{}, s.info(), meta.NotExist
	}
	return shelved{s, name}, shelvedInfo(name, text), s.info(), nil
}

func (*shelf) Entries(context.Context) iter.Seq2[procfs.Info, error] {
	return func(func(procfs.Info, error) bool) {}
}

type shelved struct {
	*shelf
	name string
}

func shelvedInfo(name, text string) procfs.Info {
	return procfs.Info{Name: name, Mode: meta.TypeFile | 0o444, Size: int64(len(text)), Good: procfs.OneCall}
}

func (f shelved) Stat(context.Context) (procfs.Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return shelvedInfo(f.name, f.texts[f.name]), nil
}

func (f shelved) Open(_ context.Context, how procfs.Open) (procfs.Handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.name == "grows" {
		f.texts[f.name] += "x"
	}
	return procfs.OpenText(how, f.texts[f.name])
}

// TestBelieve holds what the kernel believes for a while to what is so: the mode of a
// directory when something in it is looked up, and the size of what is open.
func TestBelieve(t *testing.T) {
	s := &shelf{mode: 0o755, texts: map[string]string{"f": "text", "grows": "x"}}
	m := mountHere(t, func(c *Config) { c.Special.Mount("kv", s) })
	dir := m.dir + "/kv"

	if st := stat(t, dir); st.Mode&0o777 != 0o755 {
		t.Fatalf("mode %o", st.Mode)
	}
	for i, use := range []func() error{
		func() error { _, err := os.ReadFile(dir + "/f"); return err },
		func() error { _, err := os.Stat(dir + "/f"); return err },
		func() error {
			if _, err := os.Stat(dir + "/none"); !os.IsNotExist(err) {
				return err
			}
			return nil
		},
	} {
		mode := uint32(0o711 + i)
		s.mu.Lock()
		s.mode = mode
		s.mu.Unlock()
		if err := use(); err != nil {
			t.Errorf("use %d: %v", i, err)
		}
		if st := stat(t, dir); st.Mode&0o777 != mode {
			t.Errorf("use %d: the directory has mode %o, and after it was used the kernel says %o", i, mode, st.Mode&0o777)
		}
	}

	for range 50 {
		f, err := os.Open(dir + "/grows")
		must(t, err)
		info, err := f.Stat()
		must(t, err)
		text, err := io.ReadAll(f)
		must(t, err)
		if info.Size() != int64(len(text)) {
			t.Errorf("it is open with %d bytes, and the kernel says %d", len(text), info.Size())
		}
		must(t, f.Close())
	}

	// What one lookup told is enough for the system call that made it, unless the
	// kernel's clock ticks meanwhile.
	least := 1000
	for range 50 {
		s.mu.Lock()
		s.asked = 0
		s.mu.Unlock()
		if text, err := os.ReadFile(dir + "/f"); err != nil || strings.TrimSpace(string(text)) != "text" {
			t.Fatalf("%q, %v", text, err)
		}
		s.mu.Lock()
		least = min(least, s.asked)
		s.mu.Unlock()
	}
	if least > 0 {
		t.Errorf("to open, read and close it is asked %d times what it is, after it was looked up", least)
	}
}
