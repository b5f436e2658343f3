package client

import (
	"fmt"
	"strconv"

	"dos/meta"
	"dos/meta/queue"
	"dos/meta/state"
	"dos/meta/txn"
)

// Send is the step of a transaction that sends a message; its answer is the message's
// id. A queue that is full fails the transaction (meta.WouldWait, or meta.Quota).
func Send(name string, m queue.Message) txn.Step {
	return txn.Step{Verb: "send", Args: []string{name}, Data: state.Marshal(m)}
}

// Ack is the step that acknowledges a message of a claim of the session that commits.
// If the claim is no more the transaction fails (meta.Fenced).
func Ack(name string, claim, number uint64) txn.Step {
	return txn.Step{Verb: "ack", Args: []string{name, strconv.FormatUint(claim, 10), strconv.FormatUint(number, 10)}}
}

// Ack returns the step that acknowledges what a process has of a group by a Take. It
// is the message with that number, of any process of the user, or if that is 0 the
// only one that the process has. The user 0 is every user. Who commits it says so to
// Acked.
func (t *Taker) Ack(name, group string, by Process, number uint64) (txn.Step, error) {
	var steps []txn.Step
	for _, r := range t.taken(name) {
		mine := r.by.PID == by.PID && by.PID != 0 || number != 0
		if r.consumer.take.Group != group || by.UID != 0 && r.by.UID != by.UID || !mine {
			continue
		}
		r.mu.Lock()
		if r.now != 0 && (number == 0 || r.now == number) && r.in == t.stay.Session() {
			steps = append(steps, Ack(name, r.claim, r.now))
		}
		r.mu.Unlock()
	}
	switch len(steps) {
	case 0:
		return txn.Step{}, fmt.Errorf("no message of queue %q is held: %w", name, meta.Fenced)
	case 1:
		return steps[0], nil
	}
	return txn.Step{}, fmt.Errorf("%d messages of queue %q are held, and none is named: %w", len(steps), name, meta.Invalid)
}

// Acked says that a step of Ack's is committed: nothing is left for Close to do.
func (t *Taker) Acked(step txn.Step) {
	for _, r := range t.taken(step.Args[0]) {
		r.mu.Lock()
		if r.now != 0 && strconv.FormatUint(r.claim, 10) == step.Args[1] {
			r.now = 0
		}
		r.mu.Unlock()
	}
}

// taken returns the Readers that Take made, of a queue.
func (t *Taker) taken(name string) (list []*Reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for r := range t.readers {
		if r.only != 0 && r.consumer.take.Name == name {
			list = append(list, r)
		}
	}
	return list
}
