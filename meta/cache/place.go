package cache

import (
	"hash/fnv"
	"math/bits"
	"slices"

	"dos/meta"
)

// A Ring is a Map that is ready to be asked. It does not change.
type Ring struct {
	Epoch  uint64
	places []place
}

type place struct {
	session meta.SessionID
	seed    uint64 // by the machine's name: back, it gets what it had
	weight  uint64
}

// Ring prepares a map.
func (m Map) Ring() *Ring {
	r := &Ring{Epoch: m.Epoch}
	for _, p := range m.Places {
		sum := fnv.New64a()
		sum.Write([]byte(p.Node))
		r.places = append(r.places, place{p.Session, mix(sum.Sum64()), uint64(p.Weight)})
	}
	return r
}

// Hash is what decides where a bucket's key is.
func Hash(bucket uint64, key string) uint64 {
	const prime = 1099511628211 // FNV-1a
	h := uint64(14695981039346656037) ^ mix(bucket)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * prime
	}
	return mix(h)
}

// mix spreads what differs in few bits over all of them (splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Has reports whether a session is in the map.
func (r *Ring) Has(s meta.SessionID) bool {
	return slices.ContainsFunc(r.places, func(p place) bool { return p.session == s })
}

// Len is the number of members.
func (r *Ring) Len() int { return len(r.places) }

// Owner returns who owns what has a hash; 0 if nobody is there.
func (r *Ring) Owner(hash uint64) meta.SessionID {
	if len(r.places) == 0 {
		return 0
	}
	best := 0
	if len(r.places) > 1 {
		least := r.places[0].distance(hash)
		for i := 1; i < len(r.places); i++ {
			if d := r.places[i].distance(hash); nearer(d, r.places[i].weight, least, r.places[best].weight) {
				best, least = i, d
			}
		}
	}
	return r.places[best].session
}

// Order returns the first n in the order in which they are to have what has a hash,
// the owner first.
func (r *Ring) Order(hash uint64, n int) []meta.SessionID {
	if n = min(n, len(r.places)); n <= 1 {
		if n < 1 {
			return nil
		}
		return []meta.SessionID{r.Owner(hash)}
	}
	list := slices.Clone(r.places)
	slices.SortStableFunc(list, func(a, b place) int {
		switch da, db := a.distance(hash), b.distance(hash); {
		case nearer(da, a.weight, db, b.weight):
			return -1
		case nearer(db, b.weight, da, a.weight):
			return 1
		}
		return 0
	})
	out := make([]meta.SessionID, n)
	for i := range out {
		out[i] = list[i].session
	}
	return out
}

// Among reports whether a session is one of the first n for what has a hash.
func (r *Ring) Among(s meta.SessionID, hash uint64, n int) bool {
	return slices.Contains(r.Order(hash, n), s)
}

// distance is −log₂ of a number in (0, 1] drawn from the hash and the machine, times
// 2^24. The least distance by weight wins: so each wins in proportion to its weight.
func (p *place) distance(hash uint64) uint64 {
	return 64<<logBits - log2(mix(hash^p.seed)|1)
}

// nearer reports whether a distance by a weight is less than another.
func nearer(a, weightA, b, weightB uint64) bool { return a*weightB < b*weightA }

const (
	logBits  = 24
	logSteps = 8 // bits of the mantissa that the table is for
)

// logs has log₂(1 + i/256), times 2^24.
var logs = func() (table [1<<logSteps + 1]uint64) {
	for i := range table {
		m := uint64(1)<<32 + uint64(i)<<(32-logSteps) // in [1, 2], times 2^32
		if i == 1<<logSteps {
			table[i] = 1 << logBits
			break
		}
		for bit := uint64(1) << (logBits - 1); bit > 0; bit >>= 1 {
			hi, lo := bits.Mul64(m, m)
			if m = hi<<32 | lo>>32; m >= 1<<33 {
				m >>= 1
				table[i] |= bit
			}
		}
	}
	return table
}()

// log2 is the logarithm of x, times 2^24, in whole numbers.
func log2(x uint64) uint64 {
	n := uint64(63 - bits.LeadingZeros64(x))
	m := x << (63 - n) << 1 // what follows the first bit
	i := m >> (64 - logSteps)
	rest := m << logSteps >> 32 // between two steps, times 2^32
	return n<<logBits + logs[i] + (logs[i+1]-logs[i])*rest>>32
}
