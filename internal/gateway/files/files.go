// Package files is the door for who speaks HTTP: the files of the stored tree.
//
//	GET /fs/PATH         the file, or a part of it (Range); of a directory the names, a line
//	                     each, directories with a slash behind; with ?format=json or Accept:
//	                     application/json an array of objects
//	HEAD /fs/PATH        the same without the contents
//	PUT /fs/PATH         the body is the file from now on, all of it: 201 if it is new, else 204;
//	                     with If-None-Match: * only if there is none
//	PUT /fs/PATH/        makes the directory, and those above that are not there
//	DELETE /fs/PATH      a file or an empty directory; with ?recursive=true what is below too
//
// /webhdfs/v1/PATH?op= is the REST API of Hadoop, see webhdfs.go.
//
// What a PUT brings is written to a file ".put-" and 16 hexadecimal digits beside the one that
// is meant, stored, and renamed: whoever reads sees the old file or the new one, whatever
// fails. A process that is killed in between leaves that file. The new file has the owner, the
// mode and the extended attributes of the old one; one that was not there is of who asks,
// with mode 0644. What was answered with success is committed and synced.
//
// Who asks is who the query says, ?user= or ?user.name= a UID or a user of this machine, else
// root; what he may do says the mode of the files, as with a mount. Whether a peer may read or
// change files at all, and then as any user, is decided before.
//
// A failure is a status and a sentence: 404 not there, 403 not for that user, 409 something else
// is there or in use, 413 too large, 507 no room, 400 what makes no sense, 503 the cluster cannot
// be reached. When the answer has begun the connection breaks instead.
package files

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"dos/fuse/vfs"
	"dos/internal/access"
	"dos/meta"
)

// Config says what files are served.
type Config struct {
	// Tree is the tree as long as it lasts; it may wait for it until ctx ends.
	Tree func(ctx context.Context) (*vfs.FS, error)
	// Named says who somebody is that says to be a user of such a name, or nothing (access.Named).
	Named func(name string) (access.User, error)
	// Changed is told what name in a directory was changed, and what inode; either may be
	// none. Nil: nobody is to be told.
	Changed func(dir meta.Ino, name string, ino meta.Ino)
	// Scheme is that of the addresses that clients are sent to: https, or http.
	Scheme string
}

// Handler serves /fs/ and /webhdfs/ to whoever gets here.
func Handler(c Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/fs/", func(w http.ResponseWriter, r *http.Request) {
		q, err := c.request(r, "/fs")
		if err == nil {
			err = q.plain(w, r)
		}
		if err != nil {
			http.Error(w, fmt.Sprintf("%s: %v", q.path, err), status(err))
		}
	})
	mux.HandleFunc("/webhdfs/v1/", func(w http.ResponseWriter, r *http.Request) {
		q, err := c.request(r, "/webhdfs/v1")
		if err == nil {
			err = q.hadoop(w, r, c.Scheme)
		}
		if err != nil {
			except(w, q.path, err)
		}
	})
	return mux
}

// A request is what somebody asks for.
type request struct {
	fs      *vfs.FS
	who     access.User
	path    string // in the tree, from its root
	changed func(dir meta.Ino, name string, ino meta.Ino)
}

func (c Config) request(r *http.Request, prefix string) (q request, err error) {
	q.path = strings.TrimPrefix(r.URL.Path, prefix)
	if q.changed = c.Changed; q.changed == nil {
		q.changed = func(meta.Ino, string, meta.Ino) {}
	}
	name := ""
	for _, key := range []string{"user.name", "user", "doas"} {
		if v := r.URL.Query().Get(key); v != "" {
			name = v
		}
	}
	if q.who, err = c.Named(name); err != nil {
		return q, err
	}
	q.fs, err = c.Tree(r.Context())
	return q, err
}

// find follows a path of the tree.
func (q request) find(ctx context.Context, path string, last bool) (access.Place, error) {
	return access.Walker{Tree: q.fs, Absolute: absolute}.Find(ctx, q.who, path, last)
}

// absolute is the target of a symbolic link in the tree, which is /dos to the programs
// of any machine.
func absolute(target string) (string, error) {
	rest, ok := strings.CutPrefix(target, "/dos")
	if !ok || rest != "" && rest[0] != '/' {
		return "", fmt.Errorf("a symbolic link leads out of the tree, to %.200s: %w", target, meta.Invalid)
	}
	return rest, nil
}

// reach finds what must be there, and may be used so.
func (q request) reach(ctx context.Context, want uint32) (meta.Attr, error) {
	return access.Walker{Tree: q.fs, Absolute: absolute}.Reach(ctx, q.who, q.path, want)
}

// plain answers a request for /fs/.
func (q request) plain(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return q.get(w, r)
	case http.MethodPut:
		if r.Header.Get("Content-Range") != "" || r.Header.Get("If-Match") != "" {
			return fmt.Errorf("a part of a file, or a file of a certain version, is not replaced: %w", meta.Unsupported)
		}
		if strings.HasSuffix(q.path, "/") {
			if err := q.mkdirs(ctx, q.path, defaultDir); err != nil {
				return err
			}
			w.WriteHeader(http.StatusCreated)
			return nil
		}
		made, err := q.put(ctx, r.Body, putting{mode: defaultFile, new: r.Header.Get("If-None-Match") == "*"})
		switch {
		case err != nil:
			return err
		case made:
			w.WriteHeader(http.StatusCreated)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
		return nil
	case http.MethodDelete:
		if err := q.remove(ctx, r.URL.Query().Get("recursive") == "true"); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
	http.Error(w, "files have GET, HEAD, PUT and DELETE", http.StatusMethodNotAllowed)
	return nil
}

// statuses are those of kinds; what is not there is 500.
var statuses = map[meta.Kind]int{
	meta.NotExist:    http.StatusNotFound,
	meta.Permission:  http.StatusForbidden,
	meta.Fixed:       http.StatusForbidden,
	meta.Exist:       http.StatusConflict,
	meta.NotDir:      http.StatusConflict,
	meta.IsDir:       http.StatusConflict,
	meta.NotEmpty:    http.StatusConflict,
	meta.Busy:        http.StatusConflict,
	meta.Conflict:    http.StatusConflict,
	meta.Fenced:      http.StatusConflict,
	meta.TooLarge:    http.StatusRequestEntityTooLarge,
	meta.Invalid:     http.StatusBadRequest,
	meta.NameTooLong: http.StatusBadRequest,
	meta.Unsupported: http.StatusNotImplemented,
	meta.NoSpace:     http.StatusInsufficientStorage,
	meta.Quota:       http.StatusInsufficientStorage,
	meta.Unavailable: http.StatusServiceUnavailable,
	meta.Expired:     http.StatusServiceUnavailable,
	meta.TimedOut:    http.StatusGatewayTimeout,
}

func status(err error) int {
	var kind meta.Kind
	if errors.As(err, &kind) {
		if s, ok := statuses[kind]; ok {
			return s
		}
	}
	return http.StatusInternalServerError
}
