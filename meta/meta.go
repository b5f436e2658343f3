// Package meta is the vocabulary of truth: the names, attributes and errors
// that the metadata service and everything that asks it have in common. It
// does nothing by itself.
package meta

import (
	"fmt"
)

// A SessionID names one client's stay in the system. Zero names none.
type SessionID uint64

// A Kind says what went wrong in the terms a caller can act on. It is itself
// an error: return it bare where there is nothing to add, wrap it with %w
// where there is, and test for it with errors.Is. Kinds go over the wire and
// into the log, so the list only grows.
type Kind uint8

// The kinds. Package fuse has the table of their errno values.
const (
	_            Kind = iota
	NotExist          // no such name, file, lock, queue or task
	Exist             // the name is taken
	Invalid           // the request makes no sense
	Permission        // the caller may not
	Busy              // somebody or something else holds it
	Expired           // the session is over; nothing it held is held any more
	NoSpace           // the cluster is full
	Unavailable       // no leader, or too few chunk servers; retrying may help
	NotDir            // a directory is needed and this is none
	IsDir             // this is a directory and none may be here
	NotEmpty          // the directory still has entries
	TooManyLinks      // the inode has as many names as it can
	NameTooLong       // over NameMax bytes
	TooLarge          // over the largest size of a file or value
	NoAttr            // no such extended attribute
	Fixed             // the structure may not be changed: not permitted
	Conflict          // what the request was conditional on has changed
	Lost              // data or state is lost or its checksum does not match
	Gap               // a request of the session is missing before this one
	Unsupported       // not for this kind of object
	Quota             // over a limit that somebody set
	TimedOut          // the time given is over
	Leased            // another session has it to itself and is being asked to give it back
	Deadlock          // waiting would never end: the others wait for the caller
	WouldWait         // there is nothing yet, and the caller does not want to wait
	TooLong           // a line or message is longer than it may be
	Protocol          // the other side did not answer as it should
	Canceled          // somebody gave up what was under way
	HostDown          // the machine that has it does not answer
	Fenced            // the caller's hold was lost, or its token is not the youngest
	Refused           // nobody serves it
	kinds             // the number of kinds; last
)

var kindText = [kinds]string{
	NotExist:     "does not exist",
	Exist:        "already exists",
	Invalid:      "invalid request",
	Permission:   "permission denied",
	Busy:         "busy",
	Expired:      "session expired",
	NoSpace:      "no space",
	Unavailable:  "service unavailable",
	NotDir:       "not a directory",
	IsDir:        "is a directory",
	NotEmpty:     "directory not empty",
	TooManyLinks: "too many links",
	NameTooLong:  "name too long",
	TooLarge:     "too large",
	NoAttr:       "no such attribute",
	Fixed:        "operation not permitted",
	Conflict:     "changed meanwhile",
	Lost:         "lost",
	Gap:          "request out of sequence",
	Unsupported:  "not supported",
	Quota:        "over quota",
	TimedOut:     "timed out",
	Leased:       "leased to another session",
	Deadlock:     "would be a deadlock",
	WouldWait:    "nothing there yet",
	TooLong:      "too long",
	Protocol:     "no proper answer",
	Canceled:     "canceled",
	HostDown:     "its machine does not answer",
	Fenced:       "no longer held",
	Refused:      "nobody serves it",
}

func (k Kind) Error() string {
	if k < kinds && kindText[k] != "" {
		return kindText[k]
	}
	return fmt.Sprintf("error kind %d", uint8(k))
}

// Kinds returns all kinds, for the tables that must know each of them.
func Kinds() []Kind {
	all := make([]Kind, 0, kinds-1)
	for k := Kind(1); k < kinds; k++ {
		all = append(all, k)
	}
	return all
}
