package client

import (
	"context"
	"errors"

	"dos/chunk"
	"dos/meta"
	"dos/meta/members"
)

// Members are the calls about the cluster itself.
type Members struct{ Caller Caller }

// Init makes the cluster, or checks that it is this one.
func (m Members) Init(ctx context.Context, cluster members.ClusterID, code chunk.Code) error {
	return m.Caller.Call(ctx, members.OpInit, members.Init{Cluster: cluster, Code: code}, nil)
}

// PutNode registers a machine or changes what is known of it.
func (m Members) PutNode(ctx context.Context, node members.Node) error {
	return m.Caller.Call(ctx, members.OpPutNode, node, nil)
}

// RemoveNode forgets a machine without stores.
func (m Members) RemoveNode(ctx context.Context, name string) error {
	return m.Caller.Call(ctx, members.OpRemoveNode, members.Named{Name: name}, nil)
}

// PutStore registers a store or changes what is known of it, and returns it with its ID.
func (m Members) PutStore(ctx context.Context, store members.Store) (put members.Store, err error) {
	err = m.Caller.Call(ctx, members.OpPutStore, store, &put)
	return put, err
}

// RemoveStore forgets a store that is in no placement group.
func (m Members) RemoveStore(ctx context.Context, id chunk.StoreID) error {
	return m.Caller.Call(ctx, members.OpRemoveStore, members.Numbered{ID: id}, nil)
}

// Map returns all that is known of the cluster, or only the epoch if that is
// the one given.
func (m Members) Map(ctx context.Context, since uint64) (cluster members.Map, err error) {
	err = m.Caller.Call(ctx, members.OpMap, members.Since{Epoch: since}, &cluster)
	return cluster, err
}

// SetGroups edits rows of the table of placement groups if the map is still at epoch.
func (m Members) SetGroups(ctx context.Context, epoch uint64, rows []members.Row) error {
	return m.Caller.Call(ctx, members.OpSetGroups, members.SetGroups{Epoch: epoch, Rows: rows}, nil)
}

// Drain says whether a machine, or one store, is to be emptied.
func (m Members) Drain(ctx context.Context, req members.Drain) error {
	return m.Caller.Call(ctx, members.OpDrain, req, nil)
}

// SetNode changes what the administrator says of a machine.
func (m Members) SetNode(ctx context.Context, req members.SetNode) error {
	return m.Caller.Call(ctx, members.OpSetNode, req, nil)
}

// Configure changes a setting of the cluster; an empty value is its default.
func (m Members) Configure(ctx context.Context, name, value string) error {
	return m.Caller.Call(ctx, members.OpConfigure, members.Setting{Name: name, Value: value}, nil)
}

// SetOut says which stores have been away for too long or are back, if the map
// is still at epoch.
func (m Members) SetOut(ctx context.Context, epoch uint64, marks []members.Mark) error {
	return m.Caller.Call(ctx, members.OpSetOut, members.SetOut{Epoch: epoch, Marks: marks}, nil)
}

// Arrange makes the table of placement groups what members.Plan says for the
// stores there are now, and returns the map. When others change the map
// meanwhile it computes again.
func (m Members) Arrange(ctx context.Context) (members.Map, error) {
	for {
		now, err := m.Map(ctx, 0)
		if err != nil {
			return members.Map{}, err
		}
		err = m.SetGroups(ctx, now.Epoch, members.Plan(now))
		if errors.Is(err, meta.Conflict) {
			continue
		}
		if err != nil {
			return members.Map{}, err
		}
		return m.Map(ctx, 0)
	}
}
