package fuse

import "sync"

// A handles table gives what is open a number for the kernel to name it by.
// Numbers begin at 1 and are not used again.
type handles[T any] struct {
	mu   sync.RWMutex
	last uint64       // guarded by mu
	open map[uint64]T // guarded by mu
}

func (h *handles[T]) add(v T) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = make(map[uint64]T)
	}
	h.last++
	h.open[h.last] = v
	return h.last
}

func (h *handles[T]) get(fh uint64) (T, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	v, ok := h.open[fh]
	return v, ok
}

// take removes what get would return.
func (h *handles[T]) take(fh uint64) (T, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.open[fh]
	delete(h.open, fh)
	return v, ok
}

// drain removes everything and returns it.
func (h *handles[T]) drain() []T {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]T, 0, len(h.open))
	for _, v := range h.open {
		all = append(all, v)
	}
	h.open = nil
	return all
}
