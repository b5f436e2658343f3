package client

import (
	"context"
	"fmt"
	"time"

	"dos/chunk"
	"dos/meta"
	"dos/meta/session"
)

// Session are the calls about sessions. Reserve and Advance speak for the
// session of the Caller.
type Session struct{ Caller Caller }

// Open begins a session that lives until it is ended or, with a ttl, is not
// renewed for so long (Keeper). Its Caller speaks for none yet.
func (s Session) Open(ctx context.Context, name, node string, ttl time.Duration) (info session.Info, err error) {
	err = s.Caller.Call(ctx, session.OpOpen, session.Open{Name: name, Node: node, TTL: ttl}, &info)
	return info, err
}

// Info describes a session.
func (s Session) Info(ctx context.Context, id meta.SessionID) (info session.Info, err error) {
	err = s.Caller.Call(ctx, session.OpSession, session.Ask{ID: id}, &info)
	return info, err
}

// List returns all sessions, in order.
func (s Session) List(ctx context.Context) (list []session.Info, err error) {
	var after meta.SessionID
	for {
		var reply session.Listed
		if err := s.Caller.Call(ctx, session.OpSessions, session.List{After: after, Limit: session.ListMax}, &reply); err != nil {
			return nil, err
		}
		list = append(list, reply.Sessions...)
		if !reply.More || len(reply.Sessions) == 0 {
			return list, nil
		}
		after = list[len(list)-1].ID
	}
}

// Reserve gives the session n stripe IDs that nobody ever had, from the first
// one, which it returns.
func (s Session) Reserve(ctx context.Context, n int) (chunk.StripeID, error) {
	if n < 1 || n > session.ReserveMax {
		return 0, fmt.Errorf("reserve %d stripe IDs, at most %d: %w", n, session.ReserveMax, meta.Invalid)
	}
	var r session.Range
	err := s.Caller.Call(ctx, session.OpReserve, session.Reserve{N: uint32(n)}, &r)
	return r.First, err
}

// Advance raises the session's low-water mark.
func (s Session) Advance(ctx context.Context, low chunk.StripeID) error {
	return s.Caller.Call(ctx, session.OpAdvance, session.Advance{Low: low}, nil)
}

// End ends a session and gives up all that it held. Its Caller speaks for none.
func (s Session) End(ctx context.Context, id meta.SessionID) error {
	for {
		var reply session.Ended
		if err := s.Caller.Call(ctx, session.OpEnd, session.End{ID: id}, &reply); err != nil || !reply.More {
			return err
		}
	}
}

// Settled says for each stripe ID whether whoever reserved it has named it by
// now or never will.
func (s Session) Settled(ctx context.Context, ids ...chunk.StripeID) (settled []bool, err error) {
	err = batches(ids, func(ids []chunk.StripeID) error {
		var reply session.Settlement
		if err := s.Caller.Call(ctx, session.OpSettled, session.IDs{IDs: ids}, &reply); err != nil {
			return err
		}
		settled = append(settled, reply.Settled...)
		return nil
	})
	return settled, err
}
