package vfs

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"dos/chunk"
)

const (
	// span is the length of the aligned ranges that a file is cut into; no
	// segment and no stripe reaches over their borders, so that what is written
	// in sequence leaves as full stripes.
	span = chunk.MaxStripe
	// growMax is up to where a segment's buffer grows by doubling. The next
	// size is a whole stripe, which then leaves without being copied again.
	growMax = 1 << 20
	// bufferMin is the smallest buffer: less would be lost in segmentCost.
	bufferMin = 256
	// segmentCost is what a segment costs beside its buffer: itself, its place
	// in the index, its extent while it is being stored.
	segmentCost = 256
	// spares is how many stripe-sized buffers are kept for the next writer.
	spares = 8
)

// A buffer holds the bytes of one segment, or of several that were cut out of
// one. It belongs to one inode, whose mu guards refs.
type buffer struct {
	mem  []byte
	refs int
}

// A budget bounds the memory of all dirty data together. Buffers are counted
// by their capacity, spare ones too.
type budget struct {
	limit int64
	data  atomic.Int64 // bytes of data in the active layers

	mu    sync.Mutex
	used  int64    // guarded by mu
	spare [][]byte // guarded by mu; of span bytes each, counted in used
	freed chan struct{}
}

// alloc returns a buffer of n bytes at least and of the size that sizeFor
// gives. nil says that there is no room now.
func (b *budget) alloc(n int) *buffer {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n == span && len(b.spare) > 0 && b.used+segmentCost <= b.limit {
		mem := b.spare[len(b.spare)-1]
		b.spare = b.spare[:len(b.spare)-1]
		b.used += segmentCost
		return &buffer{mem: mem}
	}
	need := int64(n) + segmentCost
	for b.used+need > b.limit && len(b.spare) > 0 {
		b.spare = b.spare[:len(b.spare)-1]
		b.used -= span
	}
	if b.used+need > b.limit {
		return nil
	}
	b.used += need
	return &buffer{mem: make([]byte, n)}
}

// charge counts one more segment of a buffer that is there already. Cutting a
// segment in two is not refused, so used may pass the limit by these.
func (b *budget) charge() {
	b.mu.Lock()
	b.used += segmentCost
	b.mu.Unlock()
}

// refund takes back a segment's cost, and the buffer if nobody uses it any more.
func (b *budget) refund(buf *buffer) {
	b.mu.Lock()
	b.used -= segmentCost
	if buf.refs == 0 {
		if len(buf.mem) == span && len(b.spare) < spares {
			b.spare = append(b.spare, buf.mem)
		} else {
			b.used -= int64(len(buf.mem))
		}
		buf.mem = nil
	}
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
	b.mu.Unlock()
}

// room returns a channel that is closed when something is given back.
func (b *budget) room() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return b.freed
}

// taken is how many bytes dirty data takes, without spare buffers; waiting says
// whether a writer waits for some of them.
func (b *budget) taken() (used int64, waiting bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used - int64(len(b.spare))*span, b.freed != nil
}

// sizeFor returns the size of the buffer for n bytes of a segment that can
// grow to most.
func sizeFor(n, most int) int {
	switch {
	case n > growMax:
		return span
	case n <= bufferMin:
		n = bufferMin
	default:
		n = 1 << bits.Len(uint(n-1))
	}
	return min(n, max(most, bufferMin))
}
