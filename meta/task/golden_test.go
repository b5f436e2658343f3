package task

import (
	"strings"
	"testing"
	"time"

	"dos/meta/state"
	"dos/meta/state/statetest"
)

// Numbers of operations are never reused: this list only grows.
func TestGoldenOps(t *testing.T) {
	m := new(state.Machine)
	Room{}.Register(m)
	statetest.Golden(t, "testdata/ops.golden", strings.Join(m.Ops(), "\n")+"\n")
}

// A change here is a change of format: what is written must be read for ever.
func TestGoldenRows(t *testing.T) {
	w := newWorld(t)
	s := w.offer("n1", 4)
	must[none](w, 0, OpMakeQueue, MakeQueue{Name: "p", UID: 1, GID: 2, Mode: 0o755})
	must[none](w, 0, OpSetQueue, SetQueue{Name: "p", Rules: &Rules{
		Weight: 2, Limits: Limits{Tasks: 9, Need: Resources{CPU: 8000}}, PerUser: Limits{Tasks: 3}, Timeout: time.Hour, Default: time.Minute,
		Preempt: PreemptRetry, Label: "l", Shares: map[uint32]int{7: 3},
	}})
	done := w.submit("name=done env=A=1 gpu=0")
	gone := w.submit("array=0-1")
	array := w.submit("array=0-9%2 prio=3 timeout=1m node=n1")
	w.schedule()
	w.claim(s)
	w.finish(s, done, Exit{Cause: Exited, Code: 1, Text: "no"})
	w.finish(s, array.Element(0), Exit{})
	w.control(array.Element(1), Cancel, 0)
	w.control(gone, Cancel, 0)
	w.finish(s, gone.Element(0), Exit{Signal: 15})
	w.submit("hold queue=p label=l,k=v near=/f stdin=/i every=1h mem=1m prio=-1")
	w.submit("at=+1h retries=1 after=any:" + array.String())
	w.submit("cpu=3 timeout=1h")
	w.submit("cpu=2")
	w.schedule()
	must[none](w, 0, OpForget, Forget{ID: gone})
	rows := w.rows()
	statetest.Golden(t, "testdata/rows.golden", rows)
	for _, table := range "ctsQqmnuxweagikdzTfFyUNvEr" {
		if !strings.Contains(rows, "9"+string(table)+" ") {
			t.Errorf("no row of table %c is pinned", table)
		}
	}
}
