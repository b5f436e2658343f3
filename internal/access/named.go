package access

import (
	"fmt"
	"os/user"
	"strconv"

	"dos/meta"
)

// Only returns a Named to whom everybody is one user, and nobody may say to be another.
func Only(uid uint32) func(name string) (User, error) {
	return func(name string) (User, error) {
		if name == "" {
			name = strconv.FormatUint(uint64(uid), 10)
		}
		u, err := Named(name)
		if err == nil && u.UID != uid {
			return User{}, fmt.Errorf("user %.80q: without the rights admin everybody is user %d here: %w", name, uid, meta.Permission)
		}
		return u, err
	}
}

// Named is who a request says that it is for: a UID, or the name of a user of this machine;
// nobody named is root. Permission if there is no such user.
func Named(name string) (User, error) {
	if name == "" {
		return User{}, nil
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		if u, err := user.LookupId(name); err == nil {
			return known(u)
		}
		return User{UID: uint32(n), GID: uint32(n)}, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return User{}, fmt.Errorf("user %.80q is not known here: %w", name, meta.Permission)
	}
	return known(u)
}

func known(u *user.User) (User, error) {
	ids, _ := u.GroupIds() // who cannot be asked for has the first alone
	numbers := make([]uint32, 0, len(ids)+2)
	for _, text := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return User{}, fmt.Errorf("user %q: %w: %v", u.Username, meta.Invalid, err)
		}
		numbers = append(numbers, uint32(n))
	}
	return User{UID: numbers[0], GID: numbers[1], Groups: numbers[2:]}, nil
}
