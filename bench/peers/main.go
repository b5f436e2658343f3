// Peers measures what people use today in the place of dos's locks, values, queues,
// cache and calls: etcd with three members, Redis, NATS JetStream and memcached, each with its own or the usual Go
// client, and gRPC, all on loopback. go run ./bench --services runs it, once for each peer and
// round, and compares. It is a module of its own, so that what these clients need is
// not what dos needs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"dos/bench/load"
)

const usage = `usage: peers --data DIR [--for 3s] PEER

Starts PEER (etcd, redis-always, redis, nats, memcached or grpc) with new data below DIR, prints one
line of JSON for each thing measured, and stops it.
`

// A peer is started, measured and stopped.
type peer interface {
	start(ctx context.Context, data string) error
	// measure calls say with each thing measured.
	measure(ctx context.Context, during time.Duration, say func(cell string, value float64)) error
	stop() error
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage) }
	data := flags.String("data", "", "")
	during := flags.Duration("for", 3*time.Second, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var p peer
	switch flags.Arg(0) {
	case "etcd":
		p = new(etcd)
	case "redis-always":
		p = &redis{config: []string{"--appendonly", "yes", "--appendfsync", "always"}}
	case "redis":
		p = &redis{config: []string{"--appendonly", "no"}}
	case "nats":
		p = new(jetStream)
	case "grpc":
		p = new(plainGRPC)
	case "memcached":
		p = new(memcached)
	default:
		return fmt.Errorf("there is no peer %q\n%s", flags.Arg(0), usage)
	}
	dir, err := os.MkdirTemp(*data, "peer-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.start(ctx, dir); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	return p.measure(ctx, *during, func(cell string, value float64) {
		err = errors.Join(err, out.Encode(struct {
			Cell  string
			Value float64
		}{cell, value}))
	})
}

// pass measures a queue.
func pass(ctx context.Context, producers []load.Producer, consumers []load.Consumer, during time.Duration, say func(string, float64)) error {
	rate, err := load.Pass(ctx, producers, consumers, during)
	if err == nil {
		say("queue", rate)
	}
	return err
}

// sides is how many producers and how many consumers a queue has.
const sides = 8
