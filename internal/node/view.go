package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"dos/chunk"
	"dos/internal/admin"
	"dos/internal/admission"
	"dos/internal/fleet"
	"dos/internal/trust"
	"dos/meta"
	"dos/procfs/cluster"
	"dos/procfs/nodes"
)

// A view is the cluster as one process sees it: its machines by themselves, and
// the whole through the machine that is in charge. It implements nodes.Nodes
// and cluster.Cluster.
type view struct {
	fleet *fleet.Fleet
	keys  *trust.Keyring
	// self is this process's machine, if it is one, and what it says of itself.
	name string
	self func(context.Context) nodes.Node
}

// Names implements nodes.Nodes.
func (v view) Names(context.Context) ([]string, error) {
	var names []string
	for _, n := range v.fleet.Map().Nodes {
		names = append(names, n.Name)
	}
	return names, nil
}

// Node implements nodes.Nodes.
func (v view) Node(ctx context.Context, name string) (nodes.Node, error) {
	n, err := v.asked(ctx, name)
	for _, known := range v.fleet.Map().Nodes {
		if known.Name == name {
			said(&n, known)
		}
	}
	return n, err
}

// asked is what a machine says of itself.
func (v view) asked(ctx context.Context, name string) (nodes.Node, error) {
	if v.self != nil && name == v.name {
		return v.self(ctx), nil
	}
	return v.fleet.Node(name)
}

// machines are all machines, as they are or were when they last answered.
func (v view) machines(ctx context.Context) []nodes.Node {
	var list []nodes.Node
	for _, known := range v.fleet.Map().Nodes {
		if n, err := v.Node(ctx, known.Name); err == nil { // else it was removed just now
			list = append(list, n)
		}
	}
	return list
}

// stores are all stores, those of machines that do not answer as down.
func (v view) stores(ctx context.Context) []cluster.Store {
	said := make(map[chunk.StoreID]cluster.Store)
	for _, n := range v.machines(ctx) {
		for _, d := range n.Disks {
			s := cluster.Store{ID: d.ID, Node: n.Name, Path: d.Path, State: d.State,
				Capacity: d.Capacity, Free: d.Free, Used: d.Used, Shards: d.Shards, Error: d.Error, Unmounted: d.Unmounted}
			if n.State == cluster.Down {
				s.State = cluster.Down
			}
			said[chunk.StoreID(d.ID)] = s
		}
	}
	var list []cluster.Store
	for _, known := range v.fleet.Map().Stores {
		s, ok := said[known.ID]
		if !ok {
			s = cluster.Store{ID: uint32(known.ID), Node: known.Node, Path: known.Path, State: cluster.Down}
		}
		list = append(list, s)
	}
	return list
}

var errNoCharge = errors.New("no machine is in charge: too few of those with metadata can reach each other")

// leader is the machine in charge, if that is another one.
func (v view) leader() (name, addr string, err error) {
	for _, known := range v.fleet.Map().Nodes {
		n, err := v.fleet.Node(known.Name)
		if err == nil && n.Charge && n.State == cluster.Up {
			return known.Name, known.Addr, nil
		}
	}
	return "", "", fmt.Errorf("%w: %w", errNoCharge, meta.Unavailable)
}

// chief is the administration of the machine in charge, which is to answer itself.
func (v view) chief() (*admin.Client, error) {
	name, addr, err := v.leader()
	if err != nil {
		return nil, err
	}
	return v.administration(name, addr).Here(), nil
}

// administration is that of one machine, over the network.
func (v view) administration(name, addr string) *admin.Client { return dialAdmin(v.keys, name, addr) }

func dialAdmin(keys *trust.Keyring, name, addr string) *admin.Client {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialWait}, Config: keys.ClientConfig(name, protoAdmin)}
	return admin.DialWith(func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) })
}

// dialWait bounds how long a connection may take to come about.
const dialWait = 5 * time.Second

