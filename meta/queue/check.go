package queue

import (
	"fmt"
	"maps"
	"slices"

	"dos/chunk"
	"dos/meta/namespace"
	"dos/meta/state"
)

// Counts are what Check counted.
type Counts struct {
	Queues   int
	Messages int // rows of them: in logs, dead, and delayed
	Large    int // of those, in stripes
	Kept     int // stripes that are kept
}

// Check reads the rows of all messages and reports where what they name of stripes is
// not what is kept: a stripe that is named and not kept is lost with its message, and
// one that is kept and not named takes room for ever. It believes nothing.
func Check(r state.Reader, report func(problem string)) Counts {
	var counts Counts
	problem := func(format string, args ...any) { report(fmt.Sprintf(format, args...)) }
	named := make(map[chunk.StripeID]int64)
	for range r.Scan([]byte("8n"), state.After([]byte("8n"))) {
		counts.Queues++
	}
	for _, table := range []byte("mxt") {
		for k, val := range r.Scan(key(table), state.After(key(table))) {
			m, err := messageOf(table, val)
			switch {
			case err != nil:
				problem("row %x: %v", k, err)
				continue
			case m == nil:
				continue
			}
			counts.Messages++
			if (len(m.Parts) > 0) != (m.Size > 0) {
				problem("row %x: a message of %d bytes in %d stripes", k, m.Size, len(m.Parts))
			}
			if len(m.Parts) > 0 {
				counts.Large++
			}
			for _, id := range m.Parts {
				named[id]++
			}
		}
	}
	for id, n := range namespace.Kept(r) {
		counts.Kept++
		if named[id] != n {
			problem("stripe %d is kept for %d messages, and %d name it", id, n, named[id])
		}
		delete(named, id)
	}
	for _, id := range slices.Sorted(maps.Keys(named)) {
		problem("stripe %d is named by %d messages and is not kept", id, named[id])
	}
	return counts
}

// messageOf is the message that a row of such a table has; nil if it has none.
func messageOf(table byte, val []byte) (*message, error) {
	switch table {
	case 'm':
		m := new(message)
		return m, state.Unmarshal(val, m)
	case 'x':
		var d dead
		err := state.Unmarshal(val, &d)
		return &d.Message, err
	case 't':
		var t timer
		err := state.Unmarshal(val, &t)
		return t.Message, err
	}
	return nil, nil
}
