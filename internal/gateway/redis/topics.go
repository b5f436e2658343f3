package redis

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/queue"
)

// A Feed is what PUBLISH and SUBSCRIBE need of the queues (meta/client.Taker).
type Feed interface {
	Make(ctx context.Context, name string, mode, uid, gid uint32) error
	Set(ctx context.Context, change queue.Set) error
	MakeGroup(ctx context.Context, name, group string) error
	RemoveGroup(ctx context.Context, name, group string) error
	Seek(ctx context.Context, to queue.Seek) error
	TryPush(ctx context.Context, req queue.Push) ([]uint64, error)
}

// A Reader reads the messages of a group (meta/client.Reader).
type Reader interface {
	Next(ctx context.Context, wait bool) (queue.Got, error)
	Close(ctx context.Context, had bool) error
}

// feedName is the queue through which what is published goes to all machines.
const feedName = "redis.pubsub"

const (
	// feedMax bounds the messages that some machine has not seen, and feedFor for how
	// long they are kept for it.
	feedMax = 10_000
	feedFor = 30 * time.Second
	// feedRetry is the pause after which a feed that broke is opened again, idleFor how
	// long it stays open without subscribers, and feedWait how long one waits for it.
	feedRetry = time.Second
	idleFor   = 30 * time.Second
	feedWait  = 10 * time.Second
	// topicsMax bounds the subscriptions of a client.
	topicsMax = 10_000
)

// A topic is a channel, or a pattern of channels.
type topic struct {
	pattern bool
	name    string
}

// A hub passes what is published on to the clients of this machine that have
// subscribed. It reads the feed while there are some.
type hub struct {
	feed  Feed
	open  func(name, group, who string) Reader
	group string // this machine's
	uid   uint32

	mu      sync.Mutex
	topics  map[topic]map[*client]bool // guarded by mu, as all below
	clients int                        // subscriptions
	changed chan struct{}              // closed when the first comes, or the last goes
	ready   chan struct{}              // closed while the feed is read
	reading bool
}

func newHub(f Feed, open func(name, group, who string) Reader, group string, uid uint32) *hub {
	return &hub{feed: f, open: open, group: group, uid: uid,
		topics: make(map[topic]map[*client]bool), changed: make(chan struct{}), ready: make(chan struct{})}
}

// run reads the feed, while somebody has subscribed, until ctx ends.
func (h *hub) run(ctx context.Context) error {
	for {
		h.mu.Lock()
		changed, idle := h.changed, h.clients == 0
		h.mu.Unlock()
		if idle {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		err := h.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			slog.Warn("redis: what is published does not come", "err", err)
			h.cut()
			pause(ctx, feedRetry)
		}
	}
}

