package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"dos/internal/boottime"
	"dos/meta"
)

// A Visit is one session of a program that opens no files: what it locks it has
// until it ends the Visit, or is not heard of for SessionTTL. It is a Stay.
type Visit struct {
	*Remote
	sender Sender
	keeper *Keeper
}

// NewVisit opens a session. name and node say for people what it is and where.
func NewVisit(ctx context.Context, s Sender, name, node string) (*Visit, error) {
	sent := boottime.Now()
	info, err := Session{Caller: Direct(s, 0)}.Open(ctx, short(name), short(node), SessionTTL)
	if err != nil {
		return nil, err
	}
	remote := NewRemote(s, info.ID)
	return &Visit{Remote: remote, sender: s, keeper: NewKeeper(remote, info, sent)}, nil
}

// Trust is Stay's.
func (v *Visit) Trust(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, errPatience)
	defer cancel()
	for {
		renewed := v.keeper.listen()
		if v.keeper.Valid() {
			return nil
		}
		select {
		case <-renewed:
		case <-ctx.Done():
			return fmt.Errorf("the session may be over: %w", context.Cause(ctx))
		}
	}
}

// Left is for how long the session is certainly not over.
func (v *Visit) Left() time.Duration { return v.keeper.Left() }

// Run keeps the session until ctx ends, and then returns nil. If the session
// ends before, it calls fenced, and returns meta.Expired.
func (v *Visit) Run(ctx context.Context, fenced func()) error {
	err := v.keeper.Run(ctx)
	if errors.Is(err, meta.Expired) {
		fenced()
	}
	return err
}

// Locked runs do with a lock held, in a session of its own, and gives do the token.
// do's context ends when the lock is lost.
func Locked(ctx context.Context, s Sender, node, lock string, how How, do func(ctx context.Context, token uint64) error) (err error) {
	v, err := NewVisit(ctx, s, "lock "+lock, node)
	if err != nil {
		return err
	}
	locks := NewNamed(v)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{}, 2)
	go func() { _ = v.Run(running, locks.Fenced); done <- struct{}{} }() // who has the lock hears of its end
	go func() { _ = locks.Run(running); done <- struct{}{} }()
	defer func() {
		stop()
		<-done
		<-done
		leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if e := v.End(leave); e != nil {
			slog.Warn("client: the session is left to end by itself", "err", e)
		}
	}()
	held, err := locks.Lock(ctx, lock, how)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Unlock(context.WithoutCancel(ctx))) }()
	token, err := held.Token(ctx)
	if err != nil {
		return err
	}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	go func() { // ends with do
		select {
		case <-held.Lost():
			cancel(errLost)
		case <-over:
		}
	}()
	return do(work, token)
}

// End ends the session, and with it all that it has. Run has returned.
func (v *Visit) End(ctx context.Context) error {
	return Session{Caller: Direct(v.sender, 0)}.End(ctx, v.Remote.Session())
}
