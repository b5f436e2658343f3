package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

const (
	// Patience is how long a Remote sends a request again and again before it
	// gives up: nothing hangs for longer than 30 s.
	Patience = 30 * time.Second
	// attemptMax bounds the wait for one answer, after which the request is sent
	// again, perhaps to another member.
	attemptMax = 10 * time.Second
	// The pause before a request is sent again, doubling from the first to the last.
	pauseMin = 10 * time.Millisecond
	pauseMax = time.Second
)

func decode(body []byte, resp any) error {
	if err := state.Unmarshal(body, resp); err != nil {
		return fmt.Errorf("answer of type %T cannot be read: %w: %v", resp, meta.Invalid, err)
	}
	return nil
}

// A Remote is the Caller of one session whose requests may be lost on the way.
//
// Each request takes a free slot and the slot's next number, and is sent with
// both until it is answered or Patience is over, so the service executes it
// once however often it arrives. A request that was given up leaves its slot in
// doubt: before the slot is used again, and it is the first to be, a request
// without effect is sent with the same number. If the lost one was executed,
// that is answered from the replies that are kept, else it takes the lost one's
// place, which then can never be executed any more.
type Remote struct {
	sender  Sender
	session meta.SessionID

	free chan struct{} // a token for each slot in slots

	mu    sync.Mutex
	slots []*slot // not in use; the next one last; guarded by mu
}

type slot struct {
	number uint16
	seq    uint64 // of the last request that was answered
	doubt  bool   // request seq + 1 was sent and not answered
}

// NewRemote returns the Caller of a session that was just opened, of which
// nothing has been sent yet.
func NewRemote(s Sender, session meta.SessionID) *Remote {
	r := &Remote{sender: s, session: session, free: make(chan struct{}, state.Slots)}
	for n := range uint16(state.Slots) {
		// Slot 0 is taken first: few callers then share few rows of kept replies.
		r.slots = append(r.slots, &slot{number: state.Slots - 1 - n})
		r.free <- struct{}{}
	}
	return r
}

// Session is the session that r speaks for.
func (r *Remote) Session() meta.SessionID { return r.session }

// Call is Caller's.
func (r *Remote) Call(ctx context.Context, op state.Op, req, resp any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, errPatience)
	defer cancel()
	cmd := state.Command{Op: op, Session: r.session, Body: state.Marshal(req)}
	var reply state.Reply
	var err error
	if IsQuery(op) {
		reply, err = r.send(ctx, cmd)
	} else {
		reply, err = r.once(ctx, cmd)
	}
	if err != nil {
		return err
	}
	return answer(reply, resp)
}

// IsQuery reports whether op is a query, which may be sent any number of
// times: in each service's range of 256 they begin at 0x40, below are commands.
func IsQuery(op state.Op) bool { return op&0xff >= 0x40 }

// once has a command executed once.
func (r *Remote) once(ctx context.Context, cmd state.Command) (state.Reply, error) {
	s, err := r.take(ctx)
	if err != nil {
		return state.Reply{}, err
	}
	defer r.give(s)
	cmd.Slot = s.number
	if s.doubt {
		nothing := cmd
		nothing.Op, nothing.Seq, nothing.Body = session.OpAdvance, s.seq+1, state.Marshal(session.Advance{})
		if _, err := r.send(ctx, nothing); err != nil {
			return state.Reply{}, fmt.Errorf("not sent, because the outcome of an earlier request is not known: %w", err)
		}
		s.seq, s.doubt = s.seq+1, false
	}
	cmd.Seq = s.seq + 1
	s.doubt = true
	reply, err := r.send(ctx, cmd)
	if err != nil {
		if !refused(err) {
			err = fmt.Errorf("outcome unknown: %w", err)
		}
		return state.Reply{}, err
	}
	s.seq, s.doubt = cmd.Seq, false
	return reply, nil
}

// take waits for a slot.
func (r *Remote) take(ctx context.Context) (*slot, error) {
	select {
	case <-r.free:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.slots) - 1
	s := r.slots[last]
	r.slots = r.slots[:last]
	return s, nil
}

// give puts a slot back, on top if it is in doubt.
func (r *Remote) give(s *slot) {
	r.mu.Lock()
	at := len(r.slots)
	for !s.doubt && at > 0 && r.slots[at-1].doubt {
		at--
	}
	r.slots = slices.Insert(r.slots, at, s)
	r.mu.Unlock()
	r.free <- struct{}{}
}

var errPatience = fmt.Errorf("no answer in %v: %w", Patience, meta.TimedOut)

// send sends one request until it is answered or ctx ends.
func (r *Remote) send(ctx context.Context, cmd state.Command) (state.Reply, error) {
	pause := time.Duration(0)
	var last error
	for {
		if ctx.Err() != nil {
			return state.Reply{}, over(ctx, last)
		}
		attempt, cancel := context.WithTimeout(ctx, attemptMax)
		reply, err := r.sender.Do(attempt, cmd)
		cancel()
		switch {
		case err == nil && reply.Kind != meta.Leased:
			return reply, nil
		case err == nil: // it has waited; the request's number is not used up
			err, pause = reply.Err(), 0
		case refused(err):
			return state.Reply{}, err
		}
		last = err
		pause = min(max(2*pause, pauseMin), pauseMax)
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
	}
}

// refused reports whether err says that a request was not executed and that
// sending it again is of no use. (Its number was not used up either, so its slot
// is in doubt all the same.)
func refused(err error) bool {
	var kind meta.Kind
	return errors.As(err, &kind) && kind != meta.Unavailable && kind != meta.TimedOut
}

// over says why nothing more is sent, and what the last attempt said.
func over(ctx context.Context, last error) error {
	cause := context.Cause(ctx)
	if last == nil || errors.Is(last, cause) {
		return cause
	}
	return fmt.Errorf("%w (%v)", cause, last)
}
