package trust

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Save puts credentials in a file with mode 0600, all or nothing.
func Save(path string, credentials []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".identity-*") // made with 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(credentials)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// credentialsMax bounds a file of credentials in bytes.
const credentialsMax = 1 << 20

// Load reads what Save wrote. A file that others can read is refused: its key is
// no secret any more.
func Load(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others may have read the key; join anew, or chmod 600 it if you are sure", path, info.Mode().Perm())
	}
	return io.ReadAll(io.LimitReader(f, credentialsMax))
}
