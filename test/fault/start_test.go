package fault

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"dos/test/cluster"
	"dos/test/witness"
)

// TestAtOnce starts dosmount right after its predecessor was killed or
// unmounted, when that has not yet let go of the mount and the data.
func TestAtOnce(t *testing.T) {
	cluster.NeedFuse(t)
	m := cluster.Start(t, cluster.Dir(t)+"/data")
	files := make(map[string][]byte)
	for round := range 3 {
		for _, end := range []struct {
			how string
			do  func() error
		}{
			{"killed", func() error { return syscall.Kill(m.PID(), syscall.SIGKILL) }},
			{"unmounted", func() error { return cluster.Detach(m.Point) }},
		} {
			path, data := m.Path(fmt.Sprint(end.how, round)), witness.Bytes(uint64(round), 2<<20)
			if err := witness.WriteSynced(path, data); err != nil {
				t.Fatal(err)
			}
			files[path] = data
			// More to let go of: dirty data and a process of some size.
			if err := os.WriteFile(m.Path("dirty"), witness.Bytes(9, 40<<20), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := end.do(); err != nil {
				t.Fatal(err)
			}
			m.Again(t)
			for path, want := range files {
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, round %d: %s has %d bytes, %v", end.how, round, path, len(got), err)
				}
			}
		}
	}
	// So does a check, which has nothing to say but what it checked.
	if err := syscall.Kill(m.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if r := cluster.Run(t, cluster.Bin("dosctl"), "--data", m.Data, "fsck"); r.Code != 0 || r.Stderr != "" {
		t.Errorf("dosctl fsck: %+v, want status 0 and no word on standard error", r)
	}
	m.Again(t)
}

// TestBackground has dosmount go to the background: with all flags that it
// was given, with a log, and until it is unmounted.
func TestBackground(t *testing.T) {
	cluster.NeedFuse(t)
	data := cluster.Dir(t) + "/data"
	m := cluster.Start(t, data, "--ec", "2+1")
	if err := os.MkdirAll(m.Path("a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Stop(t)
	dir := cluster.Dir(t)
	point := filepath.Join(dir, "m")
	r := cluster.Run(t, cluster.Bin("dosmount"), "-d", "--data", data, "--subtree", "a", "-o", "ro", point)
	if r.Code != 0 || r.Stdout != "dos: mounted at "+point+"\n" || r.Stderr != "" {
		t.Fatalf("dosmount -d: %+v", r)
	}
	t.Cleanup(func() {
		if on, err := cluster.Mounted(point); on || err != nil {
			if err := cluster.Detach(point); err != nil {
				t.Error(err)
			}
		}
	})
	if list, err := os.ReadDir(point); err != nil || len(list) != 1 || list[0].Name() != "b" {
		t.Errorf("the subtree lists %v, %v", list, err)
	}
	if err := os.Mkdir(filepath.Join(point, "c"), 0o755); !errors.Is(err, syscall.EROFS) {
		t.Errorf("mkdir on a mount with -o ro: %v, want EROFS", err)
	}
	if _, err := os.Stat(filepath.Join(data, "dosmount.log")); err != nil {
		t.Errorf("its log: %v", err)
	}
	if err := cluster.Detach(point); err != nil {
		t.Fatal(err)
	}
	// It made the mount point, so it removes it.
	cluster.Await(t, time.Minute, func() error {
		if _, err := os.Stat(point); !os.IsNotExist(err) {
			return fmt.Errorf("%s is still there (%v)", point, err)
		}
		return nil
	})
	fsck(t, data)
}
