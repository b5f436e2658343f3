package replica

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"
)

// logFiles are the files of the log. raft-wal allocates one at its full size and syncs
// every write to it. On ext4 and its like what was allocated and never written is marked
// as such, so each of these syncs also had to commit a change of the file system's own
// journal, one after the other for all the logs of a machine. Here the next aheadSize
// bytes are zeros already when a write comes to them, and one that only puts bytes in the
// place of others needs no more than the disk's own flush.
//
// Zeros are what the library takes for the end of the log, as it does what was never
// written: the files are the same to it, and those of either kind are read by either.
type logFiles struct{ *fs.FS }

func newLogFiles() logFiles { return logFiles{fs.New()} }

// Create is VFS's.
func (v logFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := v.FS.Create(dir, name, size)
	if err != nil {
		return nil, err
	}
	return newLogFile(f)
}

// OpenWriter is VFS's. How far the zeros of who wrote it before go is not known, and they
// are written again.
func (v logFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := v.FS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	return newLogFile(f)
}

// aheadSize is how many bytes are zeroed at once: so few that the sync that writes them
// takes no more than some milliseconds, and so many that it is one of a thousand.
const aheadSize = 1 << 20

// zeros are written from.
var zeros [aheadSize / 16]byte

// A logFile is written from its beginning to its end. What is behind the last write is
// nothing to anybody.
type logFile struct {
	osFile
	size   int64       // up to which it is allocated
	zeroed int64       // nothing behind the last write and before here is to be journaled
	synced atomic.Bool // once, so that the directory has it
}

// osFile is what the library's file is.
type osFile interface {
	types.WritableFile
	Fd() uintptr
	Stat() (os.FileInfo, error)
}

func newLogFile(below types.WritableFile) (types.WritableFile, error) {
	f, ok := below.(osFile)
	if !ok {
		panic(fmt.Sprintf("replica: a file of the log is a %T", below))
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &logFile{osFile: f, size: info.Size()}, nil
}

// WriteAt writes p, and zeros behind it if none are there.
func (f *logFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.osFile.WriteAt(p, off)
	end := off + int64(n)
	if err != nil || end < f.zeroed {
		return n, err
	}
	to := min((end/aheadSize+1)*aheadSize, f.size)
	for at := max(end, f.zeroed); at < to; {
		m, err := f.osFile.WriteAt(zeros[:min(to-at, int64(len(zeros)))], at)
		if err != nil {
			return n, err
		}
		at += int64(m)
	}
	f.zeroed = max(f.zeroed, to)
	return n, nil
}

// Sync returns when what was written would survive a power cut.
func (f *logFile) Sync() error {
	if !f.synced.Load() {
		err := f.osFile.Sync() // the library's also syncs the directory of a new file
		f.synced.Store(err == nil)
		return err
	}
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}
