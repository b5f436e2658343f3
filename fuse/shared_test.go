package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dos/fuse/vfs/vfstest"
)

// sharedMounts mounts a cluster n times, for the time of the test.
func sharedMounts(t *testing.T, n int) (c *vfstest.Cluster, dirs []string) {
	t.Helper()
	needFuse(t)
	c = vfstest.New(t, n, 0o755)
	for _, m := range c.Mounts {
		dir := t.TempDir()
		s, err := Mount(t.Context(), Config{MountPoint: dir, FS: m.FS, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			bound, done := context.WithTimeout(context.Background(), 5*time.Second)
			defer done()
			if err := s.Unmount(bound); err != nil {
				t.Errorf("unmounting: %v", err)
				detach(dir)
			}
		})
		dirs = append(dirs, dir)
	}
	return c, dirs
}

func openHere(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o644)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// What is written through one mount is read through the other, by programs that
// have the file open and its pages cached, whatever happens to its times.
func TestSharedPages(t *testing.T) {
	_, dirs := sharedMounts(t, 2)
	const size = 64 << 10
	path := [2]string{filepath.Join(dirs[0], "f"), filepath.Join(dirs[1], "f")}
	must(t, os.WriteFile(path[0], bytes.Repeat([]byte{'0'}, size), 0o644))
	var f [2]*os.File
	for i := range f {
		f[i] = openHere(t, path[i], os.O_RDWR)
	}
	set := time.Unix(1e9, 0)
	got := make([]byte, size)
	for round := range 60 {
		w := round / 3 % 2
		want := bytes.Repeat([]byte{byte('a' + round%26)}, size)
		_, err := f[w].WriteAt(want, 0)
		must(t, err)
		if round%3 == 0 { // the same size and the same mtime as before
			must(t, os.Chtimes(path[w], set, set))
		}
		for _, r := range []int{1 - w, w, 1 - w} {
			if _, err := f[r].ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("round %d: mount %d reads %q… after mount %d wrote %q…, %v", round, r, got[:1], w, want[:1], err)
			}
		}
		st, err := os.Stat(path[1-w])
		if err != nil || st.Size() != size {
			t.Fatalf("round %d: %v, %v", round, st, err)
		}
	}
	// Shorter and longer.
	for round := range 20 {
		w := round % 2
		to := int64(round * 1000 % 7919)
		must(t, f[w].Truncate(to))
		if st, err := f[1-w].Stat(); err != nil || st.Size() != to {
			t.Fatalf("round %d: size %d, want %d, %v", round, st.Size(), to, err)
		}
		n, err := f[1-w].ReadAt(got, 0)
		if n != int(to) || err != io.EOF {
			t.Fatalf("round %d: %d bytes, %v", round, n, err)
		}
	}
}

// A file that both have open grows.
func TestSharedGrow(t *testing.T) {
	_, dirs := sharedMounts(t, 2)
	for round := range 20 {
		var f [2]*os.File
		for i, dir := range dirs {
			f[i] = openHere(t, fmt.Sprint(dir, "/", round), os.O_RDWR|os.O_CREATE)
		}
		for n := range 4 {
			if _, err := f[n%2].WriteAt([]byte("some"), int64(4*n)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 100)
			if n1, err := f[1-n%2].ReadAt(got, 0); n1 != 4*n+4 || err != io.EOF {
				t.Fatalf("round %d: %d bytes, want %d, %v", round, n1, 4*n+4, err)
			}
		}
	}
}

