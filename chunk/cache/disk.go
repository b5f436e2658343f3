package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

const (
	// DiskMemory is the part of a node's limit that the disk tier takes, in bytes: the
	// buffers of two Badger databases, values on their way to them, and overdraft.
	DiskMemory = 64 << 20
	// MinDisk is the least size of a disk tier, in bytes: below, what Badger allots in
	// advance would be most of it.
	MinDisk = 128 << 20

	// pendingMax bounds the bytes of values on their way to the disk. What is evicted
	// faster than the disk takes it is gone.
	pendingMax = 8 << 20
	// perValue is what a value takes on the disk beside its bytes: its key twice, and headers.
	perValue = 96
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errDamaged = errors.New("checksum mismatch")
)

// A disk has values by number, each written once, in two databases. When the younger
// has a third of what is allowed the older is deleted, whole, and another begun. So the
// disk is used in order, nothing is ever collected or compacted for room, and values
// that are not needed any more cost nothing but waiting.
//
// It does not know what is valid: the entry in memory does, which has the number.
type disk struct {
	dir  string
	max  int64
	wake chan struct{} // has room for one

	mu      sync.Mutex
	closed  bool
	last    uint64 // the last number
	pending map[uint64][]byte
	size    int64 // of pending, in bytes
	order   []uint64

	// dbs is locked to exchange databases, and for reading while one is read.
	dbs        sync.RWMutex
	young, old *badger.DB // old may be nil
	begins     uint64     // the first number that is in young, if it is not pending
	count      int        // databases ever begun
	written    int64      // to young, in bytes
}

