package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"dos/chunk"
	"dos/internal/admin"
	"dos/meta/client"
	"dos/meta/namespace"
	metanode "dos/meta/node"
	"dos/meta/queue"
	"dos/meta/replica"
	"dos/meta/session"
	"dos/meta/state"
)

// problemsShown bounds the problems that a check spells out; it counts them all.
const problemsShown = 1000

// A checker goes through everything that is stored.
type checker struct {
	meta    *replica.Replica // that leads
	stores  wholeCluster
	where   func(chunk.StoreID) string // for people
	stripes client.Stripes
	data    bool // read and verify each shard too
	to      admin.Report

	problems int
	all, at  int64     // stripes: that there are, and that were looked at
	told     time.Time // when how many was told last
}

// fsck checks the embedded cluster.
func (e *Embedded) fsck(ctx context.Context, data bool, to admin.Report) (int, error) {
	c := &checker{meta: e.meta.Replica(), stores: e.whole, where: e.stores.where, stripes: e.stripes(), data: data, to: to}
	return c.run(ctx)
}

// run checks the tree, then that each stripe has its shards.
func (c *checker) run(ctx context.Context) (int, error) {
	if err := c.tree(ctx); err != nil {
		return c.problems, err
	}
	if err := c.shards(ctx); err != nil {
		return c.problems, err
	}
	if c.problems > problemsShown {
		c.say("… and %d more", c.problems-problemsShown)
	}
	if c.problems == 0 {
		c.say("clean")
	} else {
		c.say("%d problems", c.problems)
	}
	return c.problems, nil
}

func (c *checker) say(format string, args ...any) { c.to.Say(fmt.Sprintf(format, args...)) }

func (c *checker) problem(format string, args ...any) {
	if c.problems++; c.problems <= problemsShown {
		c.say(format, args...)
	}
}

// tellEvery is the least time between two reports of how far something is.
const tellEvery = 200 * time.Millisecond

// looked notes that a stripe was looked at.
func (c *checker) looked() {
	c.at++
	if now := time.Now(); now.Sub(c.told) >= tellEvery {
		c.told = now
		c.to.At(c.at, max(c.all, c.at))
	}
}

// tree checks the metadata as it is at one moment.
func (c *checker) tree(ctx context.Context) error {
	return c.meta.View(ctx, func(r state.Reader) error {
		n := namespace.Check(r, func(problem string) { c.problem("%s", problem) })
		c.all = int64(n.Stripes)
		c.say("tree: %d files, %d directories, %d symlinks, %d special, %d names, %d attributes, %d unlinked but open, %d being removed",
			n.Files, n.Dirs, n.Symlinks, n.Special, n.Entries, n.Xattrs, n.Orphans, n.Purging)
		c.say("data: %d bytes in %d extents (%d inline), %d stripes, %d of them waiting to be deleted",
			n.Bytes, n.Extents, n.Inline, n.Stripes, n.Dead)
		q := queue.Check(r, func(problem string) { c.problem("%s", problem) })
		c.say("queues: %d with %d messages, %d of them in %d stripes", q.Queues, q.Messages, q.Large, q.Kept)
		return nil
	})
}

// A cursor walks through the shards of one store, in order.
type cursor struct {
	id    chunk.StoreID
	store chunk.Store // nil: it is not there
	next  func() (chunk.Info, error, bool)
	stop  func()
	at    chunk.Info
	more  bool
}

func (c *cursor) step() error {
	var err error
	c.at, err, c.more = c.next()
	if err != nil {
		return fmt.Errorf("store %d: %w", c.id, err)
	}
	return nil
}

