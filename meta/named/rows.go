package named

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

// A row is a lock in the state.
type row struct {
	Lock    Lock             `cbor:"1,keyasint,omitempty"` // while it is lent: as it was, and who waits here
	Lent    meta.SessionID   `cbor:"2,keyasint,omitempty"`
	Last    uint64           `cbor:"3,keyasint,omitempty"` // the last token of the loan
	Recall  bool             `cbor:"4,keyasint,omitempty"` // the session was told
	Watch   []meta.SessionID `cbor:"5,keyasint,omitempty"` // who watches
	Due     meta.Time        `cbor:"6,keyasint,omitempty"` // its row "6E"
	Version uint64           `cbor:"7,keyasint,omitempty"`
	Lost    uint64           `cbor:"8,keyasint,omitempty"`
	Changed meta.Time        `cbor:"9,keyasint,omitempty"`
}

// there reports whether anybody sees it.
func (l *row) there() bool { return !l.Lock.Free() || l.Lock.set() }

// used reports whether its row must stay.
func (l *row) used() bool { return l.there() || l.Lent != 0 || len(l.Watch) > 0 }

// mine is the value of rows "6M" and "6B".
type mine struct {
	Name string `cbor:"1,keyasint,omitempty"`
	News uint64 `cbor:"2,keyasint,omitempty"` // that the session was told of it; 0: it was not
}

func lockKey(name string) []byte { return append([]byte("6L"), name...) }
func dirKey(name string) []byte  { return append([]byte("6D"), name+"/"...) }

func dueKey(at meta.Time, name string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte("6E"), uint64(max(at, 0))), name...)
}

func sessionKey(table byte, s meta.SessionID) []byte {
	return binary.BigEndian.AppendUint64([]byte{'6', table}, uint64(s))
}

func claimKey(s meta.SessionID, number uint64) []byte {
	return binary.BigEndian.AppendUint64(sessionKey('M', s), number)
}

func newsKey(s meta.SessionID, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(sessionKey('Q', s), seq)
}

func loanKey(s meta.SessionID, name string) []byte  { return append(sessionKey('B', s), name...) }
func watchKey(s meta.SessionID, name string) []byte { return append(sessionKey('O', s), name...) }

// AwaitKey is the row that changes with each news of a session.
func AwaitKey(s meta.SessionID) []byte { return sessionKey('N', s) }

// FollowKey is the row that changes whenever the answer to Follow becomes another.
func FollowKey(name string) []byte { return lockKey(name) }

var tokenKey = []byte("6T")

func read[T any](r state.Reader, key []byte) (val T, ok bool) {
	b, ok := r.Get(key)
	if ok {
		state.MustUnmarshal(b, &val)
	}
	return val, ok
}

func has(r state.Reader, key []byte) bool { _, ok := r.Get(key); return ok }

func remove(tx *state.Tx, key []byte) {
	if has(tx, key) {
		tx.Delete(key)
	}
}

// Valid refuses what is not a name of a lock or a directory: parts with slashes
// between them, none of which begins with a dot.
func Valid(name string) error {
	if len(name) > PathMax {
		return fmt.Errorf("a name of %d bytes: %w", len(name), meta.NameTooLong)
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "", part[0] == '.', strings.ContainsRune(part, 0):
			return fmt.Errorf("name %q: %w", name, meta.Invalid)
		case len(part) > meta.NameMax:
			return fmt.Errorf("name %.20q…: %w", part, meta.NameTooLong)
		}
	}
	return nil
}

// load returns a lock; one without a row is free, and gives tokens that it never gave.
func load(r state.Reader, name string) *row {
	l, ok := read[row](r, lockKey(name))
	if !ok {
		l.Lock.Token, _ = read[uint64](r, tokenKey)
	}
	return &l
}

// enter loads a lock for a change, in which a new one is in the way of no other name.
func enter(tx *state.Tx, name string) (*row, error) {
	if err := Valid(name); err != nil {
		return nil, err
	}
	if tx.Session == 0 {
		return nil, fmt.Errorf("lock %q without a session: %w", name, meta.Invalid)
	}
	if has(tx, lockKey(name)) {
		return load(tx, name), nil
	}
	if _, is := directory(tx, name); is {
		return nil, fmt.Errorf("%q: %w", name, meta.IsDir)
	}
	for at := strings.LastIndexByte(name, '/'); at > 0; at = strings.LastIndexByte(name[:at], '/') {
		if l, ok := read[row](tx, lockKey(name[:at])); ok && l.there() {
			return nil, fmt.Errorf("%q is a lock: %w", name[:at], meta.NotDir)
		}
	}
	return load(tx, name), nil
}

