package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dos/bench/load"
	"dos/internal/cache"
	"dos/internal/node"
	truth "dos/meta/cache"
)

// A fileFetcher reads an entry as a program does that knows how large it is at most: it
// opens the file of the key, reads once and closes it.
type fileFetcher struct {
	at  int    // a descriptor of the directory that names begin at
	dir string // before each name, with a slash at its end
	buf []byte
}

func newFileFetcher(at int, dir string) fileFetcher {
	return fileFetcher{at, dir, make([]byte, 2*load.EntrySize)}
}

func (f fileFetcher) Fetch(_ context.Context, key string) ([]byte, error) {
	fd, err := again(func() (int, error) { return unix.Openat(f.at, f.dir+key, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	n, err := again(func() (int, error) { return unix.Read(fd, f.buf) })
	return f.buf[:max(n, 0)], errors.Join(err, unix.Close(fd))
}

// again makes a system call until no signal comes in between.
func again(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}

// putFiles makes the entries files in a directory.
func putFiles(dir string) error {
	for i := range load.Entries {
		key, value := load.Entry(i)
		if err := os.WriteFile(filepath.Join(dir, key), value, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// fetchFiles reads them, by the path of each or from the directory.
func (c *course) fetchFiles(ctx context.Context, cell, dir string, within bool, say func(string, float64)) error {
	f := newFileFetcher(unix.AT_FDCWD, dir+"/")
	if within {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		f = newFileFetcher(int(d.Fd()), "")
	}
	rate, err := load.Fetch(ctx, []load.Fetcher{f}, c.during)
	if err == nil {
		say(cell, rate)
	}
	return err
}

// cacheName is what the cells of an embedded dos are called.
const cacheName = "cache"

// embeddedCache reads entries through the mount of an embedded dos, and files as large
// through the pass-through mount, in turn.
func embeddedCache(ctx context.Context, self, work string, c course, say func(who, cell string, v float64)) (err error) {
	point := filepath.Join(work, "cache")
	dos, err := start(ctx, point, filepath.Join(work, "dosmount"), "--data", filepath.Join(work, "cache-data"), point)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(&dos)) }()
	through, err := newPT(self, work, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(through.source), os.Remove(through.point)) }()
	if _, err := through.up(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, through.down()) }()
	bucket := filepath.Join(point, "cache", "bench")
	if err := os.Mkdir(bucket, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := errors.Join(putFiles(bucket), putFiles(through.point)); err != nil {
		return err
	}
	for _, m := range []struct {
		who, cell, dir string
		within         bool
	}{
		{"dos", "cache", bucket, false},
		{"dos", "cache in the bucket", bucket, true},
		{"PT", "fetch", through.point, false},
	} {
		if err := c.fetchFiles(ctx, m.cell, m.dir, m.within, func(cell string, v float64) { say(m.who, cell, v) }); err != nil {
			return err
		}
	}
	return nil
}

// fileCache reads entries of three machines through a mount.
func (c *course) fileCache(ctx context.Context, say func(string, float64)) error {
	point, err := c.mount(ctx, 0)
	if err != nil {
		return err
	}
	bucket := filepath.Join(point, "cache", "files")
	if err := os.Mkdir(bucket, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := putFiles(bucket); err != nil {
		return err
	}
	return c.fetchFiles(ctx, "cache of 3 machines", bucket, false, say)
}

// A goFetcher reads entries of a bucket with the Go client.
type goFetcher struct {
	*cache.Client
	bucket string
}

func (f goFetcher) Fetch(ctx context.Context, key string) ([]byte, error) {
	e, err := f.Get(ctx, f.bucket, key)
	return e.Value, err
}

// goCache reads entries of three machines with the Go client.
func (c *course) goCache(ctx context.Context, say func(string, float64)) error {
	f := goFetcher{bucket: "go"}
	if _, err := c.visit(ctx, func(g *node.Guest) func(context.Context) error {
		f.Client = g.Cache()
		return f.Run
	}); err != nil {
		return err
	}
	if err := f.Make(ctx, truth.Make{Name: f.bucket, Mode: 0o755}); err != nil {
		return err
	}
	all := make([]load.Fetcher, contenders)
	for i := range all {
		all[i] = f
	}
	for i := range load.Entries {
		key, value := load.Entry(i)
		if _, err := f.Set(ctx, f.bucket, key, value, cache.Options{}); err != nil {
			return err
		}
	}
	rate, err := load.Fetch(ctx, all, c.during)
	if err == nil {
		say("cache x16 Go", rate)
	}
	return errors.Join(err, f.Remove(ctx, f.bucket))
}
