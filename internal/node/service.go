package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"

	"dos/internal/fleet"
	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta/client"
	"dos/meta/members"
	metarpc "dos/meta/rpc"
)

// A metaService is the way to the metadata service, through those machines that
// are thought to have a member of it.
type metaService struct{ *metarpc.Client }

// dialMeta prepares the way. It does not connect yet; what is connected is among
// the dialled.
func dialMeta(keys *trust.Keyring, dialled *rpc.Conns, addrs []string) (*metaService, error) {
	if len(addrs) == 0 {
		return nil, errors.New("no machine with metadata is known")
	}
	dial := func(addr string) (*rpc.Client, error) {
		return rpc.Dial(addr, rpc.ClientConfig{TLS: keys.ClientConfig("", protoCalls), Conns: 1, Among: dialled})
	}
	return &metaService{metarpc.NewClient(dial, addrs...)}, nil
}

// dialAs prepares the way for who has the identity in a file.
func dialAs(identity string, addrs []string) (*trust.Keyring, *metaService, error) {
	keys, err := openIdentity(identity)
	if err != nil {
		return nil, nil, err
	}
	service, err := dialMeta(keys, nil, addrs)
	return keys, service, err
}

// anyone makes calls of no session, each sent once.
func (s *metaService) anyone() client.Caller { return client.Direct(s.Client, 0) }

func (s *metaService) close() { s.Client.Close() }

// follow keeps to the machines with metadata that the fleet knows, until ctx ends.
func (s *metaService) follow(ctx context.Context, machines *fleet.Fleet, found func(addrs []string)) error {
	var last []string
	for {
		changed := machines.Changed()
		addrs := addrsOf(machines.Map())
		if len(addrs) > 0 && !slices.Equal(addrs, last) {
			s.SetMembers(addrs)
			found(addrs)
			last = addrs
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// addrsOf are where the machines with metadata are.
func addrsOf(known members.Map) []string {
	var addrs []string
	for _, n := range known.Nodes {
		if n.Addr != "" && slices.Contains(n.Roles, roleMeta) {
			addrs = append(addrs, n.Addr)
		}
	}
	return addrs
}

// officesOf are the ways to the machines that give certificates.
func officesOf(machines *fleet.Fleet) func() []*rpc.Client {
	return func() []*rpc.Client {
		var list []*rpc.Client
		for _, n := range machines.Map().Nodes {
			if p, ok := machines.Peer(n.Name).(peer); ok && slices.Contains(n.Roles, roleMeta) {
				list = append(list, p.Client)
			}
		}
		return list
	}
}

// membersOnly admits machines, and no clients, to what they speak among themselves.
func membersOnly(keys *trust.Keyring) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		peer, err := keys.Peer(cs)
		if err == nil && !peer.IsNode() {
			err = fmt.Errorf("%w: %v is no machine of the cluster", trust.ErrRefused, peer.Identity)
		}
		return err
	}
}
