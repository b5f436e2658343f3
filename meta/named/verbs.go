package named

import (
	"fmt"
	"strconv"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

// Verbs are what a transaction (package txn) may do here:
//
//	fence LOCK:TOKEN   the grant with that token stands
var Verbs = map[string]func(tx *state.Tx, args []string, data []byte) (answer string, err error){"fence": fence}

func fence(tx *state.Tx, args []string, _ []byte) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("%.80q is not one LOCK:TOKEN: %w", args, meta.Invalid)
	}
	colon := strings.LastIndexByte(args[0], ':')
	token, err := strconv.ParseUint(args[0][colon+1:], 10, 64)
	if colon < 1 || err != nil {
		return "", fmt.Errorf("%.80q is not LOCK:TOKEN: %w", args[0], meta.Invalid)
	}
	name := args[0][:colon]
	// From now on the lock is not lent, so that the answer stands here.
	if err := Fence(tx, name, token); err != nil {
		return "", err
	}
	return "", Check(tx, name, token)
}
