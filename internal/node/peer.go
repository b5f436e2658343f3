package node

import (
	"context"
	"encoding/json"
	"fmt"

	"dos/chunk"
	chunkrpc "dos/chunk/rpc"
	"dos/internal/rpc"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/members"
	"dos/meta/replica"
	"dos/procfs/nodes"
)

// The protocols (ALPN) of a machine's port.
const (
	protoCalls = rpc.HTTP2  // gRPC: metadata, stores, and the service below
	protoBulk  = rpc.Bulk   // stores, where there is much to carry
	protoAdmin = "http/1.1" // package admin, and calls (package gateway/calls)
	protoRaft  = replica.Protocol
)

// The service dos.node tells what a machine is and how it does: its one call,
// State, takes nothing and answers with a nodes.Node as JSON in the payload.
const (
	nodeService = "dos.node"
	stateCall   = "State"
)

// serveState is the service.
func serveState(state func(context.Context) nodes.Node) rpc.Service {
	return rpc.Service{
		Name: nodeService,
		Calls: map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error){
			stateCall: func(ctx context.Context, _ *rpc.Frame) (*rpc.Frame, error) {
				text, err := json.Marshal(state(ctx))
				if err != nil {
					return nil, err
				}
				return &rpc.Frame{Payload: rpc.Own(text)}, nil
			},
		},
	}
}

// peer is another machine; it implements fleet.Peer.
type peer struct{ *rpc.Client }

// dialPeer prepares the way to a machine, which must prove that it is that one. warm
// is rpc.ClientConfig's.
func dialPeer(keys *trust.Keyring, dialled *rpc.Conns, n members.Node, warm int) (peer, error) {
	client, err := rpc.Dial(n.Addr, rpc.ClientConfig{TLS: keys.ClientConfig(n.Name, protoCalls), Among: dialled, Bulk: true, Warm: warm})
	return peer{client}, err
}

func (p peer) State(ctx context.Context) (nodes.Node, error) {
	var answer rpc.Frame
	if err := p.Call(ctx, nodeService, stateCall, new(rpc.Frame), &answer); err != nil {
		return nodes.Node{}, err
	}
	defer answer.Free()
	var n nodes.Node
	if err := json.Unmarshal(answer.Bytes(), &n); err != nil {
		return nodes.Node{}, fmt.Errorf("the state of %s: %w: %v", p.Addr(), meta.Invalid, err)
	}
	return n, nil
}

func (p peer) Store(id chunk.StoreID) chunk.Store { return chunkrpc.Open(p.Client, id) }
