package queue

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
	s := w.open()
	w.make("p")
	w.make("q")
	by, attempts := ByKey, 3
	must[none](w, 0, OpSet, Set{Name: "q", Order: &by, Attempts: &attempts})
	must[none](w, 0, OpMakeGroup, Grouped{"q", "g"})
	must[Pushed](w, 0, OpPush, Push{Name: "q", Messages: []Message{
		{Body: []byte("a"), Key: "k", Dedup: "id"}, {Body: []byte("b"), Key: "k"}, {Body: []byte("c"), Expires: time.Minute},
		{Body: []byte("d"), Priority: 3}, {Body: []byte("e"), Delay: time.Minute, Expires: time.Hour},
	}})
	c := w.take(s, "q", "g", 3) // a, c, d
	must[Settled](w, s, OpSettle, Settles{[]Settle{
		{Name: "q", Claim: c.Claim, Numbers: []uint64{3}, What: Nack, Time: time.Second}, {Name: "q", Claim: c.Claim, Numbers: []uint64{4}, What: Discard},
	}})
	w.settle(s, "q", w.take(s, "q", "", 1).Claim, Nack)
	must[Taken](w, s, OpTake, Take{Name: "p", Max: 2, Wait: true, Consumer: "me", Hold: time.Second})
	must[none](w, 0, OpPurge, Named{"p"})
	must[More](w, s, OpServe, Serve{Node: "a", Addr: "a:1"})
	must[More](w, w.open(), OpServe, Serve{Node: "b", Addr: "b:1"})
	w.memory("m")
	statetest.Golden(t, "testdata/rows.golden", w.rows())
	for _, table := range "cnismprkylwvxutzohbg" {
		if _, _, ok := first(w.store, []byte{'8', byte(table)}, []byte{'8', byte(table) + 1}); !ok {
			t.Errorf("no row of table %c is pinned", table)
		}
	}
}
