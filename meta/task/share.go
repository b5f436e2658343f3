package task

import (
	"time"

	"dos/meta"
)

// A share is what a user of a partition has used, forgotten by half every halfLife. It
// is counted in whole numbers, so that all replicas count alike. The user goes first
// whose use is the least for his weight and his partition's; what runs counts as if it
// had run for another shareAhead, so that many that begin at once take turns.
type share struct {
	Use  int64     `cbor:"1,keyasint,omitempty"` // cost × seconds, as of At
	At   meta.Time `cbor:"2,keyasint,omitempty"`
	Rate int64     `cbor:"3,keyasint,omitempty"` // the cost of what runs
}

const (
	halfLife   = 24 * time.Hour
	shareAhead = 60 // seconds
	// gpuCost is what a graphics processor counts, in thousandths of a core.
	gpuCost = 8000
	// memCost is how many bytes count as a core.
	memCost = 4 << 30
)

// cost is what resources count, in thousandths of a core: the most of what they are of each kind.
func cost(r Resources) int64 {
	return max(r.CPU, r.Mem/(memCost/1000), r.Count[GPU]*gpuCost, 1)
}

// halves[i] is 2^32 × 2^(-i/16).
var halves = [16]int64{
	4294967296, 4112874773, 3938502376, 3771522796, 3611622603, 3458501653, 3311872529, 3171459999,
	3037000500, 2908241642, 2784941738, 2666869345, 2553802834, 2445529972, 2341847524, 2242560872,
}

// at is the use as of now.
func (s share) at(now meta.Time) int64 {
	steps := int64(now-s.At) / int64(halfLife/16)
	if steps <= 0 {
		return s.Use
	}
	if steps >= 16*62 {
		return 0
	}
	use := s.Use >> (steps / 16)
	return int64(hi32(uint64(use), uint64(halves[steps%16])))
}

// hi32 is a × b >> 32 for b ≤ 2^32.
func hi32(a, b uint64) uint64 { return (a>>32)*b + (a&(1<<32-1))*b>>32 }

// charge adds what something cost that has run for a while. What is left of a step of
// the half-life is not forgotten yet, so At moves by whole steps.
func (s *share) charge(now meta.Time, cost int64, wall time.Duration) {
	s.Use = s.at(now)
	if steps := int64(now-s.At) / int64(halfLife/16); s.At == 0 || s.Use == 0 {
		s.At = now
	} else if steps > 0 {
		s.At += meta.Time(steps * int64(halfLife/16))
	}
	s.Use += cost * max(0, wall.Milliseconds()) / 1000
}

// order is what users are compared by, the least first.
func (s share) order(now meta.Time, weight int64) int64 {
	return (s.at(now) + s.Rate*shareAhead) * 100 / max(weight, 1)
}
