package load

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestParallelStopsAtFailure(t *testing.T) {
	failure := errors.New("one failed")
	err := Parallel(t.Context(), 3, func(ctx context.Context, i int) error {
		if i == 1 {
			return failure
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, failure) {
		t.Errorf("got %v, want %v", err, failure)
	}
}

// A shelf is a cache that has a wrong value under one key.
type shelf struct{ wrong string }

func (s shelf) Fetch(_ context.Context, key string) ([]byte, error) {
	for i := range Entries {
		if k, value := Entry(i); k == key {
			if key == s.wrong {
				_, value = Entry(i + 1)
			}
			return value, nil
		}
	}
	return nil, errors.New("no such entry")
}

func TestFetch(t *testing.T) {
	if rate, err := Fetch(t.Context(), []Fetcher{shelf{}, shelf{}}, 50*time.Millisecond); err != nil || rate <= 0 {
		t.Errorf("%v, %v", rate, err)
	}
	wrong, _ := Entry(0)
	if _, err := Fetch(t.Context(), []Fetcher{shelf{wrong}}, 50*time.Millisecond); err == nil {
		t.Error("the value of another key passes")
	}
}

// A pipe is a queue; every lose-th message that comes is lost, every double-th twice there.
type pipe struct {
	messages     chan []byte
	lose, double int
	came         *atomic.Int64
}

func (p pipe) Push(_ context.Context, m []byte) error {
	n := int(p.came.Add(1))
	if p.lose > 0 && n%p.lose == 0 {
		return nil
	}
	p.messages <- bytes.Clone(m)
	if p.double > 0 && n%p.double == 0 {
		p.messages <- bytes.Clone(m)
	}
	return nil
}

func (p pipe) Pop(ctx context.Context) ([][]byte, error) {
	select {
	case m := <-p.messages:
		return [][]byte{m}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (pipe) Close() error { return nil }

func TestPass(t *testing.T) {
	for _, c := range []struct {
		name         string
		lose, double int
		fails        bool
	}{{"sound", 0, 0, false}, {"loses", 7, 0, true}, {"doubles", 0, 7, true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pipe{make(chan []byte, 100), c.lose, c.double, new(atomic.Int64)}
				slow := slowly{p}
				rate, err := Pass(t.Context(), []Producer{slow, slow}, []Consumer{p, p, p}, time.Second)
				if (err != nil) != c.fails || err == nil && (rate < 1900 || rate > 2100) {
					t.Errorf("%.0f messages a second, of 2000; %v", rate, err)
				}
			})
		})
	}
}

// slowly pushes a message in a millisecond.
type slowly struct{ pipe }

func (s slowly) Push(ctx context.Context, m []byte) error {
	time.Sleep(time.Millisecond)
	return s.pipe.Push(ctx, m)
}

// A late value is seen some time after it was put, and, if wrong, as another.
type late struct {
	values chan string
	wrong  bool
}

func (l late) Put(_ context.Context, value []byte) error {
	time.Sleep(2 * time.Millisecond)
	l.values <- string(value)
	return nil
}

func (l late) Next(context.Context) ([]byte, error) {
	value := <-l.values
	time.Sleep(3 * time.Millisecond)
	if l.wrong {
		value += "!"
	}
	return []byte(value), nil
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := Watch(t.Context(), late{make(chan string, 1), false}, 10)
		if want := (Delay{2 * time.Millisecond, 5 * time.Millisecond}); err != nil || d != want {
			t.Errorf("got %v, %v, want %v", d, err, want)
		}
		if _, err := Watch(t.Context(), late{make(chan string, 1), true}, 10); err == nil {
			t.Error("a wrong value is taken for the right one")
		}
	})
}

// Whoever has the lock is slow to give it up, and each is counted.
type mutex struct{ turn chan struct{} }

func (m mutex) Lock(context.Context) error { m.turn <- struct{}{}; return nil }
func (m mutex) Unlock(context.Context) error {
	time.Sleep(time.Millisecond)
	<-m.turn
	return nil
}

func TestContend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mutex{make(chan struct{}, 1)}
		got, err := Contend(t.Context(), []Locker{m, m, m, m}, time.Second)
		if err != nil || got.Rate < 900 || got.Rate > 1100 || got.Share < 0.9 {
			t.Errorf("got %+v, %v, want 1000 a second and equal shares", got, err)
		}
	})
}
