package task

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// slack is what a task may take beyond its time limit until it has ended: from when it
// is assigned until it starts, and from when it is told to end until it has.
const slack = 30 * time.Second

func offer(tx *state.Tx, req Offer) (none, error) {
	switch {
	case tx.Session == 0:
		return none{}, fmt.Errorf("an offer without a session: %w", meta.Invalid)
	case req.Node == "" || len(req.Node) > NameMax || strings.ContainsAny(req.Node, "\x00/\n"):
		return none{}, fmt.Errorf("machine %.40q: %w", req.Node, meta.Invalid)
	case req.Slots < 0 || req.Slots > SlotsMax || len(req.Labels) > LabelsMax || len(req.Closed) > TextMax:
		return none{}, fmt.Errorf("%d slots, %d labels; at most %d and %d: %w", req.Slots, len(req.Labels), SlotsMax, LabelsMax, meta.Invalid)
	}
	for _, k := range slices.Sorted(maps.Keys(req.Labels)) {
		if len(k) > TextMax || len(req.Labels[k]) > TextMax {
			return none{}, fmt.Errorf("label %.40q: %w", k, meta.TooLarge)
		}
	}
	if err := req.Have.check(); err != nil {
		return none{}, err
	}
	w := begin(tx)
	var had nodeRow
	if !read(tx, nodeKey(req.Node), &had) {
		if w.c.Nodes++; w.c.Nodes > NodesMax {
			return none{}, fmt.Errorf("more than %d machines: %w", NodesMax, meta.Quota)
		}
	}
	tx.Set(nodeKey(req.Node), state.Marshal(nodeRow{Offer: req, Session: tx.Session}))
	tx.Set(ofSessionKey(tx.Session, req.Node), []byte{})
	w.stir()
	if req.Closed != "" {
		w.takeBack(req.Node, "its machine takes nothing: "+req.Closed, func(one run) bool { return one.Session == tx.Session })
	}
	w.done()
	return none{}, nil
}

func withdraw(tx *state.Tx, req Named) (none, error) {
	w := begin(tx)
	w.withdraw(req.Name, tx.Session)
	w.takeBack(req.Name, "its machine took its offer back", func(one run) bool { return one.Session == tx.Session })
	w.done()
	return none{}, nil
}

// takeBack takes assignments back that were not claimed, and says if there were any.
func (w *work) takeBack(node, why string, which func(run) bool) (some bool) {
	for _, one := range slices.Clone(w.node(node).Runs) {
		if !one.Claimed && which(one) {
			w.lose(one.ID, w.runs(one, one.Session), why)
			some = true
		}
	}
	return some
}

// deaf looks at the machines that were assigned something and did not claim it in time.
func (w *work) deaf() {
	if w.c.Claims == 0 || w.c.Claims > w.now {
		return
	}
	w.c.Claims = 0
	next := func(at meta.Time) {
		if w.c.Claims == 0 || at < w.c.Claims {
			w.c.Claims = at
		}
	}
	for k, val := range w.tx.Scan(nodeKey(""), state.After(nodeKey(""))) {
		var n nodeRow
		state.MustUnmarshal(val, &n)
		was, name := n.Deaf, string(k[2:])
		if n.Deaf != 0 && n.Deaf <= w.now {
			n.Deaf = 0
			w.stir()
		}
		why := fmt.Sprintf("machine %s did not take it in %v", name, ClaimWait)
		if w.takeBack(name, why, func(one run) bool { return later(one.Since, ClaimWait) <= w.now }) {
			n.Deaf = later(w.now, ClaimWait)
		}
		for _, one := range w.node(name).Runs {
			if !one.Claimed {
				next(later(one.Since, ClaimWait))
			}
		}
		if n.Deaf != 0 {
			next(n.Deaf)
		}
		if n.Deaf != was {
			w.tx.Set(k, state.Marshal(n))
		}
	}
}

// withdraw removes a session's offer.
func (w *work) withdraw(node string, s meta.SessionID) {
	var had nodeRow
	if read(w.tx, nodeKey(node), &had) && had.Session == s {
		w.tx.Delete(nodeKey(node))
		w.c.Nodes--
		w.stir()
	}
}

// runs returns the row of what runs on a machine, if it is a session's.
func (w *work) runs(one run, s meta.SessionID) *row {
	if one.Session != s {
		return nil
	}
	r, err := w.task(one.ID)
	if err != nil || r.Attempt == nil || r.Attempt.Token != one.Token {
		panic(fmt.Sprintf("task: %v has room under token %d and does not run: %v", one.ID, one.Token, err))
	}
	return r
}

// Drop gives back what a session that has ended offered and ran; it is a
// session.Release. What it ran is lost: it is surely dead, since whoever runs it kills
// it before the session can end.
func Drop(tx *state.Tx, s meta.SessionID, limit int) (n int, more bool) {
	var names []string
	for k := range tx.Scan(ofSessionKey(s, ""), state.After(key('x', uint64(s)))) {
		names = append(names, string(k[len(key('x', uint64(s))):]))
	}
	if len(names) == 0 {
		return 0, false
	}
	w := begin(tx)
	defer w.done()
	for _, name := range names {
		w.withdraw(name, s)
		for _, one := range slices.Clone(w.node(name).Runs) {
			r := w.runs(one, s)
			if r == nil {
				continue
			}
			if n == limit {
				return n, true
			}
			w.lose(one.ID, r, fmt.Sprintf("machine %s was lost", name))
			n++
		}
		tx.Delete(ofSessionKey(s, name))
	}
	delete(w.feeds, s)
	tx.Delete(key('w', uint64(s)))
	return n, false
}

