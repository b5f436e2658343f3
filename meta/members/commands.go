package members

import (
	"encoding/binary"
	"fmt"
	"slices"

	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

// A cluster is the row of the cluster.
type cluster struct {
	Cluster ClusterID     `cbor:"1,keyasint"`
	Code    chunk.Code    `cbor:"2,keyasint,omitempty"`
	Epoch   uint64        `cbor:"3,keyasint,omitempty"`
	Last    chunk.StoreID `cbor:"4,keyasint,omitempty"` // the highest store ID there ever was
	Stores  int           `cbor:"5,keyasint,omitempty"` // how many there are
	Nodes   int           `cbor:"6,keyasint,omitempty"`
}

func clusterKey() []byte { return []byte("3c") }

func groupKey(row uint16) []byte { return binary.BigEndian.AppendUint16([]byte("3g"), row) }

func nodeKey(name string) []byte { return append([]byte("3n"), name...) }

func storeKey(id chunk.StoreID) []byte {
	return binary.BigEndian.AppendUint32([]byte("3s"), uint32(id))
}

func get[T any](r state.Reader, key []byte) (row T, ok bool) {
	val, ok := r.Get(key)
	if ok {
		state.MustUnmarshal(val, &row)
	}
	return row, ok
}

func rows[T any](r state.Reader, prefix string) []T {
	var list []T
	for _, val := range r.Scan([]byte(prefix), state.After([]byte(prefix))) {
		var row T
		state.MustUnmarshal(val, &row)
		list = append(list, row)
	}
	return list
}

// current returns the cluster's row: NotExist before Init.
func current(r state.Reader) (cluster, error) {
	c, ok := get[cluster](r, clusterKey())
	if !ok {
		return c, fmt.Errorf("there is no cluster yet: %w", meta.NotExist)
	}
	return c, nil
}

// put writes a row if it is not the same already, and then raises the epoch.
func put(tx *state.Tx, c *cluster, key []byte, row any) {
	val := state.Marshal(row)
	if old, ok := tx.Get(key); ok && slices.Equal(old, val) {
		return
	}
	tx.Set(key, val)
	c.Epoch++
	tx.Set(clusterKey(), state.Marshal(*c))
}

func initCluster(tx *state.Tx, req Init) (struct{}, error) {
	if req.Cluster == (ClusterID{}) || req.Code.K < 1 || req.Code.M < 1 || req.Code.Shards() > chunk.MaxShards {
		return struct{}{}, fmt.Errorf("cluster %x with code %v: %w", req.Cluster, req.Code, meta.Invalid)
	}
	if c, err := current(tx); err == nil {
		if c.Cluster != req.Cluster || c.Code != req.Code {
			return struct{}{}, fmt.Errorf("this is cluster %x with code %v, not %x with %v: %w", c.Cluster, c.Code, req.Cluster, req.Code, meta.Conflict)
		}
		return struct{}{}, nil
	}
	tx.Set(clusterKey(), state.Marshal(cluster{Cluster: req.Cluster, Code: req.Code, Epoch: 1}))
	return struct{}{}, nil
}

func putNode(tx *state.Tx, req Node) (struct{}, error) {
	c, err := current(tx)
	if err != nil {
		return struct{}{}, err
	}
	if err := req.check(); err != nil {
		return struct{}{}, err
	}
	old, known := get[Node](tx, nodeKey(req.Name))
	if !known {
		if c.Nodes++; c.Nodes > NodesMax {
			return struct{}{}, fmt.Errorf("more than %d machines: %w", NodesMax, meta.Quota)
		}
	}
	req.Drain, req.Since, req.Why = old.Drain, old.Since, old.Why
	req.Set, req.Unset, req.Weight, req.Hold, req.HoldWhy = old.Set, old.Unset, old.Weight, old.Hold, old.HoldWhy
	put(tx, &c, nodeKey(req.Name), req)
	return struct{}{}, nil
}

func (n Node) check() error {
	texts := append([]string{n.Name, n.Zone, n.Addr, n.Member}, n.Roles...)
	for key, val := range n.Labels {
		texts = append(texts, key, val)
	}
	if n.Name == "" || len(n.Labels) > LabelsMax || len(n.Roles) > RolesMax || slices.ContainsFunc(texts, func(s string) bool { return len(s) > TextMax }) {
		return fmt.Errorf("machine %.40q: a name is needed, texts of at most %d bytes, at most %d labels and %d roles: %w", n.Name, TextMax, LabelsMax, RolesMax, meta.Invalid)
	}
	return nil
}

// removeNode forgets a machine: Busy while it has stores.
func removeNode(tx *state.Tx, req Named) (struct{}, error) {
	c, err := current(tx)
	if err != nil {
		return struct{}{}, err
	}
	if _, ok := tx.Get(nodeKey(req.Name)); !ok {
		return struct{}{}, nil
	}
	for _, s := range rows[Store](tx, "3s") {
		if s.Node == req.Name {
			return struct{}{}, fmt.Errorf("machine %q has store %d: %w", req.Name, s.ID, meta.Busy)
		}
	}
	tx.Delete(nodeKey(req.Name))
	c.Epoch++
	c.Nodes--
	tx.Set(clusterKey(), state.Marshal(c))
	return struct{}{}, nil
}

func putStore(tx *state.Tx, req Store) (Store, error) {
	c, err := current(tx)
	if err != nil {
		return Store{}, err
	}
	if req.Node == "" || len(req.Node) > TextMax || len(req.Path) > PathMax {
		return Store{}, fmt.Errorf("store %d on machine %.40q: %w", req.ID, req.Node, meta.Invalid)
	}
	for _, s := range rows[Store](tx, "3s") {
		if s.Node != req.Node || s.Ordinal != req.Ordinal {
			continue
		}
		if req.ID == 0 {
			req.ID = s.ID
		}
		if s.ID != req.ID {
			return Store{}, fmt.Errorf("machine %q has store %d in the place %d of store %d: %w", req.Node, s.ID, req.Ordinal, req.ID, meta.Exist)
		}
	}
	if req.ID == 0 {
		if c.Last+1 == 0 {
			return Store{}, fmt.Errorf("no store IDs are left: %w", meta.Quota)
		}
		req.ID = c.Last + 1
	}
	old, known := get[Store](tx, storeKey(req.ID))
	if !known {
		if c.Stores++; c.Stores > StoresMax {
			return Store{}, fmt.Errorf("more than %d stores: %w", StoresMax, meta.Quota)
		}
	}
	req.Out, req.Drain, req.Since, req.Why = old.Out, old.Drain, old.Since, old.Why
	c.Last = max(c.Last, req.ID)
	put(tx, &c, storeKey(req.ID), req)
	return req, nil
}

// removeStore forgets a store: Busy while a placement group names it.
func removeStore(tx *state.Tx, req Numbered) (struct{}, error) {
	c, err := current(tx)
	if err != nil {
		return struct{}{}, err
	}
	if _, ok := tx.Get(storeKey(req.ID)); !ok {
		return struct{}{}, nil
	}
	for row, g := range rows[chunk.Group](tx, "3g") {
		if slices.Contains(g.Members, req.ID) {
			return struct{}{}, fmt.Errorf("store %d is in placement group %d: %w", req.ID, row, meta.Busy)
		}
	}
	tx.Delete(storeKey(req.ID))
	c.Epoch++
	c.Stores--
	tx.Set(clusterKey(), state.Marshal(c))
	return struct{}{}, nil
}

func setGroups(tx *state.Tx, req SetGroups) (Changed, error) {
	c, err := current(tx)
	if err != nil {
		return Changed{}, err
	}
	if c.Epoch != req.Epoch {
		return Changed{}, fmt.Errorf("the map is at epoch %d, not %d: %w", c.Epoch, req.Epoch, meta.Conflict)
	}
	// The table is whole or it is not there.
	if _, made := tx.Get(groupKey(0)); !made && len(req.Rows) != chunk.Groups {
		return Changed{}, fmt.Errorf("%d of %d placement groups: %w", len(req.Rows), chunk.Groups, meta.Invalid)
	}
	known := make(map[chunk.StoreID]bool)
	for _, s := range rows[Store](tx, "3s") {
		known[s.ID] = true
	}
	next := c.Epoch + 1
	for i, row := range req.Rows {
		if row.Group >= chunk.Groups || i > 0 && row.Group <= req.Rows[i-1].Group {
			return Changed{}, fmt.Errorf("placement group %d: %w", row.Group, meta.Invalid)
		}
		if len(row.Members) == 0 || len(row.Members) > c.Code.Shards()+Spares {
			return Changed{}, fmt.Errorf("placement group %d with %d members: %w", row.Group, len(row.Members), meta.Invalid)
		}
		for j, id := range row.Members {
			if !known[id] || slices.Contains(row.Members[:j], id) {
				return Changed{}, fmt.Errorf("placement group %d: store %d is unknown or there twice: %w", row.Group, id, meta.Invalid)
			}
		}
		old, ok := get[chunk.Group](tx, groupKey(row.Group))
		if ok && slices.Equal(old.Members, row.Members) {
			continue
		}
		tx.Set(groupKey(row.Group), state.Marshal(chunk.Group{Epoch: next, Members: row.Members}))
		c.Epoch = next
	}
	tx.Set(clusterKey(), state.Marshal(c))
	return Changed{c.Epoch}, nil
}

func readMap(r state.Reader, req Since) (Map, error) {
	c, _ := get[cluster](r, clusterKey())
	m := Map{Cluster: c.Cluster, Code: c.Code, Epoch: c.Epoch}
	if req.Epoch == c.Epoch {
		return m, nil
	}
	m.Nodes = rows[Node](r, "3n")
	m.Stores = rows[Store](r, "3s")
	m.Groups = rows[chunk.Group](r, "3g")
	m.Config = config(r)
	return m, nil
}

func readEpoch(r state.Reader, _ struct{}) (Changed, error) {
	return Changed{Epoch(r)}, nil
}
