package replica

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"dos/meta"
)

// MemberID returns the name of the member of a machine in dir: the one that the
// directory has, or a new one if there is nothing yet. A directory that belongs
// to another machine is refused.
//
// A member's name is its machine's, and for members that were not made by an
// embedded cluster a number drawn when the directory was begun: MACHINE/NUMBER.
// A member that begins again with an empty directory is another one. It knows
// nothing of what the first has promised, so neither its votes nor what it says
// it holds may count as those of the first.
func MemberID(dir, machine string) (string, error) {
	cur, err := loadCurrent(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		var number [8]byte
		rand.Read(number[:]) //nolint:errcheck // it never fails
		return machine + "/" + hex.EncodeToString(number[:]), nil
	case err != nil:
		return "", err
	case MachineOf(cur.ID) != machine:
		return "", fmt.Errorf("replica: %s belongs to member %s, not to one of %s: %w", dir, cur.ID, machine, meta.Invalid)
	}
	return cur.ID, nil
}

// MachineOf returns the name of a member's machine.
func MachineOf(id string) string {
	machine, _, _ := strings.Cut(id, "/")
	return machine
}
