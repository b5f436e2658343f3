// Package history keeps what several programs did at the same time and what they
// were told, and checks that it could have come from one after the other.
package history

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Never is when an operation returned of which nobody knows how it ended: it may be
// done at any time after it was called, or not at all.
const Never = math.MaxInt64

// checkLimit bounds the search for an order.
const checkLimit = time.Minute

// A History is operations on some things, each of which has its own order. Its
// methods may be called concurrently.
type History struct {
	mu     sync.Mutex
	things map[string][]porcupine.Operation // guarded by mu
}

// Add adds operations on one thing.
func (h *History) Add(thing string, ops ...porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.things == nil {
		h.things = make(map[string][]porcupine.Operation)
	}
	h.things[thing] = append(h.things[thing], ops...)
}

// Each calls do for each thing.
func (h *History) Each(do func(thing string, ops []porcupine.Operation)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for thing, ops := range h.things {
		do(thing, ops)
	}
}

// Check checks each thing by itself.
func (h *History) Check(tb testing.TB, model porcupine.Model) {
	tb.Helper()
	h.Each(func(thing string, ops []porcupine.Operation) {
		if got := porcupine.CheckOperationsTimeout(model, ops, checkLimit); got != porcupine.Ok {
			tb.Errorf("%s: the history of %d operations is %v, want %v", thing, len(ops), got, porcupine.Ok)
			_, info := porcupine.CheckOperationsVerbose(model, ops, checkLimit)
			TellStuck(tb, info, model, ops)
		}
	})
}

// TellStuck logs where the longest order that is possible ends, and the
// operations around it that could not follow.
func TellStuck(tb testing.TB, info porcupine.LinearizationInfo, model porcupine.Model, ops []porcupine.Operation) {
	tb.Helper()
	tell := func(what string, op porcupine.Operation) {
		tb.Logf("%s%d: %v to %v: %s", what, op.ClientId, time.Duration(op.Call), time.Duration(op.Return), model.DescribeOperation(op.Input, op.Output))
	}
	for _, part := range info.PartialLinearizationsOperations() {
		var longest []porcupine.Operation
		for _, list := range part {
			if len(list) > len(longest) {
				longest = list
			}
		}
		if len(longest) == 0 {
			continue
		}
		in := make(map[porcupine.Operation]bool)
		for _, op := range longest {
			in[op] = true
		}
		end := longest[len(longest)-1].Call
		for _, op := range ops {
			if !in[op] && op.Call <= end+int64(20*time.Millisecond) {
				tell("not in: ", op)
			}
		}
		for _, op := range longest[max(0, len(longest)-20):] {
			tell("", op)
		}
	}
}
