package files

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"dos/internal/access"
	"dos/meta"
)

// The operations of WebHDFS, each with the parameters that mean something here; the others, as
// replication and blocksize, are for the cluster to know:
//
//	GET     OPEN offset length    GETFILESTATUS    LISTSTATUS    GETCONTENTSUMMARY    GETHOMEDIRECTORY
//	PUT     CREATE overwrite permission    MKDIRS permission    RENAME destination
//	        SETPERMISSION permission    SETOWNER owner group    SETTIMES modificationtime accesstime
//	POST    APPEND    TRUNCATE newlength
//	DELETE  DELETE recursive
//
// CREATE and APPEND without data=true are answered with the address to send the data to, as
// 307 or, with noredirect=true, as an object; OPEN is answered with the data.
var operations = map[string]func(q request, w http.ResponseWriter, r *http.Request, scheme string) error{
	"GET OPEN":              request.hOpen,
	"GET GETFILESTATUS":     request.hStatus,
	"GET LISTSTATUS":        request.hList,
	"GET GETCONTENTSUMMARY": request.hSummary,
	"GET GETHOMEDIRECTORY":  request.hHome,
	"PUT CREATE":            request.hCreate,
	"PUT MKDIRS":            request.hMkdirs,
	"PUT RENAME":            request.hRename,
	"PUT SETPERMISSION":     request.hSetPermission,
	"PUT SETOWNER":          request.hSetOwner,
	"PUT SETTIMES":          request.hSetTimes,
	"POST APPEND":           request.hAppend,
	"POST TRUNCATE":         request.hTruncate,
	"DELETE DELETE":         request.hDelete,
}

// hadoop answers a request for /webhdfs/v1/.
func (q request) hadoop(w http.ResponseWriter, r *http.Request, scheme string) error {
	op := r.URL.Query().Get("op")
	do, ok := operations[r.Method+" "+strings.ToUpper(op)]
	if !ok {
		return exception{http.StatusBadRequest, "java.lang.IllegalArgumentException", fmt.Sprintf("Invalid value for webhdfs parameter \"op\": %.80q by %s", op, r.Method)}
	}
	return do(q, w, r, scheme)
}

// number reads a parameter that is a number of bytes.
func number(r *http.Request, name string, unset int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" || text == "null" {
		return unset, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s=%.80q: %w", name, text, meta.Invalid)
	}
	return n, nil
}

// flag reads a parameter that is true or false.
func flag(r *http.Request, name string) (bool, error) {
	switch text := strings.ToLower(r.URL.Query().Get(name)); text {
	case "", "false", "null":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, fmt.Errorf("%s=%.80q: %w", name, text, meta.Invalid)
	}
}

// permission reads the mode of what is to be made.
func permission(r *http.Request, unset uint32) (uint32, error) {
	text := r.URL.Query().Get("permission")
	if text == "" || text == "null" {
		return unset, nil
	}
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o1777 {
		return 0, fmt.Errorf("permission=%.80q: %w", text, meta.Invalid)
	}
	return uint32(n), nil
}

// must is Reach of a file for who knows Hadoop's words.
func (q request) must(ctx context.Context, want uint32) (meta.Attr, error) {
	a, err := q.reach(ctx, want)
	if err == nil && a.IsDir() {
		err = exception{http.StatusNotFound, fileNotFound, "Path is not a file: " + q.path}
	}
	return a, err
}

func (q request) hOpen(w http.ResponseWriter, r *http.Request, _ string) error {
	a, err := q.must(r.Context(), access.Read)
	if err != nil {
		return err
	}
	f, a, err := q.open(r.Context(), a.Ino)
	if err != nil {
		return err
	}
	defer f.Release()
	off, err := number(r, "offset", 0)
	if err != nil {
		return err
	}
	size, err := number(r, "length", a.Size)
	if err != nil {
		return err
	}
	if off > a.Size {
		return exception{http.StatusForbidden, ioException, fmt.Sprintf("Offset=%d out of the range [0, %d)", off, a.Size)}
	}
	size = min(size, a.Size-off)
	in := newContent(r.Context(), f, a.Size)
	if _, err := in.Seek(off, io.SeekStart); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if _, err := io.CopyN(w, in, size); err != nil {
		panic(http.ErrAbortHandler) // it must not look whole
	}
	return nil
}

func (q request) hStatus(w http.ResponseWriter, r *http.Request, _ string) error {
	a, err := q.reach(r.Context(), 0)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, map[string]fileStatus{"FileStatus": newNames().status("", a)})
	return nil
}

