// Package erasure turns the bytes of a stripe into shards and shards back into
// bytes. It is pure: it knows no store, no clock and no goroutine.
//
// A stripe of n bytes under the code k+m is cut into cells of Code.Cell(n)
// bytes; the last ones are padded with zeros. Shards 0 to k-1 are those cells
// as they are (the code is systematic), shards k to k+m-1 are Reed-Solomon
// combinations of them over GF(2^8), with the Vandermonde matrix that
// klauspost/reedsolomon makes by default. With k = 1 all m+1 shards are the
// data itself. What byte i of a shard is depends only on byte i of the others,
// so any range of a shard comes back from the same range of k others.
//
// The matrix is a format: shards on disk depend on it. A golden test pins it.
package erasure

import (
	"fmt"
	"sync"

	"github.com/klauspost/reedsolomon"

	"dos/chunk"
)

// matrixCacheMax is the largest k+m for which inverted matrices are kept:
// beyond it there are too many combinations of lost shards to remember.
const matrixCacheMax = 12

// A Coder encodes and reconstructs. It owns an encoder for each code that it
// has met and a bounded store of spare buffers. Its zero value is ready; its
// methods may be called concurrently.
type Coder struct {
	Buffers

	mu       sync.RWMutex
	encoders map[chunk.Code]reedsolomon.Encoder // guarded by mu
}

// Shards are the shards of one stripe. Data shards alias the caller's bytes,
// the others lie in a buffer of the Coder.
type Shards struct {
	Cells [][]byte // one for each shard, all of the same length

	owner *Coder
	buf   []byte
}

// Release gives the buffer back. The cells must not be used afterwards.
func (s *Shards) Release() {
	if s.buf != nil {
		s.owner.Free(s.buf)
	}
	s.Cells, s.buf = nil, nil
}

// Check says whether a code can be used.
func Check(code chunk.Code) error {
	if code.K == 0 || code.Shards() > chunk.MaxShards {
		return fmt.Errorf("erasure: code %v: want k ≥ 1 and k+m ≤ %d", code, chunk.MaxShards)
	}
	return nil
}

// Encode returns the shards of data. They are good until data changes or
// Release is called.
func (c *Coder) Encode(code chunk.Code, data []byte) (*Shards, error) {
	if err := Check(code); err != nil {
		return nil, err
	}
	if len(data) == 0 || len(data) > chunk.MaxStripe {
		return nil, fmt.Errorf("erasure: stripe of %d bytes: want 1 to %d", len(data), chunk.MaxStripe)
	}
	cells := make([][]byte, code.Shards())
	if code.K == 1 {
		for i := range cells {
			cells[i] = data
		}
		return &Shards{Cells: cells}, nil
	}

	cell, k := code.Cell(len(data)), int(code.K)
	whole := len(data) / cell // cells that need no padding
	buf := c.Buffer((code.Shards() - whole) * cell)
	for i := range cells {
		if i < whole {
			cells[i] = data[i*cell : (i+1)*cell : (i+1)*cell]
			continue
		}
		cells[i] = buf[(i-whole)*cell:][:cell:cell]
		if i < k { // the end of the data, if any, and zeros
			n := copy(cells[i], data[min(i*cell, len(data)):])
			clear(cells[i][n:])
		}
	}
	enc, err := c.encoder(code)
	if err == nil {
		err = enc.Encode(cells)
	}
	if err != nil {
		c.Free(buf)
		return nil, fmt.Errorf("erasure: encode %v: %w", code, err)
	}
	return &Shards{Cells: cells, owner: c, buf: buf}, nil
}

// Reconstruct fills dst[i], where it is not nil, with shard i, or with the
// range of shard i that have holds of the others. have[i] is nil where shard i
// is missing; what is there must be of the same length everywhere, also in dst.
// Both have k+m elements. ErrTooFew if have holds fewer than k.
func (c *Coder) Reconstruct(code chunk.Code, have, dst [][]byte) error {
	if err := Check(code); err != nil {
		return err
	}
	size, err := sizes(code, have, dst)
	if err != nil || size == 0 {
		return err
	}
	if code.K == 1 {
		for _, from := range have {
			if from == nil {
				continue
			}
			for _, to := range dst {
				copy(to, from)
			}
			return nil
		}
	}

	shards := make([][]byte, code.Shards())
	required := make([]bool, code.Shards())
	work := false
	for i := range shards {
		switch {
		case have[i] != nil:
			shards[i] = have[i]
			copy(dst[i], have[i])
		case dst[i] != nil:
			shards[i] = dst[i][:0:size] // empty means missing; the capacity says where to
			required[i], work = true, true
		}
	}
	if !work {
		return nil
	}
	enc, err := c.encoder(code)
	if err == nil {
		err = enc.ReconstructSome(shards, required)
	}
	if err != nil {
		return fmt.Errorf("erasure: reconstruct %v: %w", code, err)
	}
	return nil
}

// sizes checks the arguments of Reconstruct and returns the common length.
func sizes(code chunk.Code, have, dst [][]byte) (int, error) {
	if len(have) != code.Shards() || len(dst) != code.Shards() {
		return 0, fmt.Errorf("erasure: %d and %d shards for code %v", len(have), len(dst), code)
	}
	size, count := -1, 0
	for _, list := range [2][][]byte{have, dst} {
		for i, b := range list {
			switch {
			case b == nil:
				continue
			case size < 0:
				size = len(b)
			case size != len(b):
				return 0, fmt.Errorf("erasure: shard %d has %d bytes, others %d", i, len(b), size)
			}
		}
	}
	for _, b := range have {
		if b != nil {
			count++
		}
	}
	if count < int(code.K) {
		return 0, fmt.Errorf("erasure: %d of %v: %w", count, code, chunk.ErrTooFew)
	}
	return size, nil
}

func (c *Coder) encoder(code chunk.Code) (reedsolomon.Encoder, error) {
	c.mu.RLock()
	enc := c.encoders[code]
	c.mu.RUnlock()
	if enc != nil {
		return enc, nil
	}
	// One goroutine: the library's own halve the rate, and callers are many.
	enc, err := reedsolomon.New(int(code.K), int(code.M),
		reedsolomon.WithMaxGoroutines(1),
		reedsolomon.WithInversionCache(code.Shards() <= matrixCacheMax))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.encoders == nil {
		c.encoders = make(map[chunk.Code]reedsolomon.Encoder)
	}
	if old := c.encoders[code]; old != nil {
		return old, nil
	}
	c.encoders[code] = enc
	return enc, nil
}
