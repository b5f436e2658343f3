package namespace

import (
	"encoding/binary"
	"fmt"

	"dos/chunk"
	"dos/meta"
	"dos/meta/lease"
	"dos/meta/state"
)

// An inode is a row "i".
type inode struct {
	Attr       meta.Attr `cbor:"1,keyasint,omitempty"`
	Parent     meta.Ino  `cbor:"2,keyasint,omitempty"`  // of a directory; the root's is itself
	Entries    int64     `cbor:"3,keyasint,omitempty"`  // of a directory: its names
	Target     string    `cbor:"4,keyasint,omitempty"`  // of a symlink
	Extents    int64     `cbor:"5,keyasint,omitempty"`  // rows "x"
	Inline     int64     `cbor:"6,keyasint,omitempty"`  // bytes of them that are inline
	Stripes    int64     `cbor:"7,keyasint,omitempty"`  // rows "s" with live bytes
	Gen        uint64    `cbor:"8,keyasint,omitempty"`  // of the last cut
	Cuts       []cut     `cbor:"9,keyasint,omitempty"`  // whose dead extents may still have rows
	Xattrs     int64     `cbor:"10,keyasint,omitempty"` // rows "a"
	XattrBytes int64     `cbor:"11,keyasint,omitempty"` // of their names, each with a zero byte
	Keepers    int64     `cbor:"12,keyasint,omitempty"` // rows "o" and "q" beside the first
}

// A cut is a range whose extents of lower generations are dead.
type cut struct {
	From int64  `cbor:"1,keyasint,omitempty"`
	To   int64  `cbor:"2,keyasint,omitempty"`
	Gen  uint64 `cbor:"3,keyasint,omitempty"`
}

// A dentry is a row "d".
type dentry struct {
	Ino  meta.Ino `cbor:"1,keyasint,omitempty"`
	Type uint32   `cbor:"2,keyasint,omitempty"`
}

// An extentRow is a row "x".
type extentRow struct {
	Len    int64          `cbor:"1,keyasint,omitempty"` // zero when inline
	Stripe chunk.StripeID `cbor:"2,keyasint,omitempty"` // zero when inline
	At     uint32         `cbor:"3,keyasint,omitempty"`
	Inline []byte         `cbor:"4,keyasint,omitempty"`
	Gen    uint64         `cbor:"5,keyasint,omitempty"`
}

// A foldRow is a row "f".
type foldRow struct {
	Since  meta.Time `cbor:"1,keyasint,omitempty"`
	Reason Reason    `cbor:"2,keyasint,omitempty"`
}

// totals is the row "u".
type totals struct {
	Next   meta.Ino `cbor:"1,keyasint,omitempty"` // the next inode number
	Inodes int64    `cbor:"2,keyasint,omitempty"` // rows "i"
	Bytes  int64    `cbor:"3,keyasint,omitempty"` // of all extents
}

func key(prefix byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 17), prefix), n)
}

func inodeKey(ino meta.Ino) []byte             { return key('i', uint64(ino)) }
func dentryKey(dir meta.Ino, n string) []byte  { return append(key('d', uint64(dir)), n...) }
func xattrKey(ino meta.Ino, n string) []byte   { return append(key('a', uint64(ino)), n...) }
func stripeKey(id chunk.StripeID) []byte       { return key('s', uint64(id)) }
func purgeKey(ino meta.Ino) []byte             { return key('p', uint64(ino)) }
func foldKey(ino meta.Ino) []byte              { return key('f', uint64(ino)) }
func extentKey(ino meta.Ino, end int64) []byte { return pair('x', uint64(ino), uint64(end)) }

func orphanKey(s meta.SessionID, ino meta.Ino) []byte { return pair('o', uint64(s), uint64(ino)) }

func askedKey(s meta.SessionID, ino meta.Ino) []byte { return pair('q', uint64(s), uint64(ino)) }

func deadKey(t meta.Time, id chunk.StripeID) []byte {
	return pair('g', uint64(max(t, 0)), uint64(id))
}

func pair(prefix byte, a, b uint64) []byte {
	return binary.BigEndian.AppendUint64(key(prefix, a), b)
}

var totalsKey = []byte("u")

// second returns the number at the end of a key.
func second(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

func has(r state.Reader, key []byte) bool { _, ok := r.Get(key); return ok }

// load reads a row of ours.
func load[T any](r state.Reader, key []byte) (row T, ok bool) {
	val, ok := r.Get(key)
	if ok {
		state.MustUnmarshal(val, &row)
	}
	return row, ok
}

func save(tx *state.Tx, key []byte, row any) { tx.Set(key, state.Marshal(row)) }

// remove deletes a row that may not be there.
func remove(tx *state.Tx, key []byte) {
	if has(tx, key) {
		tx.Delete(key)
	}
}

func inodeAt(r state.Reader, ino meta.Ino) (*inode, error) {
	in, ok := load[inode](r, inodeKey(ino))
	if !ok {
		return nil, fmt.Errorf("inode %d: %w", ino, meta.NotExist)
	}
	return &in, nil
}

// openAt is inodeAt for who may be kept out by another session's lease: what is
// asked is not what the holder of X believes.
func openAt(r state.Reader, me meta.SessionID, ino meta.Ino) (*inode, error) {
	in, err := inodeAt(r, ino)
	if err == nil && in.Attr.IsFile() { // nothing else is leased
		err = lease.MayRead(r, me, ino)
	}
	return in, err
}

// changeAt is openAt for who is going to change the inode, which nobody else may
// believe in meanwhile.
func changeAt(tx *state.Tx, ino meta.Ino) (*inode, error) {
	in, err := inodeAt(tx, ino)
	if err == nil {
		err = in.mayChange(tx)
	}
	return in, err
}

// mayChange refuses what another session's lease is in the way of.
func (in *inode) mayChange(tx *state.Tx) error {
	if !in.Attr.IsFile() {
		return nil
	}
	return lease.MayChange(tx, tx.Session, in.Attr.Ino)
}

func dirAt(r state.Reader, ino meta.Ino) (*inode, error) {
	in, err := inodeAt(r, ino)
	if err == nil && !in.Attr.IsDir() {
		return nil, fmt.Errorf("inode %d: %w", ino, meta.NotDir)
	}
	return in, err
}

func fileAt(r state.Reader, ino meta.Ino) (*inode, error) {
	in, err := inodeAt(r, ino)
	if err != nil {
		return nil, err
	}
	return in, in.file()
}

// file refuses what is no regular file.
func (in *inode) file() error {
	switch {
	case in.Attr.IsDir():
		return fmt.Errorf("inode %d: %w", in.Attr.Ino, meta.IsDir)
	case !in.Attr.IsFile():
		return fmt.Errorf("inode %d is no file: %w", in.Attr.Ino, meta.Invalid)
	}
	return nil
}

func put(tx *state.Tx, in *inode) { save(tx, inodeKey(in.Attr.Ino), in) }

// total changes the totals.
func total(tx *state.Tx, change func(*totals)) {
	t, _ := load[totals](tx, totalsKey)
	change(&t)
	save(tx, totalsKey, t)
}

// touch records a change of the inode's attributes.
func (in *inode) touch(tx *state.Tx) { in.Attr.Ctime = meta.At(tx.Now) }

// modify records a change of the inode's contents.
func (in *inode) modify(tx *state.Tx) {
	in.Attr.Mtime = meta.At(tx.Now)
	in.Attr.Ctime = in.Attr.Mtime
}
