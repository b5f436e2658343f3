package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	entries "dos/internal/cache"
	"dos/meta"
	"dos/meta/cache"
	"dos/procfs"
)

func (f file) Stat(ctx context.Context) (procfs.Info, error) {
	b, err := f.Bucket(ctx, f.bucket)
	if err != nil {
		return procfs.Info{}, err
	}
	info := procfs.Info{Name: f.name, UID: b.UID, GID: b.GID, Mtime: b.Mtime}
	switch f.name {
	case ".ctl":
		info.Mode, info.Size = meta.TypeFile|0o644, int64(len(settings(b)))
	case ".status":
		text, err := f.status(ctx)
		if err != nil {
			return info, err
		}
		info.Mode, info.Size = meta.TypeFile|0o444, int64(len(text))
	default:
		info.Mode = meta.TypeFile | 0o444
	}
	return info, nil
}

var (
	tiers    = [...]string{cache.Memory: "memory", cache.Disk: "disk", cache.Both: "both"}
	policies = [...]string{cache.LRU: "lru", cache.LFU: "lfu", cache.FIFO: "fifo"}
)

func settings(b cache.Bucket) string {
	s := b.Settings
	max, ttl := "none", "none"
	if s.Max > 0 {
		max = strconv.FormatInt(s.Max, 10)
	}
	if s.TTL > 0 {
		ttl = s.TTL.String()
	}
	return fmt.Sprintf("max %s\ntier %s\nttl %s\npolicy %s\nreplicas %d\n", max, tiers[s.Tier], ttl, policies[s.Policy], s.Replicas)
}

// status is the sums, and a line for each machine.
func (f file) status(ctx context.Context) (string, error) {
	list, err := f.Stats(ctx, f.bucket)
	if err != nil {
		return "", err
	}
	var all entries.Stats
	var nodes strings.Builder
	for _, s := range list {
		if s.Away {
			fmt.Fprintf(&nodes, "node %s away\n", s.Node)
			continue
		}
		all.Items += s.Items
		all.Bytes += s.Bytes
		all.DiskItems += s.DiskItems
		all.DiskBytes += s.DiskBytes
		all.Hits += s.Hits
		all.Misses += s.Misses
		all.Evictions += s.Evictions
		all.Expired += s.Expired
		fmt.Fprintf(&nodes, "node %s items %d bytes %d disk-items %d disk-bytes %d hits %d misses %d evictions %d used %d limit %d\n",
			s.Node, s.Items, s.Bytes, s.DiskItems, s.DiskBytes, s.Hits, s.Misses, s.Evictions, s.Used, s.Limit)
	}
	return fmt.Sprintf("items %d\nbytes %d\ndisk-items %d\ndisk-bytes %d\nhits %d\nmisses %d\nevictions %d\nexpired %d\n%s",
		all.Items, all.Bytes, all.DiskItems, all.DiskBytes, all.Hits, all.Misses, all.Evictions, all.Expired, nodes.String()), nil
}

func (f file) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	if f.name == ".status" {
		text, err := f.status(ctx)
		if err != nil {
			return nil, err
		}
		return procfs.OpenText(how, text)
	}
	return procfs.Control{Do: f.control, Settings: func(ctx context.Context) (string, error) {
		b, err := f.Bucket(ctx, f.bucket)
		return settings(b), err
	}}.Open(ctx, how)
}

// control executes a line of .ctl.
func (f file) control(ctx context.Context, line string) error {
	words := strings.Fields(line)
	req := cache.Set{Name: f.bucket}
	if len(words) == 1 && words[0] == "clear" {
		req.Clear = true
		return f.SetBucket(ctx, req)
	}
	if len(words) != 2 {
		return fmt.Errorf("%q is not `clear`, or a setting such as `ttl 60s`: %w", line, meta.Invalid)
	}
	var err error
	word := words[1]
	switch words[0] {
	case "max":
		var max int64
		if word != "none" {
			max, err = meta.ParseSize(word)
		}
		req.Max = &max
	case "ttl":
		var ttl time.Duration
		if word != "none" {
			ttl, err = procfs.Duration(word)
		}
		req.TTL = &ttl
	case "tier":
		var tier cache.Tier
		tier, err = oneOf[cache.Tier](tiers[:], word)
		req.Tier = &tier
	case "policy":
		var policy cache.Policy
		policy, err = oneOf[cache.Policy](policies[:], word)
		req.Policy = &policy
	case "replicas":
		var n int
		if n, err = strconv.Atoi(word); err != nil {
			err = fmt.Errorf("replicas %q: %w", word, meta.Invalid)
		}
		req.Replicas = &n
	default:
		err = fmt.Errorf("there is no setting %q: %w", words[0], meta.Invalid)
	}
	if err != nil {
		return err
	}
	return f.SetBucket(ctx, req)
}