// Appending from two machines loses nothing.
func TestSharedAppend(t *testing.T) {
	_, dirs := sharedMounts(t, 2)
	const lines = 60
	var wg sync.WaitGroup
	for i, dir := range dirs {
		f := openHere(t, filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND)
		wg.Go(func() {
			for n := range lines {
				if _, err := fmt.Fprintf(f, "%d %04d\n", i, n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "log"))
		must(t, err)
		var next [2]int
		for line := range strings.Lines(string(text)) {
			var i, n int
			if _, err := fmt.Sscanf(line, "%d %d\n", &i, &n); err != nil || n != next[i] {
				t.Fatalf("line %q, want number %d: %v", line, next[i], err)
			}
			next[i]++
		}
		if next != [2]int{lines, lines} {
			t.Errorf("%d and %d lines, want %d each", next[0], next[1], lines)
		}
	}
}

// Names, too: what one made, moved or removed, the other sees at once.
func TestSharedNames(t *testing.T) {
	_, dirs := sharedMounts(t, 2)
	a, b := dirs[0], dirs[1]
	absent := func(path string) {
		t.Helper()
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: %v", path, err)
		}
	}
	for range 5 {
		absent(b + "/d/f")
		must(t, os.Mkdir(a+"/d", 0o755))
		must(t, os.WriteFile(b+"/d/f", []byte("one"), 0o600))
		if text, err := os.ReadFile(a + "/d/f"); err != nil || string(text) != "one" {
			t.Fatalf("%q, %v", text, err)
		}
		must(t, os.WriteFile(a+"/d/new", []byte("two"), 0o600))
		must(t, os.Rename(a+"/d/new", a+"/d/f"))
		if text, err := os.ReadFile(b + "/d/f"); err != nil || string(text) != "two" {
			t.Fatalf("%q, %v", text, err)
		}
		must(t, os.Chmod(b+"/d/f", 0o640))
		if st, err := os.Stat(a + "/d/f"); err != nil || st.Mode() != 0o640 {
			t.Fatalf("%v, %v", st, err)
		}
		must(t, unix.Setxattr(a+"/d/f", "user.k", []byte("v"), 0))
		if n, err := unix.Getxattr(b+"/d/f", "user.k", make([]byte, 8)); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		list, err := os.ReadDir(a + "/d")
		if err != nil || len(list) != 1 || list[0].Name() != "f" {
			t.Fatalf("%v, %v", list, err)
		}
		if err := os.Remove(b + "/d"); !errors.Is(err, syscall.ENOTEMPTY) {
			t.Fatal(err)
		}
		must(t, os.Remove(b+"/d/f"))
		absent(a + "/d/f")
		must(t, os.Remove(a+"/d"))
	}
}

// A file that another machine removed lives on for those who have it open.
func TestSharedOpenUnlinked(t *testing.T) {
	_, dirs := sharedMounts(t, 2)
	f := openHere(t, dirs[0]+"/f", os.O_RDWR|os.O_CREATE)
	_, err := f.WriteString("before")
	must(t, err)
	g := openHere(t, dirs[1]+"/f", os.O_RDWR)
	must(t, os.Remove(dirs[1]+"/f"))
	if _, err := os.Stat(dirs[0] + "/f"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it still has its name: %v", err)
	}
	time.Sleep(5 * time.Second) // until everybody was asked
	_, err = f.WriteAt([]byte("after!"), 6)
	must(t, err)
	text := make([]byte, 20)
	if n, err := g.ReadAt(text, 0); err != io.EOF || string(text[:n]) != "beforeafter!" {
		t.Errorf("%q, %v", text[:n], err)
	}
	must(t, g.Close())
	if n, err := f.ReadAt(text, 0); err != io.EOF || string(text[:n]) != "beforeafter!" {
		t.Errorf("%q, %v", text[:n], err)
	}
	st, err := f.Stat()
	if err != nil || st.Sys().(*syscall.Stat_t).Nlink != 0 {
		t.Errorf("%+v, %v", st, err)
	}
}

// Two machines that do everything at once to the same files do not lock each
// other up: reads and writes of cached pages, maps, and pages being dropped.
func TestSharedStorm(t *testing.T) {
	_, dirs := sharedMounts(t, 2)
	for i := range stormFiles {
		must(t, os.WriteFile(fmt.Sprint(dirs[0], "/", i), make([]byte, stormSize), 0o644))
	}
	var storms []*exec.Cmd
	for _, dir := range dirs {
		cmd := child(t, "storm "+dir)
		must(t, cmd.Start())
		storms = append(storms, cmd)
	}
	for i, cmd := range storms {
		if err := cmd.Wait(); err != nil {
			t.Errorf("on mount %d: %v", i, err)
		}
	}
}

const (
	stormFiles = 2
	stormSize  = 256 << 10
	stormTime  = 3 * time.Second
)

// childStorm works on the files in a directory.
func childStorm(dir string) {
	end := time.Now().Add(stormTime)
	var g errgroup.Group
	loop := func(do func(n int) error) {
		g.Go(func() error {
			for n := 0; time.Now().Before(end); n++ {
				if err := do(n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range stormFiles {
		f, err := os.OpenFile(fmt.Sprint(dir, "/", i), os.O_RDWR, 0)
		childMust(err)
		m, err := unix.Mmap(int(f.Fd()), 0, stormSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		childMust(err)
		buf := make([]byte, stormSize)
		loop(func(int) error { _, err := f.ReadAt(buf, 0); return err })
		loop(func(n int) error { _, err := f.WriteAt([]byte("some bytes"), int64(n*4099%(stormSize-16))); return err })
		loop(func(n int) error { m[n*8191%stormSize]++; return unix.Msync(m, unix.MS_SYNC) })
		loop(func(int) error { _, err := os.Stat(f.Name()); return errors.Join(err, f.Sync()) })
	}
	childMust(g.Wait())
}

func childMust(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
