package cache

import (
	"errors"
	"fmt"
	"time"

	entries "dos/chunk/cache"
	"dos/internal/rpc"
	"dos/meta"
	"dos/meta/state"
)

const (
	serviceName = "dos.cache"
	streamRead  = "Read"
	streamWrite = "Write"
	streamCopy  = "Copy"
	streamWatch = "Watch"
	// frameBytes is how much is put into one frame, beside the last value in it.
	frameBytes = 1 << 20
	// frameMax bounds the requests in one frame.
	frameMax = 256
)

// An op is what is asked for. Numbers are never reused.
type op uint8

const (
	opGet op = 1 + iota
	opStat
	opScan
	opStats
	opBucket // by its name in Key: what is known of it here, in Value
	opSet
	opDelete
	opExpire
	opIncr
	opFill   // the entry, or the right to provide it
	opCommit // provides it
	opAbandon
	opCopySet
	opCopyDelete
	opCopyExpire
)

// stream is the one by which an op goes.
func (o op) stream() string {
	switch {
	case o <= opBucket:
		return streamRead
	case o >= opCopySet:
		return streamCopy
	}
	return streamWrite
}

// A request is one; which fields count depends on the op.
type request struct {
	Number     uint64        `cbor:"1,keyasint,omitempty"` // chosen by who asks
	Op         op            `cbor:"2,keyasint,omitempty"`
	Bucket     uint64        `cbor:"3,keyasint,omitempty"`
	Generation uint64        `cbor:"4,keyasint,omitempty"`
	Key        string        `cbor:"5,keyasint,omitempty"`
	Value      []byte        `cbor:"6,keyasint,omitempty"`
	TTL        time.Duration `cbor:"7,keyasint,omitempty"` // 0: the bucket's; below: none
	Keep       bool          `cbor:"8,keyasint,omitempty"`
	Add        bool          `cbor:"9,keyasint,omitempty"`
	Replace    bool          `cbor:"10,keyasint,omitempty"`
	If         uint64        `cbor:"11,keyasint,omitempty"`
	By         int64         `cbor:"12,keyasint,omitempty"`
	Fill       uint64        `cbor:"13,keyasint,omitempty"`
	From       uint64        `cbor:"14,keyasint,omitempty"` // of Scan
	Limit      int           `cbor:"15,keyasint,omitempty"`
	NoWait     bool          `cbor:"21,keyasint,omitempty"` // of Fill
	// Of copies.
	Version uint64         `cbor:"16,keyasint,omitempty"`
	Owner   meta.SessionID `cbor:"17,keyasint,omitempty"`
	Epoch   uint64         `cbor:"18,keyasint,omitempty"`
	Fresh   uint64         `cbor:"19,keyasint,omitempty"`
	Placed  uint64         `cbor:"20,keyasint,omitempty"`
}

// An answer is one.
type answer struct {
	Number uint64    `cbor:"1,keyasint,omitempty"`
	Kind   meta.Kind `cbor:"2,keyasint,omitempty"` // zero on success
	Text   string    `cbor:"3,keyasint,omitempty"` // of the error
	// Moved says that somebody else answers for that, or nobody: it was not executed.
	Moved bool `cbor:"4,keyasint,omitempty"`
	// Unsure says of a miss that somebody else may still have the entry.
	Unsure  bool          `cbor:"14,keyasint,omitempty"`
	Value   []byte        `cbor:"5,keyasint,omitempty"`
	Size    int           `cbor:"6,keyasint,omitempty"`
	Version uint64        `cbor:"7,keyasint,omitempty"`
	TTL     time.Duration `cbor:"8,keyasint,omitempty"` // what is left; 0: it does not expire
	Sum     int64         `cbor:"9,keyasint,omitempty"`
	Fill    uint64        `cbor:"10,keyasint,omitempty"` // 0: the entry is there
	Keys    []string      `cbor:"11,keyasint,omitempty"`
	Next    uint64        `cbor:"12,keyasint,omitempty"`
	Stats   *Stats        `cbor:"13,keyasint,omitempty"`
	Known   uint64        `cbor:"15,keyasint,omitempty"` // to Stat: the version by which it was answered

	from meta.SessionID // who answered
}

// err is the answer's error; nil if there is none.
func (a *answer) err() error {
	switch {
	case a.Kind == 0:
		return nil
	case a.Unsure:
		return unsure(errPending)
	case a.Text == "":
		return a.Kind
	}
	return said{a.Kind, a.Text}
}

// errPending is why a holder does not answer for its key yet.
var errPending = errors.New("cache: another machine may still have the key")

// unsure is a miss of an entry that may be there: of a machine that does not answer.
func unsure(why error) error { return fmt.Errorf("%w: %w: %v", meta.NotExist, meta.HostDown, why) }

// said is an error with what somebody else said of it.
type said struct {
	kind meta.Kind
	text string
}

func (s said) Error() string { return s.text }
func (s said) Unwrap() error { return s.kind }

// kinds are what errors of entries are for others.
var kinds = []struct {
	err  error
	kind meta.Kind
}{
	{entries.ErrMiss, meta.NotExist},
	{entries.ErrExist, meta.Exist},
	{entries.ErrConflict, meta.Conflict},
	{entries.ErrTooLarge, meta.TooLarge},
	{entries.ErrNotNumber, meta.Invalid},
	{entries.ErrInvalid, meta.Invalid},
}

// failed is the answer that is an error.
func failed(err error) answer {
	for _, k := range kinds {
		switch {
		case err == k.err:
			return answer{Kind: k.kind} // nothing is to be added
		case errors.Is(err, k.err):
			return answer{Kind: k.kind, Text: err.Error()}
		}
	}
	var kind meta.Kind
	if errors.As(err, &kind) {
		return answer{Kind: kind, Text: err.Error()}
	}
	return answer{Moved: true} // the bucket is another, or all of it is closed
}

func moved() answer { return answer{Moved: true} }

// encode makes a frame of a list of requests or answers.
func encode[T any](list []T) *rpc.Frame { return &rpc.Frame{Payload: rpc.Own(state.Marshal(list))} }

// decode reads such a frame, and frees it.
func decode[T any](f *rpc.Frame) (list []T, err error) {
	defer f.Free()
	if err := state.Unmarshal(f.Bytes(), &list); err != nil {
		return nil, fmt.Errorf("cache: a frame of %d bytes: %w: %v", f.Payload.Len(), meta.Protocol, err)
	}
	return list, nil
}
