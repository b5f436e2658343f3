package files

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/fuse/vfs"
	"dos/internal/access"
	"dos/meta"
	"dos/procfs"
)

// bufferSize is the memory that a body takes on its way, in bytes: large enough that a read
// of a stripe is worth its call, small enough for some hundred bodies at once.
const bufferSize = 256 << 10

// get answers with a file or a listing.
func (q request) get(w http.ResponseWriter, r *http.Request) error {
	a, err := q.reach(r.Context(), access.Read)
	if err != nil {
		return err
	}
	if a.IsDir() {
		return q.listing(w, r, a)
	}
	if strings.HasSuffix(q.path, "/") {
		return meta.NotDir
	}
	f, size, err := q.open(r.Context(), a.Ino)
	if err != nil {
		return err
	}
	defer f.Release()
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x-%x"`, size.Ino, size.Mtime, size.Size))
	w.Header().Set("Content-Type", contentType(q.path))
	http.ServeContent(w, r, "", size.Mtime.Std(), newContent(r.Context(), f, size.Size))
	return nil
}

func contentType(name string) string {
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// open opens a file to read it, and says what it is by then.
func (q request) open(ctx context.Context, ino meta.Ino) (*vfs.File, meta.Attr, error) {
	f, err := q.fs.Open(ctx, ino, syscall.O_RDONLY)
	if err != nil {
		return nil, meta.Attr{}, err
	}
	a, err := q.fs.Attr(ctx, ino)
	if err != nil {
		f.Release()
	}
	return f, a, err
}

// A reader is a file as an io.ReaderAt.
type reader struct {
	ctx  context.Context // of the one request that it lives for
	file *vfs.File
}

func (r reader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.file.ReadAt(r.ctx, p, off)
	if n < len(p) && err == nil {
		err = io.EOF
	}
	return n, err
}

// content is a file as http.ServeContent wants it.
type content struct {
	*bufio.Reader
	section *io.SectionReader
}

func newContent(ctx context.Context, f *vfs.File, size int64) content {
	s := io.NewSectionReader(reader{ctx, f}, 0, size)
	return content{bufio.NewReaderSize(s, bufferSize), s}
}

// Seek is io.Seeker's, but not relative to where it is.
func (c content) Seek(off int64, whence int) (int64, error) {
	if whence == io.SeekCurrent {
		return 0, meta.Unsupported
	}
	c.Reset(c.section)
	return c.section.Seek(off, whence)
}

// An item is one name in a listing for programs.
type item struct {
	Name  string    `json:"name"`
	Type  string    `json:"type"` // file, directory, symlink, other
	Size  int64     `json:"size"`
	Mode  string    `json:"mode"` // octal
	UID   uint32    `json:"uid"`
	GID   uint32    `json:"gid"`
	Mtime time.Time `json:"mtime"`
}

func typeOf(a meta.Attr) string {
	switch a.Type() {
	case meta.TypeDir:
		return "directory"
	case meta.TypeFile:
		return "file"
	case meta.TypeSymlink:
		return "symlink"
	}
	return "other"
}

// listing answers with the names in a directory.
func (q request) listing(w http.ResponseWriter, r *http.Request, dir meta.Attr) error {
	programs := r.URL.Query().Get("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json")
	if !programs {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if r.Method == http.MethodHead {
			return nil
		}
		out := bufio.NewWriter(w)
		return finish(out, q.each(r.Context(), dir, false, func(name string, a meta.Attr) error {
			if a.IsDir() {
				name += "/"
			}
			_, err := fmt.Fprintln(out, name)
			return err
		}))
	}
	if !q.who.May(dir, access.Enter) {
		return meta.Permission
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodHead {
		return nil
	}
	return array(w, "[", "]\n", func(put func(any) error) error {
		return q.each(r.Context(), dir, true, func(name string, a meta.Attr) error {
			return put(item{name, typeOf(a), a.Size, fmt.Sprintf("%04o", a.Mode&0o7777), a.UID, a.GID, a.Mtime.Std().UTC()})
		})
	})
}

// array writes an array element by element, between two texts.
func array(w io.Writer, before, after string, all func(put func(any) error) error) error {
	out := bufio.NewWriter(w)
	out.WriteString(before) // a failure of out is that of its Flush
	sep := ""
	err := all(func(v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		out.WriteString(sep)
		sep = ",\n"
		_, err = out.Write(text)
		return err
	})
	if err == nil {
		out.WriteString(after)
	}
	return finish(out, err)
}

// finish ends what has begun to be written: after an error it must not look whole.
func finish(out *bufio.Writer, err error) error {
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

const (
	// lookBatch is how many entries are kept until their attributes are known.
	lookBatch = 256
	// lookAtOnce bounds the calls for attributes of one listing that are under way.
	lookAtOnce = 16
)

// each calls yield for each name in a directory, with its attributes or, without attrs, its
// type alone.
func (q request) each(ctx context.Context, dir meta.Attr, attrs bool, yield func(name string, a meta.Attr) error) error {
	d, err := q.fs.OpenDir(ctx, dir.Ino)
	if err != nil {
		return err
	}
	defer d.Release()
	const first = 2 // after . and ..
	batch := make([]meta.Entry, 0, lookBatch)
	for pos := int64(first); ; pos++ {
		e, ok, err := d.Entry(ctx, pos, attrs)
		if err != nil {
			return err
		}
		if ok && !(dir.Ino == meta.Root && procfs.Reserved(e.Name)) {
			batch = append(batch, e)
		}
		if ok && len(batch) < lookBatch {
			continue
		}
		if attrs {
			if err := q.look(ctx, batch); err != nil {
				return err
			}
		}
		for _, e := range batch {
			a := meta.Attr{Ino: e.Ino, Mode: e.Type}
			switch {
			case attrs && e.Attr == nil: // it is gone by now
				continue
			case attrs:
				a = *e.Attr
			}
			if err := yield(e.Name, a); err != nil {
				return err
			}
		}
		if !ok {
			return nil
		}
		batch = batch[:0]
	}
}

// look fills in attributes.
func (q request) look(ctx context.Context, batch []meta.Entry) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lookAtOnce)
	for i := range batch {
		if batch[i].Attr != nil {
			continue
		}
		g.Go(func() error {
			a, err := q.fs.Attr(ctx, batch[i].Ino)
			if errors.Is(err, meta.NotExist) {
				return nil
			}
			batch[i].Attr = &a
			return err
		})
	}
	return g.Wait()
}
