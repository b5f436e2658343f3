package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dos/bench/load"
	"dos/internal/node"
	"dos/meta/call"
	"dos/meta/client"
	"dos/meta/exchange"
	"dos/meta/queue"
)

const (
	contenders = 16
	// mountsMax is how many mounts contenders are spread over.
	mountsMax = 4
	// sides is how many producers and how many consumers a queue has.
	sides = 8
	// changes is how often a watched value is changed.
	changes = 300
)

// A course is a dos whose services are measured: a cluster and some mounts of it.
type course struct {
	machines *cluster
	mounts   []*process  // besides the cluster's own
	open     []io.Closer // to be closed before these end
	during   time.Duration
}

// dosServices measures what servicesList names, of that what contains only.
func dosServices(ctx context.Context, machines *cluster, during time.Duration, only string, say func(cell string, v float64)) (err error) {
	c := &course{machines: machines, during: during}
	if _, err := machines.up(ctx); err != nil {
		return err
	}
	defer func() {
		for i := range c.mounts {
			err = errors.Join(err, stop(&c.mounts[i]))
		}
		err = errors.Join(err, machines.down())
	}()
	for _, part := range []struct {
		name string
		run  func(context.Context, func(string, float64)) error
	}{
		{"lock", func(ctx context.Context, say func(string, float64)) error { return c.fileLocks(ctx, "lock", 1, 1, say) }},
		{"lock x16", func(ctx context.Context, say func(string, float64)) error {
			return c.fileLocks(ctx, "lock x16", contenders, 1, say)
		}},
		{"queue", c.fileQueue},
		{"watch", c.fileWatch},
		{"queue Go", func(ctx context.Context, say func(string, float64)) error {
			return c.goQueue(ctx, "queue Go", false, say)
		}},
		{"queue memory Go", func(ctx context.Context, say func(string, float64)) error {
			return c.goQueue(ctx, "queue memory Go", true, say)
		}},
		{"cache of 3 machines", c.fileCache},
		{"cache x16 Go", c.goCache},
		{"lock x16 Go", c.goLocks},
		{"rpc Go", c.goCalls},
		{"lock x16 on 4 mounts", func(ctx context.Context, say func(string, float64)) error {
			return c.fileLocks(ctx, "lock x16 on 4 mounts", contenders, mountsMax, say)
		}},
	} {
		if !strings.Contains(part.name, only) {
			continue
		}
		err := part.run(ctx, say)
		for _, o := range slices.Backward(c.open) {
			err = errors.Join(err, o.Close())
		}
		if c.open = nil; err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// mount returns where the i-th mount is.
func (c *course) mount(ctx context.Context, i int) (string, error) {
	point := func(i int) string {
		return filepath.Join(filepath.Dir(c.machines.point), fmt.Sprintf("services-%d", i))
	}
	for len(c.mounts) <= i {
		p, err := c.machines.mountAt(ctx, point(len(c.mounts)))
		if err != nil {
			return "", err
		}
		c.mounts = append(c.mounts, p)
	}
	return point(i), nil
}

func (c *course) file(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(name, flags, 0o666)
	if err == nil {
		c.open = append(c.open, f)
	}
	return f, err
}

// A fileLock is an open file that is locked with flock(2).
type fileLock struct{ *os.File }

func (l fileLock) flock(how int) error {
	for {
		if err := unix.Flock(int(l.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

func (l fileLock) Lock(context.Context) error   { return l.flock(unix.LOCK_EX) }
func (l fileLock) Unlock(context.Context) error { return l.flock(unix.LOCK_UN) }

// fileLocks has n open files on some mounts contend for a lock.
func (c *course) fileLocks(ctx context.Context, cell string, n, mounts int, say func(string, float64)) error {
	var all []load.Locker
	for i := range n {
		point, err := c.mount(ctx, i%mounts)
		if err != nil {
			return err
		}
		f, err := c.file(filepath.Join(point, "locks", "bench"), os.O_RDWR|os.O_CREATE)
		if err != nil {
			return err
		}
		all = append(all, fileLock{f})
	}
	return contend(ctx, cell, all, c.during, say)
}

func contend(ctx context.Context, cell string, all []load.Locker, during time.Duration, say func(string, float64)) error {
	got, err := load.Contend(ctx, all, during)
	if err != nil {
		return err
	}
	say(cell, got.Rate)
	if len(all) > 1 {
		say(cell+" share", got.Share)
	}
	return nil
}

// A guest is a Go program's session with a cluster.
type guest struct {
	*node.Guest
	stop func()
}

// visit opens a session and keeps what run does until it is closed.
func (c *course) visit(ctx context.Context, run func(g *node.Guest) func(context.Context) error) (*node.Guest, error) {
	g, err := node.Visit(ctx, "", c.machines.addrs, c.machines.identity())
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	keep := run(g)
	go func() { done <- keep(running) }()
	c.open = append(c.open, guest{g, func() { cancel(); <-done }})
	return g, nil
}

// Close ends the session.
func (g guest) Close() error {
	g.stop()
	return g.Guest.Close(context.Background())
}

// A goLock is the lock of a Go client.
type goLock struct {
	locks *client.Named
	held  *client.Held
}

func (l *goLock) Lock(ctx context.Context) (err error) {
	l.held, err = l.locks.Lock(ctx, "bench", client.How{})
	return err
}

func (l *goLock) Unlock(ctx context.Context) error { return l.held.Unlock(ctx) }

// goLocks has Go clients contend, each in a session of its own.
func (c *course) goLocks(ctx context.Context, say func(string, float64)) error {
	var all []load.Locker
	for range contenders {
		var l goLock
		if _, err := c.visit(ctx, func(g *node.Guest) func(context.Context) error {
			l.locks = client.NewNamed(g)
			return l.locks.Run
		}); err != nil {
			return err
		}
		all = append(all, &l)
	}
	return contend(ctx, "lock x16 Go", all, c.during, say)
}

// A lineProducer writes a line to a queue's push.
type lineProducer struct{ *os.File }

func (p lineProducer) Push(_ context.Context, message []byte) error {
	_, err := p.Write(append(message, '\n'))
	return err
}

// A lineConsumer reads lines of a queue's stream.
type lineConsumer struct {
	*os.File
	buf []byte
}

func (c lineConsumer) Pop(context.Context) (list [][]byte, err error) {
	n, err := c.Read(c.buf)
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(c.buf[:n]) {
		list = append(list, bytes.TrimSuffix(line, []byte("\n")))
	}
	return list, nil
}

// fileQueue passes messages through the files of a queue.
func (c *course) fileQueue(ctx context.Context, say func(string, float64)) error {
	point, err := c.mount(ctx, 0)
	if err != nil {
		return err
	}
	dir := filepath.Join(point, "queues", "bench")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var producers []load.Producer
	var consumers []load.Consumer
	for range sides {
		push, err := c.file(filepath.Join(dir, "push"), os.O_WRONLY)
		if err != nil {
			return err
		}
		stream, err := os.Open(filepath.Join(dir, "stream"))
		if err != nil {
			return err
		}
		producers = append(producers, lineProducer{push})
		consumers = append(consumers, lineConsumer{stream, make([]byte, 64<<10)})
	}
	if err := pass(ctx, "queue", producers, consumers, c.during, say); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "ctl"), []byte("purge\n"), 0), os.Remove(dir))
}

func pass(ctx context.Context, cell string, producers []load.Producer, consumers []load.Consumer, during time.Duration, say func(string, float64)) error {
	rate, err := load.Pass(ctx, producers, consumers, during)
	if err == nil {
		say(cell, rate)
	}
	return err
}

// A goProducer pushes with the Go client.
type goProducer struct {
	*client.Taker
	name string
}

func (p goProducer) Push(ctx context.Context, message []byte) error {
	_, err := p.Taker.Push(ctx, p.name, queue.Message{Body: message})
	return err
}

// A goConsumer takes with the Go client.
type goConsumer struct{ *client.Reader }

func (c goConsumer) Pop(ctx context.Context) ([][]byte, error) {
	m, err := c.Next(ctx, true)
	return [][]byte{m.Body}, err
}

func (c goConsumer) Close() error { return c.Reader.Close(context.Background(), false) }

// goQueue passes messages with the Go client, through a queue that is in memory or not.
func (c *course) goQueue(ctx context.Context, cell string, memory bool, say func(string, float64)) error {
	const name = "go"
	var taker *client.Taker
	if _, err := c.visit(ctx, func(g *node.Guest) func(context.Context) error {
		taker = client.NewTaker(g, nil)
		return taker.Run
	}); err != nil {
		return err
	}
	if err := taker.Make(ctx, name, 0o755, 0, 0); err != nil {
		return err
	}
	if memory {
		if err := taker.Set(ctx, queue.Set{Name: name, Memory: &memory}); err != nil {
			return err
		}
	}
	var producers []load.Producer
	var consumers []load.Consumer
	for range sides {
		producers = append(producers, goProducer{taker, name})
		consumers = append(consumers, goConsumer{taker.Open(name, "", "bench")})
	}
	if err := pass(ctx, cell, producers, consumers, c.during, say); err != nil {
		return err
	}
	return errors.Join(taker.Purge(ctx, name), taker.Remove(ctx, name))
}

// goService is called with the Go client.
type goService struct{ *client.Dialer }

func (s goService) Call(ctx context.Context, request []byte) ([]byte, error) {
	return s.Dialer.Call(ctx, "bench", request)
}

// Close ends what calls.
func (s goService) Close() error {
	s.Dialer.Close()
	return nil
}

// goCalls has Go clients call a service that a Go program serves, by a machine's exchange.
func (c *course) goCalls(ctx context.Context, say func(string, float64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, err := c.visit(ctx, func(g *node.Guest) func(context.Context) error {
		return func(ctx context.Context) error { <-ctx.Done(); return nil }
	})
	if err != nil {
		return err
	}
	ways, err := g.Exchanges(ctx)
	if err != nil {
		return err
	}
	server := client.NewServer(g, ways, "bench")
	var running errgroup.Group
	running.Go(func() error { return server.Run(ctx) })
	defer func() { cancel(); _ = running.Wait() }() // it says nothing
	caller := goService{client.NewDialer(g, ways, "bench")}
	defer caller.Close()
	if err := caller.Make(ctx, call.Make{Name: "bench", Mode: 0o755}); err != nil {
		return err
	}
	started, err := server.Start(ctx, "bench", client.Who{}, contenders, func(ctx context.Context, in *exchange.Incoming) error {
		request, err := in.ReadAll(ctx, load.MessageSize)
		if err != nil {
			return err
		}
		return in.Reply(ctx, request)
	})
	if err != nil {
		return err
	}
	for cell, n := range map[string]int{"rpc Go": 1, "rpc x16 Go": contenders} {
		rate, err := load.Call(ctx, caller, n, c.during)
		if err != nil {
			started.Stop()
			return err
		}
		say(cell, rate)
	}
	started.Stop()
	return caller.Remove(ctx, "bench")
}

// A fileValue is a table in which keys are made, and its watch.
type fileValue struct {
	dir  string
	news *bufio.Reader
}

func (v fileValue) Put(_ context.Context, value []byte) error {
	return os.WriteFile(filepath.Join(v.dir, string(value)), value, 0o666)
}

func (v fileValue) Next(context.Context) ([]byte, error) {
	line, err := v.news.ReadString('\n') // revision, put, key
	return []byte(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:])), err
}

// fileWatch watches a table.
func (c *course) fileWatch(ctx context.Context, say func(string, float64)) error {
	point, err := c.mount(ctx, 0)
	if err != nil {
		return err
	}
	dir := filepath.Join(point, "kv", "bench")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	news, err := c.file(filepath.Join(dir, ".watch"), os.O_RDONLY)
	if err != nil {
		return err
	}
	d, err := load.Watch(ctx, fileValue{dir, bufio.NewReader(news)}, changes)
	if err != nil {
		return err
	}
	say("watch", float64(d.Seen-d.Commit)/1e6)
	say("commit", float64(d.Commit)/1e6)
	for i := range changes {
		if err := os.Remove(filepath.Join(dir, fmt.Sprint(i))); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}
