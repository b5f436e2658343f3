package state

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

var encoding = must(cbor.CoreDetEncOptions().EncMode())

// Limits on what a decoder accepts: a batch of commands is the largest thing
// that is encoded, and nothing of ours nests deeper than a few levels.
var decoding = must(cbor.DecOptions{
	MaxArrayElements: 1 << 20,
	MaxMapPairs:      1 << 16,
	MaxNestedLevels:  16,
	UTF8:             cbor.UTF8DecodeInvalid, // names of files are bytes
}.DecMode())

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Marshal returns the encoding of v, one of our own types.
func Marshal(v any) []byte {
	b, err := encoding.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("state: %T does not marshal: %v", v, err)) // our own types always do
	}
	return b
}

// Unmarshal decodes what came from outside.
func Unmarshal(b []byte, v any) error { return decoding.Unmarshal(b, v) }

// MustUnmarshal decodes a row that we wrote ourselves. A row that cannot be
// read means that this replica no longer knows the truth: it panics.
func MustUnmarshal(b []byte, v any) {
	if err := decoding.Unmarshal(b, v); err != nil {
		panic(fmt.Sprintf("state: corrupt row of type %T: %v: %x", v, err, b))
	}
}
