package queue

import (
	"fmt"
	"strconv"

	"dos/meta"
	"dos/meta/state"
)

// Verbs are what a transaction (package txn) may do here:
//
//	push QUEUE               the data is sent; the answer is its id
//	send QUEUE               the same with a Message as data, encoded
//	ack QUEUE CLAIM NUMBER   a message that the session has taken is done with
//
// A transaction waits for nothing: a queue that is full fails it, whatever its senders
// are to do otherwise. A message that is there already, by its deduplication id, is
// sent. Which claim it is of, a program knows from Taken.
var Verbs = map[string]func(tx *state.Tx, args []string, data []byte) (answer string, err error){
	"push": pushVerb,
	"send": sendVerb,
	"ack":  ackVerb,
}

func pushVerb(tx *state.Tx, args []string, data []byte) (string, error) {
	return sendStep(tx, args, Message{Body: data})
}

func sendVerb(tx *state.Tx, args []string, data []byte) (string, error) {
	var m Message
	if state.Unmarshal(data, &m) != nil {
		return "", fmt.Errorf("the message does not decode: %w", meta.Invalid)
	}
	return sendStep(tx, args, m)
}

func sendStep(tx *state.Tx, args []string, m Message) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("%.80q is not one QUEUE: %w", args, meta.Invalid)
	}
	out, err := Room{}.Push(tx, Push{Name: args[0], Messages: []Message{m}})
	switch {
	case err != nil:
		return "", err
	case len(out.IDs) == 0:
		return "", fmt.Errorf("queue %q is full: %w", args[0], meta.WouldWait)
	}
	return strconv.FormatUint(out.IDs[0], 10), nil
}

func ackVerb(tx *state.Tx, args []string, _ []byte) (string, error) {
	if len(args) != 3 {
		return "", fmt.Errorf("%.80q is not QUEUE CLAIM NUMBER: %w", args, meta.Invalid)
	}
	claimed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return "", fmt.Errorf("claim %.80q: %w", args[1], meta.Invalid)
	}
	message, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return "", fmt.Errorf("message %.80q: %w", args[2], meta.Invalid)
	}
	w := begin(tx)
	q, err := w.queue(args[0])
	if err != nil {
		return "", err
	}
	var c claim
	// What Tick has not ended yet has ended all the same.
	over := read(tx, claimKey(tx.Session, q.ID, claimed), &c) && c.Until <= w.now()
	if over || !q.settle(tx.Session, Settle{Claim: claimed, Numbers: []uint64{message}, What: Ack}) {
		return "", fmt.Errorf("queue %q: message %d is not held any more: %w", q.name, message, meta.Fenced)
	}
	w.done()
	return "", nil
}
