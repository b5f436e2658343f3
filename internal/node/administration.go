package node

import (
	"context"
	"fmt"
	"io"

	"dos/chunk"
)

// administration is what dosctl can ask; it implements admin.Service.
type administration struct{ e *Embedded }

func (a administration) Status(ctx context.Context) (any, error) { return a.e.Status(ctx) }

func (a administration) Fsck(ctx context.Context, data bool, say func(string)) (int, error) {
	return a.e.fsck(ctx, data, say)
}

func (a administration) Dump(_ context.Context, w io.Writer) error {
	return a.e.meta.Replica().Dump(w)
}

// Scrub reads the stores one after another: they may share a disk.
func (a administration) Scrub(ctx context.Context, say func(string)) (int, error) {
	problems := 0
	for _, st := range a.e.stores.list {
		round, err := st.node.ScrubNow(ctx)
		if err != nil {
			return problems, fmt.Errorf("store %d (%s): %w", st.member.ID, st.member.Path, err)
		}
		problems += int(round.Corrupt)
		say(fmt.Sprintf("store %d: %d shards read, %d bad", st.member.ID, round.Records, round.Corrupt))
	}
	if problems > 0 {
		say(fmt.Sprintf("%d bad shards are being rebuilt; see dosctl status", problems))
	}
	return problems, nil
}

func (a administration) Replace(_ context.Context, store uint32) error {
	return a.e.stores.Replace(chunk.StoreID(store))
}
