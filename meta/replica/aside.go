package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"dos/meta"
)

// asideMax bounds how many directories are kept beside the one in use.
const asideMax = 100

// SetAside renames a directory that Open refused with meta.Lost, and returns what
// it is called now. Nothing of it is lost, and the next Open of dir begins a new
// member: with a new name (see MemberID), without a vote, and with nothing of
// what the old one had promised.
//
// It is for a member of a group that has a leader without it. A group of one, or
// one that waits for this member, would lose what only this directory has:
// salvage is for that.
func SetAside(dir string) (to string, err error) {
	lock, err := lockDir(dir)
	if err != nil {
		return "", err
	}
	to, err = aside(dir)
	return to, errors.Join(err, lock.Close())
}

// aside renames a directory to the first name beside it that is free.
func aside(dir string) (to string, err error) {
	for n := range asideMax {
		to = fmt.Sprintf("%s.lost-%d", filepath.Clean(dir), n+1)
		switch _, err := os.Lstat(to); {
		case errors.Is(err, os.ErrNotExist):
			if err := os.Rename(dir, to); err != nil {
				return "", err
			}
			return to, syncDir(filepath.Dir(to))
		case err != nil:
			return "", err
		}
	}
	return "", fmt.Errorf("replica: there are %d directories set aside beside %s: remove some: %w", asideMax, dir, meta.Busy)
}
