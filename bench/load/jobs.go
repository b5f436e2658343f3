package load

import (
	"context"
	"slices"
	"time"
)

// A Scheduler runs jobs.
type Scheduler interface {
	Submit(ctx context.Context) error // a job that does nothing; by many at once
	Settle(ctx context.Context) error // returns when all jobs have ended well
	// Start submits a job when nothing else runs, and says when its program began.
	Start(ctx context.Context) (time.Time, error)
}

// Submissions has clients submit n jobs in all, and says how many a second.
func Submissions(ctx context.Context, s Scheduler, clients, n int) (float64, error) {
	n = max(1, n/clients) * clients
	began := time.Now()
	err := Parallel(ctx, clients, func(ctx context.Context, _ int) error {
		for range n / clients {
			if err := s.Submit(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(n) / time.Since(began).Seconds(), err
}

// Jobs has clients submit n jobs in all, and says how many a second ended, from the first
// submission to the last end.
func Jobs(ctx context.Context, s Scheduler, clients, n int) (float64, error) {
	began := time.Now()
	if _, err := Submissions(ctx, s, clients, n); err != nil {
		return 0, err
	}
	err := s.Settle(ctx)
	return float64(n/clients*clients) / time.Since(began).Seconds(), err
}

// Starts is how long it takes from a submission to the start, with free resources: the median.
func Starts(ctx context.Context, s Scheduler, times int) (time.Duration, error) {
	var all []time.Duration
	for range times {
		began := time.Now()
		at, err := s.Start(ctx)
		if err != nil {
			return 0, err
		}
		all = append(all, at.Sub(began))
		if err := s.Settle(ctx); err != nil {
			return 0, err
		}
	}
	slices.Sort(all)
	return all[times/2], nil
}
