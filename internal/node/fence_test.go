package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dos/internal/boottime"
	"dos/meta"
	"dos/meta/client"
)

// A fence comes down when a runner's hour has passed, between it and all that it started, and
// nobody else; and is up again when the session is renewed, or has ended.
func TestFence(t *testing.T) {
	data := t.TempDir()
	dir := filepath.Join(runsDir(data), "key")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := takeRunDir(dir) // this process is the runner
	if err != nil || lock == nil {
		t.Fatal(lock, err)
	}
	defer lock.Close()
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	self, its, other := uint32(syscall.Gettid()), uint32(child.Process.Pid), uint32(os.Getppid())

	holds := func(when string, down bool) {
		t.Helper()
		f := &fence{data: data} // which has not looked yet
		for who, thread := range map[string]uint32{"the runner": self, "a task": its} {
			if err := f.Refuses(thread); errors.Is(err, meta.Fenced) != down || err != nil != down {
				t.Errorf("%s: %s: %v", when, who, err)
			}
		}
		for who, thread := range map[string]uint32{"somebody else": other, "nobody": 0} {
			if err := f.Refuses(thread); err != nil {
				t.Errorf("%s: %s: %v", when, who, err)
			}
		}
		if err := f.admits(t.Context()); err != nil {
			t.Errorf("%s: what is asked for by nobody: %v", when, err)
		}
	}
	holds("no session", false)
	var left atomic.Int64
	left.Store(int64(client.SessionTTL) - 1)
	h, err := beginHour(dir, func() time.Duration { return time.Duration(left.Load()) })
	if err != nil {
		t.Fatal(err)
	}
	holds("a session", false)
	f := &fence{data: data}
	if err := f.Refuses(its); err != nil {
		t.Fatal(err)
	}
	h.told, h.left = 0, func() time.Duration { return 0 }
	if err := h.tell(); err != nil {
		t.Fatal(err)
	}
	holds("its hour has passed", true)
	for began := time.Now(); f.Refuses(its) == nil; time.Sleep(time.Millisecond) { // which has looked before
		if time.Since(began) > 10*time.Second {
			t.Fatal("it does not notice that an hour has passed")
		}
	}
	h.left = func() time.Duration { return client.SessionTTL - 1 }
	if err := h.tell(); err != nil {
		t.Fatal(err)
	}
	holds("it is renewed", false)
	if err := f.Refuses(its); err != nil {
		t.Errorf("it is renewed: %v", err)
	}
	write := func(first, second time.Duration) {
		t.Helper()
		if _, err := h.file.WriteAt(fmt.Appendf(nil, hourFormat, first, second), 0); err != nil {
			t.Fatal(err)
		}
	}
	later := boottime.Now() + 10*time.Second
	write(later, later+1)
	holds("it cannot be read", true)
	write(later+100*time.Hour, later+100*time.Hour)
	holds("it is of another life of the machine", false)
	if err := h.end(); err != nil {
		t.Fatal(err)
	}
	holds("the session has ended", false)

	if h, err := beginHour(dir, func() time.Duration { return fenceLook }); err == nil {
		t.Error("a session begins whose hour may pass unseen")
		_ = h.end()
	}
	holds("no session has begun", false)
}

// An hour is read as it was written, also while another is.
func TestHour(t *testing.T) {
	dir := t.TempDir()
	var n atomic.Int64
	base := boottime.Now()
	n.Store(int64(client.SessionTTL / 2))
	h, err := beginHour(dir, func() time.Duration { return time.Duration(n.Load()) - (boottime.Now() - base) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Second/2)
	defer stop()
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			n.Add(1)
			h.told = 0
			if err := h.tell(); err != nil {
				done <- err
				return
			}
		}
		done <- h.end()
	}()
	var last time.Duration
	for reads := 0; ctx.Err() == nil; reads++ {
		first := n.Load()
		hour, ok := readHour(hourFile(dir), base+client.SessionTTL)
		if !ok {
			break
		}
		// It is computed from two looks at the clock.
		if most := base + time.Duration(n.Load()) + time.Second; hour < last-time.Second || hour > most || hour < base+time.Duration(first)-time.Second {
			t.Fatalf("read %d: %v after %v", reads, hour, last)
		}
		last = hour
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
