package trust

import (
	"dos/meta"
	"dos/meta/state"
)

// grace is how much longer than it is good what is over is kept: the clocks of
// those who decide by it differ, and people ask what became of a token.
const grace = meta.Time(24 * 3600 * 1e9)

// prune removes what is over by time, in one bounded step.
func prune(tx *state.Tx, req Prune) (Pruned, error) {
	from := []byte(identities)
	if req.After > identities { // what is before is not ours
		from = append([]byte(req.After), 0)
	}
	over := meta.At(tx.Now) - grace
	var reply Pruned
	seen := 0
	for key, val := range tx.Scan(from, state.After([]byte(tokens))) {
		if seen == PruneMax {
			reply.More = true
			break
		}
		seen++
		reply.After = string(key)
		if until(string(key[:len(tokens)]), val) <= over {
			tx.Delete(key)
			reply.Rows++
		}
	}
	return reply, nil
}

// until says when a row of a table is over.
func until(table string, val []byte) (last meta.Time) {
	switch table {
	case tokens:
		var t Token
		state.MustUnmarshal(val, &t)
		return t.Expires
	case revocations:
		var r Revoked
		state.MustUnmarshal(val, &r)
		return r.Until
	case identities:
		var id Identity
		state.MustUnmarshal(val, &id)
		for _, c := range id.Certs {
			last = max(last, c.Until)
		}
		return last
	}
	panic("trust: a table without a time: " + table)
}