func (q request) hList(w http.ResponseWriter, r *http.Request, _ string) error {
	ctx := r.Context()
	a, err := q.reach(ctx, 0)
	if err != nil {
		return err
	}
	if a.IsDir() && !q.who.May(a, access.Read|access.Enter) {
		return meta.Permission
	}
	w.Header().Set("Content-Type", "application/json")
	names := newNames()
	return array(w, `{"FileStatuses":{"FileStatus":[`, "]}}\n", func(put func(any) error) error {
		if !a.IsDir() {
			return put(names.status("", a))
		}
		return q.each(ctx, a, true, func(name string, a meta.Attr) error {
			s := names.status(name, a)
			if a.Type() == meta.TypeSymlink {
				if s.Symlink, err = q.fs.Readlink(ctx, a.Ino); err != nil {
					return err
				}
			}
			return put(s)
		})
	})
}

// elsewhere sends who has not sent data yet to where that is to go: here, by convention with
// data=true. It reports false when the data is there.
func elsewhere(w http.ResponseWriter, r *http.Request, scheme string) bool {
	query := r.URL.Query()
	if strings.EqualFold(query.Get("data"), "true") {
		return false
	}
	direct := strings.EqualFold(query.Get("noredirect"), "true")
	query.Del("noredirect")
	query.Set("data", "true")
	to := url.URL{Scheme: scheme, Host: r.Host, Path: r.URL.Path, RawQuery: query.Encode()}
	if direct {
		answer(w, http.StatusOK, map[string]string{"Location": to.String()})
		return true
	}
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusTemporaryRedirect)
	return true
}

func (q request) hCreate(w http.ResponseWriter, r *http.Request, scheme string) error {
	mode, err := permission(r, defaultFile)
	if err != nil {
		return err
	}
	overwrite, err := flag(r, "overwrite")
	if err != nil || elsewhere(w, r, scheme) {
		return err
	}
	_, err = q.put(r.Context(), r.Body, putting{mode: mode, new: !overwrite, parents: true})
	if err != nil {
		return err
	}
	to := url.URL{Scheme: "webhdfs", Host: r.Host, Path: q.path}
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (q request) hAppend(w http.ResponseWriter, r *http.Request, scheme string) error {
	if elsewhere(w, r, scheme) {
		return nil
	}
	if _, err := q.must(r.Context(), access.Write); err != nil {
		return err
	}
	if err := q.append(r.Context(), r.Body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// done answers with whether something was done.
func done(w http.ResponseWriter, is bool) error {
	answer(w, http.StatusOK, map[string]bool{"boolean": is})
	return nil
}

func (q request) hMkdirs(w http.ResponseWriter, r *http.Request, _ string) error {
	mode, err := permission(r, defaultDir)
	if err == nil {
		err = q.mkdirs(r.Context(), q.path, mode)
	}
	if err != nil {
		return err
	}
	return done(w, true)
}

func (q request) hDelete(w http.ResponseWriter, r *http.Request, _ string) error {
	recursive, err := flag(r, "recursive")
	if err == nil {
		err = q.remove(r.Context(), recursive)
	}
	if isKind(err, meta.NotExist) {
		return done(w, false)
	}
	if err != nil {
		return err
	}
	return done(w, true)
}

// hRename is FileSystem.rename: into the destination if that is a directory, not over a file,
// and false where there is nothing to do it with. With renameoptions it is FileContext.rename,
// which fails instead, and replaces if these are OVERWRITE.
func (q request) hRename(w http.ResponseWriter, r *http.Request, _ string) error {
	ctx := r.Context()
	to := r.URL.Query().Get("destination")
	if !strings.HasPrefix(to, "/") {
		return fmt.Errorf("destination=%.200q does not begin with a slash: %w", to, meta.Invalid)
	}
	options := strings.ToUpper(r.URL.Query().Get("renameoptions"))
	src, err := q.find(ctx, q.path, false)
	if err == nil && !src.Exists() {
		err = meta.NotExist
	}
	var dst access.Place
	if err == nil {
		dst, err = q.find(ctx, to, false)
	}
	if err == nil && options == "" && dst.Exists() && dst.Attr.IsDir() && dst.Attr.Ino != src.Attr.Ino {
		dst, err = q.find(ctx, path.Join(to, src.Name), false)
	}
	if err == nil {
		flags := meta.RenameNoReplace
		if strings.Contains(options, "OVERWRITE") {
			flags = 0
		}
		err = q.rename(ctx, src, dst, flags)
	}
	switch {
	case err == nil && options != "":
		w.WriteHeader(http.StatusOK)
		return nil
	case options == "" && isKind(err, meta.NotExist, meta.Exist, meta.NotDir):
		return done(w, false)
	case err != nil:
		return err
	}
	return done(w, true)
}