// shards compares the stripe table with what the stores list. Both are in the
// order of the stripes' IDs, so one walk over all of them does.
func (c *checker) shards(ctx context.Context) error {
	cursors := make(map[chunk.StoreID]*cursor)
	for _, id := range c.stores.Stores() {
		cur := &cursor{id: id}
		cursors[id] = cur
		s, live := c.stores.Store(id)
		if !live {
			c.problem("store %d (%s) is not there", id, c.where(id))
			continue
		}
		cur.store = s
		cur.next, cur.stop = iter.Pull2(s.List(ctx, chunk.ID{}))
		defer cur.stop()
		if err := cur.step(); err != nil {
			return err
		}
	}
	var counts struct{ stripes, shards, missing, bad, unnamed int }
	var after chunk.StripeID
	for {
		page, err := c.stripes.Stripes(ctx, after, namespace.ListMax, chunk.Code{})
		if err != nil {
			return err
		}
		for _, row := range page.Stripes {
			counts.stripes++
			c.looked()
			for i, home := range row.Stripe.Stores {
				counts.shards++
				id := chunk.ID{Stripe: row.Stripe.ID, Index: uint8(i)}
				cur := cursors[home]
				switch {
				case cur == nil || cur.store == nil:
					counts.missing++
					if row.Died == 0 {
						c.problem("stripe %v of %s: its store %d is not there", id, owner(row), home)
					}
					continue
				}
				for cur.more && cur.at.ID.Compare(id) < 0 {
					counts.unnamed++
					if err := cur.step(); err != nil {
						return err
					}
				}
				if cur.more && cur.at.ID == id {
					if err := cur.step(); err != nil {
						return err
					}
				} else if gone, err := c.missing(ctx, cur, id); err != nil {
					return err
				} else if gone {
					counts.missing++
					c.problem("stripe %v of %s is missing on store %d", id, owner(row), home)
					continue
				}
				if v, ok := cur.store.(chunk.Scrubber); ok && c.data {
					if err := v.Verify(ctx, id); err != nil && ctx.Err() == nil {
						if gone, err := c.missing(ctx, cur, id); err != nil {
							return err
						} else if gone {
							counts.bad++
							c.problem("stripe %v of %s on store %d: %v", id, owner(row), home, err)
						}
					}
				}
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !page.More {
			break
		}
		after = page.Next
	}
	for _, cur := range cursors {
		for cur.store != nil && cur.more {
			counts.unnamed++
			if err := cur.step(); err != nil {
				return err
			}
		}
	}
	checked := "found"
	if c.data {
		checked = "read and verified"
	}
	c.say("shards: %d stripes with %d shards, %d %s, %d missing, %d bad; %d others are garbage or new",
		counts.stripes, counts.shards, counts.shards-counts.missing-counts.bad, checked, counts.missing, counts.bad, counts.unnamed)
	return nil
}

// missing looks again for a shard that was not seen, or was found bad: the
// stripe may have been deleted, moved or mended since its row was read.
func (c *checker) missing(ctx context.Context, cur *cursor, id chunk.ID) (bool, error) {
	rows, err := c.stripes.Stripe(ctx, id.Stripe)
	if err != nil {
		return false, err
	}
	if len(rows) == 0 || rows[0].Died != 0 || rows[0].Stripe.Stores[id.Index] != cur.id {
		return false, nil
	}
	if v, ok := cur.store.(chunk.Scrubber); ok && c.data {
		err = v.Verify(ctx, id)
	} else {
		_, err = cur.store.Stat(ctx, id)
	}
	return err != nil, nil
}

// FsckOptions says how to check a directory on which no dos runs.
type FsckOptions struct {
	Data    bool // read and verify each shard too
	Salvage bool // open metadata that lost something with what is there
}

// FsckOffline checks a data directory on which no dos runs. It mends nothing,
// but opening the metadata applies what its log has.
func FsckOffline(ctx context.Context, data string, o FsckOptions, to admin.Report) (problems int, err error) {
	awaitGoing(ctx, data)
	e, err := openEmbedded(ctx, embeddedConfig{data: data, salvage: o.Salvage})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- e.stores.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	if err := e.stores.Ready(ctx); err != nil {
		return 0, err
	}
	return e.fsck(ctx, o.Data, to)
}

// Restore makes the metadata of a data directory anew from a dump. The
// directory's metadata must be gone: nothing is overwritten. That of a machine
// is made the only one of its cluster.
func Restore(ctx context.Context, data string, from io.Reader) (err error) {
	awaitGoing(ctx, data)
	d, _, err := takeData(data, false, func(*dataDir) error { return nil })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	c := replica.Config{Dir: d.meta(), ID: nodeName, Machine: metanode.Machine()}
	if d.node != "" {
		if c.ID, err = replica.MemberID(d.meta(), d.node); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(d.meta()); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is there, and nothing is overwritten: move it away first (%w)", d.meta(), os.ErrExist)
	}
	// First, so that a crash on the way does not leave metadata without it.
	if err := d.noteRestored(); err != nil {
		return err
	}
	if err := replica.Restore(c, from); err != nil || d.node == "" {
		return err
	}
	member, err := metanode.Open(c)
	if err != nil {
		return err
	}
	if err := errors.Join(skipStripes(ctx, member), member.Close()); err != nil {
		return err
	}
	return d.forgetRestored()
}

// stripesSkipped is more stripes than anybody writes between a dump and the
// loss of what was dumped, and a vanishing share of 64 bits.
const stripesSkipped = 256 * session.ReserveMax

// skipStripes sees to it that no stripe ID is handed out again in a state that
// is older than the stores: they may hold other bytes under the IDs that were
// handed out since. Those shards become garbage.
func skipStripes(ctx context.Context, n *metanode.Node) error {
	all := client.Session{Caller: n}
	info, err := all.Open(ctx, "skip stripes", nodeName, 0)
	if err != nil {
		return err
	}
	own := client.Session{Caller: n.Session(info.ID)}
	for range stripesSkipped / session.ReserveMax {
		if _, err := own.Reserve(ctx, session.ReserveMax); err != nil {
			return err
		}
	}
	return all.End(ctx, info.ID)
}

// owner says for people what a stripe belongs to.
func owner(s namespace.StripeInfo) string {
	if s.Owner == 0 {
		return "a message"
	}
	return fmt.Sprintf("inode %d", s.Owner)
}
