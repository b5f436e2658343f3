package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	"dos/internal/admin"
	"dos/internal/cache"
	"dos/internal/fleet"
	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/members"
	"dos/meta/queue"
	"dos/meta/state"
)

// executor is admin.Meta over a Sender: requests are posted, replies carried.
type executor struct {
	client.Sender
	holders client.Holders // of queues in memory
	entries *cache.Client  // of the cache
}

// posted is a request, and who holds the queue that it is about if that is in memory.
type posted struct {
	state.Command
	To *queue.Holder `cbor:"16,keyasint,omitempty"`
	// Entries is a request to who has entries of the cache, and all that there is then.
	Entries []byte `cbor:"17,keyasint,omitempty"`
}

// carried is a reply, or why there is none.
type carried struct {
	Reply state.Reply `cbor:"1,keyasint,omitempty"`
	Kind  meta.Kind   `cbor:"2,keyasint,omitempty"`
	Text  string      `cbor:"3,keyasint,omitempty"`
	// Entries is the reply to a request to who has entries.
	Entries []byte `cbor:"4,keyasint,omitempty"`
}

func (e executor) Execute(ctx context.Context, request []byte) ([]byte, error) {
	var req posted
	if err := state.Unmarshal(request, &req); err != nil {
		return nil, fmt.Errorf("the request does not decode: %w", meta.Invalid)
	}
	var c carried
	var err error
	if req.Entries != nil {
		c.Entries, err = e.entries.Relay(ctx, req.Entries)
		return c.with(err)
	}
	to := e.Sender
	if req.To != nil {
		if to, err = e.holders.Holder(*req.To); err != nil {
			return nil, err
		}
	}
	c.Reply, err = to.Do(ctx, req.Command)
	return c.with(err)
}

// with is c with the kind of an error, if that has one, as it is carried.
func (c carried) with(err error) ([]byte, error) {
	if err != nil {
		if !errors.As(err, &c.Kind) {
			return nil, err
		}
		c.Text = err.Error()
	}
	return state.Marshal(c), nil
}

// door is a Sender to the dos behind a socket, or to a holder of queues behind that.
type door struct {
	*admin.Client
	to *queue.Holder
}

// Holder is client.Holders'.
func (d door) Holder(to queue.Holder) (client.Sender, error) { return door{d.Client, &to}, nil }

func (d door) Do(ctx context.Context, cmd state.Command) (state.Reply, error) {
	c, err := d.post(ctx, posted{Command: cmd, To: d.to})
	return c.Reply, err
}

// relay is what cache.ClientConfig calls so.
func (d door) relay(ctx context.Context, frame []byte) ([]byte, error) {
	c, err := d.post(ctx, posted{Entries: frame})
	return c.Entries, err
}

func (d door) post(ctx context.Context, p posted) (carried, error) {
	answer, err := d.Execute(ctx, state.Marshal(p))
	if err != nil {
		return carried{}, err
	}
	var c carried
	if err := state.Unmarshal(answer, &c); err != nil {
		return carried{}, fmt.Errorf("the answer does not decode: %w", meta.Invalid)
	}
	if c.Kind != 0 {
		return carried{}, fmt.Errorf("%s: %w", c.Text, c.Kind)
	}
	return c, nil
}

// A Guest is a session with a dos without a mount, kept until it is closed.
type Guest struct {
	*client.Visit
	queues *client.Router
	cache  cache.ClientConfig                       // the ways to the machines with entries
	meet   func(running context.Context) *exchanges // nil: there is no way to any
	leave  func()                                   // ends the keeping
	close  func()
}

// Exchanges returns the ways to where calls are handed over, for a client.Dialer and a
// client.Server, until ctx ends. Only the guest of a cluster has any.
func (g *Guest) Exchanges(ctx context.Context) (client.Exchanges, error) {
	if g.meet == nil {
		return nil, fmt.Errorf("calls without a mount, of an embedded cluster: %w", meta.Unsupported)
	}
	return g.meet(ctx), nil
}

// Call is Caller's.
func (g *Guest) Call(ctx context.Context, op state.Op, req, resp any) error {
	return g.queues.Call(ctx, op, req, resp)
}

// Visit opens a session with the dos that runs on the directory data or, if that is
// empty, with a cluster. Whoever calls it closes it.
func Visit(ctx context.Context, data string, cluster []string, identity string) (*Guest, error) {
	g := &Guest{close: func() {}}
	var sender client.Sender
	var queues client.Holders
	if data != "" {
		sock, err := Socket(ctx, data)
		if err != nil {
			return nil, err
		}
		d := door{Client: admin.Dial(sock)}
		sender, queues, g.cache.Relay = d, d, d.relay
	} else {
		keys, service, err := dialAs(identity, cluster)
		if err != nil {
			return nil, err
		}
		ways := newHolders(keys, nil)
		sender, queues, g.cache.Lines, g.close = service.Client, ways, ways, func() { ways.close(); service.close() }
		g.meet = func(ctx context.Context) *exchanges { return meet(ctx, keys, service) }
	}
	host, err := os.Hostname()
	if err == nil {
		g.Visit, err = client.NewVisit(ctx, sender, "dosctl", host)
	}
	if err != nil {
		g.close()
		return nil, err
	}
	g.queues = client.NewRouter(g.Visit, queues)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		_ = g.Run(running, func() {}) // what is asked after the session's end fails
		close(done)
	}()
	g.leave = func() { stop(); <-done }
	return g, nil
}

// Cache is the cache of all machines, for as long as its Run runs and the Guest is there.
func (g *Guest) Cache() *cache.Client {
	c := g.cache
	c.Meta = g
	return cache.NewClient(c)
}

// meet looks which machines there are, and returns the ways to their exchanges, until ctx
// ends.
func meet(ctx context.Context, keys *trust.Keyring, service *metaService) *exchanges {
	dialled := new(rpc.Conns)
	machines := fleet.New(fleet.Config{
		Map: func(ctx context.Context, since uint64) (members.Map, error) {
			return client.Members{Caller: service.anyone()}.Map(ctx, since)
		},
		Dial: func(n members.Node) (fleet.Peer, error) { return dialPeer(keys, dialled, n, 0) },
	})
	ways := &exchanges{keys: keys, dialled: dialled, fleet: machines}
	go func() { // it ends with ctx
		_ = machines.Run(ctx)
		ways.close()
	}()
	return ways
}

// Close ends the session.
func (g *Guest) Close(ctx context.Context) error {
	defer g.close()
	g.leave()
	return g.End(ctx)
}
