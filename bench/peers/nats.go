package main

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/nats-io/nats.go"

	"dos/bench/load"
)

const (
	// fetchMax is how many messages a consumer takes at once.
	fetchMax = 64
	subject  = "queue"
)

// jetStream is one server with a stream in files, as a queue. It syncs them every two
// minutes and not before.
type jetStream struct {
	server *server
	conn   *nats.Conn
	stream nats.JetStreamContext
}

func (j *jetStream) start(ctx context.Context, data string) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if j.server, err = serve(data, "nats-server", "-a", host, "-p", port, "-js", "-sd", data); err != nil {
		return err
	}
	return j.server.await(ctx, func(context.Context) error {
		var err error
		if j.conn == nil {
			if j.conn, err = nats.Connect("nats://" + addr); err != nil {
				return err
			}
		}
		if j.stream, err = j.conn.JetStream(); err == nil {
			_, err = j.stream.AddStream(&nats.StreamConfig{Name: subject, Subjects: []string{subject}, Retention: nats.WorkQueuePolicy})
		}
		return err
	})
}

func (j *jetStream) stop() error {
	if j.conn != nil {
		j.conn.Close()
	}
	if j.server == nil {
		return nil
	}
	return j.server.stop()
}

func (j *jetStream) measure(ctx context.Context, during time.Duration, say func(string, float64)) error {
	var producers []load.Producer
	var consumers []load.Consumer
	for range sides {
		sub, err := j.stream.PullSubscribe(subject, "workers")
		if err != nil {
			return err
		}
		producers = append(producers, natsProducer{j.stream})
		consumers = append(consumers, &natsConsumer{sub: sub})
	}
	return pass(ctx, producers, consumers, during, say)
}

type natsProducer struct{ nats.JetStreamContext }

func (p natsProducer) Push(ctx context.Context, message []byte) error {
	_, err := p.Publish(subject, message, nats.Context(ctx))
	return err
}

// natsConsumer acknowledges what it has when it is asked for more.
type natsConsumer struct {
	sub  *nats.Subscription
	have []*nats.Msg
}

func (c *natsConsumer) Pop(ctx context.Context) (out [][]byte, err error) {
	for _, m := range c.have {
		if err := m.Ack(); err != nil {
			return nil, err
		}
	}
	for c.have = nil; len(c.have) == 0; {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if c.have, err = c.sub.Fetch(fetchMax, nats.MaxWait(time.Second)); err != nil && !errors.Is(err, nats.ErrTimeout) {
			return nil, err
		}
	}
	for _, m := range c.have {
		out = append(out, m.Data)
	}
	return out, nil
}

func (c *natsConsumer) Close() error {
	for _, m := range c.have {
		if err := m.Nak(); err != nil {
			return err
		}
	}
	return nil
}
