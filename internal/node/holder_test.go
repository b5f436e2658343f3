package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestIsGoing(t *testing.T) {
	self := os.Getpid()
	dead := exec.Command("/bin/cat")
	in, err := dead.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	if isGoing(fmt.Sprintf("process %d", dead.Process.Pid)) {
		t.Error("a process that runs counts as going")
	}
	if err := dead.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Nobody has waited for it: it is dying, or dead and not buried.
	if !isGoing(fmt.Sprintf("process %d", dead.Process.Pid)) {
		t.Error("a process that was killed does not count as going")
	}
	dead.Wait() // says that it was killed
	in.Close()
	if !isGoing(fmt.Sprintf("process %d", dead.Process.Pid)) {
		t.Error("a process that is no more does not count as going")
	}
	for holder, want := range map[string]bool{
		fmt.Sprintf("process %d", self):              false,
		fmt.Sprintf("process %d at /no/mount", self): true, // it was unmounted
		fmt.Sprintf("process %d at /a b at c", self): true,
		fmt.Sprintf("process %d of something", self): false,
		"":            false,
		"process":     false,
		"nonsense 12": false,
	} {
		if got := isGoing(holder); got != want {
			t.Errorf("%q: got %v, want %v", holder, got, want)
		}
	}
}

// A start waits for who was unmounted, and for nobody else.
func TestAwaitGoing(t *testing.T) {
	dir := t.TempDir()
	awaitGoing(t.Context(), filepath.Join(dir, "missing")) // returns
	awaitGoing(t.Context(), dir)
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := noteHolder(lock, ""); err != nil {
		t.Fatal(err)
	}
	awaitGoing(t.Context(), dir) // the holder, this process, stays
	if err := noteHolder(lock, "/no/mount"); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	awaitGoing(ended, dir) // waits no longer than it may
	returned := make(chan struct{})
	go func() {
		awaitGoing(t.Context(), dir)
		close(returned)
	}()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	<-returned
}
