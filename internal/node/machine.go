package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	chunkrpc "dos/chunk/rpc"
	"dos/fuse"
	"dos/internal/access"
	"dos/internal/admin"
	"dos/internal/admission"
	"dos/internal/cache"
	"dos/internal/fleet"
	"dos/internal/gateway/calls"
	"dos/internal/rights"
	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/exchange"
	"dos/meta/members"
	metamemory "dos/meta/memory"
	metanode "dos/meta/node"
	metarpc "dos/meta/rpc"
	"dos/meta/task"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

// The roles of a machine. Cache holds queues in memory, and entries of /dos/cache.
const (
	roleMeta  = members.RoleMeta
	roleChunk = "chunk"
	roleCache = "cache"
	roleTask  = "task"
)

// Roles are all that a machine can have.
var Roles = []string{roleMeta, roleChunk, roleCache, roleTask}

// MachineConfig says what dosd runs. The zero value of an optional field means
// the default named beside it.
type MachineConfig struct {
	Data   string   // the data directory
	Listen string   // HOST:PORT, where others reach this machine
	Roles  []string // of Roles; all
	Disks  []string // folders for stores; one in Data

	Name   string // the host's
	Zone   string // what fails together with this machine; it alone
	Labels map[string]string

	Bootstrap bool       // found a cluster if Data is new, or take over an embedded one
	Code      chunk.Code // of a new cluster; 4+2
	Join      string     // a token (trust.ReadToken): join its cluster if Data is new

	Mount string // where the tree is mounted, for the machine's tasks; nowhere
	// Resources are what tasks may use, where that is not what the machine is found to have. The
	// program that runs a machine with role task calls Started.
	Resources task.Resources

	Debug string // an address to serve profiles and metrics on; none
	Redis string // an address to speak the protocol of Redis on; none
	HTTP  string // an address to speak plain HTTP on; none
	Ready func() // called once the machine serves
}

// A Machine is one machine of a cluster: the parts of its roles, behind one port.
type Machine struct {
	cfg      MachineConfig
	data     *dataDir
	keys     *trust.Keyring
	listener net.Listener
	port     *rpc.Port
	redis    net.Listener // nil without
	web      net.Listener // for plain HTTP; nil without
	files    *lazyTree    // of who asks by HTTP
	dialled  rpc.Conns    // to other machines, beside the mesh's
	busy     gauge
	meta     *metanode.Node // nil without the role, as mesh and office
	mesh     *rpc.Mesh      // of the metadata members
	member   string         // its name in the Raft group
	office   *admission.Office
	service  *metaService
	asker    *cache.Client     // passes on what dosctl asks of entries of the cache
	holders  *holders          // of queues in memory,
	holding  holding           // of which this machine is one
	exchange exchange.Exchange // of calls, to which ways lead, and to the others'
	ways     *exchanges
	dialer   *client.Dialer // of calls that come by HTTP or gRPC
	fleet    *fleet.Fleet
	stores   atomic.Pointer[stores] // nil until they are registered
	charge   atomic.Pointer[upkeep] // nil while another machine is in charge
	events   cluster.Journal
	damage   damage
	leaving  atomic.Pointer[string] // who is being removed, by this machine in charge; nil: nobody
	started  time.Time
	broken   chan error // the reason why the process must end; buffered
}

// RunMachine runs a machine until ctx ends, and then stops it cleanly.
func RunMachine(ctx context.Context, c MachineConfig) (err error) {
	if len(c.Roles) == 0 {
		c.Roles = Roles
	}
	awaitGoing(ctx, c.Data)
	m, err := openMachine(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	return m.run(ctx)
}

func (m *Machine) has(role string) bool { return slices.Contains(m.cfg.Roles, role) }

func openMachine(ctx context.Context, c MachineConfig) (_ *Machine, err error) {
	host, _, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		return nil, fmt.Errorf("--listen %s: an address is needed by which the other machines reach this one, HOST:PORT", c.Listen)
	}
	if c.Mount != "" {
		if err := fuse.CheckPoint(c.Mount, fuse.Options{}, slog.Default()); err != nil {
			return nil, err
		}
	}
	m := &Machine{cfg: c, started: time.Now(), files: newLazyTree(), broken: make(chan error, 1)}
	if m.data, err = openMachineData(ctx, c); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if m.keys, err = m.data.keyring(); err != nil {
		return nil, err
	}
	if m.listener, err = net.Listen("tcp", c.Listen); err != nil {
		return nil, err
	}
	was, err := m.data.addr()
	if err == nil {
		err = m.noTwin(ctx, was)
	}
	if err == nil && was != c.Listen {
		err = m.data.keepAddr(c.Listen)
	}
	if err != nil {
		return nil, err
	}
	if m.redis, err = listenFor("--redis", c.Redis); err != nil {
		return nil, err
	}
	if m.web, err = listenFor("--http", c.HTTP); err != nil {
		return nil, err
	}
	// HTTP/1.1 first: who speaks HTTP/2 beside it, as curl does, wants no gRPC.
	protos := []string{protoAdmin, protoCalls, protoBulk, protoRaft}
	m.port = rpc.NewPort(m.listener, m.keys.ServerConfig(protos...), slog.Default(), append(protos, trust.JoinProto, trust.StandingProto)...)
	if m.has(roleMeta) {
		if err := m.openMember(ctx); err != nil {
			return nil, err
		}
	}
	peers, err := m.data.peers()
	if err != nil {
		return nil, err
	}
	if m.has(roleMeta) {
		peers = append([]string{c.Listen}, peers...)
	}
	if m.service, err = dialMeta(m.keys, &m.dialled, peers); err != nil {
		return nil, err
	}
	m.holders = newHolders(m.keys, &m.dialled)
	m.asker = cache.NewClient(cache.ClientConfig{Lines: m.holders, Here: m.holding.entries.Load})
	m.holders.here = m.holding.entries.Load
	if m.meta != nil {
		m.office = admission.NewOffice(admission.Config{
			Keys: m.keys, Member: m.meta, Cluster: m.service.anyone(), Addr: c.Listen, Members: m.metaAddrs,
		})
	}
	m.fleet = fleet.New(fleet.Config{
		Map:  func(ctx context.Context, since uint64) (members.Map, error) { return m.members().Map(ctx, since) },
		Dial: func(n members.Node) (fleet.Peer, error) { return dialPeer(m.keys, &m.dialled, n, 0) },
		Self: m.data.node, Local: m.local,
	})
	m.ways = &exchanges{name: m.data.node, addr: c.Listen, own: &m.exchange, keys: m.keys, dialled: &m.dialled, fleet: m.fleet}
	m.dialer = client.NewDialer(m.service.anyone(), m.ways, "machine "+m.data.node)
	return m, nil
}

