package rpc

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"dos/internal/relay"
	"dos/meta"
	"dos/meta/call"
	"dos/meta/client"
	"dos/procfs"
)

// workersDefault and workersMax are how many calls at a time a registered server gets.
const (
	workersDefault = 16
	workersMax     = 1024
)

// openRegister has servers elsewhere serve, as long as it is open.
func openRegister(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	r := &registration{file: f, by: how.Caller}
	return procfs.Control{
		Settings: func(context.Context) (string, error) { return "", nil },
		Do:       r.do, End: r.end,
	}.Open(ctx, how)
}

// A registration is what one descriptor has registered.
type registration struct {
	file file
	by   procfs.Caller

	mu     sync.Mutex
	stops  []func() // guarded by mu
	closed bool     // guarded by mu
}

// do registers a server: its URL, and options.
func (r *registration) do(ctx context.Context, line string) error {
	words := strings.Fields(line)
	workers := workersDefault
	for _, word := range words[1:] {
		name, val, _ := strings.Cut(word, "=")
		n, err := strconv.ParseUint(val, 10, 31)
		if name != "workers" || err != nil || n < 1 || n > workersMax {
			return fmt.Errorf("%.80q is not workers=N, N from 1 to %d: %w", word, workersMax, meta.Invalid)
		}
		workers = int(n)
	}
	b, err := relay.New(words[0], workers)
	if err != nil {
		return err
	}
	if len(words[0]) > call.TextMax {
		return fmt.Errorf("an address of %d bytes: %w", len(words[0]), meta.TooLong)
	}
	who := client.Who{UID: r.by.UID, PID: r.by.PID, Target: words[0]}
	serving, err := r.file.room.server.Start(ctx, r.file.service, who, workers, b.Serve)
	if err != nil {
		b.Close()
		return err
	}
	stop := func() {
		serving.Stop()
		b.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		go stop()
		return io.ErrClosedPipe
	}
	r.stops = append(r.stops, stop)
	return nil
}

func (r *registration) end(context.Context) error {
	r.mu.Lock()
	stops := r.stops
	r.stops, r.closed = nil, true
	r.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	return nil
}
