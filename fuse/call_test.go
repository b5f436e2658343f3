package fuse

import (
	"context"
	"errors"
	"testing"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/procfs"
)

// blocking is a node whose handles may wait in a write.
type blocking struct{ procfs.Node }

func (blocking) Blocks() {}

// What a write changes is waited for, whoever is interrupted: only waiting for others
// is not.
func TestWritingInterrupted(t *testing.T) {
	interrupted := make(chan struct{})
	close(interrupted)
	f := &files{ctx: t.Context()}
	for _, test := range []struct {
		node procfs.Node
		want error
	}{
		{procfs.Text("text", nil), nil},
		{blocking{}, context.Canceled},
	} {
		if err := f.writing(test.node, interrupted, &raw.InHeader{}).Err(); !errors.Is(err, test.want) {
			t.Errorf("%T: %v, want %v", test.node, err, test.want)
		}
	}
}
