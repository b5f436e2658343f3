package node

import (
	"context"
	"crypto/tls"
	"log/slog"
	"slices"

	"dos/internal/admission"
	"dos/internal/trust"
	"dos/meta/client"
	"dos/meta/quorum"
	"dos/procfs/cluster"
)

// serveJoiners admits who shows a token.
func (m *Machine) serveJoiners(ctx context.Context) error {
	l := m.port.Listener(trust.JoinProto)
	if m.office == nil {
		return l.Close() // nobody is admitted here
	}
	return m.office.Serve(ctx, l)
}

// keepIdentity keeps the certificate, and whom to trust, up to date.
func (m *Machine) keepIdentity(ctx context.Context) error {
	c := admission.KeeperConfig{
		Keys: m.keys, Path: m.data.identity(), Drop: m.drop, Doubt: m.doubt,
		Authorities: client.Trust{Caller: m.service.anyone()}.Authorities,
		Renewer:     admission.NewClient(officesOf(m.fleet)),
	}
	if m.office != nil {
		c.Renewer = m.office.Own()
	}
	return admission.NewKeeper(c).Run(ctx)
}

// drop closes connections of those who are not trusted any more.
func (m *Machine) drop(is func(tls.ConnectionState) bool) {
	m.port.Drop(is)
	m.dialled.Drop(is)
	if m.mesh != nil {
		m.mesh.Drop(is)
	}
}

// keepQuorum decides who else is in the metadata group, while this machine leads.
func (m *Machine) keepQuorum(ctx context.Context) error {
	k, err := quorum.New(quorum.Config{Self: m.member, Group: m.meta.Replica(), Machines: m, Event: m.events.Add})
	if err != nil {
		return err
	}
	return k.Run(ctx)
}

// Machines says which machines there are; it implements quorum.Machines.
func (m *Machine) Machines(ctx context.Context) ([]quorum.Machine, error) {
	if err := m.fleet.Ready(ctx); err != nil {
		return nil, err
	}
	known, err := client.Members{Caller: m.meta}.Map(ctx, 0)
	if err != nil {
		return nil, err
	}
	var list []quorum.Machine
	for _, n := range known.Nodes {
		alive := n.Name == m.data.node
		if !alive {
			now, err := m.fleet.Node(n.Name)
			alive = err == nil && now.State == cluster.Up
		}
		list = append(list, quorum.Machine{
			Name: n.Name, Addr: n.Addr, Member: n.Member, Alive: alive,
			Meta: slices.Contains(n.Roles, roleMeta) && !m.isLeaving(n.Name),
		})
	}
	return list, nil
}

// metaAddrs are where those machines are that have metadata.
func (m *Machine) metaAddrs(context.Context) ([]string, error) {
	return append(addrsOf(m.fleet.Map()), m.cfg.Listen), nil
}

// followService keeps the way to the metadata service right, and notes where it
// is for the next start.
func (m *Machine) followService(ctx context.Context) error {
	return m.service.follow(ctx, m.fleet, func(addrs []string) {
		if err := m.data.keepPeers(addrs); err != nil {
			slog.Warn("node: where others are is not noted", "err", err)
		}
	})
}
