package replica

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLogger passes on what the libraries say: errors, and for a group of
// several also warnings (alone, each start would warn of an election). Once quit
// is closed everything that is given up is an error to them, and to nobody else.
func raftLogger(log *slog.Logger, warnings bool, quit <-chan struct{}) hclog.Logger {
	level := hclog.Error
	if warnings {
		level = hclog.Warn
	}
	return hclog.New(&hclog.LoggerOptions{Level: level, DisableTime: true, Output: &lineLogger{log: log, quit: quit, said: make(map[string]time.Time)}})
}

// sayAgain is when a line is passed on once more that differs from an earlier one
// only in what changes all the time. Raft says of a peer that is down several times
// a second that it is; that peers come and go is in the log by other rooms.
const sayAgain = 5 * time.Minute

// saidMax bounds the lines that are remembered.
const saidMax = 1024

type lineLogger struct {
	log  *slog.Logger
	quit <-chan struct{}

	mu   sync.Mutex
	said map[string]time.Time // when, by what stays the same of a line; guarded by mu
}

func (l *lineLogger) Write(p []byte) (int, error) {
	select {
	case <-l.quit:
		return len(p), nil
	default:
	}
	line := strings.TrimSpace(string(p))
	if !l.isNew(line, time.Now()) {
		return len(p), nil
	}
	if rest, ok := strings.CutPrefix(line, "[ERROR]"); ok {
		l.log.Error("raft: " + strings.TrimSpace(rest))
	} else {
		l.log.Warn("raft: " + strings.TrimSpace(strings.TrimPrefix(line, "[WARN]")))
	}
	return len(p), nil
}

// isNew reports whether a line is to be passed on.
func (l *lineLogger) isNew(line string, now time.Time) bool {
	what := line
	for _, changing := range []string{" error=", " backoff time=", " time=", " term=", " next=", " previous-index="} {
		what, _, _ = strings.Cut(what, changing)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.said[what]; ok && now.Sub(at) < sayAgain {
		return false
	}
	if len(l.said) >= saidMax {
		clear(l.said)
	}
	l.said[what] = now
	return true
}
