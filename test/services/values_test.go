package services

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"dos/test/history"
)

const (
	groups    = 48 // of values that transactions change together
	groupSize = 3
)

// A cell is a value with its version; the version is 0 where nothing is.
type cell struct{ val, version uint64 }

type cells [groupSize]cell

// A valueOp is one transaction or question about a group. A transaction puts the value
// at each of puts and deletes what is at each of dels, if the version of each of ifs
// is the one of was.
type valueOp struct {
	name            string // of the group
	read            bool
	ifs, puts, dels []int
	was             cells
	val             uint64
}

// A valueAnswer is how it ended: what is there, or, of a transaction, the versions
// of what it put. If nobody knows how it ended they are those that others saw.
type valueAnswer struct {
	stale  bool // refused
	unsure bool
	got    cells
}

// unseen is a version that nobody saw.
const unseen = 1 << 63

// valueModel is a group of values; a transaction is one operation.
var valueModel = porcupine.Model{
	Init: func() any { return cells{} },
	Step: func(state, in, out any) (bool, any) {
		s, q, a := state.(cells), in.(*valueOp), out.(*valueAnswer)
		if q.read {
			return a.got == s, s
		}
		may := true
		for _, i := range q.ifs {
			may = may && s[i].version == q.was[i].version
		}
		switch {
		case !may:
			return a.stale || a.unsure, s
		case a.stale:
			return false, s
		}
		for _, i := range q.puts {
			if !a.unsure && a.got[i].version <= s[i].version && s[i].version < unseen {
				return false, s
			}
			s[i] = cell{q.val, a.got[i].version}
		}
		for _, i := range q.dels {
			s[i] = cell{}
		}
		return true, s
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v: %+v", *in.(*valueOp), *out.(*valueAnswer)) },
}

// values are programs that read and change groups of values.
type values struct {
	history.History
	seen [groups]atomic.Pointer[cells] // what somebody was told of last
}

func key(group string, i int) string { return fmt.Sprint(group, ".", i) }

func (v *values) step(w *worker) int {
	g := w.rnd.IntN(groups)
	q := valueOp{name: fmt.Sprint("g", g), val: w.number()}
	if was := v.seen[g].Load(); was != nil {
		q.was = *was
	}
	i := w.rnd.IntN(groupSize)
	j := (i + 1) % groupSize
	switch w.rnd.IntN(8) {
	case 0, 1, 2:
		q.read = true
	case 3:
		q.puts = []int{i}
	case 4, 5:
		q.ifs, q.puts = []int{i}, []int{i}
	case 6:
		q.ifs, q.puts = []int{i, j}, []int{i, j}
	case 7:
		q.ifs, q.puts = []int{i}, []int{i}
		if q.was[j].version != 0 { // deleting nothing is an error
			q.ifs, q.dels = append(q.ifs, j), []int{j}
		}
	}
	call := w.now()
	a, err := v.ask(w, q)
	end := w.now()
	switch {
	case err != nil:
		w.failed(fmt.Sprintf("%+v", q), call, err)
		if q.read || !unsure(err) {
			return 0 // it says nothing
		}
		end, a.unsure = history.Never, true
	case !a.stale:
		now := q.was
		for i := range now {
			if q.read || slices.Contains(q.puts, i) || slices.Contains(q.dels, i) {
				now[i] = a.got[i]
			}
		}
		v.seen[g].Store(&now)
	}
	v.Add(q.name, porcupine.Operation{ClientId: w.id, Input: &q, Call: call, Output: &a, Return: end})
	return 1
}

// ask asks on files that stay open.
func (v *values) ask(w *worker, q valueOp) (a valueAnswer, err error) {
	name, text := ".txn", q.text()
	if q.read {
		name, text = ".scan", fmt.Sprintf("prefix %s.\n", q.name)
	}
	f, err := w.desk.at(w.site.Path("kv", "t", name), unix.O_RDWR)
	if err != nil {
		return a, err
	}
	reply, err := f.say(w.buf, text)
	switch {
	case err == syscall.ESTALE && !q.read:
		a.stale = true
		return a, nil
	case err != nil:
		return a, err
	case !q.read && !strings.HasPrefix(reply, "committed\n"):
		return a, fmt.Errorf("%+v is answered %q", q, reply)
	}
	for line := range strings.Lines(reply) {
		words := strings.Fields(line)
		if q.read {
			words = append([]string{"put"}, words...)
		}
		if words[0] != "put" {
			continue
		}
		_, index, _ := strings.Cut(words[1], ".")
		i, e1 := strconv.Atoi(index)
		version, e2 := strconv.ParseUint(words[2], 10, 64)
		if e1 != nil || e2 != nil || i >= groupSize {
			return a, fmt.Errorf("%+v is answered\n%s", q, reply)
		}
		a.got[i] = cell{q.val, version}
		if q.read {
			a.got[i].val, _ = strconv.ParseUint(words[3], 10, 64)
		}
	}
	return a, nil
}

// text is the transaction as lines.
func (q valueOp) text() string {
	var b strings.Builder
	for _, i := range q.ifs {
		fmt.Fprintf(&b, "if %s version %d\n", key(q.name, i), q.was[i].version)
	}
	for _, i := range q.puts {
		fmt.Fprintf(&b, "put %s %d\n", key(q.name, i), q.val)
	}
	for _, i := range q.dels {
		fmt.Fprintf(&b, "del %s\n", key(q.name, i))
	}
	return b.String() + "commit\n"
}

// check checks what was told. Who put a value and did not hear its version got that
// which others saw, if anybody did.
func (v *values) check(t *testing.T) {
	t.Helper()
	type place struct {
		i   int
		val uint64
	}
	v.Each(func(_ string, ops []porcupine.Operation) {
		versions := make(map[place]uint64)
		for _, op := range ops {
			for i, c := range op.Output.(*valueAnswer).got {
				if c.version != 0 {
					versions[place{i, c.val}] = c.version
				}
			}
		}
		for _, op := range ops {
			q, a := op.Input.(*valueOp), op.Output.(*valueAnswer)
			if a.unsure {
				for _, i := range q.puts {
					a.got[i] = cell{q.val, versions[place{i, q.val}]}
					if a.got[i].version == 0 {
						a.got[i].version = unseen
					}
				}
			}
		}
	})
	v.Check(t, valueModel)
}
