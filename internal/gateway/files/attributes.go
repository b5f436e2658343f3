package files

import (
	"context"
	"fmt"
	"net/http"
	"os/user"
	"strconv"
	"time"

	"dos/internal/access"
	"dos/meta"
)

// owns finds what only its owner may change.
func (q request) owns(ctx context.Context) (meta.Attr, error) {
	a, err := q.reach(ctx, 0)
	if err == nil && q.who.UID != 0 && q.who.UID != a.UID {
		err = meta.Permission
	}
	return a, err
}

func (q request) set(ctx context.Context, a meta.Attr, set meta.SetAttr) error {
	_, err := q.fs.SetAttr(ctx, a.Ino, set)
	q.changed(0, "", a.Ino)
	return err
}

func (q request) hSetPermission(w http.ResponseWriter, r *http.Request, _ string) error {
	mode, err := permission(r, defaultDir)
	if err != nil {
		return err
	}
	a, err := q.owns(r.Context())
	if err != nil {
		return err
	}
	return q.set(r.Context(), a, meta.SetAttr{Mode: &mode})
}

// id reads a parameter that is a number, or what somebody is called here; nil if it is
// not there.
func id(r *http.Request, name string, look func(string) (string, error)) (*uint32, error) {
	text := r.URL.Query().Get(name)
	if text == "" || text == "null" {
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		if text, err = look(text); err == nil {
			n, err = strconv.ParseUint(text, 10, 32)
		}
		if err != nil {
			return nil, fmt.Errorf("%s=%.80q is not known here: %w", name, r.URL.Query().Get(name), meta.Invalid)
		}
	}
	id := uint32(n)
	return &id, nil
}

// hSetOwner is chown(2): for root, but that an owner may give a file to another group of
// his.
func (q request) hSetOwner(w http.ResponseWriter, r *http.Request, _ string) error {
	uid, err := id(r, "owner", func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return err
	}
	gid, err := id(r, "group", func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err == nil && uid == nil && gid == nil {
		err = fmt.Errorf("neither owner nor group is there: %w", meta.Invalid)
	}
	if err != nil {
		return err
	}
	a, err := q.owns(r.Context())
	switch {
	case err != nil:
		return err
	case q.who.UID != 0 && (uid != nil && *uid != a.UID || gid != nil && *gid != a.GID && !q.who.In(*gid)):
		return meta.Permission
	}
	return q.set(r.Context(), a, meta.SetAttr{UID: uid, GID: gid, KillPriv: true})
}

// moment reads a parameter that is a time in ms since 1970; nil if it is to stay.
func moment(r *http.Request, name string) (*meta.Time, error) {
	text := r.URL.Query().Get(name)
	if text == "" || text == "null" || text == "-1" {
		return nil, nil
	}
	n, err := number(r, name, 0)
	if err != nil {
		return nil, err
	}
	if n > int64(1<<63-1)/int64(time.Millisecond) {
		return nil, fmt.Errorf("%s=%.80q: %w", name, text, meta.Invalid)
	}
	t := meta.At(time.UnixMilli(n))
	return &t, nil
}

func (q request) hSetTimes(w http.ResponseWriter, r *http.Request, _ string) error {
	mtime, err := moment(r, "modificationtime")
	if err != nil {
		return err
	}
	atime, err := moment(r, "accesstime")
	if err != nil {
		return err
	}
	a, err := q.owns(r.Context())
	if err != nil {
		return err
	}
	return q.set(r.Context(), a, meta.SetAttr{Mtime: mtime, Atime: atime})
}

func (q request) hTruncate(w http.ResponseWriter, r *http.Request, _ string) error {
	size, err := number(r, "newlength", -1)
	if err == nil && size < 0 {
		err = fmt.Errorf("newlength is not there: %w", meta.Invalid)
	}
	var a meta.Attr
	if err == nil {
		a, err = q.must(r.Context(), access.Write)
	}
	if err == nil && size > a.Size { // as in HDFS, where nothing has holes
		err = fmt.Errorf("newlength=%d is more than the %d bytes that there are: %w", size, a.Size, meta.Invalid)
	}
	if err == nil {
		err = q.set(r.Context(), a, meta.SetAttr{Size: &size, KillPriv: q.who.UID != 0})
	}
	if err != nil {
		return err
	}
	return done(w, true)
}

// A summary is Hadoop's ContentSummary.
type summary struct {
	Directories   int64 `json:"directoryCount"` // with the one that is asked about
	Files         int64 `json:"fileCount"`
	Length        int64 `json:"length"` // bytes
	Quota         int64 `json:"quota"`  // -1: none
	SpaceConsumed int64 `json:"spaceConsumed"`
	SpaceQuota    int64 `json:"spaceQuota"`
}

func (q request) hSummary(w http.ResponseWriter, r *http.Request, _ string) error {
	a, err := q.reach(r.Context(), 0)
	if err != nil {
		return err
	}
	s := summary{Quota: -1, SpaceQuota: -1}
	if err := q.sum(r.Context(), a, &s); err != nil {
		return err
	}
	s.SpaceConsumed = s.Length
	answer(w, http.StatusOK, map[string]summary{"ContentSummary": s})
	return nil
}

// sum adds what there is at a place and below.
func (q request) sum(ctx context.Context, a meta.Attr, s *summary) error {
	if !a.IsDir() {
		s.Files++
		if a.IsFile() {
			s.Length += a.Size
		}
		return nil
	}
	s.Directories++
	if !q.who.May(a, access.Read|access.Enter) {
		return meta.Permission
	}
	return q.each(ctx, a, true, func(_ string, a meta.Attr) error { return q.sum(ctx, a, s) })
}

func (q request) hHome(w http.ResponseWriter, _ *http.Request, _ string) error {
	name := named(make(map[uint32]string), q.who.UID, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
	answer(w, http.StatusOK, map[string]string{"Path": "/user/" + name})
	return nil
}
