package task

import (
	"fmt"
	"slices"
	"time"

	"dos/meta"
	"dos/meta/state"
)

// free gives back the room of a task's attempt, which is over.
func (w *work) free(id ID, r *row) {
	a := r.Attempt
	one := *w.run(a)
	u := w.node(a.Node)
	u.Runs = slices.DeleteFunc(u.Runs, func(each run) bool { return each.Token == a.Token })
	u.Sum.Sub(one.Need)
	acc := w.account(r.Queue, r.UID)
	acc.Used.Sub(one.Need)
	acc.Tasks--
	acc.Share.charge(w.now, cost(one.Need), span(one.Since, w.now))
	acc.Share.Rate -= cost(one.Need)
	q := w.running(r.Queue)
	q.Used.Sub(one.Need)
	q.Tasks--
	w.tx.Delete(orderKey(a.Session, a.Version))
	if id.Place != 0 {
		w.array(id).Array.Active--
	}
	r.Attempt = nil
	w.stir()
}

// past notes an attempt that is over among the earlier ones.
func (r *row) past(now meta.Time, exit *Exit, text string) {
	r.Past = slices.Insert(r.Past, 0, Past{Token: r.Token, Node: r.Node, Claimed: r.Claimed, Ended: now, Exit: exit, Usage: r.Usage, Text: text})
	r.Past = r.Past[:min(len(r.Past), PastMax)]
}

// over is what becomes of a task whose attempt has ended with exit.
func (w *work) over(id ID, r *row, exit Exit) {
	a := r.Attempt
	r.Exit = &exit
	r.past(w.now, &exit, "")
	w.free(id, r)
	switch {
	case a.Stop == toCancel:
		w.final(id, r, Cancelled, r.Reason)
	case a.Stop == toRequeue:
		r.Began = 0 // it begins anew
	case exit.Good():
		r.Reason = ""
		w.good(id, r, Done)
	case r.Failures < r.Retries:
		r.Failures++
		r.Reason = fmt.Sprintf("attempt %d failed: %v", r.Attempts, exit)
		w.wake(id, r, later(w.now, backoff(r.Failures)))
	default:
		r.Failures++
		r.Reason = ""
		w.good(id, r, Failed)
	}
	w.put(id, r)
}

// good ends a task, or has it run again if it is to be.
func (w *work) good(id ID, r *row, end State) {
	if r.Every == 0 {
		w.final(id, r, end, r.Reason)
		return
	}
	times := max(1, (int64(w.now-r.Began)+int64(r.Every)-1)/int64(r.Every))
	w.wake(id, r, later(r.Began, time.Duration(times)*r.Every))
	r.Began, r.Failures = 0, 0
}

// backoff is the pause after the n-th time that something went wrong.
func backoff(n int) time.Duration {
	if n > 16 {
		return RetryMax
	}
	return min(RetryMin<<max(0, n-1), RetryMax)
}

func (e Exit) String() string {
	switch {
	case e.Text != "":
		return e.Text
	case e.Signal != 0:
		return fmt.Sprintf("%v by signal %d", e.Cause, e.Signal)
	}
	return fmt.Sprintf("%v with status %d", e.Cause, e.Status())
}

// lose is what becomes of a task whose machine does not have it any more, and may never
// have had it.
func (w *work) lose(id ID, r *row, why string) {
	a := r.Attempt
	if a.Claimed {
		r.past(w.now, nil, why)
		r.Exit = nil
		r.Losses++
		w.event(Event{ID: id, State: Lost, Node: a.Node, Text: why})
	}
	w.free(id, r)
	switch {
	case a.Stop == toCancel:
		w.final(id, r, Cancelled, r.Reason)
	case r.Losses > LossesMax:
		w.final(id, r, Lost, fmt.Sprintf("it lost its machine %d times, the last time %s: %s", r.Losses, a.Node, why))
	default:
		r.Reason = why
	}
	w.put(id, r)
}

// final ends a task for good; the caller puts it.
func (w *work) final(id ID, r *row, end State, why string) {
	r.Final, r.Ended, r.Reason = end, w.now, why
	w.sleep(id, r)
	if r.Array != nil && r.Array.Bare > 0 && r.Array.BareEnd == 0 {
		w.endBare(r, end)
	}
	if id.Place == 0 {
		w.running(r.Queue).Waits--
		r.End = w.c.Ends
		w.tx.Set(key('f', r.End), state.Marshal(ended{id.Job, w.now}))
		w.c.Ends++
	}
	if r.Followed {
		r.Followed = false
		w.chore(chore{ID: id, What: choreFollowers, End: end})
	}
}

// endBare ends the elements of an array that nothing has become of.
func (w *work) endBare(r *row, end State) {
	a := r.Array
	was := a.bare(r.Held)
	a.BareEnd = end
	a.Counts[was] -= a.Bare
	a.Counts[end] += a.Bare
	w.c.Counts[was] -= int64(a.Bare)
	w.c.Counts[end] += int64(a.Bare)
}

// again makes a task that has ended one that waits.
func (w *work) again(id ID, r *row) {
	r.Final, r.Ended, r.Failures, r.Losses, r.Reason, r.Began = 0, 0, 0, 0, "", 0
	if id.Place == 0 {
		w.running(r.Queue).Waits++
		w.tx.Delete(key('f', r.End))
		r.End = 0
	} else if all := w.array(id); all.Final != 0 {
		w.again(id.Array(), all)
	}
}