// Status implements cluster.Cluster. Without a machine in charge it says what
// can be seen from here.
func (v view) Status(ctx context.Context) (cluster.Status, error) {
	chief, err := v.chief()
	if err == nil {
		var s cluster.Status
		if err = chief.Status(ctx, &s); err == nil {
			return s, nil
		}
	}
	if ctx.Err() != nil {
		return cluster.Status{}, ctx.Err()
	}
	return v.leaderless(ctx, err), nil
}

// leaderless is what can be seen while nobody is in charge, and why that is so.
func (v view) leaderless(ctx context.Context, why error) cluster.Status {
	s := cluster.Status{Name: v.name, Version: Version(), Now: meta.At(time.Now()), Stores: v.stores(ctx), Machines: v.summary(ctx)}
	if v.self != nil {
		s.Since = v.self(ctx).Since
	}
	if code := v.fleet.Code(); code.K != 0 {
		s.Want = code.String()
	}
	for _, m := range s.Machines {
		if slices.Contains(m.Roles, roleMeta) {
			s.Meta.Members++
			if m.State == cluster.Up {
				s.Meta.Alive++
			}
		}
	}
	s.Repair.Error = why.Error()
	if errors.Is(why, errNoCharge) {
		s.Repair.Error = errNoCharge.Error()
	}
	return s
}

// summary is the machines, as far as they say themselves what they are.
func (v view) summary(ctx context.Context) []cluster.Machine {
	var list []cluster.Machine
	for _, known := range v.fleet.Map().Nodes {
		one := cluster.Machine{Name: known.Name, Addr: known.Addr, Zone: known.Zone, Roles: known.Roles, State: cluster.Down, Draining: known.Drain}
		if n, err := v.Node(ctx, known.Name); err == nil {
			one.State, one.Version, one.Since, one.Seen, one.Lacks = n.State, n.Version, n.Since, n.Seen, n.Lacks
		}
		list = append(list, one)
	}
	return list
}

// CreateToken has a machine with the authority's key make a token.
func (v view) CreateToken(ctx context.Context, w admission.TokenWish) (string, error) {
	return admission.NewClient(officesOf(v.fleet)).CreateToken(ctx, w)
}

// Remove has the machine in charge forget one that is empty.
func (v view) Remove(ctx context.Context, name string) error {
	chief, err := v.chief()
	if err != nil {
		return err
	}
	return chief.Remove(ctx, name)
}

// scrubbed adds up what scrubbing does everywhere.
func (v view) scrubbed(ctx context.Context) cluster.Scrub {
	var s cluster.Scrub
	first := true
	for _, n := range v.machines(ctx) {
		for _, d := range n.Disks {
			s.Done += d.Scrubbed
			s.Total += d.Shards
			s.Bad += d.Bad
			if first || d.Finished < s.Finished {
				s.Finished, first = d.Finished, false
			}
		}
	}
	return s
}

// Log implements cluster.Cluster.
func (v view) Log() []cluster.Event {
	ctx, cancel := context.WithTimeout(context.Background(), dialWait)
	defer cancel()
	events, err := v.events(ctx, 0)
	if err != nil {
		return []cluster.Event{{Time: meta.At(time.Now()), Text: err.Error()}}
	}
	return events
}

// sinceEvery is the pause between two looks for events.
const sinceEvery = 500 * time.Millisecond

// Since implements cluster.Cluster.
func (v view) Since(ctx context.Context, after uint64) ([]cluster.Event, error) {
	tick := time.NewTicker(sinceEvery)
	defer tick.Stop()
	for {
		events, err := v.events(ctx, after)
		if err == nil && len(events) > 0 {
			return events, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (v view) events(ctx context.Context, after uint64) ([]cluster.Event, error) {
	chief, err := v.chief()
	if err != nil {
		return nil, err
	}
	var events []cluster.Event
	return events, chief.Events(ctx, after, &events)
}
