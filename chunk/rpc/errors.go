package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"dos/chunk"
)

// A failure is the number of an error on the wire. The list only grows.
type failure uint8

const (
	_           failure = iota
	notExist            // chunk.ErrNotExist
	exist               // chunk.ErrExist
	corrupt             // chunk.ErrCorrupt
	full                // chunk.ErrFull
	lost                // chunk.ErrLost
	tooFew              // chunk.ErrTooFew
	eof                 // io.EOF
	late                // context.DeadlineExceeded
	canceled            // context.Canceled
	unsupported         // errors.ErrUnsupported
	failures            // the number of failures; last
)

// other is the number of what has none: only its text arrives.
const other failure = 255

// kinds is the table of what travels.
func kinds() [failures]error {
	return [failures]error{
		notExist:    chunk.ErrNotExist,
		exist:       chunk.ErrExist,
		corrupt:     chunk.ErrCorrupt,
		full:        chunk.ErrFull,
		lost:        chunk.ErrLost,
		tooFew:      chunk.ErrTooFew,
		eof:         io.EOF,
		late:        context.DeadlineExceeded,
		canceled:    context.Canceled,
		unsupported: errors.ErrUnsupported,
	}
}

// textMax bounds the text of an error in bytes, so that it fits a header.
const textMax = 4 << 10

// failed returns the reply that says err.
func failed(err error) reply {
	if err == nil {
		return reply{}
	}
	text := err.Error()
	if len(text) > textMax {
		text = text[:textMax]
	}
	for n, kind := range kinds() {
		if kind != nil && errors.Is(err, kind) {
			if text == kind.Error() {
				text = ""
			}
			return reply{Failure: failure(n), Text: text}
		}
	}
	return reply{Failure: other, Text: text}
}

// err returns the error that the reply carries: the kind itself if nothing was
// added to it, as io.EOF must be.
func (r reply) err() error {
	if r.Failure == 0 {
		return nil
	}
	if r.Failure >= failures {
		return errors.New(r.Text)
	}
	kind := kinds()[r.Failure]
	if r.Text == "" {
		return kind
	}
	return remote{kind, r.Text}
}

// remote is an error that came over the wire: its text is complete already.
type remote struct {
	kind error
	text string
}

func (e remote) Error() string { return e.text }
func (e remote) Unwrap() error { return e.kind }

// away turns an error of the connection to a store into one of a Store: its
// caller's own deadline or interruption, or the loss of the store.
func away(ctx context.Context, store chunk.StoreID, err error) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	// Whoever sends what is not understood is of no more use than a dead one.
	return fmt.Errorf("%w: store %d: %w", chunk.ErrLost, store, err)
}
