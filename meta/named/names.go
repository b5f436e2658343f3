package named

import (
	"encoding/binary"
	"fmt"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

func numberOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

func timeOf(key []byte) meta.Time { return meta.Time(binary.BigEndian.Uint64(key[len("6E"):])) }

func mkdir(tx *state.Tx, req Mkdir) (none, error) {
	if err := Valid(req.Name); err != nil {
		return none{}, err
	}
	if l, ok := read[row](tx, lockKey(req.Name)); ok && (l.there() || l.Lent != 0) || has(tx, dirKey(req.Name)) {
		return none{}, meta.Exist
	}
	if at := strings.LastIndexByte(req.Name, '/'); at >= 0 {
		if _, ok := directory(tx, req.Name[:at]); !ok {
			return none{}, meta.NotExist
		}
	}
	req.Dir.Mode &= 0o7777
	req.Dir.Made = meta.At(tx.Now)
	tx.Set(dirKey(req.Name), state.Marshal(req.Dir))
	return none{}, nil
}

func rmdir(tx *state.Tx, req Named) (none, error) {
	switch _, ok := directory(tx, req.Name); {
	case !ok || req.Name == "":
		return none{}, meta.NotExist
	case inside(tx, req.Name):
		return none{}, fmt.Errorf("directory %q: %w", req.Name, meta.NotEmpty)
	}
	tx.Delete(dirKey(req.Name))
	return none{}, nil
}

func status(r state.Reader, req Follow) (Info, error) {
	if err := Valid(req.Name); err != nil {
		return Info{}, err
	}
	if d, ok := directory(r, req.Name); ok {
		return Info{Name: req.Name, There: true, Dir: &d}, nil
	}
	l := load(r, req.Name)
	return Info{
		Name: req.Name, There: l.there(), Lock: l.Lock, Lent: l.Lent, Version: l.Version, Lost: l.Lost, Changed: l.Changed,
	}, nil
}

// list merges directories that were made with what is in the names of locks.
func list(r state.Reader, req List) (Listed, error) {
	if req.Limit < 1 {
		return Listed{}, meta.Invalid
	}
	if req.Dir != "" {
		if err := Valid(req.Dir); err != nil {
			return Listed{}, err
		}
		if _, ok := directory(r, req.Dir); !ok {
			return Listed{}, meta.NotExist
		}
		req.Dir += "/"
	}
	var reply Listed
	for from := req.From; ; {
		e, ok := next(r, req.Dir, from)
		if !ok {
			return reply, nil
		}
		if len(reply.Entries) == min(req.Limit, ListMax) {
			reply.From = from
			return reply, nil
		}
		reply.Entries = append(reply.Entries, e)
		if from = e.Name + "\x00"; e.Dir != nil {
			from = e.Name + string(rune('/'+1)) // behind all that is in it
		}
	}
}

// next returns the first name in a directory, which is "" or ends with a slash,
// from a point on. Directories have their place as if they ended with a slash.
func next(r state.Reader, dir, from string) (Entry, bool) {
	made, isMade := Entry{}, false
	for key, val := range r.Scan([]byte("6D"+dir+from), state.After([]byte("6D"+dir))) {
		name, below, _ := strings.Cut(string(key[len("6D"+dir):]), "/")
		if name == "" { // the directory itself
			continue
		}
		d := &Dir{Mode: 0o777}
		if below == "" {
			state.MustUnmarshal(val, d)
		}
		made, isMade = Entry{Name: name, Dir: d}, true
		break
	}
	for key, val := range r.Scan(lockKey(dir+from), state.After(lockKey(dir))) {
		var l row
		if state.MustUnmarshal(val, &l); !l.there() && l.Lent == 0 {
			continue
		}
		rest := string(key[len(lockKey(dir)):])
		if isMade && made.Name+"/" <= rest {
			break
		}
		name, _, below := strings.Cut(rest, "/")
		e := Entry{Name: name}
		if below {
			e.Dir = &Dir{Mode: 0o777}
		} else if !l.there() {
			e.Lent = l.Lent
		}
		return e, true
	}
	return made, isMade
}

// Check refuses, with meta.Conflict, a change under a token of a lock unless the
// grant with that token stands.
func Check(r state.Reader, name string, token uint64) error {
	l := load(r, name)
	for _, c := range l.Lock.Holds {
		if c.Token == token && token != 0 && l.Lent == 0 {
			return nil
		}
	}
	return fmt.Errorf("lock %q is not held with token %d: %w", name, token, meta.Conflict)
}

// Admit refuses, with meta.Conflict, a change that a fence of lock name and token
// least forbids to the session: it does not have the lock by such a grant, and
// did not have it last.
func Admit(r state.Reader, s meta.SessionID, name string, least uint64) error {
	l := load(r, name)
	if s != 0 && l.Lent == s && l.Last >= least { // nobody said yet that a fence names it
		return nil
	}
	if s != 0 && l.Lent == 0 {
		for _, c := range l.Lock.Holds {
			if c.Session == s && c.Token >= least {
				return nil
			}
		}
		if len(l.Lock.Holds) == 0 && l.Lock.Prev == s && l.Lock.Token >= least {
			return nil
		}
	}
	return fmt.Errorf("lock %q is not held by a grant with token %d or later: %w", name, least, meta.Conflict)
}

// Fence makes a lock one that a fence names: token is to be the one of a grant that
// stands, or the last one. A token that is older is meta.Conflict, one
// that nobody ever had meta.Invalid.
func Fence(tx *state.Tx, name string, token uint64) error {
	l, err := enter(tx, name)
	switch {
	case err != nil:
		return err
	case token == 0 || token > max(l.Lock.Token, l.Last):
		return fmt.Errorf("lock %q has given no token %d: %w", name, token, meta.Invalid)
	case l.Lent != 0, token != l.Lock.Token && Check(tx, name, token) != nil:
		return fmt.Errorf("token %d of lock %q is not the newest: %w", token, name, meta.Conflict)
	case l.Lock.Fenced:
		return nil
	}
	l.Lock.Fenced = true
	return save(tx, name, l)
}
