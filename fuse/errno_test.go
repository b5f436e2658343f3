package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	raw "github.com/hanwen/go-fuse/v2/fuse"

	"dos/meta"
)

func TestEveryKindHasItsErrno(t *testing.T) {
	for _, k := range meta.Kinds() {
		if e, ok := errnos[k]; !ok || e == 0 {
			t.Errorf("kind %v has no errno", k)
		}
	}
	if len(errnos) != len(meta.Kinds()) {
		t.Errorf("%d errnos for %d kinds", len(errnos), len(meta.Kinds()))
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		name     string
		err      error
		want     syscall.Errno
		logged   bool
		recorded bool
	}{
		{"nil", nil, 0, false, false},
		{"bare kind", meta.NotExist, syscall.ENOENT, false, false},
		{"wrapped kind", fmt.Errorf("verb %q: %w", "fly", meta.Invalid), syscall.EINVAL, false, true},
		{"lost", fmt.Errorf("stripe 7: %w", meta.Lost), syscall.EIO, true, true},
		{"bare lost", meta.Lost, syscall.EIO, true, true},
		{"fixed", meta.Fixed, syscall.EPERM, false, false},
		{"expired", meta.Expired, syscall.EIO, true, true},
		{"interrupted", fmt.Errorf("pop: %w", context.Canceled), syscall.EINTR, false, false},
		{"too late", context.DeadlineExceeded, syscall.ETIMEDOUT, true, true},
		{"an errno", syscall.EAGAIN, syscall.EAGAIN, false, true},
		{"ENOSYS would switch the operation off", syscall.ENOSYS, syscall.EIO, true, true},
		{"unknown", errors.New("surprise"), syscall.EIO, true, true},
		{"unknown kind", meta.Kind(250), syscall.EIO, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log strings.Builder
			recorded := false
			f := &files{
				log:    slog.New(slog.NewTextHandler(&log, nil)),
				failed: func(string, error) { recorded = true },
			}
			if got := f.status("test", c.err); got != raw.Status(c.want) {
				t.Errorf("status(%v) = %v, want %v", c.err, got, c.want)
			}
			if logged := log.Len() > 0; logged != c.logged {
				t.Errorf("status(%v) logged %q, want logged %v", c.err, log.String(), c.logged)
			}
			if recorded != c.recorded {
				t.Errorf("status(%v) recorded %v, want %v", c.err, recorded, c.recorded)
			}
		})
	}
}
