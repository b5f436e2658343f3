package node

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"dos/chunk"
	"dos/meta"
	"dos/meta/members"
)

// takePart makes the machine known to the cluster and keeps its stores open.
func (m *Machine) takePart(ctx context.Context) error {
	var known members.Map
	if err := insist(ctx, "taking part in the cluster", func(ctx context.Context) (err error) {
		known, err = m.register(ctx)
		return err
	}); err != nil || ctx.Err() != nil {
		return err
	}
	m.events.Add("machine %s is up", m.data.node)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.watchAddr(ctx, known.Epoch) })
	if m.has(roleChunk) {
		g.Go(func() error { return m.keepStores(ctx, known) })
	}
	return g.Wait()
}

// keepStores opens the machine's stores and keeps them open.
func (m *Machine) keepStores(ctx context.Context, known members.Map) error {
	list, err := m.ownStores(known)
	if err != nil {
		return err
	}
	s, err := newStores(storesConfig{
		node: m.data.node, cluster: m.data.cluster, members: m.members(), events: &m.events, data: m.data,
		losses: int(known.Code.M), elsewhere: m.lostElsewhere, row: m.row,
	}, list)
	if err != nil {
		return err
	}
	s.corrupt = m.damage.add
	m.stores.Store(s)
	return s.Run(ctx)
}

// register says that the machine and its stores are there.
func (m *Machine) register(ctx context.Context) (members.Map, error) {
	all := m.members()
	known, err := all.Map(ctx, 0)
	switch {
	case err != nil:
		return known, err
	case known.Cluster != m.data.cluster:
		return known, fmt.Errorf("this is cluster %x, and %s is of %x: %w", known.Cluster, m.data.path, m.data.cluster, meta.Conflict)
	}
	if err := m.noTwin(ctx, m.registeredAddr(known)); err != nil {
		return known, err
	}
	self := members.Node{Name: m.data.node, Zone: m.cfg.Zone, Addr: m.cfg.Listen, Labels: m.cfg.Labels, Roles: m.cfg.Roles, Member: m.member}
	if err := all.PutNode(ctx, self); err != nil {
		return known, err
	}
	if m.has(roleChunk) {
		for _, s := range m.newStores(known) {
			if _, err := all.PutStore(ctx, s); err != nil {
				return known, err
			}
		}
	}
	return all.Map(ctx, 0)
}

// registered are this machine's stores in the map, in order of their ordinals.
func (m *Machine) registered(known members.Map) []members.Store {
	list := slices.Clone(known.Stores)
	list = slices.DeleteFunc(list, func(s members.Store) bool { return s.Node != m.data.node })
	slices.SortFunc(list, func(a, b members.Store) int { return int(a.Ordinal) - int(b.Ordinal) })
	return list
}

// newStores are the stores that this machine has and that are not registered.
func (m *Machine) newStores(known members.Map) []members.Store {
	list := m.registered(known)
	next := uint16(len(list))
	var added []members.Store
	for _, path := range m.cfg.Disks {
		if !slices.ContainsFunc(list, func(s members.Store) bool { return s.Path == path }) {
			added = append(added, members.Store{Node: m.data.node, Ordinal: next, Path: path})
			next++
		}
	}
	if next == 0 {
		added = append(added, members.Store{Node: m.data.node, Path: m.data.store(0)})
	}
	return added
}

// ownStores are this machine's stores with the paths that they have now: the
// data directory may have been moved, a disk must be named.
func (m *Machine) ownStores(known members.Map) ([]members.Store, error) {
	list := m.registered(known)
	for i, s := range list {
		switch {
		case slices.Contains(m.cfg.Disks, s.Path):
		case strings.HasSuffix(s.Path, filepath.Join("/chunk", fmt.Sprint(s.Ordinal))):
			list[i].Path = m.data.store(int(s.Ordinal))
		default:
			return nil, fmt.Errorf("store %d of this machine lies in %s: say --disk %s", s.ID, s.Path, s.Path)
		}
	}
	return list, nil
}

// lostElsewhere is how many stores of other machines are lost or being rebuilt.
func (m *Machine) lostElsewhere() int {
	n := 0
	for _, s := range m.fleet.Map().Stores {
		if s.Node == m.data.node || s.Out {
			continue
		}
		if _, up := m.fleet.Store(s.ID); !up || s.Rebuilding {
			n++
		}
	}
	return n
}

// row is what the map says of a store.
func (m *Machine) row(id chunk.StoreID) (members.Store, bool) {
	list := m.fleet.Map().Stores
	i := slices.IndexFunc(list, func(s members.Store) bool { return s.ID == id })
	if i < 0 {
		return members.Store{}, false
	}
	return list[i], true
}
