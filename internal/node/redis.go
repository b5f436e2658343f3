package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"

	"dos/chunk/stripe"
	"dos/internal/cache"
	"dos/internal/gateway/passwords"
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

// listenFor takes an address that a flag says, if it says any. Who may not listen there is
// told before anything runs.
func listenFor(flag, addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, addr, err)
	}
	return l, nil
}

// speakRedis speaks the protocol of Redis on l until ctx ends.
func speakRedis(ctx context.Context, l net.Listener, values client.Caller, queues *client.Taker, entries *cache.Client, records client.Trust, node string) error {
	door, err := passwords.New(ctx, "--redis", l.Addr(), passwordTokens{records})
	if err != nil {
		return err
	}
	uid := portUser()
	slog.Info("node: the protocol of Redis is spoken", "addr", l.Addr())
	return redis.New(redis.Config{
		Listener: l, Strings: redis.NewTable(client.KV{Caller: values}, uid), Cache: redis.NewCache(entries, uid),
		Queues: queues, Feed: queues,
		Open: func(name, group, who string) redis.Reader { return queues.Open(name, group, who) },
		Door: door, Node: node, UID: uid, Version: Version(),
	}).Run(ctx)
}

// serveRedis speaks the protocol of Redis on l until ctx ends.
func (e *Embedded) serveRedis(ctx context.Context, l net.Listener) error {
	defer l.Close()
	return speakRedis(ctx, l, e.meta.Session(e.session), e.queues, e.cache, client.Trust{Caller: e.meta}, nodeName)
}

// serveRedis speaks the protocol of Redis, if that is asked for, until ctx ends.
func (m *Machine) serveRedis(ctx context.Context) error {
	if m.redis == nil {
		return nil
	}
	defer m.redis.Close()
	return m.visitAgain(ctx, "the port for Redis", "dosd --redis", func(v visit) (client.User, func(context.Context) error) {
		taker := client.NewTaker(client.NewRouter(v.here, m.holders), v.path)
		v.below(taker.Run)
		entries := cache.NewClient(cache.ClientConfig{Meta: client.Direct(m.service.Client, 0), Lines: m.holders, Here: m.holders.here})
		v.below(entries.Run)
		return noFiles{v.path}, func(ctx context.Context) error {
			return speakRedis(ctx, m.redis, v.here, taker, entries, client.Trust{Caller: m.service.anyone()}, m.data.node)
		}
	})
}

// noFiles is the user of a session that opens none.
type noFiles struct{ path *stripe.Path }

func (noFiles) Recall(context.Context, meta.Ino) error               { return nil }
func (noFiles) Uses(context.Context, []meta.Ino) ([]meta.Ino, error) { return nil, nil }
func (n noFiles) Fenced()                                            { n.path.Forget() }