func oneOf[T ~uint8](names []string, word string) (T, error) {
	for i, name := range names {
		if name == word {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("%q is not one of %s: %w", word, strings.Join(names, ", "), meta.Invalid)
}

// watched is .watch.
type watched struct{ file }

func (watched) Unlisted() {}

var changes = map[entries.Change]string{
	entries.WasSet: "set", entries.WasDeleted: "del", entries.HasExpired: "expire", entries.WasEvicted: "evict",
	entries.WasCleared: "clear", entries.WereMissed: "missed", entries.WasLost: "lost",
}

func (w watched) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	if how.Write {
		return nil, meta.Permission
	}
	events, err := w.Watch(ctx, w.bucket)
	if err != nil {
		return nil, err
	}
	next := func(ctx context.Context) (string, error) {
		e, err := events.Next(ctx)
		if err != nil {
			return "", err
		}
		switch {
		case e.Change == entries.WereMissed:
			return fmt.Sprintf("missed %d\n", e.Count), nil
		case e.Key == "":
			return changes[e.Change] + "\n", nil
		}
		return changes[e.Change] + " " + procfs.EscapeValue(e.Key) + "\n", nil
	}
	return procfs.OpenStream(next, func(context.Context) error { events.Close(); return nil }), nil
}

// asked is .fill or .incr, or a directory below: every key is in it, and none is listed.
type asked struct {
	dir
	name string
}

func (asked) Unlisted() {}

func (a asked) Stat(ctx context.Context) (procfs.Info, error) {
	info, err := a.dir.Stat(ctx)
	info.Name = a.name
	return info, err
}

func (a asked) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	if name[0] == '.' {
		return nil, meta.NotExist
	}
	path := a.path + procfs.KeyPart(name)
	is, err := a.holds(ctx, path)
	switch {
	case err != nil:
		return nil, err
	case is:
		return asked{dir{a.root, a.bucket, path + "/"}, a.name}, nil
	case a.name == ".fill":
		return filled{value{a.root, a.bucket, path}}, nil
	}
	return counted{value{a.root, a.bucket, path}}, nil
}

// Find is Lookup, and what is found: not what a bucket's own Find says.
func (a asked) Find(ctx context.Context, name string) (n procfs.Node, is, own procfs.Info, err error) {
	if n, err = a.Lookup(ctx, name); err == nil {
		is, err = n.Stat(ctx)
	}
	return n, is, own, err
}

func (asked) Entries(context.Context) iter.Seq2[procfs.Info, error] {
	return func(func(procfs.Info, error) bool) {}
}

func (asked) Create(context.Context, string, uint32, procfs.Caller) (procfs.Node, error) {
	return nil, meta.Fixed
}

func (asked) Make(context.Context, string, uint32, procfs.Open) (procfs.Node, procfs.MadeHandle, error) {
	return nil, nil, meta.Fixed
}

func (asked) Remove(context.Context, string, procfs.Caller) error { return meta.Fixed }

func (asked) Movable(string) bool { return false }

func (asked) Rename(context.Context, string, procfs.Node, string, bool, procfs.Caller) error {
	return meta.Fixed
}

func (asked) Set(context.Context, procfs.Change, procfs.Caller) error { return meta.Fixed }

// counted is .incr/KEY.
type counted struct{ value }

func (c counted) Stat(ctx context.Context) (procfs.Info, error) {
	return c.info(ctx, entries.Entry{})
}

func (c counted) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	return procfs.Transaction{Say: func(ctx context.Context, line string) (string, error) {
		by, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return "", fmt.Errorf("%.80q is not a number to add: %w", line, meta.Invalid)
		}
		sum, err := c.Incr(ctx, c.bucket, c.key, by)
		return strconv.FormatInt(sum, 10) + "\n", err
	}}.Open(ctx, how)
}

// filled is .fill/KEY.
type filled struct{ value }

func (f filled) Stat(ctx context.Context) (procfs.Info, error) {
	return f.info(ctx, entries.Entry{})
}

// Blocks: what is written there waits for the machine that has the key.
func (filled) Blocks() {}

func (f filled) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	e, right, err := f.Fill(ctx, f.bucket, f.key, !how.Nonblock)
	switch {
	case err != nil:
		return nil, err
	case right == nil && !how.Read:
		return nil, fmt.Errorf("somebody has filled %q: %w", f.key, meta.Exist)
	case right == nil:
		return procfs.OpenText(procfs.Open{Read: true}, string(e.Value))
	case !how.Write:
		right.Abandon(ctx)
		return nil, meta.NotExist
	}
	object := procfs.Object{Value: &filling{value: f.value, right: right}, Max: cache.ValueMax}
	h, err := object.Open(ctx, procfs.Open{Read: true, Write: true, Create: true, Append: how.Append})
	if err != nil {
		right.Abandon(ctx)
		return nil, err
	}
	return &fillHandle{ObjectHandle: h, right: right}, nil
}

// A filling is a value that somebody has the right to provide, once. What he writes
// after that has been stored is put in the place of what he stored.
type filling struct {
	value
	right *entries.Filling
	mu    sync.Mutex
	done  uint64 // the version that was stored; guarded by mu
}

func (f *filling) Load(context.Context) ([]byte, uint64, error) { return nil, 0, meta.NotExist }

func (f *filling) Check(ctx context.Context, size int, _ *uint64) error {
	return f.value.Check(ctx, size, nil)
}

func (f *filling) Store(ctx context.Context, data []byte, _ *uint64) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.done == 0 {
		f.done, err = f.right.Commit(ctx, data, entries.Options{})
	} else {
		f.done, err = f.value.Store(ctx, data, &f.done)
	}
	return f.done, err
}

func (f *filling) Remove(context.Context, uint64) error { return nil }

// A fillHandle gives the right back when it is closed unwritten, or its writer killed.
type fillHandle struct {
	*procfs.ObjectHandle
	right *entries.Filling
	mu    sync.Mutex
	wrote bool // guarded by mu
}

func (h *fillHandle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	h.wrote = true
	h.mu.Unlock()
	return h.ObjectHandle.WriteAt(ctx, p, off)
}

func (h *fillHandle) Close(ctx context.Context) error {
	h.mu.Lock()
	wrote := h.wrote
	h.mu.Unlock()
	var err error
	if wrote {
		err = h.ObjectHandle.Close(ctx)
	}
	h.right.Abandon(ctx)
	if errors.Is(err, meta.Conflict) { // somebody else has written it: so be it
		err = nil
	}
	return err
}
