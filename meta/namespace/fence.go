package namespace

import (
	"fmt"
	"strconv"
	"strings"

	"dos/meta"
	locks "dos/meta/named"
	"dos/meta/state"
)

// A fence binds a file to a named lock: see Admit of package named for whose changes it lets
// pass. It is for what the file holds, its size, the fence itself, and its names
// being removed or taken by another file. The time of a token is over as soon
// as the lock is granted to another session, also before that has raised the fence.

// readFence reads the value of the attribute meta.Fence.
func readFence(val []byte) (lock string, least uint64, err error) {
	at := strings.LastIndexByte(string(val), ':')
	if at > 0 {
		lock = string(val[:at])
		least, err = strconv.ParseUint(string(val[at+1:]), 10, 64)
	}
	if at <= 0 || err != nil || locks.Valid(lock) != nil {
		return "", 0, fmt.Errorf("a fence is NAME:TOKEN, not %.80q: %w", val, meta.Invalid)
	}
	return lock, least, nil
}

// admitted refuses a change that the file's fence forbids.
func (in *inode) admitted(tx *state.Tx) error {
	if !in.Attr.Fenced {
		return nil
	}
	val, _ := tx.Get(xattrKey(in.Attr.Ino, meta.Fence))
	lock, least, err := readFence(val)
	if err != nil {
		panic(fmt.Sprintf("namespace: the fence of inode %d: %v", in.Attr.Ino, err))
	}
	if err := locks.Admit(tx, tx.Session, lock, least); err != nil {
		return fmt.Errorf("inode %d has a fence: %w", in.Attr.Ino, err)
	}
	return nil
}

// fence says whether the file may have a new fence, and notes that it has one. A
// fence of the same lock is raised by whoever has the newer token; for others, the
// old one is a fence too.
func (in *inode) fence(tx *state.Tx, val []byte) error {
	lock, token, err := readFence(val)
	if err != nil {
		return err
	}
	if !in.Attr.IsFile() {
		return fmt.Errorf("inode %d is no file: %w", in.Attr.Ino, meta.Unsupported)
	}
	if in.Attr.Fenced {
		old, _ := tx.Get(xattrKey(in.Attr.Ino, meta.Fence))
		if was, least, _ := readFence(old); was != lock || token < least {
			if err := in.admitted(tx); err != nil {
				return err
			}
		}
	}
	if err := locks.Fence(tx, lock, token); err != nil {
		return err
	}
	in.Attr.Fenced = true
	return nil
}
