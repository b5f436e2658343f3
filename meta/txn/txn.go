// Package txn is transactions across services: one command whose steps belong to
// several rooms and are executed in order, all or, at the first that fails, none.
// It knows no room: whoever puts the machine together says which verbs there are
// and whose each is, and a verb is a function of the transaction of the state.
//
// The room has no rows.
package txn

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

// OpCommit is the only operation: Commit → Committed. It is in the range of
// package kv.
const OpCommit state.Op = 0x0620

// Limits of a transaction. Its data must fit an entry of the log.
const (
	StepsMax = 256
	DataMax  = 256 << 10 // bytes of all arguments and data
)

// A Verb executes a step in tx. What it is answered with goes back to who asked. If
// it fails, nothing of the transaction is done.
type Verb = func(tx *state.Tx, args []string, data []byte) (answer string, err error)

// A Step is one verb with what it is about.
type Step struct {
	Verb string   `cbor:"1,keyasint,omitempty"`
	Args []string `cbor:"2,keyasint,omitempty"`
	Data []byte   `cbor:"3,keyasint,omitempty"`
}

// Commit executes steps.
type Commit struct {
	Steps []Step `cbor:"1,keyasint,omitempty"`
}

// Committed has the answer to each step.
type Committed struct {
	Answers []string `cbor:"1,keyasint,omitempty"`
}

// Register adds the operation to m, with the verbs of all rooms that have some. Two
// may not have the same.
func Register(m *state.Machine, rooms ...map[string]Verb) {
	verbs := make(map[string]Verb)
	for _, room := range rooms {
		for verb, do := range room {
			if verbs[verb] != nil {
				panic(fmt.Sprintf("txn: two rooms have the verb %q", verb))
			}
			verbs[verb] = do
		}
	}
	state.Handle(m, OpCommit, "txn.commit", func(tx *state.Tx, req Commit) (Committed, error) { return commit(tx, verbs, req) })
	state.Adds(m, OpCommit, func(Commit) bool { return true })
}

func commit(tx *state.Tx, verbs map[string]Verb, req Commit) (Committed, error) {
	if err := check(req); err != nil {
		return Committed{}, err
	}
	var reply Committed
	for i, step := range req.Steps {
		do := verbs[step.Verb]
		if do == nil {
			return Committed{}, fmt.Errorf("step %d: there is no verb %.80q: %w", i+1, step.Verb, meta.Invalid)
		}
		answer, err := do(tx, step.Args, step.Data)
		if err != nil {
			return Committed{}, fmt.Errorf("step %d, %s: %w", i+1, step.Verb, err)
		}
		reply.Answers = append(reply.Answers, answer)
	}
	return reply, nil
}

func check(req Commit) error {
	size := 0
	for _, step := range req.Steps {
		size += len(step.Data)
		for _, arg := range step.Args {
			size += len(arg)
		}
	}
	switch {
	case len(req.Steps) == 0 || len(req.Steps) > StepsMax:
		return fmt.Errorf("%d steps, 1 to %d: %w", len(req.Steps), StepsMax, meta.Invalid)
	case size > DataMax:
		return fmt.Errorf("%d bytes, at most %d: %w", size, DataMax, meta.TooLarge)
	}
	return nil
}
