// Package load has the workloads by which services are compared, as functions of
// what a client of any of them can do. It knows no service.
package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Locker is one client of one lock, which all the Lockers of a workload share.
type Locker interface {
	Lock(ctx context.Context) error
	Unlock(ctx context.Context) error
}

// A Contest says how contenders for one lock did.
type Contest struct {
	Rate float64 // of lock and unlock together, a second, of all contenders
	// Share is the slowest contender's count, as a part of the fastest one's.
	Share float64
}

// firstLimit bounds how long a contender may wait for its first turn.
const firstLimit = 30 * time.Second

// Contend has each Locker lock and unlock again and again for a while, which begins
// when each has had the lock once. It fails if two have the lock at once.
func Contend(ctx context.Context, lockers []Locker, during time.Duration) (Contest, error) {
	counts := make([]int64, len(lockers))
	var inside, had atomic.Int32
	var began atomic.Pointer[time.Time]
	start := time.Now()
	err := Parallel(ctx, len(lockers), func(ctx context.Context, i int) error {
		for turn := 0; ; turn++ {
			since := began.Load()
			switch {
			case since != nil && time.Since(*since) >= during:
				return nil
			case since == nil && time.Since(start) > firstLimit:
				return fmt.Errorf("of %d contenders %d had the lock in %v", len(lockers), had.Load(), firstLimit)
			}
			if err := lockers[i].Lock(ctx); err != nil {
				return err
			}
			if n := inside.Add(1); n != 1 {
				return fmt.Errorf("%d contenders have the lock", n)
			}
			inside.Add(-1)
			if err := lockers[i].Unlock(ctx); err != nil {
				return err
			}
			if since != nil {
				counts[i]++
			} else if turn == 0 && had.Add(1) == int32(len(lockers)) {
				now := time.Now()
				began.Store(&now)
			}
		}
	})
	if err != nil {
		return Contest{}, err
	}
	took := time.Since(*began.Load())
	sum := int64(0)
	for _, n := range counts {
		sum += n
	}
	out := Contest{Rate: float64(sum) / took.Seconds()}
	if most := slices.Max(counts); most > 0 {
		out.Share = float64(slices.Min(counts)) / float64(most)
	}
	return out, nil
}

// A Producer sends messages to the queue of a workload. Push returns when the message
// is as safe as the queue promises.
type Producer interface {
	Push(ctx context.Context, message []byte) error
}

// A Consumer takes messages from it. Pop waits for some and returns them; what it
// returns lives until it is called again.
type Consumer interface {
	Pop(ctx context.Context) ([][]byte, error)
	// Close gives back what Pop has and did not return.
	Close() error
}

// MessageSize is the size of each message, in bytes.
const MessageSize = 128

// letters write a number into a message that is a line of text.
const letters = "0123456789abcdef"

// message fills a message: who sent it and its number. The sender 255 is the end.
func message(m []byte, sender byte, number uint64) {
	var raw [9]byte
	raw[0] = sender
	binary.BigEndian.PutUint64(raw[1:], number)
	for i, b := range raw {
		m[2*i], m[2*i+1] = letters[b>>4], letters[b&15]
	}
	for i := 2 * len(raw); i < len(m); i++ {
		m[i] = '.'
	}
}

func read(m []byte) (sender byte, number uint64, err error) {
	if len(m) != MessageSize {
		return 0, 0, fmt.Errorf("a message of %d bytes: %q", len(m), m)
	}
	var raw [9]byte
	for i := range raw {
		high, low := digit(m[2*i]), digit(m[2*i+1])
		if high < 0 || low < 0 {
			return 0, 0, fmt.Errorf("a message that nobody sent: %q", m)
		}
		raw[i] = byte(high<<4 | low)
	}
	return raw[0], binary.BigEndian.Uint64(raw[1:]), nil
}

func digit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// endMark is the sender of what tells a consumer to stop.
const endMark = 255

