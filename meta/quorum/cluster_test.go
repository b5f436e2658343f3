package quorum

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/replica"
	"dos/meta/state"
)

const (
	opAppend state.Op = 1
	beat              = 300 * time.Millisecond
)

// A cluster is machines in this process, over TCP and TLS, each with a member and
// a Keeper.
type cluster struct {
	t     *testing.T
	id    trust.ClusterID
	ca    *trust.Authority
	boxes map[string]*box

	mu       sync.Mutex
	machines map[string]Machine // guarded by mu
	cut      map[string]bool    // machines that nobody reaches; guarded by mu
	conns    map[*wire]bool     // guarded by mu
	seq      uint64             // of the last append
}

// A box is one machine that runs.
type box struct {
	name, dir, addr string
	keys            *trust.Keyring
	replica         *replica.Replica
	stop            func() // returns when all has ended
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{
		t: t, id: trust.ClusterID{1}, boxes: make(map[string]*box),
		machines: make(map[string]Machine), cut: make(map[string]bool), conns: make(map[*wire]bool),
	}
	var err error
	if c.ca, err = trust.NewAuthority(c.id); err != nil {
		t.Fatal(err)
	}
	_ = t.TempDir() // so that it is removed after the members have stopped
	t.Cleanup(func() {
		for name := range c.boxes {
			c.stop(name)
		}
	})
	return c
}

// Machines is what a Keeper asks.
func (c *cluster) Machines(context.Context) ([]Machine, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Machine
	for _, m := range c.machines {
		list = append(list, m)
	}
	return list, nil
}

func (c *cluster) say(m Machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.machines[m.Name] = m
}

func (c *cluster) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.machines, name)
}

