package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"dos/internal/admin"
)

// Each dos that runs has a symbolic link to its data directory in a folder
// that its user shares with nobody, so that dosctl finds it without being told.
func runDir() string {
	if os.Geteuid() == 0 {
		return "/run/dos"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "dos")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("dos-%d", os.Geteuid()))
}

// announce makes the link; the function it returns removes it.
func announce(data string) (remove func() error, err error) {
	dir := runDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		return nil, fmt.Errorf("%s is not a directory of ours", dir)
	}
	link := filepath.Join(dir, fmt.Sprintf("%x", sha256.Sum256([]byte(data)))[:16])
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return func() error { return os.Remove(link) }, os.Symlink(data, link)
}

// Running returns the data directory of the one embedded cluster that runs for
// this user.
func Running(ctx context.Context) (string, error) {
	links, err := os.ReadDir(runDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	var found []string
	for _, l := range links {
		data, err := os.Readlink(filepath.Join(runDir(), l.Name()))
		if err != nil {
			continue
		}
		if _, err := Socket(ctx, data); err == nil {
			found = append(found, data)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%w here; --data DIR says where its directory is", ErrNotRunning)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("more than one dos runs here: --data %s?", strings.Join(found, ", --data "))
}

// Socket returns the administration's socket of the dos that runs on a data
// directory. ErrNotRunning if the directory is one but nothing runs on it; what
// is on its way out it waits for.
func Socket(ctx context.Context, data string) (string, error) {
	if _, err := os.Stat(filepath.Join(data, "format")); err != nil {
		return "", fmt.Errorf("%s is not a data directory of dos: %w", data, err)
	}
	awaitGoing(ctx, data)
	sock := filepath.Join(data, "sock")
	if err := admin.Reachable(sock); err != nil {
		return "", fmt.Errorf("%w on %s", ErrNotRunning, data)
	}
	return sock, nil
}
