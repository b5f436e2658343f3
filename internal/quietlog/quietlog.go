// Package quietlog keeps a log readable while something goes wrong a thousand
// times a second: it is a slog.Handler that passes on a few records of each
// message, then one a second, which says how many others there were. It tells
// messages apart by their text alone, which callers therefore keep constant.
package quietlog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// burst is how many records of one message may come at once.
	burst = 5
	// every is the time between records of one message after that.
	every = time.Second
)

// New returns a handler that passes on to next. Records below slog.LevelInfo
// are for whoever looks for something, and all pass.
func New(next slog.Handler) slog.Handler {
	return handler{next, &state{buckets: make(map[string]*bucket)}}
}

type handler struct {
	next  slog.Handler
	state *state
}

type state struct {
	mu      sync.Mutex
	buckets map[string]*bucket // by message; guarded by mu
}

// A bucket holds the records of one message that may pass now.
type bucket struct {
	tokens float64
	filled time.Time
	left   int // out, since the last that passed
}

func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.next.WithAttrs(attrs), h.state}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.next.WithGroup(name), h.state}
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		similar, ok := h.state.take(r.Message, r.Time)
		if !ok {
			return nil
		}
		if similar > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("similar", similar))
		}
	}
	return h.next.Handle(ctx, r)
}

// take reports whether a record may pass, and how many did not since the last.
func (s *state) take(message string, now time.Time) (similar int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[message]
	if b == nil {
		b = &bucket{tokens: burst, filled: now}
		s.buckets[message] = b
	}
	if gone := now.Sub(b.filled); gone > 0 {
		b.tokens = min(burst, b.tokens+gone.Seconds()/every.Seconds())
		b.filled = now
	}
	if b.tokens < 1 {
		b.left++
		return 0, false
	}
	b.tokens--
	similar, b.left = b.left, 0
	return similar, true
}
