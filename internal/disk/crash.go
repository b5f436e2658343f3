package disk

import (
	"maps"
	"math/rand/v2"
	"path"
	"slices"
)

// Crash cuts the power and turns it on again. Open files and locks are gone.
// With a nil rng everything that was not synced is gone too; else each unsynced
// page survives, is lost or is torn between its sectors, and each unsynced
// change of a name happens or not, as rng decides.
func (m *Mem) Crash(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init()
	m.boot++
	clear(m.locks)
	if rng != nil {
		m.surviveNames(rng)
	}
	for p := range m.kept { // what lies in a directory that was lost is lost
		for d := path.Dir(p); ; d = path.Dir(d) {
			if m.kept[d] == nil {
				delete(m.kept, p)
			}
			if d == "/" {
				break
			}
		}
	}
	m.names = maps.Clone(m.kept)
	m.pages = 0
	done := map[*inode]bool{}
	for _, p := range slices.Sorted(maps.Keys(m.names)) {
		n := m.names[p]
		if !done[n] {
			done[n] = true
			n.links, n.open = 0, 0
			n.crash(rng)
			m.pages += int64(len(n.pages))
		}
		n.links++
	}
}

func (m *Mem) surviveNames(rng *rand.Rand) {
	all := slices.Collect(maps.Keys(m.kept))
	all = slices.AppendSeq(all, maps.Keys(m.names))
	slices.Sort(all)
	for _, p := range slices.Compact(all) {
		if m.names[p] == m.kept[p] || rng.IntN(2) == 0 {
			continue
		}
		if n := m.names[p]; n != nil {
			m.kept[p] = n
		} else {
			delete(m.kept, p)
		}
	}
}

func (n *inode) crash(rng *rand.Rand) {
	if rng != nil {
		for _, index := range slices.Sorted(maps.Keys(n.dirty)) {
			n.keep(index, torn(rng, n.kept[index], n.pages[index]))
		}
		if rng.IntN(2) == 0 {
			n.keptSize = n.size
		}
		for index := range n.kept {
			if index*pageSize >= n.keptSize {
				delete(n.kept, index)
			}
		}
	}
	n.size = n.keptSize
	n.pages = maps.Clone(n.kept)
	n.dirty = map[int64]struct{}{}
}

// torn returns what a power cut leaves of a page that was being written.
func torn(rng *rand.Rand, before, after *page) *page {
	switch rng.IntN(3) {
	case 0:
		return before
	case 1:
		return after
	}
	var mixed page
	for at := 0; at < pageSize; at += sectorSize {
		from := before
		if rng.IntN(2) == 0 {
			from = after
		}
		if from != nil {
			copy(mixed[at:at+sectorSize], from[at:])
		}
	}
	return &mixed
}
