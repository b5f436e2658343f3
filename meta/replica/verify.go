package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"

	"dos/meta"
)

// verifyTables reads every table that the state consists of and compares its
// checksums. Badger could do that itself, but it ends the process where it finds
// one that does not match, and when it is told to look only at what it reads, an
// iterator takes a damaged block for the end of its table.
func verifyTables(dir string) error {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	manifest, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir).WithLogger(nil))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("replica: the list of tables in %s: %w: %w", dir, meta.Lost, err)
	}
	for id := range manifest.Tables {
		path := table.NewFilename(id, dir)
		if err := verifyTable(path); err != nil {
			return fmt.Errorf("replica: table %s: %w: %w", path, meta.Lost, err)
		}
	}
	return nil
}

func verifyTable(path string) (err error) {
	// Badger's reader panics on some kinds of damage.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("checksum or structure is wrong (%.100v)", p)
		}
	}()
	file, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(-1)) }()
	t, err := table.OpenTable(file, table.Options{ChkMode: options.OnBlockRead, Compression: options.None})
	if err != nil {
		return err
	}
	return t.VerifyChecksum()
}
