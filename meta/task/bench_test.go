package task

import (
	"fmt"
	"runtime"
	"testing"

	"dos/meta"
	"dos/meta/session"
	"dos/meta/state"
)

// BenchmarkSchedule has 100,000 tasks of many users and shapes wait for 100 machines, and
// counts the decisions of a command, each with the end of a task that makes room for it.
// What it stores lies in memory: it measures the scheduler, and meta/node's benchmark
// the whole.
func BenchmarkSchedule(b *testing.B) {
	w := newWorld(b)
	w.twin = nil
	sessions := make(map[string]meta.SessionID)
	for i := range 100 {
		name := fmt.Sprintf("n%02d", i)
		sessions[name] = must[session.Info](w, 0, session.OpOpen, session.Open{Name: name}).ID
		must[none](w, sessions[name], OpOffer, Offer{Node: name, Have: Resources{CPU: 32000, Mem: 64 << 30}, Slots: 64})
	}
	n := 0
	fill := func() {
		var specs []Spec
		for range 1000 {
			s := NewSpec()
			s.Args, s.Need.CPU, s.Need.Mem = []string{"true"}, int64(1+n%4)*1000, int64(1+n%3)<<30
			specs = append(specs, s)
			n++
		}
		must[Submitted](w, 0, OpSubmit, Submit{Owner: Owner{UID: uint32(n / 1000 % 50)}, Specs: specs})
	}
	for range 100 {
		fill()
	}
	w.apply(OpSchedule, Bound{DecideMax})
	decided, ended := 0, 0
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		// 256 tasks end, and as many begin.
		left := 256
		for name, s := range sessions {
			var u used
			read(w.store, usedKey(name), &u)
			var list []Report
			for _, one := range u.Runs[:min(len(u.Runs), left, 8)] {
				list = append(list, Report{ID: one.ID, Token: one.Token, What: Claim}, Report{ID: one.ID, Token: one.Token, What: Ended, Exit: &Exit{}})
			}
			if left -= len(list) / 2; len(list) > 0 {
				w.applyAs(s, OpReport, Reports{list})
				ended += len(list) / 2
			}
		}
		for more := true; more; {
			out := w.apply(OpSchedule, Bound{256})
			decided += out.Done
			more = out.More
		}
		for ended >= 1000 {
			b.StopTimer()
			fill()
			ended -= 1000
			b.StartTimer()
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(decided)/b.Elapsed().Seconds(), "decisions/s")
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(max(decided, 1)), "B-kept/decision")
	if waits := readCounters(w.store).Counts[Pending]; waits < 90_000 {
		b.Errorf("%d tasks wait", waits)
	}
}

func (w *world) apply(op state.Op, req any) More { return w.applyAs(0, op, req) }

// applyAs executes a command on the one store, without looking for what it changes.
func (w *world) applyAs(s meta.SessionID, op state.Op, req any) (out More) {
	reply := w.m.Apply(w.store, state.Command{Op: op, Time: w.clock.UnixNano(), Session: s, Body: state.Marshal(req)})
	if err := reply.Err(); err != nil {
		w.t.Fatal(err)
	}
	if op == OpSchedule {
		state.MustUnmarshal(reply.Body, &out)
	}
	return out
}
