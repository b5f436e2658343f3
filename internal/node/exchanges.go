package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"dos/internal/fleet"
	"dos/internal/rights"
	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/call"
	"dos/meta/client"
	"dos/meta/exchange"
	"dos/meta/members"
)

// callConns is how many connections there are to one exchange: each call, and each that
// waits for one, is a stream, and a connection takes 256.
const callConns = 4

// exchanges are the ways to where calls are handed over; it is client.Exchanges.
type exchanges struct {
	name string             // of the exchange of this process,
	addr string             // where that is reached,
	own  *exchange.Exchange // which is nil if there is none
	// The others, if there are any.
	keys    *trust.Keyring
	dialled *rpc.Conns
	fleet   *fleet.Fleet

	mu    sync.Mutex
	lines map[string]*rpc.Client // by name and address; guarded by mu
}

// Open is client.Exchanges'.
func (e *exchanges) Open(ctx context.Context, at call.Instance, work bool) (exchange.Conn, error) {
	if e.own != nil && at.At == e.name {
		return e.own.Local(work), nil
	}
	line, err := e.line(at)
	if err != nil {
		return nil, err
	}
	return exchange.Dial(ctx, line, work)
}

func (e *exchanges) line(at call.Instance) (*rpc.Client, error) {
	if e.keys == nil {
		return nil, fmt.Errorf("the exchange of machine %q is not of this cluster: %w", at.At, meta.HostDown)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	key := at.At + " " + at.Addr
	if l := e.lines[key]; l != nil {
		return l, nil
	}
	l, err := rpc.Dial(at.Addr, rpc.ClientConfig{TLS: e.keys.ClientConfig(at.At, protoCalls), Conns: callConns, Among: e.dialled})
	if err == nil {
		if e.lines == nil {
			e.lines = make(map[string]*rpc.Client)
		}
		e.lines[key] = l
	}
	return l, err
}

// Where is client.Exchanges': the own exchange if there is one, else that of any machine.
func (e *exchanges) Where(_ context.Context, not string) (at, addr string, err error) {
	if e.own != nil {
		return e.name, e.addr, nil
	}
	var list []members.Node
	for _, n := range e.fleet.Map().Nodes {
		if n.Addr != "" && n.Name != not && e.fleet.Answers(n.Name) {
			list = append(list, n)
		}
	}
	if len(list) == 0 {
		return "", "", fmt.Errorf("no machine answers: %w", meta.HostDown)
	}
	n := list[rand.IntN(len(list))]
	return n.Name, n.Addr, nil
}

func (e *exchanges) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.lines {
		l.Close()
	}
}

// exchangeService is this machine's exchange for the others, and for mounts.
func (m *Machine) exchangeService() rpc.Service {
	who := rights.Who(m.keys)
	return rights.Guard(m.exchange.Service(func(ctx context.Context, hello exchange.Message) error {
		peer, err := who(ctx)
		if err != nil {
			return err
		}
		return m.admit(ctx, peer, hello)
	}), rights.Exchange, who)
}

// admit refuses who says that it serves and does not: an instance is of a session, and
// that of a peer.
func (m *Machine) admit(ctx context.Context, peer trust.Peer, hello exchange.Message) error {
	st, err := client.RPC{Caller: m.service.anyone()}.Status(ctx, hello.Service)
	if err != nil {
		return err
	}
	in, is := st.Instance(hello.Instance)
	if !is {
		return fmt.Errorf("service %q has no instance %d: %w", hello.Service, hello.Instance, meta.Refused)
	}
	info, err := client.Session{Caller: m.service.anyone()}.Info(ctx, in.Session)
	if err != nil {
		return err
	}
	if info.Peer != rights.Owner(peer) {
		return fmt.Errorf("instance %d of service %q is not of %v: %w", hello.Instance, hello.Service, peer.Identity, meta.Permission)
	}
	return nil
}
