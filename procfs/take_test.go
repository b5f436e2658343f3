package procfs

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"dos/meta"
)

// TestTakeEnds says when what was taken counts as had.
func TestTakeEnds(t *testing.T) {
	var (
		parent = Closer{Known: true, Opener: true}
		child  = Closer{Known: true}
		killed = Closer{Known: true, Opener: true, Killed: true}
		nobody = Closer{}
	)
	const all, half = -1, -2
	for _, c := range []struct {
		what  string
		steps []any // all, half, or a Closer
		had   bool
	}{
		{"read and closed", []any{all, parent}, true},
		{"a duplicate closed first, as read -r <pop does", []any{parent, all, parent}, true},
		{"closed unread", []any{parent}, false},
		{"half", []any{half, parent}, false},
		{"in pieces", []any{half, all, parent}, true},
		{"killed", []any{all, killed}, false},
		{"a child read and was killed", []any{all, Closer{Known: true, Killed: true}, parent}, false},
		{"a child was killed, then it was read again", []any{all, Closer{Known: true, Killed: true}, all, parent}, true},
		{"a child closed last", []any{all, parent, child}, true},
		{"nobody knows who", []any{all, nobody}, false},
		{"never closed", []any{all}, false},
	} {
		for _, data := range []string{"one line\n", "two\nlines\n"} {
			for _, how := range []Open{{Read: true}, {Read: true, Write: true}} {
				ended := 0
				h, err := Take{Take: func(context.Context, bool) (Taken, error) {
					return Taken{Data: data, End: func(_ context.Context, had bool) error {
						if ended++; had != c.had {
							t.Errorf("%s: had is %v", c.what, had)
						}
						return nil
					}}, nil
				}}.Open(t.Context(), how)
				if err != nil {
					t.Fatal(err)
				}
				if _, streams := h.(Streamer); streams != (how.Write || data == "two\nlines\n") {
					t.Errorf("%q opened %+v streams: %v", data, how, streams)
				}
				off := int64(0)
				for _, step := range c.steps {
					switch step := step.(type) {
					case Closer:
						if err := h.(Flusher).Flush(t.Context(), step); err != nil {
							t.Fatal(err)
						}
					case int:
						buf := make([]byte, 100)
						if step == half {
							buf = buf[:4]
						}
						n, _ := h.ReadAt(t.Context(), buf, off)
						off += int64(n)
					}
				}
				if err := h.Close(t.Context()); err != nil || ended != 1 {
					t.Errorf("%s: closing: %v, ended %d times", c.what, err, ended)
				}
			}
		}
	}
}

func TestTakeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := func(ctx context.Context, wait bool) (Taken, error) {
			if !wait {
				return Taken{}, meta.WouldWait
			}
			<-ctx.Done()
			return Taken{}, ctx.Err()
		}
		second, none := time.Second, time.Duration(0)
		interrupted, cancel := context.WithCancel(t.Context())
		cancel()
		for _, c := range []struct {
			ctx      context.Context
			patience *time.Duration
			nonblock bool
			want     error
		}{
			{t.Context(), &second, false, meta.TimedOut},
			{t.Context(), &none, false, meta.WouldWait},
			{t.Context(), nil, true, meta.WouldWait},
			{interrupted, nil, false, context.Canceled},
			{interrupted, &second, false, context.Canceled},
		} {
			if _, err := (Take{Take: never, Patience: c.patience}).Open(c.ctx, Open{Read: true, Nonblock: c.nonblock}); !errors.Is(err, c.want) {
				t.Errorf("patience %v, nonblock %v: %v, want %v", c.patience, c.nonblock, err, c.want)
			}
		}
	})
}
