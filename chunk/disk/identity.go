package disk

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"dos/chunk"
	"dos/internal/disk"
)

// MaxCluster bounds the length of a cluster's id, in bytes.
const MaxCluster = 64

// An Incarnation names the contents of a store: random, new whenever a store
// starts empty.
type Incarnation [16]byte

func (i Incarnation) String() string { return hex.EncodeToString(i[:]) }

// An Identity says whose a store is. It stands in two files and at the head of
// each segment:
//
//	offset  size  field
//	     0     8  "DOSSTORE", in a segment "DOSSEGMT"
//	     8     4  version of the store's format, 1
//	    12     4  CRC-32C of bytes 0 to 11; so far alike in all versions
//	    16    16  incarnation
//	    32     4  store
//	    36     4  length of the cluster's id
//	    40    64  the cluster's id, then zeros
//	   104     4  number of the segment, else zero
//	   108     4  CRC-32C of bytes 0 to 107
//
// In a segment zeros fill the block.
type Identity struct {
	Cluster     string
	Store       chunk.StoreID
	Incarnation Incarnation
}

const (
	identitySize  = 112
	identityMagic = "DOSSTORE"
	segmentMagic  = "DOSSEGMT"
	identityName  = "identity"
	copyName      = "identity.copy"
)

func (id Identity) encode(magic string, segment uint32) []byte {
	b := prologue(magic, identitySize)
	copy(b[16:], id.Incarnation[:])
	le.PutUint32(b[32:], uint32(id.Store))
	le.PutUint32(b[36:], uint32(len(id.Cluster)))
	copy(b[40:104], id.Cluster)
	le.PutUint32(b[104:], segment)
	le.PutUint32(b[108:], crc32.Checksum(b[:108], castagnoli))
	return b
}

func decodeIdentity(b []byte, magic string) (id Identity, segment uint32, err error) {
	if err := checkPrologue(b, magic); err != nil {
		return id, 0, err
	}
	if len(b) < identitySize || le.Uint32(b[108:]) != crc32.Checksum(b[:108], castagnoli) {
		return id, 0, errChecksum
	}
	n := le.Uint32(b[36:])
	if n > MaxCluster || !bytes.Equal(b[40+n:104], zeroBlock[:MaxCluster-n]) {
		return id, 0, errHeader
	}
	id = Identity{string(b[40 : 40+n]), chunk.StoreID(le.Uint32(b[32:])), Incarnation(b[16:32])}
	return id, le.Uint32(b[104:]), nil
}

// prologue returns size zeros behind the first 16 bytes that all our files have.
func prologue(magic string, size int) []byte {
	b := make([]byte, size)
	copy(b, magic)
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
	return b
}

func checkPrologue(b []byte, magic string) error {
	if len(b) < 16 || string(b[:8]) != magic || le.Uint32(b[12:]) != crc32.Checksum(b[:12], castagnoli) {
		return errHeader
	}
	if v := le.Uint32(b[8:]); v != version {
		return fmt.Errorf("version %d, this program knows %d: %w", v, version, ErrNewer)
	}
	return nil
}

// ReadIdentity says whose store is in a folder. It changes nothing.
func ReadIdentity(fsys disk.FS, dir string) (Identity, error) {
	names, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	if err != nil {
		return Identity{}, err
	}
	found := false
	var newer error
	for _, name := range names {
		magic, size := identityMagic, identitySize
		_, isSegment := segmentNumber(name)
		switch {
		case isSegment:
			magic = segmentMagic
		case name != identityName && name != copyName:
			continue
		}
		found = true
		b, err := head(fsys, filepath.Join(dir, name), size)
		if err != nil {
			continue // as bad as a damaged one; another may be good
		}
		id, _, err := decodeIdentity(b, magic)
		switch {
		case err == nil: // sorted names: the two files come before the segments
			return id, nil
		case errors.Is(err, ErrNewer):
			newer = err
		}
	}
	switch {
	case newer != nil:
		return Identity{}, fmt.Errorf("%s: %w", dir, newer)
	case found:
		return Identity{}, fmt.Errorf("%s: %w", dir, ErrDamaged)
	}
	return Identity{}, fmt.Errorf("%s: %w", dir, ErrNone)
}

// head returns up to n bytes of the beginning of a file.
func head(fsys disk.FS, name string, n int) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	n, err = f.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	return b[:n], err
}

// Create makes an empty store with a new incarnation in dir. The folder is made
// if it is missing, but not the one above it.
func Create(dir string, c Config) (Identity, error) {
	c, err := c.withDefaults()
	if err != nil {
		return Identity{}, err
	}
	if err := c.FS.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return Identity{}, err
	}
	if err := c.FS.SyncDir(filepath.Dir(dir)); err != nil { // also of a folder that an earlier attempt made
		return Identity{}, err
	}
	lock, err := c.FS.Lock(dir)
	if err != nil {
		return Identity{}, err
	}
	defer lock.Close()
	if _, err := ReadIdentity(c.FS, dir); !errors.Is(err, ErrNone) {
		return Identity{}, fmt.Errorf("%s: %w", dir, ErrOccupied)
	}
	id := Identity{Cluster: c.Cluster, Store: c.Store}
	if _, err := rand.Read(id.Incarnation[:]); err != nil {
		return Identity{}, err
	}
	for _, name := range []string{copyName, identityName} {
		if err := replace(c.FS, dir, name, id.encode(identityMagic, 0)); err != nil {
			return Identity{}, err
		}
	}
	return id, nil
}

// Clear removes what a damaged store left in a folder, and nothing else in it.
func Clear(dir string, c Config) error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	lock, err := c.FS.Lock(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := ReadIdentity(c.FS, dir); !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%s: not a damaged store: %w", dir, errors.Join(err, ErrOccupied))
	}
	names, err := c.FS.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !ours(name) {
			continue
		}
		if err := c.FS.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return c.FS.SyncDir(dir)
}

func ours(name string) bool {
	if _, ok := segmentNumber(name); ok {
		return true
	}
	for _, n := range []string{identityName, copyName, checkpointName, reserveName, scrubName} {
		if name == n || name == n+newSuffix {
			return true
		}
	}
	return false
}

const newSuffix = ".new"

// replace puts a file with these contents at a name, all or nothing.
func replace(fsys disk.FS, dir, name string, contents []byte) error {
	return replaceBy(fsys, dir, name, func(f disk.File) error {
		_, err := f.WriteAt(contents, 0)
		return err
	})
}

func replaceBy(fsys disk.FS, dir, name string, write func(disk.File) error) (err error) {
	path := filepath.Join(dir, name)
	if err := fsys.Remove(path + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(path + newSuffix)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, fsys.Remove(path+newSuffix))
	}
	if err := fsys.Rename(path+newSuffix, path); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// heal makes both copies of the identity whole, as far as the disk lets it, and
// returns the name of one that is.
func heal(c Config, dir string, id Identity) (string, error) {
	want := id.encode(identityMagic, 0)
	good := ""
	var errs error
	for _, name := range []string{copyName, identityName} {
		b, err := head(c.FS, filepath.Join(dir, name), identitySize+1)
		if err == nil && bytes.Equal(b, want) {
			good = name
			continue
		}
		if err := replace(c.FS, dir, name, want); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		c.Log.Warn("chunk store: identity file mended", "dir", dir, "file", name)
		good = name
	}
	if good == "" {
		return "", errs
	}
	return good, nil
}
