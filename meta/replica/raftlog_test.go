package replica

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A peer is down for an hour: the log says so now and then, and says at once what
// else there is.
func TestRaftLogIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := raftLogger(slog.New(slog.NewTextHandler(&out, nil)), true, nil)
		for i := range 3600 {
			log.Error("failed to heartbeat to", "peer", "10.0.0.2:7600", "backoff time", time.Duration(i), "error", fmt.Errorf("refused %d", i))
			log.Error("failed to make requestVote RPC", "target", "{Voter b/1 10.0.0.2:7600}", "error", "refused", "term", i)
			log.Warn("failed to contact", "server-id", "b/1", "time", time.Duration(i))
			time.Sleep(time.Second)
		}
		if n := strings.Count(out.String(), "\n"); n < 3 || n > 3*12 {
			t.Errorf("%d lines in an hour:\n%s", n, out.String())
		}
		out.Reset()
		log.Error("failed to heartbeat to", "peer", "10.0.0.3:7600", "backoff time", time.Second, "error", "refused")
		log.Info("nobody cares")
		if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "10.0.0.3") {
			t.Errorf("of another peer: %q", out.String())
		}
	})
}
