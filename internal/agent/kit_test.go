package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dos/internal/run"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/state"
	"dos/meta/task"
)

// A service assigns what a test tells it to, and hears what is reported.
type service struct {
	mu       sync.Mutex
	cond     *sync.Cond
	version  uint64
	attempts map[uint64]*assigned // by token
	heard    []task.Report
	offers   []task.Offer
	away     error // what every call fails with
	refuse   func(task.Report) bool
}

type assigned struct {
	task.Attempt
	version uint64
}

func newService() *service {
	s := &service{attempts: make(map[uint64]*assigned)}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// Call is client.Caller's.
func (s *service) Call(ctx context.Context, op state.Op, req, resp any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return s.away
	}
	switch req := req.(type) {
	case task.Offer:
		s.offers = append(s.offers, req)
	case task.Named:
		s.offers = append(s.offers, task.Offer{Closed: "withdrawn"})
	case task.Seen:
		stop := context.AfterFunc(ctx, func() { s.mu.Lock(); defer s.mu.Unlock(); s.cond.Broadcast() })
		defer stop()
		for s.version == req.Version && ctx.Err() == nil && s.away == nil {
			s.cond.Wait()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		out := task.Orders{Version: s.version}
		for _, a := range s.attempts {
			if a.version > req.Version {
				out.Attempts = append(out.Attempts, a.Attempt)
			}
		}
		*resp.(*task.Orders) = out
	case task.Reports:
		var out task.Heard
		for _, one := range req.List {
			a := s.attempts[one.Token]
			kind := meta.Kind(0)
			if a == nil || s.refuse != nil && s.refuse(one) {
				kind = meta.Fenced
			} else {
				s.heard = append(s.heard, one)
				switch one.What {
				case task.Claim:
					a.Claimed = true
				case task.Obeyed:
					a.Orders = slices.DeleteFunc(a.Orders, func(o task.Order) bool { return o.Seq <= one.Order })
				case task.Ended, task.Decline:
					delete(s.attempts, one.Token)
				}
			}
			out.Kinds = append(out.Kinds, kind)
		}
		*resp.(*task.Heard) = out
	default:
		return fmt.Errorf("op %x: %w", op, meta.Invalid)
	}
	s.cond.Broadcast()
	return nil
}

// change changes an attempt, and tells the agent.
func (s *service) change(token uint64, do func(a *task.Attempt)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	a := s.attempts[token]
	if a == nil {
		a = new(assigned)
		s.attempts[token] = a
	}
	do(&a.Attempt)
	a.version = s.version
	s.cond.Broadcast()
}

// of returns what was reported of an attempt, its usage so far aside.
func (s *service) of(token uint64) (list []task.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.heard {
		if r.Token == token && r.What != task.Used {
			list = append(list, r)
		}
	}
	return list
}

func (s *service) set(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	s.cond.Broadcast()
}

// A site is a machine with an agent.
type site struct {
	*testing.T
	service *service
	agent   *Agent
	mount   string
	gone    atomic.Bool  // the mount
	left    atomic.Int64 // time.Duration
	stop    func() error // ends the agent, and returns what Run did
	token   uint64
}

func newSite(t *testing.T, change ...func(*Config)) *site {
	t.Helper()
	s := &site{T: t, service: newService(), mount: t.TempDir()}
	s.left.Store(int64(time.Hour))
	host, err := run.Open(t.Context(), run.Config{Dir: t.TempDir(), Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Offer: task.Offer{Node: "n1", Slots: 10}, Mount: s.mount, Host: host, Tasks: client.Tasks{Caller: s.service}, Session: 1,
		Left: func() time.Duration { return time.Duration(s.left.Load()) }, Key: filepath.Base(s.mount),
		Look: func() error {
			if s.gone.Load() {
				return errors.New("gone")
			}
			return nil
		},
		Grace: 300 * time.Millisecond,
	}
	for _, do := range change {
		do(&c)
	}
	s.agent = New(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.agent.Run(ctx) }()
	s.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { s.stop() })
	return s
}

// submit has the agent run a script.
func (s *site) submit(script string, change ...func(*task.Attempt)) (token uint64) {
	s.token++
	a := task.Attempt{ID: task.ID{Job: s.token}, Token: s.token, Number: 1, Node: "n1", Spec: task.Spec{Script: []byte(script), Need: task.Resources{CPU: 1000}}}
	a.Owner = task.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Umask: 0o022}
	for _, do := range change {
		do(&a)
	}
	dir := filepath.Join(s.mount, "tasks", a.ID.String())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.Fatal(err)
	}
	for _, name := range []string{"stdout", "stderr"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			s.Fatal(err)
		}
	}
	s.service.change(a.Token, func(is *task.Attempt) { *is = a })
	return a.Token
}

func (s *site) output(token uint64, name string) string {
	text, err := os.ReadFile(filepath.Join(s.mount, "tasks", task.ID{Job: token}.String(), name))
	if err != nil {
		s.Fatal(err)
	}
	return string(text)
}

func (s *site) eventually(what string, is func() bool) {
	s.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			var heard []task.Report
			s.service.set(func() { heard = slices.Clone(s.service.heard) })
			s.Fatalf("%s: it does not come; reported: %+v", what, heard)
		}
	}
}

// await waits for a report, and returns it.
func (s *site) await(token uint64, what task.What) (r task.Report) {
	s.Helper()
	s.eventually(fmt.Sprintf("report %d of %d", what, token), func() bool {
		list := s.service.of(token)
		i := slices.IndexFunc(list, func(r task.Report) bool { return r.What == what })
		if i >= 0 {
			r = list[i]
		}
		return i >= 0
	})
	return r
}

func (s *site) says(token uint64, text string) {
	s.Helper()
	s.eventually("output "+text, func() bool { return s.output(token, "stdout") == text })
}

func (s *site) order(token uint64, verb task.Verb, number int) {
	s.service.change(token, func(a *task.Attempt) {
		a.Orders = append(a.Orders, task.Order{Seq: uint64(len(a.Orders)) + 1, Verb: verb, Number: number})
	})
}
