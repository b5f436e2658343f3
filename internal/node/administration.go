package node

import (
	"context"
	"io"

	"dos/chunk"
	"dos/internal/admin"
	"dos/procfs/nodes"
)

// administration is what dosctl can ask; it implements admin.Data.
type administration struct{ e *Embedded }

func (a administration) Status(ctx context.Context) (any, error) { return a.e.Status(ctx) }

func (a administration) Nodes(ctx context.Context) (any, error) {
	n, err := a.e.Node(ctx, nodeName)
	return []nodes.Node{n}, err
}

func (a administration) Events(_ context.Context, after uint64) (any, error) {
	return a.e.events.After(after), nil
}

func (a administration) Fsck(ctx context.Context, data bool, to admin.Report) (int, error) {
	return a.e.fsck(ctx, data, to)
}

func (a administration) Dump(_ context.Context, w io.Writer) error {
	return a.e.meta.Replica().Dump(w)
}

func (a administration) Scrub(ctx context.Context, to admin.Report) (int, error) {
	return a.e.stores.scrub(ctx, to)
}

func (a administration) Replace(_ context.Context, store uint32) error {
	return a.e.stores.Replace(chunk.StoreID(store))
}
