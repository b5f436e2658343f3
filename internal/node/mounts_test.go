package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where stores are mounted is there at the next start, whatever the folders are
// called, and one that is mounted no more is missed.
func TestMounts(t *testing.T) {
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "mounts"), filepath.Join(dir, "disk\none two")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := loadMounts(file)
	if err != nil {
		t.Fatal(err)
	}
	point, err := mountPoint(folder)
	if err != nil || strings.HasPrefix(point, folder) {
		t.Fatalf("%s is mounted at %q, %v", folder, point, err)
	}
	for range 2 {
		if err := m.saw(1, filepath.Join(folder, "not", "there", "yet")); err != nil || m.at[1] != point {
			t.Errorf("seen at %q, %v; want %q", m.at[1], err, point)
		}
	}
	m.at[2] = folder // as if it had been mounted there
	if err := m.saw(3, folder); err != nil {
		t.Fatal(err)
	}
	if m, err = loadMounts(file); err != nil {
		t.Fatal(err)
	}
	if err := m.check(1, folder); err != nil {
		t.Errorf("on the file system that it was on: %v", err)
	}
	if err := m.check(4, folder); err != nil {
		t.Errorf("one that nothing is known of: %v", err)
	}
	var unmounted *unmountedError
	if err := m.check(2, filepath.Join(folder, "store")); !errors.As(err, &unmounted) || unmounted.point != folder {
		t.Errorf("not mounted: %v", err)
	}
	if err := os.WriteFile(file, []byte("1 /disk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadMounts(file); err == nil {
		t.Error("a line that is not of the file was read")
	}
}
