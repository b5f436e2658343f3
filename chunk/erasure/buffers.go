package erasure

import (
	"math/bits"
	"sync"

	"dos/chunk"
)

const (
	// KeepMax bounds the bytes of spare buffers that a Buffers keeps: the
	// parity of sixteen full stripes at 4+2. More are left to the collector.
	KeepMax = 32 << 20
	// smallest is the size of the smallest class of buffers.
	smallest = chunk.Block
	// classes is the number of classes: powers of two from smallest up to
	// what the widest code needs for the largest stripe.
	classes = 17
)

// Buffers are spare buffers, by powers of two, for the hot path: a stripe
// needs some MiB for as long as it is written. Its zero value is empty.
type Buffers struct {
	mu   sync.Mutex
	free [classes][][]byte // guarded by mu
	kept int               // bytes in free, guarded by mu
}

// Buffer returns n bytes with arbitrary contents.
func (p *Buffers) Buffer(n int) []byte {
	class := classOf(n)
	if class >= classes {
		return make([]byte, n)
	}
	p.mu.Lock()
	if list := p.free[class]; len(list) > 0 {
		b := list[len(list)-1]
		list[len(list)-1] = nil
		p.free[class] = list[:len(list)-1]
		p.kept -= cap(b)
		p.mu.Unlock()
		return b[:n]
	}
	p.mu.Unlock()
	return make([]byte, n, smallest<<class)
}

// Free takes back a buffer that Buffer returned. It must not be used again.
func (p *Buffers) Free(b []byte) {
	class := classOf(cap(b))
	if class >= classes || cap(b) != smallest<<class {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept+cap(b) > KeepMax {
		return
	}
	p.free[class] = append(p.free[class], b[:0])
	p.kept += cap(b)
}

// classOf returns the smallest class whose buffers hold n bytes.
func classOf(n int) int {
	if n <= smallest {
		return 0
	}
	return bits.Len(uint((n - 1) / smallest))
}
