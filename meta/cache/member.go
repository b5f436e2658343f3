package cache

import (
	"encoding/binary"
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

var (
	memberPrefix = []byte("Am")
	mapPrefix    = []byte("Ah")
)

func memberKey(s meta.SessionID) []byte {
	return binary.BigEndian.AppendUint64(memberPrefix[:2:2], uint64(s))
}

func mapKey(epoch uint64) []byte { return binary.BigEndian.AppendUint64(mapPrefix[:2:2], epoch) }

func members(r state.Reader) (list []Member) { return all[Member](r, memberPrefix) }

func all[Row any](r state.Reader, prefix []byte) (list []Row) {
	for _, val := range r.Scan(prefix, state.After(prefix)) {
		var row Row
		state.MustUnmarshal(val, &row)
		list = append(list, row)
	}
	return list
}

// replace makes another map that of the members, from the version on.
func replace(tx *state.Tx, version uint64) {
	now := Map{Epoch: version}
	for _, m := range members(tx) {
		now.Places = append(now.Places, Place{m.Session, m.Node, m.Weight})
	}
	tx.Set(mapKey(version), state.Marshal(now))
	prune(tx)
}

// prune forgets maps that nobody acts by any more.
func prune(tx *state.Tx) {
	known := ^uint64(0)
	for _, m := range members(tx) {
		known = min(known, m.Known)
	}
	maps := all[Map](tx, mapPrefix)
	for i := 0; i < len(maps)-1; i++ {
		if maps[i+1].Epoch <= known || len(maps)-i > MapsMax {
			tx.Delete(mapKey(maps[i].Epoch))
		}
	}
}

func serve(tx *state.Tx, req Serve) (Changed, error) {
	if tx.Session == 0 || req.Node == "" || len(req.Node) > textMax || len(req.Addr) > textMax || req.Weight < 1 || req.Weight > WeightMax {
		return Changed{}, fmt.Errorf("entries on machine %.40q at %.40q with weight %d: %w", req.Node, req.Addr, req.Weight, meta.Invalid)
	}
	list := members(tx)
	for _, m := range list {
		if m.Session == tx.Session {
			return Changed{m.Fresh}, nil // asked again
		}
	}
	n := len(list)
	for _, m := range list {
		if m.Node == req.Node {
			tx.Delete(memberKey(m.Session))
			n--
		}
	}
	if n >= MembersMax {
		return Changed{}, fmt.Errorf("%d machines have entries: %w", n, meta.Quota)
	}
	done := change(tx, nil)
	tx.Set(memberKey(tx.Session), state.Marshal(Member{
		Session: tx.Session, Node: req.Node, Addr: req.Addr, Weight: req.Weight, Known: done.Version, Fresh: done.Version,
	}))
	replace(tx, done.Version)
	return done, nil
}

// own is the member that is the session of the command.
func own(tx *state.Tx) (Member, error) {
	m, ok := read[Member](tx, memberKey(tx.Session))
	if !ok {
		return m, fmt.Errorf("session %d has no entries: %w", tx.Session, meta.NotExist)
	}
	return m, nil
}

func know(tx *state.Tx, req Know) (none, error) {
	m, err := own(tx)
	if err != nil {
		return none{}, err
	}
	c, _ := read[counters](tx, counterKey)
	if req.Version > c.Version {
		return none{}, fmt.Errorf("version %d, there is %d: %w", req.Version, c.Version, meta.Invalid)
	}
	if req.Version <= m.Known {
		return none{}, nil
	}
	m.Known = req.Version
	tx.Set(memberKey(m.Session), state.Marshal(m))
	prune(tx)
	c.Stamp++
	tx.Set(counterKey, state.Marshal(c))
	return none{}, nil
}

func weigh(tx *state.Tx, req Weigh) (Changed, error) {
	m, err := own(tx)
	if err != nil {
		return Changed{}, err
	}
	if req.Weight < 1 || req.Weight > WeightMax {
		return Changed{}, fmt.Errorf("weight %d, 1 to %d: %w", req.Weight, WeightMax, meta.Invalid)
	}
	m.Weight = req.Weight
	tx.Set(memberKey(m.Session), state.Marshal(m))
	done := change(tx, nil)
	replace(tx, done.Version)
	return done, nil
}

func distrust(tx *state.Tx, req Distrust) (Changed, error) {
	if _, err := own(tx); err != nil {
		return Changed{}, err
	}
	c, _ := read[counters](tx, counterKey)
	m, ok := read[Member](tx, memberKey(req.Session))
	if !ok || m.Fresh != req.Fresh {
		return Changed{c.Version}, nil
	}
	done := change(tx, nil)
	m.Fresh = done.Version
	tx.Set(memberKey(m.Session), state.Marshal(m))
	return done, nil
}

// Release takes a session that ends out of the members: what it had is gone.
func Release(tx *state.Tx, s meta.SessionID, _ int) (n int, more bool) {
	if _, is := tx.Get(memberKey(s)); !is {
		return 0, false
	}
	tx.Delete(memberKey(s))
	replace(tx, change(tx, nil).Version)
	return 1, false
}
