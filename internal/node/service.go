package node

import (
	"crypto/tls"
	"errors"
	"fmt"

	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta/client"
	metarpc "dos/meta/rpc"
)

// A metaService is the way to the metadata service, through those machines that
// are thought to have a member of it.
type metaService struct {
	peers []*rpc.Client
	*metarpc.Client
}

// dialMeta prepares the way. It does not connect yet.
func dialMeta(keys *trust.Keyring, addrs []string) (*metaService, error) {
	if len(addrs) == 0 {
		return nil, errors.New("no machine with metadata is known")
	}
	s := new(metaService)
	for _, addr := range addrs {
		peer, err := rpc.Dial(addr, rpc.ClientConfig{TLS: keys.ClientConfig("", protoCalls), Conns: 1})
		if err != nil {
			s.close()
			return nil, err
		}
		s.peers = append(s.peers, peer)
	}
	s.Client = metarpc.NewClient(s.peers...)
	return s, nil
}

// anyone makes calls of no session, each sent once.
func (s *metaService) anyone() client.Caller { return client.Direct(s.Client, 0) }

func (s *metaService) close() {
	if s.Client != nil {
		s.Client.Close()
	}
	for _, peer := range s.peers {
		peer.Close()
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
