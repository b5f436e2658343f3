package quietlog_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dos/internal/quietlog"
)

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(quietlog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		lines := func(want int, text string) {
			t.Helper()
			if got := strings.Count(out.String(), text); got != want {
				t.Errorf("%d lines with %q, want %d:\n%.2000s", got, text, want, out.String())
			}
		}
		for i := range 1000 {
			log.With("inode", i).WithGroup("g").Error("cannot be read", "i", i)
			log.Debug("detail", "i", i)
		}
		lines(5, "cannot be read")
		lines(1000, "detail")
		log.Warn("another")
		lines(1, "another")
		time.Sleep(1100 * time.Millisecond)
		log.Error("cannot be read")
		log.Error("cannot be read")
		lines(6, "cannot be read")
		lines(1, "similar=995")
		time.Sleep(time.Hour)
		for range 10 {
			log.Error("cannot be read")
		}
		lines(11, "cannot be read")
		lines(1, "similar=1\n")
	})
}
