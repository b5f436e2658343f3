package cache

import (
	"fmt"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

func follow(r state.Reader, req Follow) (Overview, error) {
	c, _ := read[counters](r, counterKey)
	o := Overview{Stamp: c.Stamp, Version: c.Version, Members: members(r), Maps: all[Map](r, mapPrefix)}
	if o.Whole = req.Version != c.Version || c.Version == 0; o.Whole {
		o.Buckets = all[Bucket](r, bucketPrefix)
	}
	return o, nil
}

func oneBucket(r state.Reader, req Named) (Bucket, error) { return find(r, req.Name) }

func isDir(r state.Reader, req Dir) (Is, error) {
	b, err := find(r, req.Bucket)
	if err != nil {
		return Is{}, err
	}
	_, is := r.Get(dirKey(b.ID, req.Path))
	return Is{is}, nil
}

func dirs(r state.Reader, req Dirs) (DirList, error) {
	b, err := find(r, req.Bucket)
	if err != nil {
		return DirList{}, err
	}
	if req.Limit < 1 {
		return DirList{}, fmt.Errorf("limit %d: %w", req.Limit, meta.Invalid)
	}
	limit := min(req.Limit, ListMax)
	prefix := ""
	if req.Path != "" {
		prefix = req.Path + "/"
	}
	var out DirList
	from, to := dirKey(b.ID, prefix+req.After), state.After(dirKey(b.ID, prefix))
	if req.After != "" {
		from = append(from, 0)
	}
	for key := range r.Scan(from, to) {
		name := string(key[len(dirKey(b.ID, prefix)):])
		if strings.ContainsRune(name, '/') { // further down
			continue
		}
		if len(out.Names) == limit {
			out.More = true
			break
		}
		out.Names = append(out.Names, name)
	}
	return out, nil
}
