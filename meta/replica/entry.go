package replica

import (
	"fmt"

	"dos/meta"
	"dos/meta/state"
)

// An entry of the log holds the commands that were waiting when it was made:
//
//	offset  size  field
//	     0     1  version, 1
//	     1        CBOR, an array of state.Command
//
// The log has checksums of its own.
const entryVersion = 1

const (
	maxCommands = 256       // in an entry
	maxEntry    = 512 << 10 // bytes of commands; one that is larger goes alone
	maxCommand  = 4 << 20   // bytes of a command
	// commandOverhead is more than a command's encoding adds to its body.
	commandOverhead = 64
)

func encodeEntry(cmds []state.Command) []byte {
	return append([]byte{entryVersion}, state.Marshal(cmds)...)
}

func decodeEntry(b []byte) ([]state.Command, error) {
	if len(b) == 0 || b[0] != entryVersion {
		return nil, fmt.Errorf("an entry of %d bytes of an unknown version: %w", len(b), meta.Unsupported)
	}
	var cmds []state.Command
	if err := state.Unmarshal(b[1:], &cmds); err != nil {
		return nil, fmt.Errorf("%w: %w", meta.Lost, err)
	}
	return cmds, nil
}
