package members

import (
	"fmt"

	"dos/chunk"
	"dos/meta"
	"dos/meta/state"
)

func drain(tx *state.Tx, req Drain) (struct{}, error) {
	c, err := current(tx)
	if err != nil {
		return struct{}{}, err
	}
	if (req.Node == "") == (req.Store == 0) || len(req.Why) > TextMax {
		return struct{}{}, fmt.Errorf("drain machine %.40q, store %d: %w", req.Node, req.Store, meta.Invalid)
	}
	stores, nodes := rows[Store](tx, "3s"), rows[Node](tx, "3n")
	now := meta.At(tx.Now)
	before := countIn(stores, nodes)
	var key []byte
	var row any
	for i := range nodes {
		if n := &nodes[i]; n.Name == req.Node {
			if n.Drain == req.On {
				return struct{}{}, nil
			}
			n.Drain, n.Since, n.Why = req.On, now, req.Why
			key, row = nodeKey(n.Name), *n
		}
	}
	for i := range stores {
		if s := &stores[i]; s.ID == req.Store {
			if s.Drain == req.On {
				return struct{}{}, nil
			}
			s.Drain, s.Since, s.Why = req.On, now, req.Why
			key, row = storeKey(s.ID), *s
		}
	}
	if key == nil {
		return struct{}{}, fmt.Errorf("machine %.40q, store %d: %w", req.Node, req.Store, meta.NotExist)
	}
	if after := countIn(stores, nodes); after < before && after < c.Code.Shards() {
		return struct{}{}, fmt.Errorf("%d stores would be left, and stripes are written to %d (%v): %w", after, c.Code.Shards(), c.Code, meta.NoSpace)
	}
	put(tx, &c, key, row)
	return struct{}{}, nil
}

// countIn counts the stores that are In.
func countIn(stores []Store, nodes []Node) int {
	n := 0
	for _, s := range Standings(stores, nodes) {
		if s == In {
			n++
		}
	}
	return n
}

func setOut(tx *state.Tx, req SetOut) (Changed, error) {
	c, err := current(tx)
	if err != nil {
		return Changed{}, err
	}
	if c.Epoch != req.Epoch {
		return Changed{}, fmt.Errorf("the map is at epoch %d, not %d: %w", c.Epoch, req.Epoch, meta.Conflict)
	}
	changed := make(map[chunk.StoreID]Store)
	for _, m := range req.Marks {
		s, ok := get[Store](tx, storeKey(m.Store))
		if !ok || len(m.Why) > TextMax {
			return Changed{}, fmt.Errorf("mark of store %d: %w", m.Store, meta.Invalid)
		}
		if _, twice := changed[m.Store]; twice {
			return Changed{}, fmt.Errorf("store %d is marked twice: %w", m.Store, meta.Invalid)
		}
		if s.Out != m.Out {
			s.Out, s.Since, s.Why = m.Out, meta.At(tx.Now), m.Why
		}
		changed[m.Store] = s
	}
	for _, m := range req.Marks { // in the order of the request
		put(tx, &c, storeKey(m.Store), changed[m.Store])
	}
	return Changed{c.Epoch}, nil
}