// directory returns a directory that was made, or that there is because a lock
// is in it.
func directory(r state.Reader, name string) (Dir, bool) {
	if name == "" {
		return Dir{Mode: 0o777}, true
	}
	if d, ok := read[Dir](r, dirKey(name)); ok {
		return d, true
	}
	return Dir{Mode: 0o777}, inside(r, name)
}

// inside reports whether anything is in a directory.
func inside(r state.Reader, name string) bool {
	for _, val := range r.Scan(lockKey(name+"/"), state.After(lockKey(name+"/"))) {
		var l row
		if state.MustUnmarshal(val, &l); l.there() || l.Lent != 0 {
			return true
		}
	}
	for range r.Scan(append(dirKey(name), 0), state.After(dirKey(name))) {
		return true
	}
	return false
}

// save writes a lock after a change, gives it to those in its queue who can have
// it now, and has it looked at again when something will be due.
func save(tx *state.Tx, name string, l *row) error {
	now := meta.At(tx.Now)
	if l.Lent == 0 {
		for _, c := range l.Lock.Next(now) {
			seq := tell(tx, c.Session, News{Name: name, Number: c.Number, Token: c.Token})
			tx.Set(claimKey(c.Session, c.Number), state.Marshal(mine{name, seq}))
		}
	}
	if n := len(l.Lock.Holds) + len(l.Lock.Waits); n > ClaimsMax {
		return fmt.Errorf("lock %q has %d claims: %w", name, n, meta.Quota)
	}
	if l.Due != 0 {
		remove(tx, dueKey(l.Due, name))
	}
	if l.Due = l.due(now); l.Due != 0 {
		tx.Set(dueKey(l.Due, name), []byte{})
	}
	l.Version++
	l.Changed = now
	tx.Set(lockKey(name), state.Marshal(l))
	return nil
}

// due returns when something happens to the lock by itself, 0 if never.
func (l *row) due(now meta.Time) (at meta.Time) {
	sooner := func(t meta.Time) {
		if at == 0 || t < at {
			at = t
		}
	}
	for _, c := range l.Lock.Holds {
		if c.ID != "" {
			sooner(c.Expires)
		}
	}
	if len(l.Lock.Waits) > 0 && l.Lent == 0 && now < l.Lock.Shut {
		sooner(l.Lock.Shut)
	}
	if !l.used() {
		sooner(max(now+meta.Time(keepTime), l.Lock.Shut))
	}
	return at
}

// forget removes the row of a lock that nobody sees.
func forget(tx *state.Tx, name string, l *row) {
	if base, _ := read[uint64](tx, tokenKey); l.Lock.Token > base {
		tx.Set(tokenKey, state.Marshal(l.Lock.Token))
	}
	remove(tx, dueKey(l.Due, name))
	tx.Delete(lockKey(name))
}

// tell gives a session news, and returns their number.
func tell(tx *state.Tx, s meta.SessionID, n News) uint64 {
	last, _ := read[uint64](tx, AwaitKey(s))
	n.Seq = last + 1
	tx.Set(AwaitKey(s), state.Marshal(n.Seq))
	tx.Set(newsKey(s, n.Seq), state.Marshal(n))
	return n.Seq
}

// untell forgets a row of a session's and the news of it.
func untell(tx *state.Tx, s meta.SessionID, key []byte) {
	if m, ok := read[mine](tx, key); ok {
		if m.News != 0 {
			remove(tx, newsKey(s, m.News))
		}
		tx.Delete(key)
	}
}

// recall tells the session that a lock is lent to to return it.
func (l *row) recall(tx *state.Tx, name string) {
	if l.Recall {
		return
	}
	l.Recall = true
	key := loanKey(l.Lent, name)
	tx.Set(key, state.Marshal(mine{name, tell(tx, l.Lent, News{Name: name})}))
}

// away answers what a lent lock does not decide: it is recalled.
func (l *row) away(tx *state.Tx, name string) (Outcome, error) {
	if l.Recall {
		return Outcome{Away: l.Lent}, nil
	}
	l.recall(tx, name)
	return Outcome{Away: l.Lent}, save(tx, name, l)
}

// end takes a loan back. The lock is as the session had it.
func (l *row) end(tx *state.Tx, name string) {
	untell(tx, l.Lent, loanKey(l.Lent, name))
	l.Lent, l.Last, l.Recall = 0, 0, false
}

// lose notes that somebody who had the lock is no more.
func (l *row) lose(tx *state.Tx) {
	l.Lost++
	if l.Lock.Delay > 0 {
		l.Lock.Shut = meta.At(tx.Now) + meta.Time(l.Lock.Delay)
	}
}

func (l *row) watched(s meta.SessionID) int { return slices.Index(l.Watch, s) }
