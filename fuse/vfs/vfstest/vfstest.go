// Package vfstest is a cluster in one process, a metadata member and stores in
// memory, with several mounts' trees over it: for the tests of what they do to
// each other.
package vfstest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"dos/chunk"
	"dos/chunk/stripe"
	"dos/chunk/stripe/stripetest"
	"dos/fuse/vfs"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/node"
	"dos/meta/replica"
	"dos/meta/state"
)

// A Cluster is what the mounts share.
type Cluster struct {
	Meta   *node.Node
	Mounts []*Mount
}

// A Mount is a tree with a session of its own.
type Mount struct {
	*vfs.FS
	Presence *client.Presence

	meta *node.Node
	path *stripe.Path
	cut  atomic.Bool
}

// Cut makes the metadata service unreachable from the mount, or reachable again.
func (m *Mount) Cut(cut bool) { m.cut.Store(cut) }

// Do is client.Sender's.
func (m *Mount) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	if m.cut.Load() {
		return state.Reply{}, meta.Unavailable
	}
	reply, err := m.meta.Do(ctx, cmd)
	if m.cut.Load() {
		return state.Reply{}, meta.Unavailable
	}
	return reply, err
}

// Fenced is client.User's.
func (m *Mount) Fenced() {
	m.path.Forget()
	m.FS.Fenced()
}

// New returns a cluster with a root directory, which runs until the test ends.
// What uses its mounts must end before, in a later Cleanup.
func New(t testing.TB, mounts int, root uint32) *Cluster {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	n, err := node.Open(replica.Config{Dir: t.TempDir(), ID: "a", Bootstrap: true, Log: quiet, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Meta: n}
	ctx, cancel := context.WithCancel(context.Background())
	top, stop := context.WithCancel(context.Background())
	var below, above sync.WaitGroup
	t.Cleanup(func() {
		stop()
		above.Wait()
		cancel()
		below.Wait()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	below.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	if _, err := (client.Files{Caller: n}).Init(ctx, root, 0, 0); err != nil {
		t.Fatal(err)
	}
	stores := stripetest.New(6, chunk.Code{K: 4, M: 2})
	for i := range mounts {
		m := &Mount{meta: n}
		if m.Presence, err = client.NewPresence(ctx, m, fmt.Sprint("mount ", i), ""); err != nil {
			t.Fatal(err)
		}
		if m.path, err = stripe.New(stripe.Config{Cluster: stores, IDs: client.Session{Caller: m.Presence}, Reserve: 64}); err != nil {
			t.Fatal(err)
		}
		m.FS = vfs.New(vfs.Config{Meta: client.Files{Caller: m.Presence}, Data: m.path, Leases: m.Presence, Log: quiet})
		c.Mounts = append(c.Mounts, m)
		above.Go(func() {
			if err := m.Run(top); err != nil {
				t.Errorf("mount %d: %v", i, err)
			}
		})
		below.Go(func() {
			if err := m.Presence.Run(ctx, m); err != nil {
				t.Errorf("the session of mount %d: %v", i, err)
			}
		})
	}
	return c
}
