package exchange

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"dos/meta"
)

// A flow is one end of a call: what is read of the one direction, and written of the
// other. It has one reader and one writer at a time.
type flow struct {
	send    func(Message) error // of this call
	out     What                // what carries data: More or Reply
	timeout time.Duration       // bounds each wait; 0: none
	late    func(error)         // called when that is over

	mu       sync.Mutex
	in       [][]byte      // came and was not read; guarded by mu, as all below
	eof      bool          // nothing follows it
	consumed int           // bytes that were not confirmed yet
	credit   int           // bytes that may be sent
	sent     bool          // the last was sent
	err      error         // why it is over before its time
	readable chan struct{} // of one: the reader looks again
	writable chan struct{} // likewise
}

func newFlow(out What, send func(Message) error) *flow {
	return &flow{out: out, send: send, credit: Window, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// came takes data of the other side, which keeps to the Window or ends the call.
func (f *flow) came(data []byte, last bool) {
	f.mu.Lock()
	size := 0
	for _, piece := range f.in {
		size += len(piece)
	}
	switch {
	case f.err != nil || f.eof:
	case size+len(data) > Window+pieceMax:
		f.err = fmt.Errorf("the other side sent more than it may: %w", meta.Protocol)
	default:
		if len(data) > 0 {
			f.in = append(f.in, data)
		}
		f.eof = last
	}
	f.mu.Unlock()
	poke(f.readable)
}

// got is what the other side has consumed.
func (f *flow) got(n int) {
	f.mu.Lock()
	f.credit = min(f.credit+max(n, 0), Window)
	f.mu.Unlock()
	poke(f.writable)
}

// fail ends both directions.
func (f *flow) fail(err error) {
	f.mu.Lock()
	if f.err == nil {
		f.err = err
	}
	f.mu.Unlock()
	poke(f.readable)
	poke(f.writable)
}

// await waits until something has changed.
func (f *flow) await(ctx context.Context, changed <-chan struct{}) error {
	var late <-chan time.Time
	if f.timeout > 0 {
		timer := time.NewTimer(f.timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late:
		err := fmt.Errorf("nothing came for %v: %w", f.timeout, meta.TimedOut)
		f.late(err)
		return err
	}
}

// read returns what is there, or waits. At the end it is io.EOF.
func (f *flow) read(ctx context.Context, p []byte) (int, error) {
	for {
		f.mu.Lock()
		if len(f.in) > 0 {
			n := 0
			for len(f.in) > 0 && n < len(p) {
				k := copy(p[n:], f.in[0])
				if f.in[0] = f.in[0][k:]; len(f.in[0]) == 0 {
					f.in = f.in[1:]
				}
				n += k
			}
			f.consumed += n
			confirm := 0
			if f.consumed >= Window/2 && !f.eof {
				confirm, f.consumed = f.consumed, 0
			}
			f.mu.Unlock()
			if confirm > 0 {
				_ = f.send(Message{What: Got, N: confirm}) // who receives hears of a connection that broke
			}
			return n, nil
		}
		err, eof := f.err, f.eof
		f.mu.Unlock()
		switch {
		case eof:
			return 0, io.EOF
		case err != nil:
			return 0, err
		case len(p) == 0:
			return 0, nil
		}
		if err := f.await(ctx, f.readable); err != nil {
			return 0, err
		}
	}
}

// write sends p, of which it keeps nothing, as fast as the other side consumes it. It
// returns how much was sent.
func (f *flow) write(ctx context.Context, p []byte, last bool) (n int, err error) {
	for n < len(p) || last {
		f.mu.Lock()
		k := min(len(p)-n, f.credit, pieceMax)
		ends := last && n+k == len(p)
		err := f.err
		if f.sent && err == nil {
			err = fmt.Errorf("written after its end: %w", meta.Invalid)
		}
		if err == nil && (k > 0 || ends) {
			f.credit -= k
			f.sent = ends
		}
		f.mu.Unlock()
		switch {
		case err != nil:
			return n, err
		case k > 0 || ends:
			data := make([]byte, k)
			copy(data, p[n:])
			if err := f.send(Message{What: f.out, Data: data, Last: ends}); err != nil {
				return n, fmt.Errorf("the other side cannot be reached: %w: %v", meta.HostDown, err)
			}
			if n += k; ends {
				return n, nil
			}
			continue
		}
		if err := f.await(ctx, f.writable); err != nil {
			return n, err
		}
	}
	return n, nil
}

var errClosed = fmt.Errorf("the call was given up: %w", meta.Canceled)
