package main

import (
	"context"
	"errors"
	"net"
	"time"

	client "github.com/redis/go-redis/v9"

	"dos/bench/load"
)

// redis is one server, with lists as queues.
type redis struct {
	config []string // how durable it is
	server *server
	client *client.Client
}

func (r *redis) start(ctx context.Context, data string) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	r.server, err = serve(data, "redis-server", append([]string{"--bind", host, "--port", port, "--dir", data, "--save", ""}, r.config...)...)
	if err != nil {
		return err
	}
	// Each producer and each consumer has a connection.
	r.client = client.NewClient(&client.Options{Addr: addr, PoolSize: 2 * sides, MinIdleConns: 2 * sides, ReadTimeout: -1})
	return r.server.await(ctx, func(ctx context.Context) error { return r.client.Ping(ctx).Err() })
}

func (r *redis) stop() (err error) {
	if r.client != nil {
		err = r.client.Close()
	}
	if r.server != nil {
		err = errors.Join(err, r.server.stop())
	}
	return err
}

func (r *redis) measure(ctx context.Context, during time.Duration, say func(string, float64)) error {
	var producers []load.Producer
	var consumers []load.Consumer
	for range sides {
		producers = append(producers, list{r.client})
		consumers = append(consumers, list{r.client})
	}
	if err := pass(ctx, producers, consumers, during, say); err != nil {
		return err
	}
	for i := range load.Entries {
		key, value := load.Entry(i)
		if err := r.client.Set(ctx, key, value, 0).Err(); err != nil {
			return err
		}
	}
	rate, err := load.Fetch(ctx, []load.Fetcher{r}, during)
	if err == nil {
		say("fetch", rate)
	}
	return err
}

func (r *redis) Fetch(ctx context.Context, key string) ([]byte, error) {
	return r.client.Get(ctx, key).Bytes()
}

// list is a list as a queue, of which one takes one message at a time.
type list struct{ *client.Client }

func (l list) Push(ctx context.Context, message []byte) error {
	return l.LPush(ctx, "queue", message).Err()
}

func (l list) Pop(ctx context.Context) ([][]byte, error) {
	got, err := l.BRPop(ctx, 0, "queue").Result()
	if err != nil {
		return nil, err
	}
	return [][]byte{[]byte(got[1])}, nil
}

func (list) Close() error { return nil }
