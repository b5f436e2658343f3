// Package disk is the disk as an interface, so that a test can cut its power or
// break it. Real is the file system of this machine; Mem lives in memory and
// forgets at Crash what was not synced; Faulty fails the operations it is told
// to fail. The package knows nothing of what is stored.
//
// Errors are those of package os and syscall: test with errors.Is for
// fs.ErrNotExist, fs.ErrExist, fs.ErrClosed, syscall.ENOSPC and so on. IsFull
// knows all the ways to say that there is no room.
package disk

import (
	"errors"
	"io"
	"syscall"
)

// ErrLocked says that somebody else holds the lock of a directory.
var ErrLocked = errors.New("disk: locked by another process")

// An FS is a file system. Paths are as in package os. Its methods may be called
// concurrently. A change of names is only sure to survive a power cut once
// SyncDir returned for the directory that holds the name.
type FS interface {
	// Create makes a file that must not exist and opens it.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Lock takes the exclusive lock of a directory, for this process and this
	// call alone, until Close; ErrLocked if it is taken.
	Lock(dir string) (io.Closer, error)
	Mkdir(name string) error
	// Rename replaces what is at to.
	Rename(from, to string) error
	Remove(name string) error
	SyncDir(name string) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	Stat(name string) (Stat, error)
	Space(name string) (Space, error)
}

// A File is an open file. Its methods may be called concurrently. After Close,
// which waits for what is under way, they return fs.ErrClosed.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WriteVec writes the parts one after the other from offset off on.
	WriteVec(parts [][]byte, off int64) error
	// Sync returns once the contents and the size would survive a power cut.
	// After it failed nobody knows what is on the disk; trying again proves nothing.
	Sync() error
	// Punch makes n bytes from off on read as zeros and gives their space back.
	Punch(off, n int64) error
	// Allocate takes room on the disk for the first n bytes, which become the
	// size if the file is shorter.
	Allocate(n int64) error
	Truncate(size int64) error
	// NextData returns the first offset ≥ off that is not in a hole, io.EOF if
	// there is none. It may be too low, never too high.
	NextData(off int64) (int64, error)
	// Uncache asks that the next read of the range come from the disk itself.
	Uncache(off, n int64)
	Stat() (Stat, error)
	Close() error
}

// A Stat describes a file or directory.
type Stat struct {
	Dev, Ino uint64 // together they tell two files apart while one is open
	Links    uint64 // names; 0 when an open file was removed
	Size     int64
	Dir      bool
}

// Same reports whether both describe the same file.
func (s Stat) Same(t Stat) bool { return s.Dev == t.Dev && s.Ino == t.Ino }

// Space says how full a file system is, in bytes.
type Space struct {
	Capacity int64
	Free     int64 // for ordinary users
}

// IsFull reports whether err says that the disk or a quota has no room.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
