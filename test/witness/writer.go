package witness

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// A file is what a writer knows of a name.
type file struct {
	acked *[]byte // its contents as of the last fsync; nil: it is not there
	next  *[]byte // what the operation under way was to make of it; nil: remove it
	busy  bool    // an operation was under way when the mount died
	whole bool    // that operation changes the name, so it is done or not done
}

// A Writer works in a directory of its own, one operation at a time, and
// remembers what was acknowledged.
type Writer struct {
	dir   string
	files map[string]*file
	rnd   *rand.Rand
	err   error // of the operation that failed last
}

// maxFiles and maxFile bound what a writer keeps: names, and bytes of each.
const (
	maxFiles = 12
	maxFile  = 6 << 20
)

// NewWriter makes the directory dir and a writer that works in it.
func NewWriter(tb testing.TB, dir string, rnd *rand.Rand) *Writer {
	tb.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	return &Writer{dir: dir, files: make(map[string]*file), rnd: rand.New(rand.NewPCG(rnd.Uint64(), 0))}
}

// Err is the error of the operation that failed last.
func (w *Writer) Err() error { return w.err }

// Step does one random operation and makes it durable.
func (w *Writer) Step() error {
	name := fmt.Sprint("f", w.rnd.IntN(maxFiles))
	f := w.files[name]
	if f == nil {
		f = new(file)
		w.files[name] = f
	}
	path := filepath.Join(w.dir, name)
	var old []byte
	if f.acked != nil {
		old = *f.acked
	}
	n := 1 + w.rnd.IntN(1<<(4+w.rnd.IntN(18))) // 16 B to 2 MiB, small as often as large
	fresh := Bytes(w.rnd.Uint64(), n)
	var next []byte
	var do func() error
	f.whole = false
	switch op := w.rnd.IntN(10); {
	case f.acked == nil || op < 3: // a new file takes the name
		next, f.whole = fresh, true
		do = func() error {
			if err := WriteSynced(path+".new", fresh); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}
	case op < 5 && len(old)+n <= maxFile: // grows
		next = append(bytes.Clone(old), fresh...)
		do = func() error { return w.writeAt(path, fresh, int64(len(old))) }
	case op < 8: // changes in place
		off := w.rnd.IntN(len(old) + 1)
		next = append(bytes.Clone(old[:off]), fresh...)
		if len(next) < len(old) {
			next = append(next, old[len(next):]...)
		}
		do = func() error { return w.writeAt(path, fresh, int64(off)) }
	case op < 9: // gets cut
		next = old[:w.rnd.IntN(len(old)+1)]
		f.whole = true
		do = func() error {
			g, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			err = g.Truncate(int64(len(next)))
			if err == nil {
				err = g.Sync()
			}
			return errors.Join(err, g.Close())
		}
	default: // goes
		f.next, f.busy, f.whole = nil, true, true
		return w.finish(f, errors.Join(os.Remove(path), w.syncDir()))
	}
	f.next, f.busy = &next, true
	err := do()
	if err == nil && f.whole {
		err = w.syncDir()
	}
	return w.finish(f, err)
}

// finish notes that the operation on f was acknowledged, or failed.
func (w *Writer) finish(f *file, err error) error {
	if w.err = err; err != nil {
		return err
	}
	f.acked, f.busy = f.next, false
	return nil
}

func (w *Writer) writeAt(path string, data []byte, off int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, off)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (w *Writer) syncDir() error {
	d, err := os.Open(w.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Verify compares every name with what is known of it, and takes what is
// found for known from then on.
func (w *Writer) Verify(tb testing.TB, when string) {
	tb.Helper()
	for name, f := range w.files {
		path := filepath.Join(w.dir, name)
		var found *[]byte
		got, err := os.ReadFile(path)
		switch {
		case err == nil:
			found = &got
		case !errors.Is(err, os.ErrNotExist):
			tb.Errorf("%s: %s: %v", when, path, err)
			continue
		}
		if !f.allows(found) {
			tb.Errorf("%s: %s: found %s, want %s, or with the operation that was under way (%v) %s",
				when, path, describe(found), describe(f.acked), f.busy, describe(f.next))
		}
		f.acked, f.busy = found, false
		// What a killed writer left half made has no promise.
		if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
			tb.Errorf("%s: %v", when, err)
		}
	}
}

// allows says whether found may be there: what was acknowledged or, for the
// operation that was under way, what it was to make; a write in place may also
// be done in part, but each byte is the old one or the new one.
func (f *file) allows(found *[]byte) bool {
	if equal(found, f.acked) || f.busy && equal(found, f.next) {
		return true
	}
	if !f.busy || f.whole || found == nil || f.acked == nil || f.next == nil {
		return false
	}
	old, next := *f.acked, *f.next
	if len(*found) < len(old) || len(*found) > len(next) {
		return false
	}
	for i, b := range *found {
		if b != next[i] && (i >= len(old) || b != old[i]) {
			return false
		}
	}
	return true
}

func equal(a, b *[]byte) bool {
	if a == nil || b == nil {
		return a == b
	}
	return bytes.Equal(*a, *b)
}

func describe(b *[]byte) string {
	if b == nil {
		return "nothing"
	}
	return fmt.Sprintf("%d bytes %.8x…", len(*b), *b)
}
