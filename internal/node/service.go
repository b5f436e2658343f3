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
type metaService struct{ *metarpc.Client }

// dialMeta prepares the way. It does not connect yet.
func dialMeta(keys *trust.Keyring, addrs []string) (*metaService, error) {
	if len(addrs) == 0 {
		return nil, errors.New("no machine with metadata is known")
	}
	dial := func(addr string) (*rpc.Client, error) {
		return rpc.Dial(addr, rpc.ClientConfig{TLS: keys.ClientConfig("", protoCalls), Conns: 1})
	}
	return &metaService{metarpc.NewClient(dial, addrs...)}, nil
}

// anyone makes calls of no session, each sent once.
func (s *metaService) anyone() client.Caller { return client.Direct(s.Client, 0) }

func (s *metaService) close() { s.Client.Close() }

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
