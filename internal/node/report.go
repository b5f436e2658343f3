package node

import (
	"sync"

	"dos/internal/admin"
)

// A sum is the report of several who work at once, as one report.
type sum struct {
	to admin.Report

	mu    sync.Mutex // held while to is told
	parts []*progress
}

type progress struct{ done, of int64 }

func newSum(to admin.Report) *sum { return &sum{to: to} }

// part is the report of one of them, whose lines begin with prefix.
func (s *sum) part(prefix string) admin.Report {
	own := new(progress)
	s.mu.Lock()
	s.parts = append(s.parts, own)
	s.mu.Unlock()
	return admin.Report{
		Say: func(line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.to.Say(prefix + line)
		},
		At: func(done, of int64) {
			s.mu.Lock()
			defer s.mu.Unlock()
			*own = progress{done, of}
			var all progress
			for _, p := range s.parts {
				all.done += p.done
				all.of += p.of
			}
			s.to.At(all.done, all.of)
		},
	}
}
