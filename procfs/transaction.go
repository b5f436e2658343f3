package procfs

import (
	"context"
	"fmt"

	"dos/meta"
)

// A Transaction is what a transaction file does (class N): a line that is written
// is a request, and what is read next is the reply. Read before anything was
// written, it is empty; closed unwritten, it does nothing. Each open makes a
// Transaction of its own, which may keep what was said so far.
type Transaction struct {
	// Say executes a line and returns what it is answered, with a newline, or
	// nothing.
	Say func(ctx context.Context, line string) (reply string, err error)
	// Verbatim says that each line counts, whatever it begins with.
	Verbatim bool
	// End, if set, is called when the last descriptor is closed.
	End func(ctx context.Context) error
}

// replyMax bounds what a program may leave unread, in bytes: the largest reply
// and more.
const replyMax = 8 << 20

// Open opens the transaction file.
func (t Transaction) Open(_ context.Context, how Open) (Handle, error) {
	if !how.Write {
		return textHandle(""), nil // so that grep -r passes by
	}
	h := &controlHandle{end: t.End}
	h.lines = lines{verbatim: t.Verbatim, turn: newTurn(), do: one(func(ctx context.Context, line string) error {
		reply, err := t.Say(ctx, line)
		if err == nil && how.Read && !h.add(reply, replyMax) {
			return fmt.Errorf("%d bytes of replies were not read: %w", replyMax, meta.TooLarge)
		}
		return err
	})}
	return h, nil
}