// openDisk empties dir and begins in it.
func openDisk(dir string, max int64) (*disk, error) {
	if max < MinDisk {
		return nil, fmt.Errorf("disk tier of %d bytes, less than %d: %w", max, MinDisk, ErrInvalid)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache: disk tier: %w", err)
	}
	d := &disk{dir: dir, max: max, wake: make(chan struct{}, 1), pending: make(map[uint64][]byte)}
	old, err := filepath.Glob(filepath.Join(dir, "values-*"))
	if err != nil {
		return nil, fmt.Errorf("cache: disk tier: %w", err)
	}
	for _, path := range old {
		if err := os.RemoveAll(path); err != nil {
			return nil, fmt.Errorf("cache: disk tier: %w", err)
		}
	}
	if d.young, err = d.begin(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *disk) begin() (*badger.DB, error) {
	d.count++
	db, err := badger.Open(badger.DefaultOptions(filepath.Join(d.dir, "values-"+strconv.Itoa(d.count))).
		WithSyncWrites(false). // what a crash leaves is deleted
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithMemTableSize(4 << 20).
		WithNumMemtables(2).
		WithNumCompactors(2).
		WithBaseTableSize(2 << 20).
		WithBaseLevelSize(8 << 20).
		WithValueThreshold(1 << 10).
		WithValueLogFileSize(16 << 20).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithLogger(nil))
	if err != nil {
		return nil, fmt.Errorf("cache: disk tier: %w", err)
	}
	return db, nil
}

// put takes a value, unless too much is on its way. The value is the disk's then.
func (d *disk) put(value []byte) (id uint64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := int64(len(value) + perValue)
	if d.closed || d.size+n > pendingMax {
		return 0, false
	}
	d.last++
	d.pending[d.last] = value
	d.order = append(d.order, d.last)
	d.size += n
	select {
	case d.wake <- struct{}{}:
	default:
	}
	return d.last, true
}

// room says whether put would take n bytes, so that they need not be copied in vain.
func (d *disk) room(n int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.closed && d.size+int64(n+perValue) <= pendingMax
}

// value appends a value to buf. ErrMiss if it is not there, or not as it was written.
func (d *disk) value(id uint64, buf []byte) ([]byte, error) {
	d.mu.Lock()
	v, ok := d.pending[id]
	d.mu.Unlock()
	if ok {
		return append(buf, v...), nil
	}
	d.dbs.RLock()
	defer d.dbs.RUnlock()
	db := d.young
	if id < d.begins {
		db = d.old
	}
	if db == nil {
		return nil, ErrMiss
	}
	key := binary.BigEndian.AppendUint64(nil, id)
	err := db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(key)
		if err != nil {
			return err
		}
		return item.Value(func(v []byte) error {
			// Badger gives a value that it cannot read as an empty one.
			n := len(v) - crc32.Size
			if n < 0 || binary.BigEndian.Uint32(v[n:]) != checksum(id, v[:n]) {
				return errDamaged
			}
			buf = append(buf, v[:n]...)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("value %d on disk: %w: %w", id, ErrMiss, err)
	}
	return buf, nil
}

// checksum is what follows a value on disk, big endian: the CRC-32C of its number and
// its bytes.
func checksum(id uint64, value []byte) uint32 {
	sum := crc32.Checksum(binary.BigEndian.AppendUint64(nil, id), castagnoli)
	return crc32.Update(sum, castagnoli, value)
}

// batch returns what is to be written, in order.
func (d *disk) batch() (ids []uint64, values [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range d.order {
		ids, values = append(ids, id), append(values, d.pending[id])
	}
	d.order = nil
	return ids, values
}

// write writes what is pending. lost is the first number that is still there
// when an older database was deleted, else 0.
func (d *disk) write() (lost uint64, err error) {
	ids, values := d.batch()
	if len(ids) == 0 {
		return 0, nil
	}
	if d.written > d.max/3 {
		if lost, err = d.rotate(ids[0]); err != nil {
			return 0, err
		}
	}
	wb := d.young.NewWriteBatch()
	defer wb.Cancel()
	for i, id := range ids {
		v := make([]byte, 0, len(values[i])+crc32.Size)
		v = binary.BigEndian.AppendUint32(append(v, values[i]...), checksum(id, values[i]))
		if err := wb.Set(binary.BigEndian.AppendUint64(nil, id), v); err != nil {
			return lost, fmt.Errorf("cache: disk tier: %w", err)
		}
		d.written += int64(len(values[i]) + perValue)
	}
	if err := wb.Flush(); err != nil {
		return lost, fmt.Errorf("cache: disk tier: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, id := range ids {
		delete(d.pending, id)
		d.size -= int64(len(values[i]) + perValue)
	}
	return lost, nil
}

// rotate deletes the older database and begins another, for numbers from id.
func (d *disk) rotate(id uint64) (lost uint64, err error) {
	d.dbs.Lock()
	defer d.dbs.Unlock()
	if d.old != nil {
		err = errors.Join(d.old.Close(), os.RemoveAll(d.old.Opts().Dir))
		d.old = nil
		if err != nil {
			return 0, fmt.Errorf("cache: disk tier: %w", err)
		}
		lost = d.begins
	}
	db, err := d.begin()
	if err != nil {
		return 0, err
	}
	d.old, d.young = d.young, db
	d.begins, d.written = id, 0
	return lost, nil
}

// fail ends the disk: nothing is taken any more, and what is there may be read.
func (d *disk) fail() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}

func (d *disk) close() error {
	d.fail()
	d.dbs.Lock()
	defer d.dbs.Unlock()
	var err error
	for _, db := range []*badger.DB{d.young, d.old} {
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}
	d.young, d.old = nil, nil
	return err
}

// OpenDisk gives the cache a disk tier that it has not, as Config does. Run has yet to be
// called. If the limit is too low for one it is ErrInvalid.
func (c *Cache) OpenDisk(dir string, max int64) error {
	c.mu.Lock()
	limit := c.limit
	c.mu.Unlock()
	if limit-DiskMemory < MinLimit {
		return fmt.Errorf("limit of %d bytes, less than %d: %w", limit, MinLimit+DiskMemory, ErrInvalid)
	}
	d, err := openDisk(dir, max)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.closed || c.disk != nil {
		c.mu.Unlock()
		return errors.Join(ErrClosed, d.close())
	}
	c.disk, c.reserve = d, DiskMemory
	c.mu.Unlock()
	return c.SetLimit(limit)
}

// Run writes to the disk tier what comes for it, until ctx is done or the disk fails.
// Then nothing more goes there; the cache works on. It must have returned before Close.
func (c *Cache) Run(ctx context.Context) error {
	if c.disk == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	defer c.disk.fail()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.disk.wake:
		}
		lost, err := c.disk.write()
		for lost > 0 && !c.forget(lost) {
		}
		if err != nil {
			return err
		}
	}
}
