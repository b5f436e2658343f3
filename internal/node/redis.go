package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sync/errgroup"

	"dos/chunk/stripe"
	"dos/internal/cache"
	"dos/internal/gateway/redis"
	"dos/meta"
	"dos/meta/client"
)

// anonymous is the user that a port is to the rest, as in NFS a stranger is: nobody.
const anonymous = 65534

// portUser is who a port is: anonymous, or who runs the process without being root.
func portUser() uint32 {
	if uid := os.Geteuid(); uid != 0 {
		return uint32(uid)
	}
	return anonymous
}

// listenRedis takes the address. Who may not listen there is told before anything runs.
func listenRedis(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--redis: %w", err)
	}
	return l, nil
}

// redisPort is what the port of Redis is made of; l is closed when it has run.
func redisPort(ctx context.Context, l net.Listener, values client.Caller, queues *client.Taker, entries *cache.Client, records client.Trust, node string) (*redis.Server, error) {
	uid := portUser()
	return redis.New(ctx, redis.Config{
		Listener: l, Strings: redis.NewTable(client.KV{Caller: values}, uid), Cache: redis.NewCache(entries, uid),
		Queues: queues, Feed: queues,
		Open:      func(name, group, who string) redis.Reader { return queues.Open(name, group, who) },
		Passwords: passwords{records}, Node: node, UID: uid, Version: Version(),
	})
}

// serveRedis speaks the protocol of Redis on l until ctx ends.
func (e *Embedded) serveRedis(ctx context.Context, l net.Listener) error {
	defer l.Close()
	s, err := redisPort(ctx, l, e.meta.Session(e.session), e.queues, e.cache, client.Trust{Caller: e.meta}, nodeName)
	if err != nil {
		return err
	}
	slog.Info("node: the protocol of Redis is spoken", "addr", l.Addr())
	return s.Run(ctx)
}

// serveRedis speaks the protocol of Redis, if that is asked for, until ctx ends.
func (m *Machine) serveRedis(ctx context.Context) error {
	if m.redis == nil {
		return nil
	}
	defer m.redis.Close()
	return insist(ctx, "the port for Redis", func(ctx context.Context) error {
		reach, cancel := context.WithTimeout(ctx, reachWait)
		defer cancel()
		if err := awaitGroups(reach, m.fleet); err != nil {
			return fmt.Errorf("%w: %w", meta.Unavailable, err)
		}
		return m.runRedis(ctx)
	})
}

// runRedis opens a session and serves under it.
func (m *Machine) runRedis(ctx context.Context) error {
	here, err := client.NewPresence(ctx, m.service, "dosd --redis", m.data.node)
	if err != nil {
		return err
	}
	path, err := stripe.New(stripe.Config{Cluster: m.fleet, IDs: client.Session{Caller: here}, Disk: m.fleet.Disk, Changed: m.fleet.Changed})
	if err != nil {
		return err
	}
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, below := errgroup.WithContext(below)
	taker := client.NewTaker(client.NewRouter(here, m.holders), path)
	g.Go(func() error { return here.Run(below, noFiles{path}) })
	g.Go(func() error { return taker.Run(below) })
	entries := cache.NewClient(cache.ClientConfig{Meta: client.Direct(m.service.Client, 0), Lines: m.holders, Here: m.holders.here})
	g.Go(func() error { return entries.Run(below) })
	g.Go(func() error { return advance(below, path, here) })
	s, err := redisPort(ctx, m.redis, here, taker, entries, client.Trust{Caller: m.service.anyone()}, m.data.node)
	if err == nil {
		slog.Info("node: the protocol of Redis is spoken", "addr", m.redis.Addr())
		err = s.Run(ctx)
	}
	stop()
	err = errors.Join(err, g.Wait())
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	if e := errors.Join(path.Close(leave), here.End(leave)); e != nil {
		slog.Warn("node: leaving", "err", e)
	}
	return err
}

// noFiles is the user of a session that opens none.
type noFiles struct{ path *stripe.Path }

func (noFiles) Recall(context.Context, meta.Ino) error               { return nil }
func (noFiles) Uses(context.Context, []meta.Ino) ([]meta.Ino, error) { return nil, nil }
func (n noFiles) Fenced()                                            { n.path.Forget() }
