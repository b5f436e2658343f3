package queues

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/txn"
	"dos/procfs"
)

// Steps are the verbs of a transaction that are about queues, as people write them.
// Each says whether a caller may do a step, and makes of what stands after the verb
// what the service takes:
//
//	push QUEUE TEXT
//	send QUEUE [key=… prio=… delay=… dedup=… expires=…] TEXT
//	ack QUEUE [NUMBER]
type Steps struct{ Queues *client.Taker }

// toEnter is the bit of a directory's mode that lets others come to what is in it.
// Who may come to a queue may send to it and take from it: its files say no more.
const toEnter = 1

// use reports that a caller may not use a queue, or that there is none.
func (s Steps) use(ctx context.Context, by procfs.Caller, step *txn.Step) error {
	st, err := s.Queues.Status(ctx, step.Args[0])
	if err == nil && !by.May(st.UID, st.GID, st.Mode, toEnter) {
		err = fmt.Errorf("%s %s: %w", step.Verb, step.Args[0], meta.Permission)
	}
	return err
}

// Push is for push.
func (s Steps) Push(ctx context.Context, by procfs.Caller, step *txn.Step) error {
	return s.use(ctx, by, step)
}

// Send is for send.
func (s Steps) Send(ctx context.Context, by procfs.Caller, step *txn.Step) error {
	m, token, err := parseSend(string(step.Data))
	switch {
	case err != nil:
		return err
	case token != nil:
		return fmt.Errorf("a transaction is under a token by a step of its own, fence: %w", meta.Invalid)
	}
	*step = client.Send(step.Args[0], m)
	return s.use(ctx, by, step)
}

// Ack is for ack. It is of what the caller has by a lease or a pop; the right to take
// was asked for then. The queue may be one and its group, as their path is.
func (s Steps) Ack(_ context.Context, by procfs.Caller, step *txn.Step) error {
	var number uint64
	if text := strings.TrimSpace(string(step.Data)); text != "" {
		var err error
		if number, err = strconv.ParseUint(text, 10, 64); err != nil || number == 0 {
			return fmt.Errorf("%.80q is not the number of a message: %w", text, meta.Invalid)
		}
	}
	name, group, _ := strings.Cut(step.Args[0], "/"+groupsDir+"/")
	out, err := s.Queues.Ack(name, group, process(by), number)
	*step = out
	return err
}

// Acked hears of a step of Ack's that is committed.
func (s Steps) Acked(step txn.Step) { s.Queues.Acked(step) }

func process(by procfs.Caller) client.Process { return client.Process{UID: by.UID, PID: by.PID} }
