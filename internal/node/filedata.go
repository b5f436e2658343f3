package node

import (
	"context"

	"dos/chunk/stripe"
	"dos/meta/replica"
)

// fileData is the data path as files see it: there is room only as long as the
// metadata can name what is written.
type fileData struct {
	*stripe.Path
	metadata *replica.Replica
}

func (d fileData) Capacity(ctx context.Context) (total, free int64, err error) {
	total, free, err = d.Path.Capacity(ctx)
	if d.metadata.Short() {
		free = 0
	}
	return total, free, err
}
