package rpc

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

// The buffers of payloads are kept by powers of two between these sizes.
// Smaller ones are not worth keeping; none is larger.
const (
	poolMin = 12 // 4 KiB
	poolMax = 23 // 8 MiB, MaxPayload
)

// buffers is a mem.BufferPool that does not clear what it hands out: each of
// its buffers is written before it is read. gRPC receives into them too: clearing
// what is overwritten at once was a tenth of what a read cost its client. It is
// safe for concurrent use.
type buffers struct {
	sizes [poolMax - poolMin + 1]sync.Pool
}

// pool is shared because the transport's buffers are: it holds memory, no state.
var pool buffers

func (p *buffers) Get(n int) *[]byte {
	class := max(bits.Len(uint(max(n, 1)-1)), poolMin)
	if class > poolMax {
		b := make([]byte, n)
		return &b
	}
	if b, ok := p.sizes[class-poolMin].Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, 1<<class)
	return &b
}

func (p *buffers) Put(b *[]byte) {
	class := bits.Len(uint(cap(*b))) - 1
	if class < poolMin || class > poolMax || cap(*b) != 1<<class {
		return
	}
	p.sizes[class-poolMin].Put(b)
}

// Alloc returns a payload of n bytes of any contents and the slice to fill it
// by, before it is sent. Freeing it keeps the memory for the next.
func Alloc(n int) (mem.BufferSlice, []byte) {
	b := pool.Get(n)
	return mem.BufferSlice{mem.NewBuffer(b, &pool)}, *b
}

// Copy returns a payload with the bytes of p, which the caller keeps. A call
// may still be sending when it has failed, so what is borrowed must be copied.
func Copy(p []byte) mem.BufferSlice {
	if len(p) == 0 {
		return nil
	}
	payload, b := Alloc(len(p))
	copy(b, p)
	return payload
}

// Own returns a payload of p itself, which must not be modified any more.
func Own(p []byte) mem.BufferSlice {
	if len(p) == 0 {
		return nil
	}
	return mem.BufferSlice{mem.SliceBuffer(p)}
}

// Join copies s into one buffer, which the caller must free; s is not freed.
func Join(s mem.BufferSlice) mem.Buffer {
	b := pool.Get(s.Len())
	s.CopyTo(*b)
	return mem.NewBuffer(b, &pool)
}
