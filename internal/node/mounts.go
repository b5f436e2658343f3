package node

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"dos/chunk"
)

// mounts remembers where the file system of each store was mounted. A disk that
// is not mounted looks like one that was emptied, but then its folder lies on
// another file system than it did, and nothing is to be begun there.
//
// The file mounts of a data directory has them, a line "STORE FOLDER" each, the
// folder quoted as in Go. Of a store without a line nothing is known.
type mounts struct {
	file string
	mu   sync.Mutex
	at   map[chunk.StoreID]string // guarded by mu
}

// An unmountedError says that a store's file system is not mounted.
type unmountedError struct{ point string }

func (e *unmountedError) Error() string { return e.point + " is not mounted" }

func loadMounts(file string) (*mounts, error) {
	m := &mounts{file: file, at: make(map[chunk.StoreID]string)}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(strings.NewReader(string(text))); lines.Scan(); {
		var id chunk.StoreID
		var point string
		if n, _ := fmt.Sscanf(lines.Text(), "%d %q", &id, &point); n != 2 || !filepath.IsAbs(point) {
			return nil, fmt.Errorf("%s: bad line %q", file, lines.Text())
		}
		m.at[id] = point
	}
	return m, nil
}

// check reports an *unmountedError if what path lies on is not mounted where it
// was when the store was seen there last.
func (m *mounts) check(id chunk.StoreID, path string) error {
	m.mu.Lock()
	was := m.at[id]
	m.mu.Unlock()
	if was == "" {
		return nil
	}
	now, err := mountPoint(path)
	if rel, _ := filepath.Rel(now, was); err == nil && now != was && filepath.IsLocal(rel) {
		err = &unmountedError{was} // and one above it has the folder
	}
	return err
}

// saw notes that the store is at path.
func (m *mounts) saw(id chunk.StoreID, path string) error {
	point, err := mountPoint(path)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at[id] == point {
		return nil
	}
	next := maps.Clone(m.at)
	next[id] = point
	var text strings.Builder
	for _, id := range slices.Sorted(maps.Keys(next)) {
		fmt.Fprintf(&text, "%d %q\n", id, next[id])
	}
	if err := replaceFile(m.file, text.String()); err != nil {
		return err
	}
	m.at = next
	return nil
}

// resolve follows the links in path, as far as there is something.
func resolve(path string) string {
	for rest := ""; ; {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Join(real, rest)
		}
		if path == filepath.Dir(path) {
			return filepath.Join(path, rest)
		}
		path, rest = filepath.Dir(path), filepath.Join(filepath.Base(path), rest)
	}
}

// mountPoint is the highest folder above path on the same file system, which is
// that of the lowest folder above it that there is.
func mountPoint(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	path = resolve(path)
	for device(path) == 0 && path != "/" {
		path = filepath.Dir(path)
	}
	for path != "/" && device(filepath.Dir(path)) == device(path) {
		path = filepath.Dir(path)
	}
	return path, nil
}
