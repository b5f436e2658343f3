package procfs

import (
	"io"
	"sync"
)

// A cursor is a text that is read once, from its beginning to its end, whatever
// the offset: what the reads of a Streamer give that do not wait.
type cursor struct {
	mu   sync.Mutex
	rest string // guarded by mu
}

func (c *cursor) read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rest == "" && len(p) > 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// add puts more at the end, as long as no more than limit bytes wait to be read.
func (c *cursor) add(text string, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.rest)+len(text) > limit {
		return false
	}
	c.rest += text
	return true
}
