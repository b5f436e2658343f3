// Program library does with go-redis and redsync what programs written for Redis do:
// locks that are taken, extended and given back, a queue with workers, a reliable queue,
// pipelines, transactions, scans and a channel. Its argument is the address; it prints ok.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r := redis.NewClient(&redis.Options{Addr: os.Args[1], ReadTimeout: time.Minute})
	defer r.Close()
	for name, do := range map[string]func(context.Context, *redis.Client) error{
		"locks": locks, "a queue": queue, "a reliable queue": reliable, "a cache": cache,
		"transactions": transactions, "a scan": scan, "a channel": channel,
	} {
		if err := do(ctx, r); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
	}
	fmt.Println("ok")
}

// locks counts under a lock, without one no number is another's.
func locks(ctx context.Context, r *redis.Client) error {
	rs := redsync.New(goredis.NewPool(r))
	const workers, rounds = 4, 5
	errs := make([]error, workers)
	var work sync.WaitGroup
	for w := range workers {
		work.Go(func() {
			for range rounds {
				m := rs.NewMutex("go-turn", redsync.WithExpiry(20*time.Second), redsync.WithTries(10_000), redsync.WithRetryDelay(5*time.Millisecond))
				if errs[w] = m.LockContext(ctx); errs[w] != nil {
					return
				}
				n, err := r.Get(ctx, "go-count").Int()
				if errors.Is(err, redis.Nil) {
					err = nil
				}
				if err == nil {
					var is bool
					if is, err = m.ExtendContext(ctx); err == nil && !is {
						err = errors.New("it is not extended")
					}
				}
				if err == nil {
					err = r.Set(ctx, "go-count", n+1, 0).Err()
				}
				is, e := m.UnlockContext(ctx)
				if err = errors.Join(err, e); err == nil && !is {
					err = errors.New("it is another's")
				}
				if errs[w] = err; err != nil {
					return
				}
			}
		})
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if n, err := r.Get(ctx, "go-count").Int(); err != nil || n != workers*rounds {
		return fmt.Errorf("%d were counted, not %d: %w", n, workers*rounds, err)
	}
	mine := rs.NewMutex("go-mine", redsync.WithTries(1))
	if err := mine.LockContext(ctx); err != nil {
		return err
	}
	if err := rs.NewMutex("go-mine", redsync.WithTries(1)).LockContext(ctx); err == nil {
		return errors.New("two have it")
	}
	return nil
}

// queue has workers take jobs until there is none for them any more.
func queue(ctx context.Context, r *redis.Client) error {
	const workers, jobs = 3, 40
	done := make(chan string, jobs)
	errs := make([]error, workers)
	var work sync.WaitGroup
	for w := range workers {
		work.Go(func() {
			for {
				job, err := r.BRPop(ctx, time.Minute, "go-jobs").Result()
				if err != nil {
					errs[w] = err
					return
				}
				if job[1] == "stop" {
					return
				}
				done <- job[1]
			}
		})
	}
	p := r.TxPipeline()
	for n := range jobs {
		p.LPush(ctx, "go-jobs", fmt.Sprint(n))
	}
	if _, err := p.Exec(ctx); err != nil {
		return err
	}
	if err := r.LPush(ctx, "go-jobs", "stop", "stop", "stop").Err(); err != nil {
		return err
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	close(done)
	got := make(map[string]bool)
	for job := range done {
		got[job] = true
	}
	if len(got) != jobs {
		return fmt.Errorf("%d of %d jobs were done", len(got), jobs)
	}
	return nil
}

// reliable keeps a job among those under way until it is done.
func reliable(ctx context.Context, r *redis.Client) error {
	if err := r.LPush(ctx, "go-todo", "a", "b", "c").Err(); err != nil {
		return err
	}
	for range 2 {
		job, err := r.BLMove(ctx, "go-todo", "go-doing", "RIGHT", "LEFT", time.Second).Result()
		if err != nil {
			return err
		}
		if job == "a" {
			if n, err := r.LRem(ctx, "go-doing", 1, job).Result(); err != nil || n != 1 {
				return fmt.Errorf("%d were removed: %w", n, err)
			}
		}
	}
	doing, err := r.LRange(ctx, "go-doing", 0, -1).Result()
	if err != nil || !slices.Equal(doing, []string{"b"}) {
		return fmt.Errorf("%q are under way: %w", doing, err)
	}
	if job, err := r.Do(ctx, "RPOPLPUSH", "go-doing", "go-todo").Text(); err != nil || job != "b" { // its worker died
		return fmt.Errorf("%q goes back: %w", job, err)
	}
	if n, err := r.LLen(ctx, "go-todo").Result(); err != nil || n != 2 {
		return fmt.Errorf("%d are to be done: %w", n, err)
	}
	if _, err := r.BRPop(ctx, time.Second, "go-none").Result(); !errors.Is(err, redis.Nil) {
		return fmt.Errorf("of an empty list: %w", err)
	}
	return nil
}

// cache is a page and a limit of visits in database 1.
func cache(ctx context.Context, r *redis.Client) error {
	r = redis.NewClient(&redis.Options{Addr: r.Options().Addr, DB: 1})
	defer r.Close()
	if err := r.Set(ctx, "go-page", "text", time.Minute).Err(); err != nil {
		return err
	}
	if text, err := r.Get(ctx, "go-page").Result(); err != nil || text != "text" {
		return fmt.Errorf("%q: %w", text, err)
	}
	if _, err := r.Get(ctx, "go-none").Result(); !errors.Is(err, redis.Nil) {
		return fmt.Errorf("of what is not there: %w", err)
	}
	var n *redis.IntCmd
	if _, err := r.TxPipelined(ctx, func(p redis.Pipeliner) error {
		n = p.Incr(ctx, "go-visits")
		p.Expire(ctx, "go-visits", time.Minute)
		return nil
	}); err != nil || n.Val() != 1 {
		return fmt.Errorf("visit %d: %w", n.Val(), err)
	}
	return nil
}

// transactions adds by reading and writing what nobody changed in between.
func transactions(ctx context.Context, r *redis.Client) error {
	add := func(tx *redis.Tx) error {
		n, err := tx.Get(ctx, "go-sum").Int()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, "go-sum", n+1, 0)
			return nil
		})
		return err
	}
	const workers, rounds = 3, 5
	errs := make([]error, workers)
	var work sync.WaitGroup
	for w := range workers {
		work.Go(func() {
			for n := 0; n < rounds; {
				err := r.Watch(ctx, add, "go-sum")
				switch {
				case err == nil:
					n++
				case !errors.Is(err, redis.TxFailedErr):
					errs[w] = err
					return
				}
			}
		})
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if n, err := r.Get(ctx, "go-sum").Int(); err != nil || n != workers*rounds {
		return fmt.Errorf("the sum is %d, not %d: %w", n, workers*rounds, err)
	}
	return nil
}

func scan(ctx context.Context, r *redis.Client) error {
	const keys = 250
	p := r.Pipeline()
	for n := range keys {
		p.Set(ctx, fmt.Sprintf("go-scan:%d", n), n, 0)
	}
	if _, err := p.Exec(ctx); err != nil {
		return err
	}
	got := make(map[string]bool)
	it := r.Scan(ctx, 0, "go-scan:*", 20).Iterator()
	for it.Next(ctx) {
		got[it.Val()] = true
	}
	if it.Err() != nil || len(got) != keys {
		return fmt.Errorf("%d of %d keys are there: %w", len(got), keys, it.Err())
	}
	return nil
}

func channel(ctx context.Context, r *redis.Client) error {
	s := r.Subscribe(ctx, "go-news")
	defer s.Close()
	if _, err := s.Receive(ctx); err != nil { // it is subscribed
		return err
	}
	if n, err := r.Publish(ctx, "go-news", "hello").Result(); err != nil || n != 1 {
		return fmt.Errorf("%d have it: %w", n, err)
	}
	m, err := s.ReceiveMessage(ctx)
	if err != nil || m.Payload != "hello" {
		return fmt.Errorf("%v: %w", m, err)
	}
	return nil
}