// Pass has the producers send for a while, each one message after the other, and the
// consumers take all of that, and returns how many messages a second went through. It
// fails if a message is lost or comes twice.
func Pass(ctx context.Context, producers []Producer, consumers []Consumer, during time.Duration) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &work{came: make(chan struct{}, 1)}
	sent := make([]uint64, len(producers))
	got := make([]tally, len(consumers))
	ended := make(chan struct{}, len(consumers))
	for i, c := range consumers {
		go func() { // it is waited for by ended
			if err := w.take(ctx, c, &got[i]); err != nil {
				cancel(fmt.Errorf("consumer %d: %w", i, err))
			}
			ended <- struct{}{}
		}()
	}
	began := time.Now()
	err := Parallel(ctx, len(producers), func(ctx context.Context, i int) error {
		m := make([]byte, MessageSize)
		for time.Since(began) < during {
			message(m, byte(i), sent[i])
			if err := producers[i].Push(ctx, m); err != nil {
				return fmt.Errorf("producer %d: %w", i, err)
			}
			sent[i]++
		}
		return nil
	})
	if err == nil {
		err = w.await(ctx, sent)
	}
	if err != nil {
		cancel(err)
		return 0, err
	}
	// All that was sent has come, so these come alone, and who has several of them
	// gives the rest back.
	m := make([]byte, MessageSize)
	message(m, endMark, 0)
	for range consumers {
		if err := producers[0].Push(ctx, m); err != nil {
			return 0, errors.Join(context.Cause(ctx), err)
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	return check(sent, got, began)
}

// drainLimit bounds how long what was sent is waited for.
const drainLimit = time.Minute

// A work is what the consumers have in common.
type work struct {
	count atomic.Uint64
	came  chan struct{} // of one: the count has changed
}

// await returns when as many messages came as were sent.
func (w *work) await(ctx context.Context, sent []uint64) error {
	total := uint64(0)
	for _, n := range sent {
		total += n
	}
	late := time.NewTimer(drainLimit)
	defer late.Stop()
	for w.count.Load() < total {
		select {
		case <-w.came:
		case <-late.C:
			return fmt.Errorf("of %d messages %d came in %v", total, w.count.Load(), drainLimit)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// take counts what a consumer gets until the end.
func (w *work) take(ctx context.Context, c Consumer, t *tally) error {
	for {
		list, err := c.Pop(ctx)
		if err != nil {
			return errors.Join(err, c.Close())
		}
		for _, m := range list {
			sender, number, err := read(m)
			if err != nil || sender == endMark {
				return errors.Join(err, c.Close())
			}
			t.count[sender]++
			t.sum[sender] += number
		}
		t.last = time.Now()
		w.count.Add(uint64(len(list)))
		select {
		case w.came <- struct{}{}:
		default:
		}
	}
}

// check compares what was sent with what came.
func check(sent []uint64, got []tally, began time.Time) (float64, error) {
	total, last := uint64(0), began
	for i, want := range sent {
		var count, sum uint64
		for _, t := range got {
			count += t.count[i]
			sum += t.sum[i]
		}
		if count != want || sum != want*(want-1)/2 {
			return 0, fmt.Errorf("producer %d sent %d messages, and %d came", i, want, count)
		}
		total += want
	}
	for _, t := range got {
		if t.last.After(last) {
			last = t.last
		}
	}
	if total == 0 {
		return 0, errors.New("no message was sent")
	}
	return float64(total) / last.Sub(began).Seconds(), nil
}

// A tally is what one consumer got, by producer.
type tally struct {
	count, sum [endMark]uint64
	last       time.Time // when the last message came
}

// Parallel runs n jobs and returns what failed; the first failure stops the others.
func Parallel(ctx context.Context, n int, job func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := job(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// A Service is called: the reply to a request is the request.
type Service interface {
	Call(ctx context.Context, request []byte) (reply []byte, err error)
}

// Call has n callers call a service, each again and again, and returns how many calls a
// second there were. It fails if a reply is that to another request.
func Call(ctx context.Context, s Service, n int, during time.Duration) (float64, error) {
	if _, err := s.Call(ctx, make([]byte, MessageSize)); err != nil { // it connects
		return 0, err
	}
	counts := make([]int, n)
	began := time.Now()
	err := Parallel(ctx, n, func(ctx context.Context, i int) error {
		request := make([]byte, MessageSize)
		for time.Since(began) < during {
			message(request, byte(i), uint64(counts[i]))
			reply, err := s.Call(ctx, request)
			if err != nil {
				return fmt.Errorf("caller %d: %w", i, err)
			}
			if !bytes.Equal(reply, request) {
				return fmt.Errorf("caller %d: %q is answered %q", i, request, reply)
			}
			counts[i]++
		}
		return nil
	})
	took := time.Since(began)
	sum := 0
	for _, count := range counts {
		sum += count
	}
	return float64(sum) / took.Seconds(), err
}

// A Watched is a value, with one who changes it and one who watches it. Put is called
// only when Next has returned what was put before.
type Watched interface {
	Put(ctx context.Context, value []byte) error
	Next(ctx context.Context) (value []byte, err error)
}

// A Delay says when a change was seen, at the median of many.
type Delay struct {
	Commit time.Duration // from the call of Put until it had returned
	Seen   time.Duration // from the call of Put until the watcher had the value
}

// Watch changes a value a number of times and sees when the watcher has it.
func Watch(ctx context.Context, w Watched, times int) (Delay, error) {
	commits, sights := make([]time.Duration, times), make([]time.Duration, times)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	seen := make(chan time.Time)
	go func() {
		defer close(seen)
		for i := range times {
			value, err := w.Next(ctx)
			at := time.Now()
			if want := fmt.Sprint(i); err == nil && string(value) != want {
				err = fmt.Errorf("the watcher has %q, not %q", value, want)
			}
			if err != nil {
				cancel(err)
				return
			}
			select {
			case seen <- at:
			case <-ctx.Done():
				return
			}
		}
	}()
	for i := range times {
		began := time.Now()
		if err := w.Put(ctx, []byte(fmt.Sprint(i))); err != nil {
			return Delay{}, errors.Join(context.Cause(ctx), err)
		}
		commits[i] = time.Since(began)
		select {
		case at := <-seen:
			sights[i] = at.Sub(began)
		case <-ctx.Done():
			return Delay{}, context.Cause(ctx)
		}
	}
	slices.Sort(commits)
	slices.Sort(sights)
	return Delay{Commit: commits[times/2], Seen: sights[times/2]}, nil
}
