// Package rights is what each peer may do: one table for the operations of the
// metadata service and one for the methods of the other services. It stands
// where requests arrive from connections; callers in the same process are not
// asked. Who a peer is package internal/trust knows.
//
// A right includes those before it: who may only read, who may also change
// files, who may also administer the cluster, and the machines of the cluster
// themselves, whose own code keeps it going. Holding something, a session or a
// lock, is reading: it changes nothing and ends with its holder. The lease of a
// file is for who writes.
//
// A session belongs to the peer that opened it. Nobody else may use its number,
// but who may administer can end it.
package rights

import (
	"context"
	"fmt"

	"dos/internal/rpc"
	"dos/internal/trust"
)

// Who returns what says whose call one is, by the connection that it came over.
func Who(keys *trust.Keyring) func(ctx context.Context) (trust.Peer, error) {
	return func(ctx context.Context) (trust.Peer, error) {
		cs, ok := rpc.PeerState(ctx)
		if !ok {
			return trust.Peer{}, fmt.Errorf("%w: the call came over no connection that was admitted", trust.ErrRefused)
		}
		return keys.Admitted(cs)
	}
}

// never is a right that nobody has over a connection.
const never = trust.Member + 1

// Methods are the rights that the calls and streams of a service need, by name.
type Methods map[string]trust.Rights

// The services besides the metadata's. (Package admission checks its own: what is
// asked for there depends on who asks.)
var (
	// Chunk is chunk/rpc's. Clients put shards and read them; which ones nobody
	// needs any more is for the machines to know.
	Chunk = Methods{
		"Put":    trust.ReadWrite,
		"ReadAt": trust.ReadOnly,
		"Stat":   trust.ReadOnly,
		"Usage":  trust.ReadOnly,
		"Delete": trust.Member,
		"Verify": trust.Member,
		"List":   trust.Member,
	}
	// Node is how a machine is.
	Node = Methods{
		"State": trust.ReadOnly,
	}
	// Cache is what entries of /dos/cache are asked for, and how copies of them are made.
	Cache = Methods{
		"Read":  trust.ReadOnly,
		"Watch": trust.ReadOnly,
		"Write": trust.ReadWrite,
		"Copy":  trust.Member,
	}
	// Exchange is where calls are handed over: whoever changes files calls and serves.
	Exchange = Methods{
		"Call": trust.ReadWrite,
		"Work": trust.ReadWrite,
	}
	// Follow is how machines hold queues in memory.
	Follow = Methods{
		"Follow": trust.Member,
	}
)

// Guard returns a service that does what s does for those who have the rights. It
// panics if a method of the service is not in the table.
func Guard(s rpc.Service, need Methods, who func(context.Context) (trust.Peer, error)) rpc.Service {
	check := func(method string) func(context.Context) error {
		right, ok := need[method]
		if !ok {
			panic(fmt.Sprintf("rights: nobody has said who may call %s of %s", method, s.Name))
		}
		return func(ctx context.Context) error {
			peer, err := who(ctx)
			if err == nil && peer.Rights < right {
				err = fmt.Errorf("%w: %s of %s is for %v, not for %v", trust.ErrRefused, method, s.Name, right, peer.Identity)
			}
			return err
		}
	}
	guarded := rpc.Service{Name: s.Name}
	if s.Calls != nil {
		guarded.Calls = make(map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error))
	}
	for name, call := range s.Calls {
		may := check(name)
		guarded.Calls[name] = func(ctx context.Context, req *rpc.Frame) (*rpc.Frame, error) {
			if err := may(ctx); err != nil {
				return nil, err
			}
			return call(ctx, req)
		}
	}
	if s.Streams != nil {
		guarded.Streams = make(map[string]func(*rpc.Stream) error)
	}
	for name, run := range s.Streams {
		may := check(name)
		guarded.Streams[name] = func(stream *rpc.Stream) error {
			if err := may(stream.Context()); err != nil {
				return err
			}
			return run(stream)
		}
	}
	return guarded
}

// Call says no to who may not call services by gRPC, as Calls does by HTTP.
func Call(who func(context.Context) (trust.Peer, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		peer, err := who(ctx)
		if err == nil && peer.Rights < trust.ReadWrite {
			err = fmt.Errorf("%w: calls are for %v, not for %v", trust.ErrRefused, trust.ReadWrite, peer.Identity)
		}
		return err
	}
}