// start runs a machine, with the directory that it had.
func (c *cluster) start(name string) *box {
	c.t.Helper()
	b := c.boxes[name]
	if b == nil {
		req, err := trust.NewRequest()
		if err != nil {
			c.t.Fatal(err)
		}
		cert, err := c.ca.Sign(req.CSR, trust.Identity{Cluster: c.id, Name: name, Rights: trust.Member})
		if err != nil {
			c.t.Fatal(err)
		}
		text, err := req.Credentials(cert, c.ca.CertPEM())
		if err != nil {
			c.t.Fatal(err)
		}
		b = &box{name: name, dir: c.t.TempDir(), addr: "127.0.0.1:0"}
		if b.keys, err = trust.NewKeyring(text); err != nil {
			c.t.Fatal(err)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	b.addr = l.Addr().String()
	port := rpc.NewPort(l, b.keys.ServerConfig(replica.Protocol), quiet, replica.Protocol)
	mesh := port.Mesh(replica.Protocol, rpc.MeshConfig{Client: b.keys.ClientConfig, Admit: func(cs tls.ConnectionState) error {
		peer, err := b.keys.Peer(cs)
		if err == nil && !peer.IsNode() {
			err = fmt.Errorf("%v is no machine", peer.Identity)
		}
		return err
	}})
	id, err := replica.MemberID(b.dir, name)
	if err != nil {
		c.t.Fatal(err)
	}
	b.replica, err = replica.Open(replica.Config{
		Dir: b.dir, ID: id, Machine: appender(), Stream: &fabric{mesh, c, name},
		Bootstrap: len(c.boxes) == 0, Beat: beat, Log: quiet,
		Fatal: func(err error) { c.t.Errorf("%s: fatal: %v", name, err) },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	keeper, err := New(Config{Self: id, Group: b.replica, Machines: c, Dead: 5 * beat, Answer: 3 * beat, Log: quiet})
	if err != nil {
		c.t.Fatal(err)
	}
	portCtx, stopPort := context.WithCancel(context.Background())
	keeperCtx, stopKeeper := context.WithCancel(context.Background())
	var serving, keeping sync.WaitGroup
	serving.Go(func() {
		if err := port.Run(portCtx); err != nil {
			c.t.Error(err)
		}
	})
	keeping.Go(func() {
		if err := keeper.Run(keeperCtx); err != nil {
			c.t.Error(err)
		}
	})
	b.stop = func() {
		stopKeeper()
		keeping.Wait()
		if err := b.replica.Close(); err != nil {
			c.t.Errorf("%s: %v", name, err)
		}
		stopPort()
		serving.Wait()
	}
	c.boxes[name] = b
	c.say(Machine{Name: name, Addr: b.addr, Meta: true, Alive: true, Member: id})
	return b
}

func appender() *state.Machine {
	m := new(state.Machine)
	state.Handle(m, opAppend, "append", func(tx *state.Tx, word string) (struct{}, error) {
		old, _ := tx.Get([]byte("words"))
		tx.Set([]byte("words"), append(slices.Clone(old), word...))
		return struct{}{}, nil
	})
	return m
}

func (c *cluster) stop(name string) {
	b := c.boxes[name]
	c.mu.Lock()
	if m, ok := c.machines[name]; ok {
		m.Alive = false
		c.machines[name] = m
	}
	c.mu.Unlock()
	if b.stop != nil {
		b.stop()
		b.stop, b.replica = nil, nil
	}
}

// isolate cuts all connections of machines, and lets there be no others until
// they are let be again.
func (c *cluster) isolate(yes bool, names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		c.cut[name] = yes
		for w := range c.conns {
			if yes && (w.from == name || w.to == name) {
				w.Conn.Close()
			}
		}
	}
}

// fabric is a mesh whose connections can be cut.
type fabric struct {
	*rpc.Mesh
	c    *cluster
	self string
}

func (f *fabric) Dial(machine, addr string, timeout time.Duration) (net.Conn, error) {
	f.c.mu.Lock()
	cut := f.c.cut[f.self] || f.c.cut[machine]
	f.c.mu.Unlock()
	if cut {
		return nil, errors.New("no way")
	}
	conn, err := f.Mesh.Dial(machine, addr, timeout)
	if err != nil {
		return nil, err
	}
	w := &wire{conn, f.c, f.self, machine}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.c.cut[f.self] || f.c.cut[machine] { // since it was dialled
		return nil, errors.Join(errors.New("no way"), conn.Close())
	}
	f.c.conns[w] = true
	return w, nil
}

type wire struct {
	net.Conn
	c        *cluster
	from, to string
}

func (w *wire) Close() error {
	w.c.mu.Lock()
	delete(w.c.conns, w)
	w.c.mu.Unlock()
	return w.Conn.Close()
}

// leader waits for a member that leads and for which do succeeds. Unavailable
// means to go on trying.
func (c *cluster) leader(do func(b *box) error) *box {
	c.t.Helper()
	var err error
	for late := time.Now().Add(30 * time.Second); time.Now().Before(late); time.Sleep(2 * time.Millisecond) {
		for _, b := range c.boxes {
			if b.replica == nil {
				continue
			}
			if _, leads := b.replica.Leads(); !leads {
				continue
			}
			if err = do(b); err == nil {
				return b
			}
			if !errors.Is(err, meta.Unavailable) {
				c.t.Fatal(err)
			}
		}
	}
	c.t.Fatalf("no leader did it: %v", err)
	return nil
}

// append appends a word, surely once, and returns who did it.
func (c *cluster) append() *box {
	c.t.Helper()
	c.seq++
	cmd := state.Command{Op: opAppend, Session: 1, Seq: c.seq, Body: state.Marshal(fmt.Sprint(c.seq, " "))}
	return c.leader(func(b *box) error {
		ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
		defer cancel()
		reply, err := b.replica.Propose(ctx, cmd)
		if err != nil {
			return err
		}
		return reply.Err()
	})
}

// holds checks that nothing that was acknowledged is missing or there twice.
func (c *cluster) holds() {
	c.t.Helper()
	c.leader(func(b *box) error {
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		return b.replica.View(ctx, func(r state.Reader) error {
			val, _ := r.Get([]byte("words"))
			for i, word := range strings.Fields(string(val)) {
				if word != fmt.Sprint(i+1) {
					c.t.Fatalf("word %d is %s", i+1, word)
				}
			}
			if n := len(strings.Fields(string(val))); n != int(c.seq) {
				c.t.Fatalf("%d words, want %d", n, c.seq)
			}
			return nil
		})
	})
}

// members waits until the leader says that these machines have votes and those
// none, with the members that they have now, while words are appended.
func (c *cluster) members(voters, others string) {
	c.t.Helper()
	want := voters + " | " + others
	var got string
	for late := time.Now().Add(30 * time.Second); time.Now().Before(late); {
		c.append()
		c.leader(func(b *box) error {
			list, err := b.replica.Members()
			if err != nil {
				return err
			}
			var with, without []string
			for _, m := range list {
				name := replica.MachineOf(m.ID)
				c.mu.Lock()
				if c.machines[name].Member != m.ID {
					name += "-old"
				}
				c.mu.Unlock()
				if m.Voter {
					with = append(with, name)
				} else {
					without = append(without, name)
				}
			}
			slices.Sort(with)
			slices.Sort(without)
			got = strings.Join(with, " ") + " | " + strings.Join(without, " ")
			return nil
		})
		if got == want {
			return
		}
	}
	c.t.Fatalf("members are %s, want %s", got, want)
}

// A group grows, replaces whom it lost, and takes back who began again.
func TestGrowAndReplace(t *testing.T) {
	c := newCluster(t)
	c.start("a")
	c.members("a", "")
	c.start("b")
	c.members("a", "b")
	c.start("c")
	c.members("a b c", "")
	c.start("d")
	c.members("a b c", "d")

	// Gone without a word: the spare takes the place.
	c.isolate(true, "c")
	c.members("a b d", "c")
	c.isolate(false, "c")
	c.members("a b d", "c")

	// Its directory is lost: it begins as another member, and gets everything.
	c.stop("b")
	if err := os.RemoveAll(c.boxes["b"].dir); err != nil {
		t.Fatal(err)
	}
	c.members("a c d", "b")
	c.start("b")
	c.members("a c d", "b")
	b := c.boxes["b"]
	c.leader(func(lead *box) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return b.replica.Await(ctx, lead.replica.Applied())
	})

	// It goes for good, and so does one with a vote, which leads.
	c.forget("b")
	c.members("a c d", "")
	old := c.append().name
	c.forget(old)
	rest := slices.DeleteFunc([]string{"a", "c", "d"}, func(name string) bool { return name == old })
	for late := time.Now().Add(30 * time.Second); ; {
		c.append()
		list, err := c.boxes[rest[0]].replica.Members()
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 2 {
			break
		}
		if time.Now().After(late) {
			t.Fatalf("members are %+v, want those of %v", list, rest)
		}
	}
	if c.append().name == old {
		t.Errorf("%s leads and was removed", old)
	}
	c.holds()
}

// Five members lose two and go on, lose three and say so, and get them back.
func TestFive(t *testing.T) {
	c := newCluster(t)
	names := []string{"a", "b", "c", "d", "e"}
	for _, name := range names {
		c.start(name)
	}
	c.members("a b c d e", "")
	for range 3 {
		first := c.append().name
		c.isolate(true, first)
		second := first
		for second == first { // it may answer a last time
			second = c.append().name
		}
		c.isolate(true, second)
		third := second
		for third == first || third == second {
			third = c.append().name
		}
		c.isolate(true, third)
		c.until("nobody to lead", func() bool {
			for _, b := range c.boxes {
				if _, leads := b.replica.Leads(); leads {
					return false
				}
			}
			return true
		})
		for _, b := range c.boxes {
			if _, err := b.replica.Propose(t.Context(), state.Command{Op: opAppend, Body: state.Marshal("never ")}); !errors.Is(err, meta.Unavailable) {
				t.Errorf("%s without a majority: %v", b.name, err)
			}
		}
		c.isolate(false, first, second, third)
		c.append()
	}
	c.members("a b c d e", "")
	c.holds()
	// All stop and start again.
	for _, name := range names {
		c.stop(name)
	}
	for _, name := range names {
		c.start(name)
	}
	c.append()
	c.holds()
}

func (c *cluster) until(what string, done func() bool) {
	c.t.Helper()
	for late := time.Now().Add(30 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(late) {
			c.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestConfig(t *testing.T) {
	g, m := new(replica.Replica), newCluster(t)
	for _, c := range []Config{{}, {Self: "a", Group: g}, {Group: g, Machines: m}, {Self: "a", Group: g, Machines: m, Voters: 2}, {Self: "a", Group: g, Machines: m, Voters: -1}} {
		if _, err := New(c); !errors.Is(err, meta.Invalid) {
			t.Errorf("New(%+v) = %v, want Invalid", c, err)
		}
	}
}
