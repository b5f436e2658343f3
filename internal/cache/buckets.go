package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dos/meta"
	"dos/meta/cache"
	"dos/meta/state"
)

func (v *view) byName() (list []cache.Member) {
	for _, m := range v.members {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b cache.Member) int { return cmp.Compare(a.Node, b.Node) })
	return list
}

// Bucket returns what is known of a bucket. Each holder knows: what changes, changes when
// all do. Only of one that it does not know the service has to be asked.
func (c *Client) Bucket(ctx context.Context, name string) (b cache.Bucket, err error) {
	if c.cfg.Here != nil {
		if h := c.cfg.Here(); h != nil {
			if v := h.view.Load(); v != nil && h.cfg.Valid() {
				if id, is := v.names[name]; is {
					return v.buckets[id], nil
				}
			}
		}
	}
	if v := c.view.Load(); v != nil {
		m, is := v.members[v.ring().Owner(cache.Hash(0, name))]
		if is {
			a, err := c.askMember(ctx, m, &request{Op: opBucket, Key: name})
			if err == nil && !a.Moved && a.Kind == 0 && state.Unmarshal(a.Value, &b) == nil {
				return b, nil
			}
		}
	}
	err = c.cfg.Meta.Call(ctx, cache.OpBucket, cache.Named{Name: name}, &b)
	if errors.Is(err, meta.NotExist) {
		err = meta.NotExist
	}
	return b, err
}

// Buckets returns all buckets, by name.
func (c *Client) Buckets(ctx context.Context) ([]cache.Bucket, error) {
	v, err := c.refresh(ctx)
	if err != nil {
		return nil, err
	}
	list := v.list()
	slices.SortFunc(list, func(a, b cache.Bucket) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// Make makes a bucket.
func (c *Client) Make(ctx context.Context, req cache.Make) error {
	return c.change(ctx, cache.OpMake, req)
}

// Remove removes a bucket and all entries that are in it.
func (c *Client) Remove(ctx context.Context, bucket string) error {
	return c.change(ctx, cache.OpRemove, cache.Named{Name: bucket})
}

// SetBucket changes a bucket.
func (c *Client) SetBucket(ctx context.Context, req cache.Set) error {
	return c.change(ctx, cache.OpSet, req)
}

// Clear empties a bucket, whatever is in it, at once.
func (c *Client) Clear(ctx context.Context, bucket string) error {
	return c.SetBucket(ctx, cache.Set{Name: bucket, Clear: true})
}

// Mkdir makes a directory in a bucket, for keys whose path begins with it.
func (c *Client) Mkdir(ctx context.Context, bucket, path string) error {
	return c.change(ctx, cache.OpMkdir, cache.Dir{Bucket: bucket, Path: path})
}

// Rmdir removes a directory, which has no other in it.
func (c *Client) Rmdir(ctx context.Context, bucket, path string) error {
	return c.change(ctx, cache.OpRmdir, cache.Dir{Bucket: bucket, Path: path})
}

// IsDir reports whether there is a directory.
func (c *Client) IsDir(ctx context.Context, bucket, path string) (bool, error) {
	var is cache.Is
	err := c.cfg.Meta.Call(ctx, cache.OpIsDir, cache.Dir{Bucket: bucket, Path: path}, &is)
	return is.Dir, err
}

// Dirs returns the directories in one; "" is the bucket itself.
func (c *Client) Dirs(ctx context.Context, bucket, path string) (names []string, err error) {
	req := cache.Dirs{Bucket: bucket, Path: path, Limit: cache.ListMax}
	for {
		var list cache.DirList
		if err := c.cfg.Meta.Call(ctx, cache.OpDirs, req, &list); err != nil {
			return nil, err
		}
		names = append(names, list.Names...)
		if !list.More || len(list.Names) == 0 {
			return names, nil
		}
		req.After = names[len(names)-1]
	}
}

// change makes a change and waits until it is in force.
func (c *Client) change(ctx context.Context, op state.Op, req any) error {
	var done cache.Changed
	if err := c.cfg.Meta.Call(ctx, op, req, &done); err != nil {
		return err
	}
	late := time.NewTimer(Patience)
	defer late.Stop()
	for {
		v, err := c.look(ctx)
		if err == nil && v.version < done.Version {
			v, err = c.refresh(ctx)
		}
		if err != nil {
			return err
		}
		if v.version >= done.Version && v.known(done.Version) {
			return nil
		}
		select {
		case <-v.changed:
		case <-late.C:
			return fmt.Errorf("cache: not all machines know of the change yet: %w", meta.TimedOut)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
