package node

import (
	"context"
	"io"
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
	return 0, nil
}