// cut ends the connections of all who have subscribed: they may have missed something,
// and know now that they have to subscribe again.
func (h *hub) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, clients := range h.topics {
		for c := range clients {
			c.conn.Close()
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// prepare makes the queue, and this machine's group at its end.
func (h *hub) prepare(ctx context.Context) error {
	if err := h.feed.Make(ctx, feedName, listMode, h.uid, h.uid); err == nil {
		most, old := feedMax, queue.DropOld
		err = h.feed.Set(ctx, queue.Set{Name: feedName, Max: &most, Full: &old})
		if err == nil {
			err = h.feed.RemoveGroup(ctx, feedName, "") // nobody reads that
		}
		if err != nil {
			return err
		}
	} else if !errors.Is(err, meta.Exist) {
		return err
	}
	err := h.feed.MakeGroup(ctx, feedName, h.group)
	if errors.Is(err, meta.Exist) { // from before
		err = h.feed.Seek(ctx, queue.Seek{Name: feedName, Group: h.group, Last: true})
	}
	return err
}

// follow reads the feed until nobody has subscribed for a while.
func (h *hub) follow(ctx context.Context) (err error) {
	if err := h.prepare(ctx); err != nil {
		return err
	}
	reader := h.open(feedName, h.group, "redis")
	h.state(true)
	defer func() {
		h.state(false)
		leave := context.WithoutCancel(ctx)
		err = errors.Join(err, reader.Close(leave, true))
		if e := h.feed.RemoveGroup(leave, feedName, h.group); e != nil && !errors.Is(e, meta.NotExist) {
			err = errors.Join(err, e)
		}
	}()
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go h.watch(reading, func() { stop(errIdle) }) // ends with reading
	for {
		m, err := reader.Next(reading, true)
		switch {
		case context.Cause(reading) == errIdle || ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		h.deliver(m.Key, m.Body)
	}
}

var errIdle = errors.New("nobody has subscribed")

// watch calls idle when nobody has subscribed for a while.
func (h *hub) watch(ctx context.Context, idle func()) {
	for ctx.Err() == nil {
		h.mu.Lock()
		changed, none := h.changed, h.clients == 0
		h.mu.Unlock()
		var over <-chan time.Time
		if none {
			over = time.After(idleFor)
		}
		select {
		case <-changed:
		case <-over:
			idle()
			return
		case <-ctx.Done():
		}
	}
}

func (h *hub) state(reading bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reading = reading; reading {
		close(h.ready)
	} else {
		h.ready = make(chan struct{})
	}
}

// await returns when what is published from now on will come. The client that waits
// counts as one that has subscribed.
func (h *hub) await(ctx context.Context) error {
	h.count(1)
	defer h.count(-1)
	h.mu.Lock()
	ready := h.ready
	h.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, feedWait, meta.TimedOut)
	defer cancel()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *hub) count(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(n)
}

// add counts subscriptions. mu is held.
func (h *hub) add(n int) {
	was := h.clients
	h.clients += n
	if (was == 0) != (h.clients == 0) {
		close(h.changed)
		h.changed = make(chan struct{})
	}
}

// deliver passes a message on to who has subscribed here.
func (h *hub) deliver(channel string, body []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var frames [4][]byte // by protocol
	send := func(c *client, build func(*reply)) {
		resp := int(c.proto.Load())
		if frames[resp] == nil {
			r := reply{resp: resp}
			build(&r)
			frames[resp] = r.b
		}
		c.post(frames[resp])
	}
	for c := range h.topics[topic{false, channel}] {
		send(c, func(r *reply) {
			r.push(3)
			r.text("message")
			r.text(channel)
			r.bulk(body)
		})
	}
	for t, clients := range h.topics {
		if !t.pattern || !match([]byte(t.name), channel) {
			continue
		}
		clear(frames[:])
		for c := range clients {
			send(c, func(r *reply) {
				r.push(4)
				r.text("pmessage")
				r.text(t.name)
				r.text(channel)
				r.bulk(body)
			})
		}
	}
}

// here is how many clients of this machine get what is published on a channel.
func (h *hub) here(channel string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n = len(h.topics[topic{false, channel}])
	for t, clients := range h.topics {
		if t.pattern && match([]byte(t.name), channel) {
			n += len(clients)
		}
	}
	return n
}

// join subscribes. What the client is told of it is sent before the first message.
func (h *hub) join(c *client, t topic, tell func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics[t] == nil {
		h.topics[t] = make(map[*client]bool)
	}
	if !h.topics[t][c] {
		h.topics[t][c] = true
		h.add(1)
	}
	tell()
	c.flush()
}

func (h *hub) part(c *client, t topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.topics[t][c] {
		return
	}
	delete(h.topics[t], c)
	if len(h.topics[t]) == 0 {
		delete(h.topics, t)
	}
	h.add(-1)
}

// leave ends all subscriptions of a client.
func (h *hub) leave(c *client) {
	for t := range c.topics {
		h.part(c, t)
	}
	c.topics = nil
}

var topicCommands = []command{
	{name: "publish", arity: 3, write: true, many: manyPublish},
	{name: "subscribe", arity: -2, run: runSubscribe},
	{name: "psubscribe", arity: -2, run: runSubscribe},
	{name: "unsubscribe", arity: -1, run: runUnsubscribe},
	{name: "punsubscribe", arity: -1, run: runUnsubscribe},
	{name: "pubsub", arity: -2, run: runPubsub},
}

// whileSubscribed says whether RESP2 lets a client say this that has subscribed.
func (cmd *command) whileSubscribed() bool {
	switch cmd.name {
	case "subscribe", "psubscribe", "unsubscribe", "punsubscribe", "ping", "quit", "reset":
		return true
	}
	return false
}

func manyPublish(ctx context.Context, c *client, args [][][]byte) {
	for len(args) > 0 {
		req := queue.Push{Name: feedName, Part: true}
		size := 0
		for _, a := range args {
			if len(a[0]) > queue.TextMax || len(a[1]) > queue.BodyMax || len(req.Messages) == queue.PushMax || size+len(a[1]) > queue.PushBytes {
				break
			}
			size += len(a[1])
			req.Messages = append(req.Messages, queue.Message{Key: string(a[0]), Body: a[1], Expires: feedFor, Whole: true})
		}
		if len(req.Messages) == 0 {
			c.out.fail("ERR a channel has at most 128 bytes and a message 64 KiB here")
			args = args[1:]
			continue
		}
		_, err := c.server.hub.feed.TryPush(context.WithoutCancel(ctx), req)
		for _, m := range req.Messages {
			switch {
			case err == nil:
				c.out.number(int64(c.server.hub.here(m.Key)))
			case errors.Is(err, meta.NotExist): // nobody has ever subscribed
				c.out.number(0)
			default:
				c.out.say(err)
			}
		}
		args = args[len(req.Messages):]
	}
}

func runSubscribe(ctx context.Context, c *client, args [][]byte) {
	if len(c.topics)+len(args) > topicsMax {
		c.out.fail("ERR too many subscriptions")
		return
	}
	var err error
	c.while(ctx, func(ctx context.Context) { err = c.server.hub.await(ctx) })
	if err != nil {
		c.out.say(err)
		return
	}
	verb := strings.ToLower(string(args[0]))
	if c.topics == nil {
		c.topics = make(map[topic]bool)
	}
	for _, name := range args[1:] {
		t := topic{verb[0] == 'p', string(name)}
		c.topics[t] = true
		c.server.hub.join(c, t, func() { c.told(verb, &t.name) })
	}
}

// told says what has become of a subscription.
func (c *client) told(verb string, name *string) {
	c.out.push(3)
	c.out.text(verb)
	if name == nil {
		c.out.null()
	} else {
		c.out.text(*name)
	}
	c.out.number(int64(len(c.topics)))
}

func runUnsubscribe(_ context.Context, c *client, args [][]byte) {
	verb := strings.ToLower(string(args[0]))
	var list []topic
	for _, name := range args[1:] {
		list = append(list, topic{verb[0] == 'p', string(name)})
	}
	if len(args) == 1 {
		for t := range c.topics {
			if t.pattern == (verb[0] == 'p') {
				list = append(list, t)
			}
		}
	}
	for _, t := range list {
		delete(c.topics, t)
		c.server.hub.part(c, t)
		c.told(verb, &t.name)
	}
	if len(list) == 0 {
		c.told(verb, nil)
	}
}

// runPubsub is about the subscriptions at this machine.
func runPubsub(_ context.Context, c *client, args [][]byte) {
	h := c.server.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	switch word := strings.ToLower(clip(args[1])); {
	case word == "channels" && len(args) <= 3:
		var list []string
		for t := range h.topics {
			if !t.pattern && (len(args) == 2 || match(args[2], t.name)) {
				list = append(list, t.name)
			}
		}
		c.out.array(len(list))
		for _, name := range list {
			c.out.text(name)
		}
	case word == "numsub":
		c.out.array(2 * len(args[2:]))
		for _, name := range args[2:] {
			c.out.bulk(name)
			c.out.number(int64(len(h.topics[topic{false, string(name)}])))
		}
	case word == "numpat" && len(args) == 2:
		n := 0
		for t := range h.topics {
			if t.pattern {
				n++
			}
		}
		c.out.number(int64(n))
	default:
		c.out.fail("ERR unknown subcommand or wrong number of arguments for '" + clip(args[1]) + "'. Try PUBSUB CHANNELS, NUMSUB or NUMPAT.")
	}
}
