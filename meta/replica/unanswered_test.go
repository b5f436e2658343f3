package replica

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// unanswered is what Raft was asked for in its last moment.
type unanswered struct {
	raft.Future
	asked chan struct{} // closed when somebody waits
	never chan struct{}
}

func (u unanswered) Error() error {
	close(u.asked)
	<-u.never
	return nil
}

// TestCloseUnanswered: what Raft leaves unanswered when it ends keeps no member
// from stopping.
func TestCloseUnanswered(t *testing.T) {
	r := open(t, testConfig(t, t.TempDir()))
	u := unanswered{asked: make(chan struct{}), never: make(chan struct{})}
	defer close(u.never)
	change := make(chan error, 1)
	go func() { change <- r.change(context.Background(), func() raft.Future { return u }) }()
	<-u.asked
	closed := make(chan error, 1)
	go func() { closed <- r.Close() }()
	for range 2 {
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case err := <-change:
			if err == nil {
				t.Error("what nobody answered has succeeded")
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it still waits")
		}
	}
}
