package rpc

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

var encoding = must(cbor.CoreDetEncOptions().EncMode())

// A header is bounded already; nothing in one is deep.
var decoding = must(cbor.DecOptions{MaxArrayElements: MaxHeader, MaxMapPairs: 64, MaxNestedLevels: 8}.DecMode())

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Encode returns the CBOR of v, one of our own structures with small integers
// for keys, for a header. What is absent in a header is zero, what is unknown is ignored.
func Encode(v any) []byte {
	b, err := encoding.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("rpc: %T does not marshal: %v", v, err)) // our own types always do
	}
	return b
}

// Decode reads a header that a peer has sent.
func Decode(header []byte, v any) error {
	if err := decoding.Unmarshal(header, v); err != nil {
		return fmt.Errorf("%w: header: %v", ErrRefused, err)
	}
	return nil
}
