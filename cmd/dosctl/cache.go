package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"dos/internal/cache"
	"dos/internal/node"
	"dos/meta"
	truth "dos/meta/cache"
	"dos/procfs"
	caches "dos/procfs/cache"
)

// cacheVerbs are about the cache: its entries, and the files of its buckets without a mount.
var cacheVerbs = []verb{
	{name: "cache list", flags: []string{"json"}, run: entries(cacheList)},
	{name: "cache make", args: []string{"BUCKET"}, run: inCache(makeObject)},
	{name: "cache remove", args: []string{"BUCKET"}, run: inCache(removeObject)},
	{name: "cache status", args: []string{"BUCKET"}, run: inCache(show(".status"))},
	{name: "cache watch", args: []string{"BUCKET"}, run: inCache(cacheWatch)},
	{name: "cache ctl", args: []string{"BUCKET", "SETTING…"}, rest: 1, run: inCache(control(".ctl"))},
	{name: "cache get", args: []string{"BUCKET/KEY"}, run: entries(cacheGet)},
	{name: "cache put", args: []string{"BUCKET/KEY"}, flags: []string{"only", "ttl"}, run: entries(cachePut)},
	{name: "cache del", args: []string{"BUCKET/KEY"}, flags: []string{"only"}, run: entries(cacheDel)},
	{name: "cache incr", args: []string{"BUCKET/KEY", "NUMBER"}, run: entries(cacheIncr)},
	{name: "cache scan", args: []string{"BUCKET/PREFIX"}, flags: []string{"json"}, run: entries(cacheScan)},
}

// entries calls f with the cache of the dos that is meant.
func entries(f func(ctx context.Context, c command, all *cache.Client) error) func(context.Context, command) error {
	return visit(func(ctx context.Context, c command, guest *node.Guest) error {
		all := guest.Cache()
		running, stop := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan error, 1)
		go func() { done <- all.Run(running) }()
		err := f(ctx, c, all)
		stop()
		return errors.Join(err, <-done)
	})
}

// inCache calls f with the directory.
func inCache(f func(ctx context.Context, c command, d room) error) func(context.Context, command) error {
	return entries(func(ctx context.Context, c command, all *cache.Client) error {
		return f(ctx, c, room{caches.New(all), caller()})
	})
}

func cacheList(ctx context.Context, c command, all *cache.Client) error {
	buckets, err := all.Buckets(ctx)
	if err != nil {
		return err
	}
	type row struct {
		Name                    string
		Items, Bytes, DiskBytes int64
		Hits, Misses, Evictions uint64
		Away                    int `json:",omitempty"` // machines that do not answer
	}
	rows := []row{}
	text := table{{"NAME", "ITEMS", "BYTES", "ON DISK", "HITS", "MISSES", "EVICTIONS"}}
	for _, b := range buckets {
		list, err := all.Stats(ctx, b.Name)
		switch {
		case errors.Is(err, meta.NotExist): // it was removed meanwhile
			continue
		case err != nil:
			return err
		}
		r := row{Name: b.Name}
		for _, s := range list {
			if s.Away {
				r.Away++
			}
			r.Items, r.Bytes, r.DiskBytes = r.Items+s.Items, r.Bytes+s.Bytes, r.DiskBytes+s.DiskBytes
			r.Hits, r.Misses, r.Evictions = r.Hits+s.Hits, r.Misses+s.Misses, r.Evictions+s.Evictions
		}
		rows = append(rows, r)
		text = append(text, []string{
			r.Name, strconv.FormatInt(r.Items, 10), strconv.FormatInt(r.Bytes, 10), strconv.FormatInt(r.DiskBytes, 10),
			strconv.FormatUint(r.Hits, 10), strconv.FormatUint(r.Misses, 10), strconv.FormatUint(r.Evictions, 10),
		})
	}
	if c.flags.json {
		return printJSON(c.out, rows)
	}
	return text.print(c.out)
}

// entry is the bucket and the key of the first argument.
func (c command) entry() (bucket, key string, err error) {
	bucket, key, ok := strings.Cut(c.args[0], "/")
	if !ok || bucket == "" || key == "" {
		return "", "", fmt.Errorf("%q is not BUCKET/KEY", c.args[0])
	}
	return bucket, key, nil
}

// missed says of which entry there is none.
func missed(c command, err error) error {
	if err == meta.NotExist {
		return fmt.Errorf("%s: %w", c.args[0], err)
	}
	return err
}

func cacheGet(ctx context.Context, c command, all *cache.Client) error {
	bucket, key, err := c.entry()
	if err != nil {
		return err
	}
	e, err := all.Get(ctx, bucket, key)
	if err == nil {
		_, err = c.out.Write(e.Value)
	}
	return missed(c, err)
}

// cachePut puts what it reads, and says the version.
func cachePut(ctx context.Context, c command, all *cache.Client) error {
	bucket, key, err := c.entry()
	if err != nil {
		return err
	}
	value, err := io.ReadAll(io.LimitReader(c.in, truth.ValueMax+1))
	if err != nil {
		return err
	}
	o := cache.Options{TTL: c.flags.ttl.Duration}
	if only := c.flags.only.at; only != nil {
		o.Add, o.If = *only == 0, *only
	}
	v, err := all.Set(ctx, bucket, key, value, o)
	if err == nil {
		fmt.Fprintln(c.out, v)
	}
	return missed(c, err)
}

func cacheDel(ctx context.Context, c command, all *cache.Client) error {
	bucket, key, err := c.entry()
	if err != nil {
		return err
	}
	var version uint64
	if only := c.flags.only.at; only != nil {
		version = *only
	}
	return missed(c, all.Delete(ctx, bucket, key, version))
}

func cacheIncr(ctx context.Context, c command, all *cache.Client) error {
	bucket, key, err := c.entry()
	if err != nil {
		return err
	}
	by, err := strconv.ParseInt(c.args[1], 10, 64)
	if err != nil {
		return wrong("%q is not a number to add", c.args[1])
	}
	sum, err := all.Incr(ctx, bucket, key, by)
	if err == nil {
		fmt.Fprintln(c.out, sum)
	}
	return missed(c, err)
}

func cacheScan(ctx context.Context, c command, all *cache.Client) error {
	bucket, prefix, _ := strings.Cut(c.args[0], "/")
	seen := make(map[string]bool) // one that moves is found twice
	keys := []string{}
	err := all.Scan(ctx, bucket, func(key string) bool {
		if strings.HasPrefix(key, prefix) && !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
		return true
	})
	switch {
	case err != nil:
		return missed(c, err)
	case c.flags.json:
		return printJSON(c.out, keys)
	}
	for _, key := range keys {
		if _, err := fmt.Fprintln(c.out, strconv.Quote(key)); err != nil {
			return err
		}
	}
	return nil
}

// cacheWatch goes on until it is interrupted.
func cacheWatch(ctx context.Context, c command, d room) error {
	err := show(".watch")(ctx, c, d)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// caller is who runs this.
func caller() procfs.Caller {
	return procfs.Caller{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: uint32(os.Getpid())}
}
