package named

import (
	"slices"
	"time"

	"dos/meta"
)

// Who is a process, for people.
type Who struct {
	Node string `cbor:"1,keyasint,omitempty"`
	PID  uint32 `cbor:"2,keyasint,omitempty"`
	UID  uint32 `cbor:"3,keyasint,omitempty"`
	Cmd  string `cbor:"4,keyasint,omitempty"`
}

// A Claim is one who has a lock, or waits for it.
type Claim struct {
	Session meta.SessionID `cbor:"1,keyasint,omitempty"`
	// Number is one that the session has not used before.
	Number uint64        `cbor:"2,keyasint,omitempty"`
	Mode   meta.LockMode `cbor:"3,keyasint,omitempty"`
	Who    Who           `cbor:"4,keyasint,omitempty"`
	// ID makes the lock belong to whoever knows it, for TTL after it was granted
	// or renewed.
	ID      string        `cbor:"5,keyasint,omitempty"`
	TTL     time.Duration `cbor:"6,keyasint,omitempty"`
	Token   uint64        `cbor:"7,keyasint,omitempty"` // zero while it waits
	Since   meta.Time     `cbor:"8,keyasint,omitempty"` // it was granted, or waits
	Expires meta.Time     `cbor:"9,keyasint,omitempty"` // of an ID that has the lock
}

func (c *Claim) is(s meta.SessionID, number uint64) bool { return c.Session == s && c.Number == number }

// A Lock is who has it and who waits for it. It is the same where it is kept, in
// the state, and where it is lent to. Its methods are not safe for concurrent use.
type Lock struct {
	Token uint64  `cbor:"1,keyasint,omitempty"` // the last that was given
	Holds []Claim `cbor:"2,keyasint,omitempty"`
	Waits []Claim `cbor:"3,keyasint,omitempty"` // the first is next
	// Limit, if it is not zero, makes a semaphore of it, that so many have.
	Limit int `cbor:"4,keyasint,omitempty"`
	// Delay is how long nobody gets the lock after a holder was lost.
	Delay time.Duration `cbor:"5,keyasint,omitempty"`
	Value string        `cbor:"6,keyasint,omitempty"` // any text, for elections
	// Fenced says that a fence names the lock.
	Fenced bool `cbor:"7,keyasint,omitempty"`
	// Shut is until when nobody gets it.
	Shut meta.Time `cbor:"8,keyasint,omitempty"`
	// Prev is the session that got it last.
	Prev meta.SessionID `cbor:"9,keyasint,omitempty"`
}

// Free reports whether nobody has it or waits for it.
func (l *Lock) Free() bool { return len(l.Holds)+len(l.Waits) == 0 }

// Mode is how it is held. (What was a semaphore may be held in both.)
func (l *Lock) Mode() (mode meta.LockMode) {
	for _, c := range l.Holds {
		mode = max(mode, c.Mode)
	}
	return mode
}

// fits reports whether a claim of a mode could be granted beside those who have it.
func (l *Lock) fits(mode meta.LockMode, now meta.Time) bool {
	switch {
	case now < l.Shut:
		return false
	case l.Limit > 0:
		return len(l.Holds) < l.Limit
	case len(l.Holds) == 0:
		return true
	}
	return mode == meta.Shared && l.Mode() == meta.Shared
}

// Ask grants a claim, and returns its token, or puts it at the end of the queue
// if wait says so. Zero and no place means that it does neither. Asking for what
// one has, or waits for, changes nothing.
func (l *Lock) Ask(c Claim, wait bool, now meta.Time) (token uint64, waits bool) {
	if at := find(l.Holds, c.Session, c.Number); at >= 0 {
		return l.Holds[at].Token, false
	}
	if find(l.Waits, c.Session, c.Number) >= 0 {
		return 0, true
	}
	c.Since = now
	switch {
	case len(l.Waits) == 0 && l.fits(c.Mode, now):
		return l.give(c, now), false
	case wait:
		l.Waits = append(l.Waits, c)
		return 0, true
	}
	return 0, false
}

func find(list []Claim, s meta.SessionID, number uint64) int {
	return slices.IndexFunc(list, func(c Claim) bool { return c.is(s, number) })
}

func (l *Lock) give(c Claim, now meta.Time) uint64 {
	l.Token++
	l.Prev = c.Session
	c.Token, c.Since = l.Token, now
	if c.ID != "" {
		c.Expires = now + meta.Time(c.TTL)
	}
	l.Holds = append(l.Holds, c)
	return l.Token
}

// Leave takes a claim away, and returns it.
func (l *Lock) Leave(s meta.SessionID, number uint64) (c Claim, had bool) {
	for _, list := range []*[]Claim{&l.Holds, &l.Waits} {
		if at := find(*list, s, number); at >= 0 {
			c = (*list)[at]
			*list = slices.Delete(*list, at, at+1)
			return c, true
		}
	}
	return Claim{}, false
}

// Next grants what can be granted to those who wait, and returns their claims.
func (l *Lock) Next(now meta.Time) (granted []Claim) {
	for len(l.Waits) > 0 && l.fits(l.Waits[0].Mode, now) {
		c := l.Waits[0]
		l.Waits = slices.Delete(l.Waits, 0, 1)
		l.give(c, now)
		granted = append(granted, l.Holds[len(l.Holds)-1])
	}
	return granted
}

// set reports whether it has settings, which keep it there when it is free.
func (l *Lock) set() bool {
	return l.Limit != 0 || l.Delay != 0 || l.Value != "" || l.Fenced
}
