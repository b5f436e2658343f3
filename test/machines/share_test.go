package machines

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

// believed reads a file until the kernel of its mount answers by itself.
func believed(t *testing.T, m *cluster.Mount, f *os.File, size int) {
	t.Helper()
	const reads = 200
	buf := make([]byte, size)
	cluster.Await(t, leaseLimit, func() error {
		before := systemReads(t, m)
		for range reads {
			if _, err := f.ReadAt(buf, 0); err != nil {
				t.Fatal(err)
			}
		}
		if n := systemReads(t, m) - before; n > reads/4 {
			return fmt.Errorf("%d reads of a file took %d of the mount", reads, n)
		}
		return nil
	})
}

// systemReads counts the system calls to read that a mount's process has made: one
// at least for each request of the kernel's.
func systemReads(t *testing.T, m *cluster.Mount) (n int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", m.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if _, err := fmt.Sscanf(string(line), "syscr: %d", &n); err == nil {
			return n
		}
	}
	t.Fatalf("no syscr in %q", text)
	return 0
}

// reader opens a file for reading only: what is open for writing too is not answered
// from the kernel's pages.
func reader(t *testing.T, m *cluster.Mount, name string) *os.File {
	t.Helper()
	f, err := os.Open(m.Path(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) //nolint:errcheck // its mount may be dead
	return f
}

// shared has two mounts whose kernels read a file by themselves, until one is
// stopped: what the other then writes waits until the stopped one's kernel does not
// believe any more.
func shared(t *testing.T, a, b *cluster.Mount) {
	const size = 300_000
	data, others := witness.Bytes(21, size), witness.Bytes(22, size)
	if err := os.WriteFile(b.Path("shared"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	fa, fb := reader(t, a, "shared"), reader(t, b, "shared")
	_, writer := both(t, a, b, "shared")
	holds := func(f *os.File, want []byte) error {
		got := make([]byte, size)
		n, err := f.ReadAt(got, 0)
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("it reads %d bytes, %.8x…, want %.8x…", n, got, want)
		}
		return err
	}
	believed(t, a, fa, size)
	believed(t, b, fb, size)
	began := time.Now()
	if _, err := writer.WriteAt(others, 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("writing what another mount reads took %.1f ms", time.Since(began).Seconds()*1e3)
	for i, f := range []*os.File{fa, fb} {
		if err := holds(f, others); err != nil {
			t.Fatalf("after it was written, on mount %d: %v", i, err)
		}
	}
	believed(t, a, fa, size)
	a.Pause(t)
	paused := true
	defer func() {
		if paused {
			a.Resume(t)
		}
	}()
	if err := holds(fa, others); err != nil { // answered by the kernel, or this waits for ever
		t.Errorf("read from a mount that is stopped, within its lease: %v", err)
	}
	began = time.Now()
	if _, err := writer.WriteAt(data, 0); err != nil {
		t.Errorf("writing what a stopped mount has a lease of: %v", err)
	}
	t.Logf("writing what a stopped mount has a lease of took %.1f s", time.Since(began).Seconds())
	read := make(chan error, 1)
	go func() { read <- holds(fa, data) }()
	select {
	case err := <-read:
		t.Errorf("a mount that is stopped has answered, which it cannot know to be right: %v", err)
	case <-time.After(time.Second):
	}
	a.Resume(t)
	paused = false
	if err := <-read; err != nil {
		t.Errorf("after it goes on: %v", err)
	}
	believed(t, a, fa, size)
}
