package agent

import (
	"context"
	"errors"
	"sync"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/task"
)

// A reporter sends reports in order. Those that gather while one command is on its way
// are the next.
type reporter struct {
	tasks client.Tasks

	mu    sync.Mutex
	queue []pending // guarded by mu
	over  error     // why nothing is sent any more; guarded by mu
	wake  chan struct{}
}

type pending struct {
	report task.Report
	heard  func(error)
}

func newReporter(t client.Tasks) *reporter {
	return &reporter{tasks: t, wake: make(chan struct{}, 1)}
}

// send has a report sent, and heard called with its outcome, from another goroutine.
func (r *reporter) send(one task.Report, heard func(error)) {
	r.mu.Lock()
	over := r.over
	if over == nil {
		r.queue = append(r.queue, pending{one, heard})
	}
	r.mu.Unlock()
	if over != nil {
		heard(over)
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// say sends a report and returns its outcome.
func (r *reporter) say(ctx context.Context, one task.Report) error {
	done := make(chan error, 1)
	r.send(one, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run sends until ctx ends or the session does.
func (r *reporter) run(ctx context.Context) (err error) {
	defer func() {
		r.mu.Lock()
		rest := r.queue
		r.queue, r.over = nil, err
		if r.over == nil {
			r.over = context.Canceled
		}
		over := r.over
		r.mu.Unlock()
		for _, p := range rest {
			p.heard(over)
		}
	}()
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return nil
		}
		for {
			r.mu.Lock()
			n := min(len(r.queue), task.ReportMax)
			part := r.queue[:n:n]
			r.queue = r.queue[n:]
			r.mu.Unlock()
			if n == 0 {
				break
			}
			if err := r.pass(ctx, part); err != nil {
				return err
			}
		}
	}
}

// pass sends one command's reports until they are heard.
func (r *reporter) pass(ctx context.Context, part []pending) error {
	list := make([]task.Report, len(part))
	for i, p := range part {
		list[i] = p.report
	}
	var each []error
	err := insist(ctx, func() (err error) {
		each, err = r.tasks.Report(ctx, list...)
		return err
	})
	for i, p := range part {
		if err != nil {
			p.heard(err)
		} else {
			p.heard(each[i])
		}
	}
	if ctx.Err() != nil || errors.Is(err, meta.Expired) {
		return err
	}
	return nil // what could not be said for another reason fails its attempts
}
