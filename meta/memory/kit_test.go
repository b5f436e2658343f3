package memory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/metatest"
	"dos/meta/node"
	"dos/meta/queue"
	"dos/meta/state"
)

// A world is a metadata service in memory and machines that hold queues.
type world struct {
	t    *testing.T
	meta *metatest.Memory
	mu   sync.Mutex
	all  map[string]*machineAt // by name; guarded by mu
	cut  map[string]bool       // "from to": nothing gets there; guarded by mu
}

// A machineAt is one machine that holds queues, in one life.
type machineAt struct {
	name    string
	holder  *Holder
	session meta.SessionID
	addr    string
	stop    func() // as kill -9 does
}

func newWorld(t *testing.T, names ...string) *world {
	w := &world{t: t, meta: metatest.NewMemory(node.Machine()), all: make(map[string]*machineAt), cut: make(map[string]bool)}
	for _, name := range names {
		w.begin(name)
	}
	cluster(t, func() error {
		list, err := w.homes()
		if err == nil && len(list.Holders) != len(names) {
			err = fmt.Errorf("%d holders", len(list.Holders))
		}
		return err
	})
	return w
}

// cluster waits until a condition holds.
func cluster(t *testing.T, is func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = is(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func (w *world) homes() (list queue.HomeList, err error) {
	err = client.Direct(w.meta, 0).Call(w.t.Context(), queue.OpHomes, queue.Homes{Limit: 1}, &list)
	return list, err
}

// paced answers what is held back elsewhere as often as a member would.
type paced struct{ client.Caller }

func (p paced) Call(ctx context.Context, op state.Op, req, resp any) error {
	homes, asks := req.(queue.Homes)
	for end := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := p.Caller.Call(ctx, op, req, resp)
		if !asks || err != nil || homes.Seen == 0 || resp.(*queue.HomeList).Version != homes.Seen || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
	}
}

// begin starts a machine.
func (w *world) begin(name string) *machineAt {
	w.t.Helper()
	info, err := client.Session{Caller: client.Direct(w.meta, 0)}.Open(w.t.Context(), "holder", name, holdTTL)
	if err != nil {
		w.t.Fatal(err)
	}
	l := rpctest.Listen(w.t)
	ctx, cancel := context.WithCancel(context.Background())
	m := &machineAt{name: name, session: info.ID, addr: l.Addr().String()}
	var lines sync.Map
	m.holder = New(Config{
		Session: info.ID, Node: name, Addr: m.addr, Meta: paced{client.NewRemote(w.meta, info.ID)}, Valid: func() bool { return ctx.Err() == nil },
		Line: func(to queue.Holder) (Line, error) {
			if w.isCut(name, to.Node) {
				return nil, errors.New("cut off")
			}
			if l, ok := lines.Load(to.Addr); ok {
				return cutLine{w, name, to.Node, l.(*rpc.Client)}, nil
			}
			c, err := rpc.Dial(to.Addr, rpc.ClientConfig{Plain: true})
			lines.Store(to.Addr, c)
			return cutLine{w, name, to.Node, c}, err
		},
	})
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.holder.Run(ctx) })
	wg.Go(func() { _ = serve(ctx, l, m.holder) })
	m.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		lines.Range(func(_, c any) bool { c.(*rpc.Client).Close(); return true })
	})
	w.t.Cleanup(m.stop)
	w.mu.Lock()
	w.all[name] = m
	w.mu.Unlock()
	return m
}

const holdTTL = 10 * time.Second

func serve(ctx context.Context, l net.Listener, h *Holder) error {
	return rpc.Serve(ctx, l, rpc.ServerConfig{Plain: true}, Service(func() *Holder { return h }))
}

// A cutLine ends its streams when the network between the two is cut.
type cutLine struct {
	w        *world
	from, to string
	*rpc.Client
}

func (c cutLine) Open(ctx context.Context, service, method string) (*rpc.Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for ctx.Err() == nil && !c.w.isCut(c.from, c.to) {
			time.Sleep(5 * time.Millisecond)
		}
		cancel()
	}()
	return c.Client.Open(ctx, service, method)
}

func (w *world) isCut(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[a+" "+b] || w.cut[b+" "+a]
}

func (w *world) setCut(a, b string, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[a+" "+b] = is
}

// kill ends a machine at once; the service hears of it when it is told.
func (w *world) kill(name string) {
	w.mu.Lock()
	m := w.all[name]
	delete(w.all, name)
	w.mu.Unlock()
	m.stop()
}

// bury ends the session of a machine that was killed, as time does.
func (w *world) bury(id meta.SessionID) {
	if err := (client.Session{Caller: client.Direct(w.meta, 0)}).End(w.t.Context(), id); err != nil {
		w.t.Error(err)
	}
}

// Holder is client.Holders'.
func (w *world) Holder(to queue.Holder) (client.Sender, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.all[to.Node]
	if m == nil || m.session != to.Session {
		return nil, fmt.Errorf("%s is not there: %w", to.Node, meta.Unavailable)
	}
	return m.holder, nil
}

// client opens a session that uses queues.
func (w *world) client() *client.Taker {
	w.t.Helper()
	info, err := client.Session{Caller: client.Direct(w.meta, 0)}.Open(w.t.Context(), "client", "", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	stay := client.Always(client.NewRemote(w.meta, info.ID), info.ID)
	return client.NewTaker(client.NewRouter(stay, w), nil)
}

// make makes a queue in memory.
func (w *world) make(t *client.Taker, name string) {
	w.t.Helper()
	memory := true
	err := t.Make(w.t.Context(), name, 0o755, 0, 0)
	if err == nil {
		err = t.Set(w.t.Context(), queue.Set{Name: name, Memory: &memory})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) home(name string) queue.Home {
	w.t.Helper()
	var home queue.Home
	if err := client.Direct(w.meta, 0).Call(w.t.Context(), queue.OpWhose, queue.Whose{Name: name}, &home); err != nil {
		w.t.Fatal(err)
	}
	return home
}

// awaitHome waits until a queue has as many holders, and returns them.
func (w *world) awaitHome(name string, n int) queue.Home {
	w.t.Helper()
	var home queue.Home
	cluster(w.t, func() error {
		home = w.home(name)
		if is := len(held(home)); is != n {
			return fmt.Errorf("%d hold the queue, want %d", is, n)
		}
		return nil
	})
	return home
}

func held(h queue.Home) (list []string) {
	for _, one := range []queue.Holder{h.Primary, h.Backup} {
		if one.Session != 0 {
			list = append(list, one.Node)
		}
	}
	return list
}

func bodies(list ...string) (out []queue.Message) {
	for _, b := range list {
		out = append(out, queue.Message{Body: []byte(b)})
	}
	return out
}
