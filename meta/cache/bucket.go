package cache

import (
	"encoding/binary"
	"fmt"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

var (
	counterKey   = []byte("Ac")
	bucketPrefix = []byte("Ab")
)

// counters is the row "Ac", which changes with everything.
type counters struct {
	Stamp   uint64 `cbor:"1,keyasint,omitempty"`
	Version uint64 `cbor:"2,keyasint,omitempty"`
	Last    uint64 `cbor:"3,keyasint,omitempty"` // number of a bucket
	Buckets int    `cbor:"4,keyasint,omitempty"`
}

// FollowKey is the row that changes with everything.
func FollowKey() []byte { return counterKey }

func bucketKey(name string) []byte { return append(bucketPrefix[:2:2], name...) }

func dirKey(bucket uint64, path string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte("Ad"), bucket), path...)
}

func read[Row any](r state.Reader, key []byte) (row Row, ok bool) {
	val, ok := r.Get(key)
	if ok {
		state.MustUnmarshal(val, &row)
	}
	return row, ok
}

// change gives what there is another version, and returns it.
func change(tx *state.Tx, more func(*counters)) Changed {
	c, _ := read[counters](tx, counterKey)
	c.Stamp++
	c.Version++
	if more != nil {
		more(&c)
	}
	tx.Set(counterKey, state.Marshal(c))
	return Changed{c.Version}
}

func find(r state.Reader, name string) (Bucket, error) {
	b, ok := read[Bucket](r, bucketKey(name))
	if !ok {
		return b, fmt.Errorf("bucket %.80q: %w", name, meta.NotExist)
	}
	return b, nil
}

func put(tx *state.Tx, b Bucket) {
	b.Mtime = meta.At(tx.Now)
	tx.Set(bucketKey(b.Name), state.Marshal(b))
}

func makeBucket(tx *state.Tx, req Make) (Changed, error) {
	if err := meta.CheckName(req.Name); err != nil {
		return Changed{}, fmt.Errorf("bucket %.80q: %w", req.Name, err)
	}
	if req.Name[0] == '.' {
		return Changed{}, fmt.Errorf("bucket %q: names that begin with a dot are reserved: %w", req.Name, meta.Invalid)
	}
	if _, err := find(tx, req.Name); err == nil {
		return Changed{}, meta.Exist
	}
	if c, _ := read[counters](tx, counterKey); c.Buckets >= BucketsMax {
		return Changed{}, fmt.Errorf("there are %d buckets: %w", c.Buckets, meta.Quota)
	}
	b := Bucket{Name: req.Name, UID: req.UID, GID: req.GID, Mode: req.Mode & 0o7777, Settings: Settings{Replicas: 1}}
	done := change(tx, func(c *counters) {
		c.Last++
		c.Buckets++
		b.ID = c.Last
	})
	b.Placed = done.Version
	put(tx, b)
	return done, nil
}

func removeBucket(tx *state.Tx, req Named) (Changed, error) {
	b, err := find(tx, req.Name)
	if err != nil {
		return Changed{}, err
	}
	if b.Dirs > 0 {
		return Changed{}, meta.NotEmpty
	}
	tx.Delete(bucketKey(b.Name))
	return change(tx, func(c *counters) { c.Buckets-- }), nil
}

func setBucket(tx *state.Tx, req Set) (Changed, error) {
	b, err := find(tx, req.Name)
	if err != nil {
		return Changed{}, err
	}
	was := b.Settings.Replicas
	assign(&b.UID, req.UID)
	assign(&b.GID, req.GID)
	assign(&b.Mode, req.Mode)
	s := &b.Settings
	assign(&s.Max, req.Max)
	assign(&s.Tier, req.Tier)
	assign(&s.TTL, req.TTL)
	assign(&s.Policy, req.Policy)
	assign(&s.Replicas, req.Replicas)
	switch {
	case b.Mode > 0o7777, s.Max < 0, s.Tier > Both, s.TTL < 0, s.TTL > ttlMax, s.Policy > FIFO:
		return Changed{}, fmt.Errorf("mode %o, settings %+v: %w", b.Mode, *s, meta.Invalid)
	case s.Replicas < 1 || s.Replicas > ReplicasMax:
		return Changed{}, fmt.Errorf("%d replicas, 1 to %d: %w", s.Replicas, ReplicasMax, meta.Invalid)
	}
	if req.Clear {
		b.Generation++
	}
	done := change(tx, nil)
	if s.Replicas != was {
		b.Placed = done.Version
	}
	put(tx, b)
	return done, nil
}

func assign[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// checkPath refuses what is no path of a directory.
func checkPath(path string) error {
	if len(path) >= KeyMax {
		return fmt.Errorf("directory of %d bytes, under %d: %w", len(path), KeyMax, meta.NameTooLong)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part[0] == '.' {
			return fmt.Errorf("directory %.80q: names that begin with a dot are reserved: %w", path, meta.Invalid)
		}
	}
	return nil
}

func makeDir(tx *state.Tx, req Dir) (Changed, error) {
	b, err := find(tx, req.Bucket)
	if err == nil {
		err = checkPath(req.Path)
	}
	if err != nil {
		return Changed{}, err
	}
	if above := parent(req.Path); above != "" {
		if _, is := tx.Get(dirKey(b.ID, above)); !is {
			return Changed{}, meta.NotExist
		}
	}
	key := dirKey(b.ID, req.Path)
	if _, is := tx.Get(key); is {
		return Changed{}, meta.Exist
	}
	if b.Dirs >= DirsMax {
		return Changed{}, fmt.Errorf("bucket %q has %d directories: %w", b.Name, b.Dirs, meta.Quota)
	}
	tx.Set(key, []byte{})
	b.Dirs++
	put(tx, b)
	return change(tx, nil), nil
}

func parent(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

func removeDir(tx *state.Tx, req Dir) (Changed, error) {
	b, err := find(tx, req.Bucket)
	if err != nil {
		return Changed{}, err
	}
	key := dirKey(b.ID, req.Path)
	if _, is := tx.Get(key); !is {
		return Changed{}, meta.NotExist
	}
	below := dirKey(b.ID, req.Path+"/")
	for range tx.Scan(below, state.After(below)) {
		return Changed{}, meta.NotEmpty
	}
	tx.Delete(key)
	b.Dirs--
	put(tx, b)
	return change(tx, nil), nil
}