func report(tx *state.Tx, req Reports) (Heard, error) {
	if tx.Session == 0 || len(req.List) > ReportMax {
		return Heard{}, fmt.Errorf("%d reports, at most %d, by session %d: %w", len(req.List), ReportMax, tx.Session, meta.Invalid)
	}
	w := begin(tx)
	out := Heard{Kinds: make([]meta.Kind, len(req.List))}
	for i, one := range req.List {
		out.Kinds[i] = w.report(one)
	}
	w.done()
	return out, nil
}

// report hears one thing. Nothing is changed if it is refused.
func (w *work) report(req Report) meta.Kind {
	if (req.Exit == nil) == (req.What == Ended) || len(req.Text) > TextMax || req.Exit != nil && (len(req.Exit.Text) > TextMax || req.Exit.Cause > Killed) {
		return meta.Invalid
	}
	r, bare, ok := find(w.tx, req.ID)
	if !ok || bare {
		return meta.Fenced
	}
	a := r.Attempt
	if a == nil || a.Token != req.Token || a.Session != w.tx.Session {
		// The end may be reported again, since the answer was lost. It says so if it was.
		if req.What == Ended && req.Token != 0 && slices.ContainsFunc(r.Past, func(p Past) bool { return p.Token == req.Token && p.Exit != nil }) {
			return 0
		}
		return meta.Fenced
	}
	if !a.Claimed && req.What != Claim && req.What != Decline {
		return meta.Invalid
	}
	if req.Usage != nil {
		r.Usage = *req.Usage
	}
	switch req.What {
	case Claim:
		if a.Claimed {
			return 0
		}
		a.Claimed = true
		w.run(a).Claimed = true
		r.Claimed, r.Started, r.Exit, r.Usage, r.Reason = w.now, 0, nil, Usage{}, ""
		if r.Began == 0 {
			r.Began = w.now
		}
	case Started:
		if r.Started == 0 {
			r.Started = w.now
			w.until(r, a)
		}
	case Used:
	case Obeyed:
		a.Orders = slices.DeleteFunc(a.Orders, func(o Order) bool { return o.Seq <= req.Order })
	case Frozen, Thawed:
		a.Stands = req.What == Frozen
	case Ended:
		w.over(req.ID, r, *req.Exit)
		return 0
	case Decline:
		w.decline(req.ID, r, req.Text)
		return 0
	default:
		return meta.Invalid
	}
	w.put(req.ID, r)
	return 0
}

// until notes by when a task that has started will have ended.
func (w *work) until(r *row, a *attempt) {
	if one := w.run(a); one.Until != 0 {
		one.Until = later(w.now, r.Demand.Limit+slack)
	}
}

// run is the room that an attempt has.
func (w *work) run(a *attempt) *run {
	u := w.node(a.Node)
	i := slices.IndexFunc(u.Runs, func(one run) bool { return one.Token == a.Token })
	if i < 0 {
		panic(fmt.Sprintf("task: attempt %d has no room on machine %s", a.Token, a.Node))
	}
	return &u.Runs[i]
}

// decline is what becomes of a task that its machine cannot start. It counts as a loss,
// so that no machine can have it tried for ever.
func (w *work) decline(id ID, r *row, why string) {
	a := r.Attempt
	if !a.Claimed {
		a.Claimed, r.Claimed, r.Usage = true, w.now, Usage{}
	}
	w.lose(id, r, fmt.Sprintf("machine %s could not start it: %s", a.Node, why))
	if r.Final == 0 {
		w.wake(id, r, later(w.now, backoff(r.Losses)))
		w.put(id, r)
	}
}

func orders(r state.Reader, req Seen) (Orders, error) {
	if err := session.Check(r, req.Session); err != nil {
		return Orders{}, err
	}
	out := Orders{Version: req.Version}
	size := 0
	for k, val := range r.Scan(orderKey(req.Session, req.Version+1), state.After(key('e', uint64(req.Session)))) {
		if len(out.Attempts) == ReportMax || size >= listBytes {
			break
		}
		id := idAt(val)
		one, _, _ := find(r, id)
		var job stored
		if one == nil || one.Attempt == nil || !read(r, key('s', id.Job), &job) {
			panic(fmt.Sprintf("task: session %d has orders for %v, which does not run", req.Session, id))
		}
		a := one.Attempt
		out.Attempts = append(out.Attempts, Attempt{
			ID: id, Token: a.Token, Number: one.Attempts, Node: a.Node, Owner: job.Owner, Spec: job.Spec, Claimed: a.Claimed, Orders: a.Orders, Frozen: a.Frozen,
		})
		out.Version = numberAt(k)
		size += job.Spec.Size()
	}
	return out, nil
}

// OrdersKey is the row that changes when there is something new for a session.
func OrdersKey(req Seen) []byte { return key('w', uint64(req.Session)) }
