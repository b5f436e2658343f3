package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk/stripe"
	"dos/fuse/vfs"
	"dos/internal/admission"
	"dos/internal/cache"
	"dos/internal/fleet"
	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta/client"
	"dos/meta/members"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

// reachWait bounds how long a mount waits at its start for the cluster to answer.
const reachWait = 30 * time.Second

// warmMount is how many connections for bulk calls a mount makes to each machine
// before it needs them: what a file's reading ahead asks of a store at once.
const warmMount = 2

// mountCluster mounts a cluster that runs elsewhere.
func mountCluster(ctx context.Context, c MountConfig) (err error) {
	keys, err := openIdentity(c.Identity)
	if err != nil {
		return err
	}
	mounted := func(string) {}
	if lock, err := holdPoint(c.MountPoint); err != nil {
		slog.Warn("node: a start right after the end of this one may be refused", "err", err)
	} else {
		defer lock.Close()
		mounted = func(point string) {
			if err := noteHolder(lock, point); err != nil {
				slog.Warn("node: a start right after the end of this one may be refused", "err", err)
			}
		}
	}
	var dialled rpc.Conns
	service, err := dialMeta(keys, &dialled, c.Cluster)
	if err != nil {
		return err
	}
	defer service.close()
	queues := newHolders(keys, &dialled)
	defer queues.close()
	machines := fleet.New(fleet.Config{
		Map: func(ctx context.Context, since uint64) (members.Map, error) {
			return client.Members{Caller: service.anyone()}.Map(ctx, since)
		},
		Dial: func(n members.Node) (fleet.Peer, error) {
			warm := 0
			if slices.Contains(n.Roles, roleChunk) {
				warm = warmMount
			}
			return dialPeer(keys, &dialled, n, warm)
		},
	})

	ways := &exchanges{keys: keys, dialled: &dialled, fleet: machines}
	defer ways.close()

	// What the mount stands on runs until the mount is gone.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return machines.Run(running) })
	g.Go(func() error { return service.follow(running, machines, func([]string) {}) })
	g.Go(func() error {
		return admission.NewKeeper(admission.KeeperConfig{
			Keys: keys, Path: c.Identity, Drop: dialled.Drop,
			Authorities: client.Trust{Caller: service.anyone()}.Authorities,
			Renewer:     admission.NewClient(officesOf(machines)),
		}).Run(running)
	})
	if c.Debug != "" {
		g.Go(func() error { return serveDebug(running, c.Debug, view{fleet: machines, keys: keys}, service.anyone()) })
	}
	g.Go(func() error {
		defer stop()
		reach, cancel := context.WithTimeout(ctx, reachWait)
		defer cancel()
		if err := awaitGroups(reach, machines); err != nil {
			return fmt.Errorf("the cluster at %v did not answer within %v: %w", c.Cluster, reachWait, err)
		}
		return mountThrough(ctx, running, c, service, queues, ways, machines, view{fleet: machines, keys: keys}, mounted)
	})
	return g.Wait()
}

// awaitGroups returns when it is known where data is to be written.
func awaitGroups(ctx context.Context, machines *fleet.Fleet) error {
	for {
		changed := machines.Changed()
		if len(machines.Map().Groups) > 0 {
			return machines.Ready(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A sight is what a mount shows of the cluster.
type sight interface {
	cluster.Cluster
	nodes.Nodes
	// Remove forgets a machine that is empty.
	Remove(ctx context.Context, name string) error
}

// many is the sight of a cluster that others can join.
type many interface {
	sight
	tokens
}

// mountThrough opens a session and mounts.
func mountThrough(ctx, running context.Context, c MountConfig, service *metaService, queues *holders, ways *exchanges, machines *fleet.Fleet, sees many, mounted func(string)) (err error) {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	here, err := client.NewPresence(ctx, service, "dosmount "+c.MountPoint, host)
	if err != nil {
		return err
	}
	var apart fence
	if c.runner != nil {
		apart.data = c.runner.Data
		here.Admit(apart.admits)
	}
	path, err := stripe.New(stripe.Config{Cluster: machines, IDs: client.Session{Caller: here}, Disk: machines.Disk, Changed: machines.Changed})
	if err != nil {
		return err
	}
	u := user{
		tree:  tree{vfs.New(vfs.Config{Meta: client.Files{Caller: here}, Data: path, Leases: here, Sync: c.Options.Sync}), path},
		locks: client.NewLocker(here, here.Session),
		named: client.NewNamed(here),
		calls: client.NewServer(here, ways, host),
	}
	below, stop := context.WithCancel(context.WithoutCancel(running))
	defer stop()
	g, below := errgroup.WithContext(below)
	g.Go(func() error { return here.Run(below, u) })
	g.Go(func() error { return u.locks.Run(below) })
	g.Go(func() error { return u.named.Run(below) })
	taker := client.NewTaker(client.NewRouter(here, queues), path)
	g.Go(func() error { return taker.Run(below) })
	entries := cache.NewClient(cache.ClientConfig{Meta: here, Lines: queues, Here: queues.here})
	g.Go(func() error { return entries.Run(below) })
	g.Go(func() error { return u.calls.Run(below) })
	dialer := client.NewDialer(here, ways, "mount at "+host)
	defer dialer.Close()
	g.Go(func() error { return advance(below, path, here) })
	above, stopTree := context.WithCancel(running)
	defer stopTree()
	context.AfterFunc(below, stopTree) // when something fails
	done := make(chan error, 1)
	go func() { done <- u.Run(above) }()

	all := client.Members{Caller: service.anyone()}
	f := front{
		tree: u.FS, locks: u.locks, named: u.named, queues: taker, cache: entries, dialer: dialer, calls: u.calls, sees: sees, node: host, services: here, members: all,
		session: here.Session, mounted: mounted,
		near: nearOf(client.Files{Caller: here}, machines.Map),
		admin: nodesAdmin{
			members: all, trust: client.Trust{Caller: service.anyone()},
			office: sees, remove: sees.Remove, refresh: machines.Refresh,
		},
	}
	if f.runner = c.runner; f.runner != nil {
		f.fence = &apart
	}
	err = f.serve(ctx, above, c)
	stopTree()
	err = errors.Join(err, <-done) // what was written is stored by now
	stop()
	err = errors.Join(err, g.Wait())
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	if err := errors.Join(path.Close(leave), u.named.End(leave)); err != nil {
		slog.Warn("node: leaving", "err", err)
	}
	return errors.Join(err, here.End(leave))
}

// A user is a mount under the session of its client.Presence.
type user struct {
	tree
	locks *client.Locker
	named *client.Named
	calls *client.Server
}

// Fenced implements client.User.
func (u user) Fenced() {
	u.locks.Fenced()
	u.named.Fenced()
	u.calls.Fenced()
	u.tree.Fenced()
}

// DefaultIdentity is the identity file that is used when none is named.
func DefaultIdentity() string {
	if os.Geteuid() == 0 {
		return "/etc/dos/identity"
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		dir = "."
	}
	return filepath.Join(dir, "dos", "identity")
}

// openIdentity reads an identity file.
func openIdentity(path string) (*trust.Keyring, error) {
	credentials, err := trust.Load(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no identity in %s: dosctl login makes it with a token that dosctl token create --client prints", path)
	}
	if err != nil {
		return nil, err
	}
	keys, err := trust.NewKeyring(credentials)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}
