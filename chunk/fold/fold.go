// Package fold rewrites files whose bytes lie badly: runs of small stripes and
// inline pieces become full stripes, stripes that are mostly dead give way to
// what still lives of them, and stripes that were written while stores were
// away get the code that is wanted. The bytes stay the same. It sees files
// through an interface of its own and knows nothing of names, sessions or
// attributes.
//
// A file is folded in windows of one stripe's size, aligned to it, so memory is
// bounded and a file that is folded stays so until it is written again.
package fold

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"dos/chunk"
)

// The errors of Files that a Folder acts on: test with errors.Is.
var (
	// ErrConflict says that the file has changed since its layout was read.
	ErrConflict = errors.New("fold: the file has changed")
	// ErrGone says that the file does not exist any more.
	ErrGone = errors.New("fold: the file is gone")
)

// A Candidate is a file that may need folding.
type Candidate struct {
	File  uint64
	Since time.Time // when it was last changed
}

// An Extent says where Len bytes of a file from offset Off lie: in a stripe
// from offset At, or, when Stripe is zero, inline.
type Extent struct {
	Off    int64
	Len    int64
	Stripe chunk.StripeID
	At     uint32
	Inline []byte // Len bytes
}

func (e Extent) end() int64 { return e.Off + e.Len }

// A Layout says where a range of a file lies, at one version of the file.
type Layout struct {
	Version uint64
	Size    int64          // of the file
	Extents []Extent       // in order; those that touch the range
	Stripes []chunk.Stripe // each stripe that they name, once
	End     int64          // how far the answer reaches
}

// Files is what folding needs of the metadata service.
type Files interface {
	// Candidates lists files that may need folding with numbers after the one
	// given, in order, at most limit. Fewer than limit means that there are no others.
	Candidates(ctx context.Context, after uint64, limit int) ([]Candidate, error)
	// Layout says where a range of a file lies: from off, and as far as it
	// can, at most size bytes.
	Layout(ctx context.Context, file uint64, off, size int64) (Layout, error)
	// Swap replaces what the file has in the ranges of the extents, which hold
	// the same bytes, if it is still at that version, else ErrConflict.
	// stripes are the new ones; at most 4096 extents may be replaced. done says that the file needs no more folding;
	// low is the low-water mark of the data path.
	Swap(ctx context.Context, file, version uint64, extents []Extent, stripes []chunk.Stripe, done bool, low chunk.StripeID) error
}

// Data is what folding needs of the data path (chunk/stripe).
type Data interface {
	Begin(ctx context.Context) (chunk.StripeID, error)
	End(id chunk.StripeID)
	Low() chunk.StripeID
	Write(ctx context.Context, id chunk.StripeID, data []byte) (chunk.Stripe, error)
	Read(ctx context.Context, s chunk.Stripe, p []byte, off int64) error
	// Discard deletes a stripe that no command names or ever will.
	Discard(ctx context.Context, s chunk.Stripe)
	// Best is the code that a stripe of n bytes would get now; K = 0 when it
	// could not be written.
	Best(n int) chunk.Code
}

// The defaults of Config.
const (
	DefaultSettle = 10 * time.Second
	DefaultEvery  = 5 * time.Second
	DefaultRate   = 32 << 20
)

const (
	// listMax is how many candidates are asked for at once.
	listMax = 256
	// callMax bounds one call of Files.
	callMax = 30 * time.Second
)

// Config says how to fold. Zero values mean the defaults named.
type Config struct {
	Files Files // required
	Data  Data  // required

	Settle time.Duration // a file that changed within it is left alone; DefaultSettle
	Every  time.Duration // between looks for candidates; DefaultEvery
	Rate   int64         // bytes rewritten in a second at most; DefaultRate
}

// A Folder folds files. Its methods may be called concurrently, but one Run or
// Once at a time does the work.
type Folder struct {
	config Config
	turn   chan struct{} // one token: whoever folds

	buf  []byte    // one window; whoever has the turn
	next time.Time // when the next bytes may be written; whoever has the turn

	mu     sync.Mutex
	status Status // guarded by mu
}

// A Status counts since the start.
type Status struct {
	Candidates int64 // seen in the last round
	Files      int64 // folded to the end
	Windows    int64 // rewritten
	Bytes      int64 // in them
	Conflicts  int64 // files that changed meanwhile
	Errors     int64 // files left for later because of an error
	LastError  string
	Running    bool
}

// New returns a Folder.
func New(c Config) (*Folder, error) {
	if c.Files == nil || c.Data == nil {
		return nil, errors.New("fold: Files and Data are required")
	}
	if c.Settle == 0 {
		c.Settle = DefaultSettle
	}
	if c.Every == 0 {
		c.Every = DefaultEvery
	}
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	return &Folder{config: c, turn: make(chan struct{}, 1)}, nil
}

// Status returns the counts.
func (f *Folder) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// Run folds until ctx ends.
func (f *Folder) Run(ctx context.Context) error {
	tick := time.NewTicker(f.config.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f.Once(ctx); err != nil && ctx.Err() == nil {
			slog.Warn("fold: candidates cannot be listed", "err", err)
		}
	}
}

// Once goes through all candidates. The error says why they could not be
// listed; what goes wrong with a file is counted, and the file left for later.
func (f *Folder) Once(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f.note(func(s *Status) { s.Running = true })
	seen := int64(0)
	defer func() { f.note(func(s *Status) { s.Running, s.Candidates = false, seen }) }()
	after := uint64(0)
	for {
		list, err := f.candidates(ctx, after)
		if err != nil {
			return err
		}
		for _, c := range list {
			if c.File <= after {
				return fmt.Errorf("fold: candidate %d follows %d", c.File, after)
			}
			after = c.File
			seen++
			if time.Since(c.Since) < f.config.Settle {
				continue
			}
			f.one(ctx, c.File)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if len(list) < listMax {
			return nil
		}
	}
}

// one folds a file and counts what came of it.
func (f *Folder) one(ctx context.Context, file uint64) {
	switch done, err := f.file(ctx, file); {
	case done:
		f.note(func(s *Status) { s.Files++ })
	case ctx.Err() != nil, errors.Is(err, ErrGone):
	case err == nil, errors.Is(err, ErrConflict):
		f.note(func(s *Status) { s.Conflicts++ })
	default:
		f.note(func(s *Status) { s.Errors, s.LastError = s.Errors+1, fmt.Sprintf("file %d: %v", file, err) })
	}
}

func (f *Folder) note(change func(*Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
}

func (f *Folder) candidates(ctx context.Context, after uint64) ([]Candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	return f.config.Files.Candidates(ctx, after, listMax)
}

func (f *Folder) layout(ctx context.Context, file uint64, off, size int64) (Layout, error) {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	return f.config.Files.Layout(ctx, file, off, size)
}

func (f *Folder) swap(ctx context.Context, file, version uint64, extents []Extent, stripes []chunk.Stripe, done bool) error {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	return f.config.Files.Swap(ctx, file, version, extents, stripes, done, f.config.Data.Low())
}
