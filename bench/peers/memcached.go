package main

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"dos/bench/load"
)

// memcached is one server.
type memcached struct {
	server *server
	client *memcache.Client
}

func (m *memcached) start(ctx context.Context, data string) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if m.server, err = serve(data, "memcached", "-l", host, "-p", port, "-u", "root"); err != nil {
		return err
	}
	m.client = memcache.New(addr)
	m.client.MaxIdleConns = contenders // each who reads has a connection
	return m.server.await(ctx, func(context.Context) error { return m.client.Ping() })
}

func (m *memcached) stop() (err error) {
	if m.client != nil {
		err = m.client.Close()
	}
	if m.server != nil {
		err = errors.Join(err, m.server.stop())
	}
	return err
}

func (m *memcached) measure(ctx context.Context, during time.Duration, say func(string, float64)) error {
	for i := range load.Entries {
		key, value := load.Entry(i)
		if err := m.client.Set(&memcache.Item{Key: key, Value: value}); err != nil {
			return err
		}
	}
	all := make([]load.Fetcher, contenders)
	for i := range all {
		all[i] = m
	}
	rate, err := load.Fetch(ctx, all, during)
	if err == nil {
		say("fetch x16", rate)
	}
	return err
}

func (m *memcached) Fetch(_ context.Context, key string) ([]byte, error) {
	item, err := m.client.Get(key)
	if err != nil {
		return nil, err
	}
	return item.Value, nil
}