// fail notes that the process must end. It does not block.
func (m *Machine) fail(err error) {
	select {
	case m.broken <- err:
	default:
	}
}

// members are calls of no session.
func (m *Machine) members() client.Members { return client.Members{Caller: m.service.anyone()} }

// local is one of this machine's stores.
func (m *Machine) local(id chunk.StoreID) (chunk.Store, bool) {
	if s := m.stores.Load(); s != nil {
		return s.Store(id)
	}
	return nil, false
}

// run serves until ctx ends or the machine cannot go on.
func (m *Machine) run(ctx context.Context) error {
	// The port stops last: the metadata member hands its lead over through it.
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, below := errgroup.WithContext(below)
	g.Go(func() error { return m.port.Run(below) })
	// All with the port's own context: a child of it would end a moment later, and
	// take the port's end for a failure.
	g.Go(func() error { return m.serveCalls(below) })
	g.Go(func() error { return m.serveBulk(below) })
	g.Go(func() error { return m.serveJoiners(below) })
	g.Go(func() error { return m.serveStanding(below) })
	err := m.work(ctx, below)
	err = errors.Join(err, m.closeMeta())
	stop()
	return errors.Join(err, g.Wait())
}

// work does what the machine is there for until ctx or below ends.
func (m *Machine) work(ctx, below context.Context) error {
	running, stop := context.WithCancelCause(below)
	defer stop(nil)
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return m.serveAdmin(running) })
	g.Go(func() error { return m.fleet.Run(running) })
	g.Go(func() error { return m.takePart(running) })
	g.Go(func() error { return m.followService(running) })
	g.Go(func() error { return m.keepIdentity(running) })
	g.Go(func() error { return m.hold(running) })
	g.Go(func() error { return m.serveRedis(running) })
	g.Go(func() error { return m.serveWeb(running) })
	g.Go(func() error { return m.serveFiles(running) })
	if m.meta != nil {
		g.Go(func() error { return m.meta.Run(running) })
		g.Go(func() error { return m.office.Run(running) })
		g.Go(func() error { return m.keepQuorum(running) })
		g.Go(func() error { return m.takeCharge(running) })
	}
	if m.cfg.Debug != "" {
		g.Go(func() error { return serveDebug(running, m.cfg.Debug, machineSight{m.view(), m}, m.service.anyone()) })
	}
	mount := make(chan struct{}) // closed when nothing is mounted any more
	g.Go(func() error {
		defer close(mount)
		return m.mount(ctx, running)
	})
	g.Go(func() error {
		defer stop(nil)
		select {
		case <-ctx.Done():
			<-mount // what was written is stored by then
			return nil
		case <-running.Done():
			return nil
		case err := <-m.broken:
			slog.Error("node: cannot go on", "err", err)
			return err
		}
	})
	if m.cfg.Ready != nil {
		m.cfg.Ready()
	}
	return g.Wait()
}

// mount mounts the tree here, if that is asked for, until ctx or running ends.
func (m *Machine) mount(ctx, running context.Context) error {
	if m.cfg.Mount == "" {
		return nil
	}
	c := MountConfig{MountPoint: m.cfg.Mount, runner: m.runner(), Ready: func() { m.events.Add("machine %s mounted at %s", m.data.node, m.cfg.Mount) }}
	err := insist(running, "mounting at "+m.cfg.Mount, func(running context.Context) error {
		if ctx.Err() != nil {
			return nil
		}
		reach, cancel := context.WithTimeout(ctx, reachWait)
		defer cancel()
		if err := awaitGroups(reach, m.fleet); err != nil {
			return fmt.Errorf("%w: %w", meta.Unavailable, err)
		}
		return mountThrough(ctx, running, c, m.service, m.holders, m.ways, m.fleet, machineSight{m.view(), m}, func(string) {})
	})
	return err
}

