package replica

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"
)

const testSegment = 4 << 20

// A rawLog is the library's log on files of one or the other kind.
type rawLog struct {
	*wal.WAL
	t     *testing.T
	index *metadb.BoltMetaDB
}

func openRaw(t *testing.T, dir string, files types.VFS) rawLog {
	t.Helper()
	index := new(metadb.BoltMetaDB)
	w, err := wal.Open(dir, wal.WithMetaStore(index), wal.WithSegmentSize(testSegment), wal.WithSegmentFiler(segment.NewFiler(dir, files)))
	if err != nil {
		t.Fatal(err)
	}
	return rawLog{w, t, index}
}

func (l rawLog) shut() {
	l.t.Helper()
	if err := l.Close(); err != nil {
		l.t.Fatal(err)
	}
	if err := l.index.Close(); err != nil {
		l.t.Fatal(err)
	}
}

func rawData(index uint64, size int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%08d", index), size/8)
}

// add appends entries, each by a write of its own.
func (l rawLog) add(from, to uint64, size int) {
	l.t.Helper()
	for i := from; i <= to; i++ {
		if err := l.StoreLog(&raft.Log{Index: i, Term: 1, Data: rawData(i, size)}); err != nil {
			l.t.Fatalf("entry %d: %v", i, err)
		}
	}
}

// has checks that the log has the entries up to last, and no more.
func (l rawLog) has(last uint64, size int) {
	l.t.Helper()
	if got, err := l.LastIndex(); err != nil || got != last {
		l.t.Fatalf("the last entry is %d, %v, want %d", got, err, last)
	}
	for i := uint64(1); i <= last; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil || !bytes.Equal(e.Data, rawData(i, size)) {
			l.t.Fatalf("entry %d: %d bytes, %v", i, len(e.Data), err)
		}
	}
}

func logFilesOf(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(list) == 0 {
		t.Fatalf("files of the log: %v, %v", list, err)
	}
	return list
}

// hole returns where the first byte is that was never written.
func hole(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Behind the last entry everything up to the next MiB was written before.
func TestLogFileIsZeroedAhead(t *testing.T) {
	dir := t.TempDir()
	l := openRaw(t, dir, newLogFiles())
	const size = 100 << 10
	for i := uint64(1); i <= 25; i++ {
		l.add(i, i, size)
		path := logFilesOf(t, dir)[0]
		written := int64(i) * size
		if at := hole(t, path); at < written/aheadSize*aheadSize+aheadSize {
			t.Fatalf("after %d bytes, what is from byte %d on was never written", written, at)
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) != testSegment {
			t.Fatalf("a file of %d bytes, %v", len(b), err)
		}
		if rest := bytes.TrimLeft(b[written+size/2:], "\x00"); len(rest) > 0 {
			t.Fatalf("after %d bytes, there are others than zeros behind", written)
		}
	}
	l.shut()
}

// What one kind of files wrote the other reads and goes on with, across several files.
func TestLogFilesAreTheLibrarys(t *testing.T) {
	const size = 300 << 10
	for _, c := range []struct {
		name          string
		first, second types.VFS
	}{
		{"ours, then the library's", newLogFiles(), fs.New()},
		{"the library's, then ours", fs.New(), newLogFiles()},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			last := uint64(0)
			for _, files := range []types.VFS{c.first, c.second, c.first, c.second} {
				l := openRaw(t, dir, files)
				l.has(last, size)
				l.add(last+1, last+9, size)
				last += 9
				l.has(last, size)
				l.shut()
			}
			if n := len(logFilesOf(t, dir)); n < 2 {
				t.Errorf("%d files: the test tests less than it says", n)
			}
		})
	}
}

// A write that was torn, wherever it was, takes nothing with it that was synced before,
// and what is written after it is there: also next to what is left of it.
func TestLogFileTorn(t *testing.T) {
	const size, before = 40 << 10, 12
	whole := t.TempDir()
	l := openRaw(t, whole, newLogFiles())
	l.add(1, before, size)
	l.shut()
	intact, err := os.ReadFile(logFilesOf(t, whole)[0])
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(intact, "\x00"))
	for _, back := range []int{1, 7, 8, 9, 512, 4096, size / 2, size - 8} {
		for _, with := range []byte{0, 0xa5} {
			dir := copyTree(t, whole)
			path := logFilesOf(t, dir)[0]
			torn := bytes.Clone(intact)
			// Of the last write one part did not come to the disk; the end of it did.
			for i := end - back; i < min(end-back+512, end); i++ {
				torn[i] = with
			}
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			l := openRaw(t, dir, newLogFiles())
			last, err := l.LastIndex()
			if err != nil || last != before && last != before-1 {
				t.Fatalf("torn %d bytes before the end: the last entry is %d, %v", back, last, err)
			}
			if !bytes.Equal(torn, intact) && last == before {
				t.Fatalf("torn %d bytes before the end: the last entry is there all the same", back)
			}
			l.has(last, size)
			l.add(last+1, last+3, size)
			l.shut()
			for _, files := range []types.VFS{newLogFiles(), fs.New()} {
				l = openRaw(t, dir, files)
				l.has(last+3, size)
				l.shut()
			}
		}
	}
}

// A disk that is full shows when the zeros are written, as it would with the entry.
func TestLogFileFails(t *testing.T) {
	f := &logFile{osFile: failing{}, size: aheadSize}
	if _, err := f.WriteAt(make([]byte, 100), 0); err == nil {
		t.Error("the zeros were not written, and nobody was told")
	}
}

// failing takes the first bytes of a file only.
type failing struct{}

func (failing) WriteAt(p []byte, off int64) (int, error) {
	if off > 0 {
		return 0, unix.ENOSPC
	}
	return len(p), nil
}
func (failing) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (failing) Close() error                      { return nil }
func (failing) Sync() error                       { return nil }
func (failing) Fd() uintptr                       { return ^uintptr(0) }
func (failing) Stat() (os.FileInfo, error)        { return nil, os.ErrInvalid }
