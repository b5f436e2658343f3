package client

import (
	"context"

	"dos/meta"
	"dos/meta/call"
	"dos/meta/exchange"
)

// RPC are the calls about services: which there are, and who serves them. A Dialer
// calls them, a Server serves them.
type RPC struct{ Caller Caller }

// Make makes a service.
func (r RPC) Make(ctx context.Context, req call.Make) error {
	return r.Caller.Call(ctx, call.OpMake, req, nil)
}

// Remove removes a service that has no instances.
func (r RPC) Remove(ctx context.Context, service string) error {
	return r.Caller.Call(ctx, call.OpRemove, call.Named{Name: service}, nil)
}

// Set changes a service.
func (r RPC) Set(ctx context.Context, req call.Set) error {
	return r.Caller.Call(ctx, call.OpSet, req, nil)
}

// Status describes a service and its instances.
func (r RPC) Status(ctx context.Context, service string) (out call.Status, err error) {
	err = r.Caller.Call(ctx, call.OpStatus, call.Named{Name: service}, &out)
	return out, err
}

// List returns all services, by name.
func (r RPC) List(ctx context.Context) (list []call.Service, err error) {
	for more := true; more; {
		var reply call.Names
		req := call.List{Limit: call.ListMax}
		if len(list) > 0 {
			req.After = list[len(list)-1].Name
		}
		if err := r.Caller.Call(ctx, call.OpList, req, &reply); err != nil {
			return nil, err
		}
		list = append(list, reply.Services...)
		more = reply.More && len(reply.Services) > 0
	}
	return list, nil
}

// Exchanges are the ways to where calls are handed over.
type Exchanges interface {
	// Open opens a connection to the exchange where an instance waits, for who calls it
	// or, with work, for who serves.
	Open(ctx context.Context, at call.Instance, work bool) (exchange.Conn, error)
	// Where says at which exchange an instance of this process is to wait, and how that
	// is reached: another one than not, if there is.
	Where(ctx context.Context, not string) (at, addr string, err error)
}

// A Who is a process, for people.
type Who struct {
	UID, PID uint32
	Node     string
	Target   string // what it passes calls on to
}

// May reports whether who has that user and group may do all of want, bits as for
// others, with a service: 1 is to call it, 3 to serve it.
func May(s call.Service, uid, gid, want uint32) error {
	mode := s.Mode
	switch {
	case uid == 0:
		return nil
	case uid == s.UID:
		mode >>= 6
	case gid == s.GID:
		mode >>= 3
	}
	if mode&want != want {
		return meta.Permission
	}
	return nil
}
