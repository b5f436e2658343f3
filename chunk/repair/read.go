package repair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"dos/chunk"
)

// A reading collects shards of one stripe: those that are to be moved, and K if
// something is to be rebuilt.
type reading struct {
	r       *Repairer
	look    *look
	have    [][]byte
	answers chan answer
	asked   []bool
	pending map[int]bool // asked and not answered; true: late
}

type answer struct {
	index int
	b     []byte
	err   error
}

// read fills have. What turns out to be corrupt or gone becomes missing, and
// others are read in its place, as for a store that is late.
func (r *Repairer) read(ctx context.Context, l *look, have [][]byte) error {
	n := len(have)
	g := &reading{r: r, look: l, have: have, answers: make(chan answer, n), asked: make([]bool, n), pending: make(map[int]bool)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range n {
		if l.states[i] == present && l.leave[i] {
			g.ask(ctx, i)
		}
	}
	late := time.NewTimer(tardy)
	defer late.Stop()
	for {
		for g.short() {
			i := g.best()
			if i < 0 {
				break
			}
			g.ask(ctx, i)
			late.Reset(tardy)
		}
		switch got := g.got(); {
		case got >= g.need() && !g.waits():
			return nil
		case len(g.pending) == 0:
			return fmt.Errorf("%v: %w", l, chunk.ErrTooFew)
		}
		select {
		case a := <-g.answers:
			delete(g.pending, a.index)
			g.took(a)
		case <-late.C:
			for i := range g.pending {
				g.pending[i] = true
				r.patience.took(l.row.Stores[i], tardy, false)
			}
			late.Reset(tardy)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// need is how many shards it takes to rebuild what is to be rebuilt.
func (g *reading) need() int {
	if g.look.lacks() {
		return int(g.look.row.Code.K)
	}
	return 0
}

func (g *reading) got() int {
	n := 0
	for _, b := range g.have {
		if b != nil {
			n++
		}
	}
	return n
}

// short reports whether more are to be asked, so that enough come in time.
func (g *reading) short() bool {
	n := g.got()
	for _, late := range g.pending {
		if !late {
			n++
		}
	}
	return n < g.need()
}

// waits reports whether a shard that is to be moved may still come.
func (g *reading) waits() bool {
	for i := range g.pending {
		if g.look.leave[i] {
			return true
		}
	}
	return false
}

// best is the shard to ask for next: on a store that is not slow, if there is one.
func (g *reading) best() int {
	slow := -1
	for i, s := range g.look.states {
		if s != present || g.asked[i] {
			continue
		}
		if !g.r.patience.isSlow(g.look.row.Stores[i]) {
			return i
		}
		if slow < 0 {
			slow = i
		}
	}
	return slow
}

func (g *reading) ask(ctx context.Context, i int) {
	g.asked[i], g.pending[i] = true, false
	store, size := g.look.row.Stores[i], int(g.look.size)
	id := chunk.ID{Stripe: g.look.row.ID, Index: uint8(i)}
	g.r.patience.calls.Go(func() {
		var b []byte
		err := g.r.ask(ctx, store, g.r.config.Slow, func(ctx context.Context, s chunk.Store) error {
			buf := g.r.coder.Buffer(size)
			n, err := s.ReadAt(ctx, id, buf, 0)
			if n < size {
				g.r.coder.Free(buf)
				if err == nil {
					err = chunk.ErrCorrupt
				}
				return err
			}
			b = buf
			return nil
		})
		if err != nil { // and b may yet be set
			g.answers <- answer{i, nil, err}
			return
		}
		g.answers <- answer{i, b, nil} // there is room for all; what nobody takes is left to the collector
	})
}

// took notes an answer. What cannot be read from a store that is leaving is
// rebuilt, like what is gone with its store.
func (g *reading) took(a answer) {
	l := g.look
	if a.err == nil {
		g.have[a.index] = a.b
		return
	}
	l.errs[a.index] = a.err
	leaves := l.leave[a.index]
	l.leave[a.index] = false
	switch {
	case leaves && g.r.isLeaving(l.row.Stores[a.index]):
		l.states[a.index] = moving
	case errors.Is(a.err, chunk.ErrNotExist), errors.Is(a.err, chunk.ErrCorrupt), errors.Is(a.err, io.EOF):
		l.states[a.index] = missing
	default:
		l.states[a.index] = unknown
	}
}
