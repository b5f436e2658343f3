package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"dos/bench/load"
)

const (
	etcdMembers = 3
	contenders  = 16
	// changes is how often a watched value is changed.
	changes = 300
)

// etcd is three members, each with a log of its own.
type etcd struct {
	members   []*server
	endpoints []string
	clients   []*clientv3.Client
}

func (e *etcd) start(ctx context.Context, data string) error {
	var peers, names []string
	for i := range etcdMembers {
		for _, list := range []*[]string{&peers, &e.endpoints} {
			addr, err := freeAddr()
			if err != nil {
				return err
			}
			*list = append(*list, "http://"+addr)
		}
		names = append(names, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i := range etcdMembers {
		s, err := serve(data, "etcd", "--name", fmt.Sprintf("m%d", i), "--data-dir", fmt.Sprintf("%s/m%d", data, i),
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--listen-client-urls", e.endpoints[i], "--advertise-client-urls", e.endpoints[i],
			"--initial-cluster", strings.Join(names, ","), "--logger", "zap", "--log-level", "error")
		if err != nil {
			return err
		}
		e.members = append(e.members, s)
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	return e.members[0].await(ctx, func(ctx context.Context) error {
		_, err := c.Put(ctx, "up", "")
		return err
	})
}

func (e *etcd) client() (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: e.endpoints, DialTimeout: upLimit, Logger: zap.NewNop()})
	if err == nil {
		e.clients = append(e.clients, c)
	}
	return c, err
}

func (e *etcd) stop() (err error) {
	for _, c := range e.clients {
		err = errors.Join(err, c.Close())
	}
	for _, s := range e.members {
		err = errors.Join(err, s.stop())
	}
	return err
}

func (e *etcd) measure(ctx context.Context, during time.Duration, say func(string, float64)) error {
	var all []load.Locker
	for range contenders {
		c, err := e.client()
		if err != nil {
			return err
		}
		session, err := concurrency.NewSession(c)
		if err != nil {
			return err
		}
		all = append(all, concurrency.NewMutex(session, "/lock"))
	}
	alone, err := load.Contend(ctx, all[:1], during)
	if err != nil {
		return err
	}
	say("lock", alone.Rate)
	many, err := load.Contend(ctx, all, during)
	if err != nil {
		return err
	}
	say("lock x16", many.Rate)
	say("lock x16 share", many.Share)
	d, err := load.Watch(ctx, e.watch(ctx), changes)
	if err == nil {
		say("watch", float64(d.Seen-d.Commit)/1e6)
		say("commit", float64(d.Commit)/1e6)
	}
	return err
}

// etcdValue is a value that a second client watches.
type etcdValue struct {
	*clientv3.Client
	news clientv3.WatchChan
	list []*clientv3.Event
}

func (e *etcd) watch(ctx context.Context) load.Watched {
	return &etcdValue{Client: e.clients[0], news: e.clients[1].Watch(clientv3.WithRequireLeader(ctx), "value")}
}

func (v *etcdValue) Put(ctx context.Context, value []byte) error {
	_, err := v.Client.Put(ctx, "value", string(value))
	return err
}

func (v *etcdValue) Next(ctx context.Context) ([]byte, error) {
	for len(v.list) == 0 {
		select {
		case news, ok := <-v.news:
			if !ok {
				return nil, errors.New("the watch has ended")
			}
			if err := news.Err(); err != nil {
				return nil, err
			}
			v.list = news.Events
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	first := v.list[0]
	v.list = v.list[1:]
	return first.Kv.Value, nil
}
