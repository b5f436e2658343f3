package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

// The file "current" says which folder holds the state, and the snapshot. It is
// replaced as a whole. It is also what carries the version of the directory's
// format: one that is newer is refused, and nothing is touched.
//
//	offset  size  field
//	     0     4  "DREP"
//	     4     1  version, 1
//	     5     3  zero
//	     8     4  CRC-32C of what follows
//	    12        CBOR of current
const (
	currentMagic   = "DREP"
	currentVersion = 1
	currentHeader  = 12
)

type current struct {
	ID         string `cbor:"1,keyasint,omitempty"` // the member's
	Generation uint64 `cbor:"2,keyasint,omitempty"` // the state is in state.Generation

	// The snapshot: none if Index is zero.
	Index       uint64 `cbor:"3,keyasint,omitempty"`
	Term        uint64 `cbor:"4,keyasint,omitempty"`
	Members     []byte `cbor:"5,keyasint,omitempty"` // raft's encoding of the configuration
	MembersFrom uint64 `cbor:"6,keyasint,omitempty"` // the index it is from
}

func encodeCurrent(c current) []byte {
	body := state.Marshal(c)
	b := append([]byte(currentMagic), currentVersion, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	return append(b, body...)
}

func decodeCurrent(b []byte) (current, error) {
	var c current
	switch {
	case len(b) < currentHeader || string(b[:4]) != currentMagic:
		return c, fmt.Errorf("not a record of a replica's state: %w", meta.Lost)
	case b[4] > currentVersion:
		return c, fmt.Errorf("format %d is newer than this program, which knows %d: %w", b[4], currentVersion, meta.Unsupported)
	case b[4] < 1 || binary.LittleEndian.Uint32(b[8:]) != crc32.Checksum(b[currentHeader:], castagnoli):
		return c, fmt.Errorf("checksum does not match: %w", meta.Lost)
	}
	if err := state.Unmarshal(b[currentHeader:], &c); err != nil {
		return c, fmt.Errorf("%w: %w", meta.Lost, err)
	}
	return c, nil
}

func loadCurrent(dir string) (current, error) {
	path := filepath.Join(dir, "current")
	b, err := os.ReadFile(path)
	if err != nil {
		return current{}, err
	}
	c, err := decodeCurrent(b)
	if err != nil {
		return c, fmt.Errorf("replica: %s: %w", path, err)
	}
	return c, nil
}

// saveCurrent replaces the file. It is durable when it returns.
func saveCurrent(dir string, c current) error {
	path := filepath.Join(dir, "current")
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(encodeCurrent(c))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("replica: writing %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(dir)
}

// firstCurrent makes the record of a new directory. Where there is no record,
// there may be nothing else.
func (r *Replica) firstCurrent() (current, error) {
	for _, name := range []string{"raft", "state.1", "acked"} {
		if _, err := os.Lstat(filepath.Join(r.cfg.Dir, name)); err == nil {
			return current{}, fmt.Errorf("replica: %s has %s but no file \"current\", which says what is valid: %w", r.cfg.Dir, name, meta.Lost)
		} else if !errors.Is(err, os.ErrNotExist) {
			return current{}, err
		}
	}
	if !r.cfg.Bootstrap && r.cfg.Stream == nil {
		return current{}, fmt.Errorf("replica: nothing in %s: %w", r.cfg.Dir, meta.NotExist)
	}
	c := current{ID: r.cfg.ID, Generation: 1}
	return c, saveCurrent(r.cfg.Dir, c)
}

func stateDir(dir string, generation uint64) string {
	return filepath.Join(dir, fmt.Sprintf("state.%d", generation))
}

// removeOthers removes what a crash left: states that are not current, and a
// snapshot that was arriving.
func removeOthers(dir string, generation uint64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, isState := strings.CutPrefix(e.Name(), "state.")
		n, err := strconv.ParseUint(number, 10, 64)
		if e.Name() == "incoming" || isState && err == nil && n != generation {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
