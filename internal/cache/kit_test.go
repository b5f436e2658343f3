package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	entries "dos/chunk/cache"
	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/meta"
	"dos/meta/cache"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/state"
)

// A world is a metadata service in memory and machines with entries.
type world struct {
	t    testing.TB
	meta *metatest.Memory

	mu  sync.Mutex
	all map[string]*machine // by name; guarded by mu, as below
	cut map[string]bool     // machines, or "from to", that nothing gets to or from
}

// A machine is one in one life.
type machine struct {
	name    string
	holder  *Holder
	session meta.SessionID
	addr    string
	valid   atomic.Bool  // its session is certainly not over
	lag     atomic.Int64 // how late it hears what is new, in ns
	stop    func()       // as kill -9 does
}

func newWorld(t testing.TB, names ...string) *world {
	w := &world{t: t, meta: metatest.NewMemory(node.Machine()), all: make(map[string]*machine), cut: make(map[string]bool)}
	for _, name := range names {
		w.begin(name)
	}
	w.settled(len(names))
	return w
}

// await waits until a condition holds.
func await(t testing.TB, is func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if err = is(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// settled waits until so many members know all there is.
func (w *world) settled(n int) {
	w.t.Helper()
	await(w.t, func() error {
		o := w.overview()
		for _, m := range o.Members {
			if m.Known < o.Version {
				return fmt.Errorf("%s knows %d of %d", m.Node, m.Known, o.Version)
			}
		}
		if len(o.Members) != n {
			return fmt.Errorf("%d members, want %d", len(o.Members), n)
		}
		return nil
	})
}

func (w *world) overview() (o cache.Overview) {
	if err := client.Direct(w.meta, 0).Call(context.Background(), cache.OpFollow, cache.Follow{}, &o); err != nil {
		panic(err)
	}
	return o
}

// paced answers what is held back elsewhere as a member would.
type paced struct {
	client.Caller
	lag *atomic.Int64
	cut func() bool
}

func (p paced) Call(ctx context.Context, op state.Op, req, resp any) error {
	if p.cut != nil && p.cut() {
		return fmt.Errorf("cut off: %w", meta.Unavailable)
	}
	follow, asks := req.(cache.Follow)
	for end := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		err := p.Caller.Call(ctx, op, req, resp)
		if !asks || err != nil || follow.Seen == 0 || resp.(*cache.Overview).Stamp != follow.Seen || time.Now().After(end) || ctx.Err() != nil {
			if p.lag != nil {
				time.Sleep(time.Duration(p.lag.Load()))
			}
			return err
		}
	}
}

// begin starts a machine.
func (w *world) begin(name string) *machine {
	w.t.Helper()
	info, err := client.Session{Caller: client.Direct(w.meta, 0)}.Open(w.t.Context(), "cache", name, 10*time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	all, err := entries.New(entries.Config{Limit: 64 << 20})
	if err != nil {
		w.t.Fatal(err)
	}
	l := rpctest.Listen(w.t)
	ctx, cancel := context.WithCancel(context.Background())
	m := &machine{name: name, session: info.ID, addr: l.Addr().String()}
	m.valid.Store(true)
	lines := &lines{w: w, from: name}
	m.holder = New(Config{
		Session: info.ID, Node: name, Addr: m.addr, Valid: m.valid.Load, Lines: lines, Entries: all,
		Meta: paced{client.NewRemote(w.meta, info.ID), &m.lag, func() bool { return w.isCut(name, name+" meta") || ctx.Err() != nil }},
		Log:  slog.New(slog.DiscardHandler),
	})
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.holder.Run(ctx) })
	wg.Go(func() {
		_ = rpc.Serve(ctx, l, rpc.ServerConfig{Plain: true}, Service(func() *Holder { return m.holder }))
	})
	m.stop = sync.OnceFunc(func() {
		m.valid.Store(false)
		cancel()
		wg.Wait()
		lines.close()
		all.Close() //nolint:errcheck // nothing is left
	})
	w.t.Cleanup(m.stop)
	w.mu.Lock()
	w.all[name] = m
	w.mu.Unlock()
	return m
}

// bury ends the session of a machine that does not answer for anything any more.
func (w *world) bury(m *machine) {
	m.valid.Store(false)
	if err := (client.Session{Caller: client.Direct(w.meta, 0)}).End(context.Background(), m.session); err != nil {
		w.t.Error(err)
	}
}

func (w *world) machine(name string) *machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all[name]
}

func (w *world) isCut(names ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		if w.cut[name] {
			return true
		}
	}
	return false
}

// cutBetween reports whether nothing gets from one to another.
func (w *world) cutBetween(from, to string) bool {
	return w.isCut(from, to, from+" "+to, to+" "+from)
}

func (w *world) setCut(name string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[name] = is
}

// lines are the ways of one machine, or of a client, to all.
type lines struct {
	w    *world
	from string
	all  sync.Map // by address
}

func (l *lines) Line(to cache.Member) (Line, error) {
	if l.w.cutBetween(l.from, to.Node) {
		return nil, errors.New("cut off")
	}
	if c, ok := l.all.Load(to.Addr); ok {
		return cutLine{l.w, l.from, to.Node, c.(*rpc.Client)}, nil
	}
	c, err := rpc.Dial(to.Addr, rpc.ClientConfig{Plain: true, Conns: 1})
	l.all.Store(to.Addr, c)
	return cutLine{l.w, l.from, to.Node, c}, err
}

func (l *lines) close() {
	l.all.Range(func(_, c any) bool { c.(*rpc.Client).Close(); return true })
}

// A cutLine ends its streams when the network is cut.
type cutLine struct {
	w        *world
	from, to string
	*rpc.Client
}

func (c cutLine) Open(ctx context.Context, service, method string) (*rpc.Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for ctx.Err() == nil && !c.w.cutBetween(c.from, c.to) {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	return c.Client.Open(ctx, service, method)
}

// client returns a Client that runs, and hears late what is new.
func (w *world) client(lag time.Duration) *Client {
	lines := &lines{w: w, from: "client"}
	var late atomic.Int64
	late.Store(int64(lag))
	c := NewClient(ClientConfig{Meta: paced{Caller: client.Direct(w.meta, 0), lag: &late}, Lines: lines})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	w.t.Cleanup(func() { cancel(); wg.Wait(); lines.close() })
	return c
}

// make makes a bucket with so many replicas.
func (w *world) make(c *Client, name string, replicas int) {
	w.t.Helper()
	err := c.Make(w.t.Context(), cache.Make{Name: name, Mode: 0o755})
	if err == nil {
		err = c.SetBucket(w.t.Context(), cache.Set{Name: name, Replicas: &replicas})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}
