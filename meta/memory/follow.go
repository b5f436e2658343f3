package memory

import (
	"context"
	"fmt"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/state"
)

// Service is the service by which the primaries of other processes are followed here.
// find returns the Holder of the moment, nil if there is none.
func Service(find func() *Holder) rpc.Service {
	return rpc.Service{Name: serviceName, Streams: map[string]func(*rpc.Stream) error{
		followName: func(s *rpc.Stream) error {
			var f rpc.Frame
			if err := s.Recv(&f); err != nil {
				return err
			}
			f.Free()
			var first hello
			if err := rpc.Decode(f.Header, &first); err != nil {
				return err
			}
			h := find()
			if h == nil {
				return refuse(s, "no queues are held here yet")
			}
			return h.followed(s, first)
		},
	}}
}

func refuse(s *rpc.Stream, why string) error {
	return s.Send(&rpc.Frame{Header: rpc.Encode(heard{Refuse: why})})
}

// followed follows a primary on a stream until it ends.
func (h *Holder) followed(s *rpc.Stream, first hello) error {
	var u *unit
	var err error
	if first.Fill {
		u, err = h.filled(s, first)
	} else {
		u, err = h.known(s.Context(), first)
	}
	if err != nil {
		return refuse(s, err.Error())
	}
	if err := s.Send(u.state()); err != nil {
		return err
	}
	for {
		is, payload, err := next(s)
		if err != nil {
			return err
		}
		if err := u.take1(first.From, is, payload); err != nil {
			return refuse(s, err.Error())
		}
		if err := s.Send(u.state()); err != nil {
			return err
		}
	}
}

// next receives a frame.
func next(s *rpc.Stream) (is news, payload []byte, err error) {
	var f rpc.Frame
	if err := s.Recv(&f); err != nil {
		return is, nil, err
	}
	defer f.Free()
	if err := rpc.Decode(f.Header, &is); err != nil {
		return is, nil, err
	}
	payload = make([]byte, f.Payload.Len())
	f.Payload.CopyTo(payload)
	return is, payload, nil
}

// state says how far a backup is.
func (u *unit) state() *rpc.Frame {
	u.mu.Lock()
	defer u.mu.Unlock()
	return &rpc.Frame{Header: rpc.Encode(heard{Index: u.index, Full: u.holder.full()})}
}

// known finds the unit that follows a primary already, or is to.
func (h *Holder) known(ctx context.Context, first hello) (*unit, error) {
	for again := true; ; again = false {
		h.mu.Lock()
		u := h.units[first.Queue]
		h.mu.Unlock()
		if u != nil && u.begun == first.Begun {
			u.mu.Lock()
			follows := (u.role == following || u.role == filling) && u.whom == first.From
			u.mu.Unlock()
			if follows {
				return u, nil
			}
		}
		if !again {
			return nil, fmt.Errorf("queue %q does not follow here at epoch %d", first.Name, first.Epoch)
		}
		if err := h.review(ctx, first.Queue); err != nil { // it may have been told there sooner
			return nil, err
		}
	}
}

// filled makes a unit of what a primary sends.
func (h *Holder) filled(s *rpc.Stream, first hello) (*unit, error) {
	if h.full() {
		return nil, fmt.Errorf("no memory is left for queues: %w", meta.NoSpace)
	}
	u := newUnit(h, first.Queue, first.Name, first.Begun)
	u.epoch, u.whom = first.Epoch, first.From
	h.mu.Lock()
	old := h.units[u.id]
	if old != nil {
		old.mu.Lock()
		younger := old.role != filling && old.epoch >= first.Epoch
		old.mu.Unlock()
		if younger {
			h.mu.Unlock()
			return nil, fmt.Errorf("queue %q is at a later epoch here", u.name)
		}
	}
	h.put(u)
	h.mu.Unlock()
	if old != nil {
		old.stop()
	}
	for last := false; !last; {
		is, payload, err := next(s)
		var rows []row
		if err == nil {
			err = state.Unmarshal(payload, &rows)
		}
		if err != nil || !is.Rows {
			h.forget(u)
			return nil, fmt.Errorf("the rows of queue %q: %w: %v", u.name, meta.Protocol, err)
		}
		u.mu.Lock()
		for _, r := range rows {
			u.store.Set(r.Key, r.Val)
		}
		u.heard = now()
		if u.role != stopped {
			u.measure()
		}
		u.mu.Unlock()
		last = is.Last
	}
	u.mu.Lock()
	u.index, u.time = first.Index, first.Time
	u.mu.Unlock()
	return u, nil
}

// forget gives up a unit that did not come about.
func (h *Holder) forget(u *unit) {
	h.mu.Lock()
	if h.units[u.id] == u {
		delete(h.units, u.id)
	}
	h.mu.Unlock()
	u.stop()
}

// take1 executes what the primary has executed. That may not know yet that this is its
// backup, at a later epoch than its own: it is known by its session.
func (u *unit) take1(from meta.SessionID, is news, payload []byte) error {
	var list []state.Command
	if len(payload) > 0 {
		if err := state.Unmarshal(payload, &list); err != nil {
			return err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.role != following && u.role != filling || from != u.whom:
		return fmt.Errorf("queue %q does not follow here at epoch %d any more", u.name, is.Epoch)
	case u.index+uint64(len(list)) != is.Index:
		return fmt.Errorf("queue %q: %d commands that end with %d follow %d", u.name, len(list), is.Index, u.index)
	}
	if is.Epoch > u.epoch { // it was made the backup
		u.role, u.epoch = following, is.Epoch
	}
	for _, cmd := range list {
		u.holder.machine.Apply(u.store, cmd)
		u.time = cmd.Time
	}
	u.index = is.Index
	u.heard = now()
	u.measure()
	return nil
}
