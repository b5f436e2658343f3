package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	entries "dos/internal/cache"
	"dos/meta"
	"dos/meta/cache"
	"dos/procfs"
)

// valueMode is the mode of every entry: who may search the bucket may use what is in it.
const valueMode = meta.TypeFile | 0o666

func (v value) stat(ctx context.Context) (entries.Entry, error) {
	return v.Buckets.Stat(ctx, v.bucket, v.key)
}

// info is what an entry is to the kernel. Versions are at least the time.
func (v value) info(ctx context.Context, e entries.Entry) (procfs.Info, error) {
	b, err := v.Bucket(ctx, v.bucket)
	return v.infoIn(b, e), err
}

func (v value) infoIn(b cache.Bucket, e entries.Entry) procfs.Info {
	return procfs.Info{
		Name: procfs.KeyLast(v.key), Mode: valueMode, UID: b.UID, GID: b.GID, Size: int64(e.Size), Mtime: meta.Time(e.Version),
		Good: procfs.OneCall,
	}
}

// Stat says nothing of whether there is an entry: Lookup has, and who opens one to write
// that went since then makes it anew.
func (v value) Stat(ctx context.Context) (procfs.Info, error) {
	e, err := v.stat(ctx)
	if err != nil && !errors.Is(err, meta.NotExist) {
		return procfs.Info{}, err
	}
	return v.info(ctx, e)
}

func (v value) Truncatable() {}

// Open opens an entry. It may have gone since it was looked up: who writes makes it.
func (v value) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	if !how.Write && !how.Create {
		e, err := v.Get(ctx, v.bucket, v.key)
		if err != nil {
			return nil, err
		}
		return procfs.OpenText(how, string(e.Value))
	}
	how.Create = how.Create || how.Write
	return v.object().Open(ctx, how)
}

func (v value) object() procfs.Object { return procfs.Object{Value: v, Max: cache.ValueMax} }

// Set renews the time of an entry whose bucket has one.
func (v value) Set(ctx context.Context, c procfs.Change, _ procfs.Caller) error {
	info, err := v.Stat(ctx)
	if err == nil {
		err = same(info, c)
	}
	if err != nil || !c.Touch {
		return err
	}
	b, err := v.Bucket(ctx, v.bucket)
	if err != nil || b.Settings.TTL == 0 {
		return err
	}
	return v.Expire(ctx, v.bucket, v.key, b.Settings.TTL)
}

func (v value) Xattrs(ctx context.Context) (map[string]string, error) {
	e, err := v.stat(ctx)
	if err != nil {
		return nil, err
	}
	attrs := map[string]string{"version": strconv.FormatUint(e.Version, 10)}
	if e.TTL > 0 {
		attrs["ttl"] = e.TTL.Round(time.Millisecond).String()
	}
	return attrs, nil
}

func (v value) SetXattr(ctx context.Context, name string, text *string, _ procfs.Caller) error {
	if name != "ttl" {
		return fmt.Errorf("user.dos.%s is not to be set: %w", name, meta.Fixed)
	}
	ttl := time.Duration(0)
	if text != nil {
		var err error
		if ttl, err = procfs.Duration(*text); err != nil {
			return err
		}
	}
	return v.Expire(ctx, v.bucket, v.key, ttl)
}

// A value is a procfs.Value.

func (v value) Load(ctx context.Context) ([]byte, uint64, error) {
	e, err := v.Get(ctx, v.bucket, v.key)
	return e.Value, e.Version, err
}

func (v value) Check(ctx context.Context, size int, only *uint64) error {
	b, err := v.Bucket(ctx, v.bucket)
	switch {
	case err != nil:
		return err
	case b.Settings.Max > 0 && int64(size+len(v.key)) > b.Settings.Max:
		return fmt.Errorf("%d bytes in a bucket of %d: %w", size, b.Settings.Max, meta.TooLarge)
	case only == nil:
		return nil
	}
	e, err := v.stat(ctx)
	if err != nil && !errors.Is(err, meta.NotExist) {
		return err
	}
	if *only != e.Version {
		return fmt.Errorf("%s has version %d, not %d: %w", v.key, e.Version, *only, meta.Conflict)
	}
	return nil
}

func (v value) Store(ctx context.Context, data []byte, only *uint64) (uint64, error) {
	var o entries.Options
	if only != nil {
		o.Add, o.If, o.Keep = *only == 0, *only, *only != 0
	}
	version, err := v.Buckets.Set(ctx, v.bucket, v.key, data, o)
	if o.Add && errors.Is(err, meta.Exist) || o.If != 0 && errors.Is(err, meta.NotExist) {
		return 0, fmt.Errorf("%s is another: %w", v.key, meta.Conflict)
	}
	return version, err
}

func (v value) Remove(ctx context.Context, version uint64) error {
	err := v.Delete(ctx, v.bucket, v.key, version)
	if errors.Is(err, meta.NotExist) {
		return nil
	}
	return err
}