// runner is that of the machine's tasks; nil without the role.
func (m *Machine) runner() *runnerConfig {
	if !m.has(roleTask) {
		return nil
	}
	return &runnerConfig{Data: m.data.path, Offer: offerOf(m.data.node, m.cfg.Labels, m.cfg.Resources), Version: Version()}
}

// closeMeta stops the metadata member.
func (m *Machine) closeMeta() error {
	if m.meta == nil {
		return nil
	}
	return m.meta.Close()
}

// serveCalls answers the other machines and the mounts.
func (m *Machine) serveCalls(ctx context.Context) error {
	who := rights.Who(m.keys)
	services := []rpc.Service{
		m.stored(), rights.Guard(serveState(m.state), rights.Node, who),
		metarpc.ServeMemory(rights.NewMeta(&m.holding, who)), rights.Guard(metamemory.Service(m.holding.now.Load), rights.Follow, who),
		rights.Guard(cache.Service(m.holding.entries.Load), rights.Cache, who),
		m.exchangeService(),
	}
	if m.meta != nil {
		services = append(services, metarpc.Serve(rights.NewMeta(m.meta, who)), m.office.Service())
	}
	others := calls.GRPC(m.dialer, access.Named, rights.Call(who))
	return rpc.Serve(ctx, m.port.Listener(protoCalls), rpc.ServerConfig{Raw: others}, services...)
}

// serveBulk answers what has much payload.
func (m *Machine) serveBulk(ctx context.Context) error {
	return rpc.ServeBulk(ctx, m.port.Listener(protoBulk), m.stored())
}

// stored is the service of this machine's stores.
func (m *Machine) stored() rpc.Service {
	return rights.Guard(chunkrpc.Serve(m.local), rights.Chunk, rights.Who(m.keys))
}

// serveAdmin answers dosctl, here and over the network.
func (m *Machine) serveAdmin(ctx context.Context) error {
	l, err := m.data.listen()
	if err != nil {
		return err
	}
	remove, err := announce(m.data.path)
	if err != nil {
		slog.Warn("node: dosctl will need --data", "err", err)
		remove = func() error { return nil }
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveHTTP(ctx, l, admin.Handler(m.adminServices())) })
	g.Go(func() error {
		return serveHTTP(ctx, m.port.Listener(protoAdmin), rights.HTTP(m.site("https")(access.Named), rights.Port, m.keys))
	})
	return errors.Join(g.Wait(), remove(), os.Remove(m.data.sock()))
}

// retryEvery is the pause between attempts to reach the metadata service.
const retryEvery = time.Second

// quietWait is how long something may have to wait before the log says so: an
// election takes a moment.
const quietWait = 5 * time.Second

// insist does something until it succeeds, ctx ends, or it fails for good.
func insist(ctx context.Context, what string, do func(context.Context) error) error {
	said := ""
	for began := time.Now(); ; {
		err := do(ctx)
		var kind meta.Kind
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case errors.As(err, &kind) && kind != meta.Unavailable && kind != meta.TimedOut && kind != meta.Expired:
			return fmt.Errorf("%s: %w", what, err)
		case err.Error() != said && time.Since(began) > quietWait:
			said = err.Error()
			slog.Warn("node: "+what+" has to wait", "err", err)
		}
		wait := time.NewTimer(retryEvery)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil
		}
	}
}

// state is what this machine says of itself.
func (m *Machine) state(ctx context.Context) nodes.Node {
	now := meta.At(time.Now())
	n := nodes.Node{
		Name: m.data.node, State: cluster.Up, Addr: m.cfg.Listen, Zone: m.cfg.Zone, Roles: m.cfg.Roles, Version: Version(),
		Since: meta.At(m.started), Seen: now, Now: now,
		Charge: m.charge.Load() != nil, Damaged: m.damage.list(), Lacks: lacking(m.data.path),
	}
	n.Load, n.Memory = m.busy.loadAndMemory()
	if s := m.stores.Load(); s != nil {
		n.Disks = s.disks()
	}
	return n
}

// close gives up what is open. run has returned, or was never called.
func (m *Machine) close() error {
	var errs []error
	if m.service != nil {
		m.service.close()
	}
	if m.holders != nil {
		m.asker.Close()
		m.holders.close()
	}
	if m.ways != nil {
		m.dialer.Close()
		m.ways.close()
	}
	errs = append(errs, m.closeMeta())
	if m.listener != nil {
		m.listener.Close() //nolint:errcheck // the port has closed it if it ran
	}
	for _, l := range []net.Listener{m.redis, m.web} {
		if l != nil {
			l.Close() //nolint:errcheck // likewise
		}
	}
	return errors.Join(append(errs, m.data.Close())...)
}
