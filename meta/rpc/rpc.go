// Package rpc is the metadata service at the other end of a connection. It owns
// how commands, queries and their replies travel; it does not know what they
// mean, nor when one may be sent again (package meta/client does).
//
// The service dos.meta has one stream, Session: requests go one way and
// answers the other, many under way at once, matched by a number and answered
// in any order. A request's header (CBOR, small integers for keys) is a
// request, an answer's an answer; the bodies are the payloads. Its one call,
// Leader, takes nothing and answers who leads, in the header, as whereabouts. The
// service dos.memory is the same with one process that holds queues in memory.
package rpc

import (
	"context"

	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/state"
)

const (
	metaName   = "dos.meta"
	memoryName = "dos.memory"
	method     = "Session"
	callLeader = "Leader"

	// inFlight bounds the requests of one stream that the server works on. It
	// takes no further ones until some are answered: a session's commands,
	// which have state.Slots slots, and as many queries three times.
	inFlight = 4 * state.Slots
	// textMax bounds the text of an error in bytes, so that it fits a header.
	textMax = 4 << 10
)

// A Handler executes one request (meta/client.Sender says what is promised).
// It is called concurrently.
type Handler interface {
	Do(ctx context.Context, cmd state.Command) (state.Reply, error)
}

// A Leader is a Handler that is one of several, and knows who of them is the one
// to ask. One that does not know is alone.
type Leader interface {
	// Leader says whether it is this one, and else at which address it is, if that
	// is known.
	Leader() (me bool, addr string)
}

// whereabouts says who leads.
type whereabouts struct {
	Me   bool   `cbor:"1,keyasint,omitempty"`
	Addr string `cbor:"2,keyasint,omitempty"` // of another that does; empty if it is not known
}

// A request is the header of a request.
type request struct {
	Number  uint64         `cbor:"1,keyasint,omitempty"` // on this stream; chosen by the client
	Op      state.Op       `cbor:"2,keyasint,omitempty"`
	Session meta.SessionID `cbor:"3,keyasint,omitempty"`
	Slot    uint16         `cbor:"4,keyasint,omitempty"`
	Seq     uint64         `cbor:"5,keyasint,omitempty"`
}

// An answer is the header of an answer.
type answer struct {
	Number uint64    `cbor:"1,keyasint,omitempty"` // of the request
	Kind   meta.Kind `cbor:"2,keyasint,omitempty"` // zero on success
	Text   string    `cbor:"3,keyasint,omitempty"` // of the error
	// Failed says that the handler failed to execute it: Kind and Text are its error.
	Failed bool `cbor:"4,keyasint,omitempty"`
}

// cut returns text or as much of it as travels.
func cut(text string) string { return text[:min(len(text), textMax)] }

// payloadMax bounds a request's and an answer's body in bytes. Commands and
// lists are far smaller; what is larger is refused and not sent.
const payloadMax = rpc.MaxPayload
