package kv

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

func mktable(tx *state.Tx, req Make) (none, error) {
	if err := checkTable(req.Name); err != nil {
		return none{}, err
	}
	if _, is := tx.Get(FollowKey(req.Name)); is {
		return none{}, meta.Exist
	}
	count, _ := load[counters](tx, counterKey)
	if count.Tables >= TablesMax {
		return none{}, fmt.Errorf("there are %d tables: %w", count.Tables, meta.Quota)
	}
	count.Tables++
	tx.Set(counterKey, state.Marshal(count))
	// The revision tells this table from one that had the name before.
	tx.Set(FollowKey(req.Name), state.Marshal(Table{
		Name: req.Name, UID: req.UID, GID: req.GID, Mode: req.Mode & 0o7777, Rev: count.Rev, Mtime: meta.At(tx.Now),
	}))
	return none{}, nil
}

func drop(tx *state.Tx, req Named) (none, error) {
	t, err := loadTable(tx, req.Name)
	if err != nil {
		return none{}, err
	}
	if t.Count > 0 {
		return none{}, meta.NotEmpty
	}
	count, _ := load[counters](tx, counterKey)
	count.Tables--
	tx.Set(counterKey, state.Marshal(count))
	tx.Delete(FollowKey(req.Name))
	return none{}, nil
}

func setTable(tx *state.Tx, req SetTable) (none, error) {
	t, err := loadTable(tx, req.Name)
	if err != nil {
		return none{}, err
	}
	assign(&t.UID, req.UID)
	assign(&t.GID, req.GID)
	assign(&t.Mode, req.Mode)
	assign(&t.TTL, req.TTL)
	assign(&t.Quota, req.Quota)
	if t.Mode > 0o7777 || t.TTL < 0 || t.TTL > ttlMax || t.Quota < 0 {
		return none{}, fmt.Errorf("mode %o, ttl %v, quota %d: %w", t.Mode, t.TTL, t.Quota, meta.Invalid)
	}
	tx.Set(FollowKey(req.Name), state.Marshal(t))
	return none{}, nil
}

func table(r state.Reader, req Named) (Table, error) { return loadTable(r, req.Name) }

func tables(r state.Reader, req Tables) (TableList, error) {
	limit, err := clamp(req.Limit)
	if err != nil {
		return TableList{}, err
	}
	var reply TableList
	for _, val := range r.Scan(append(FollowKey(req.After), 0), state.After([]byte(tables7))) {
		if len(reply.Tables) == limit {
			reply.More = true
			break
		}
		var t Table
		state.MustUnmarshal(val, &t)
		reply.Tables = append(reply.Tables, t)
	}
	return reply, nil
}

// clamp returns how many things a list may have.
func clamp(limit int) (int, error) {
	if limit < 1 {
		return 0, fmt.Errorf("limit %d: %w", limit, meta.Invalid)
	}
	return min(limit, ListMax), nil
}
