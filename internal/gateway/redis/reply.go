package redis

import (
	"context"
	"errors"
	"strings"

	"github.com/tidwall/redcon"

	"dos/meta"
)

// A reply is the bytes that a client gets, in the protocol that it asked for.
type reply struct {
	b    []byte
	resp int // 2 or 3
}

func (r *reply) ok()              { r.b = redcon.AppendOK(r.b) }
func (r *reply) word(s string)    { r.b = redcon.AppendString(r.b, s) }
func (r *reply) number(n int64)   { r.b = redcon.AppendInt(r.b, n) }
func (r *reply) bulk(b []byte)    { r.b = redcon.AppendBulk(r.b, b) }
func (r *reply) text(s string)    { r.b = redcon.AppendBulkString(r.b, s) }
func (r *reply) array(n int)      { r.b = redcon.AppendArray(r.b, n) }
func (r *reply) fail(text string) { r.b = redcon.AppendError(r.b, text) }
func (r *reply) truth(is bool) {
	if is {
		r.number(1)
	} else {
		r.number(0)
	}
}

// null is that there is no value; nothing is that there is no array.
func (r *reply) null() {
	if r.resp == 3 {
		r.b = append(r.b, "_\r\n"...)
	} else {
		r.b = redcon.AppendNull(r.b)
	}
}

func (r *reply) nothing() {
	if r.resp == 3 {
		r.null()
	} else {
		r.b = append(r.b, "*-1\r\n"...)
	}
}

// pairs begins n keys with a value each.
func (r *reply) pairs(n int) {
	if r.resp == 3 {
		r.prefix('%', n)
	} else {
		r.array(2 * n)
	}
}

// push begins what comes unasked, of n parts.
func (r *reply) push(n int) {
	if r.resp == 3 {
		r.prefix('>', n)
	} else {
		r.array(n)
	}
}

func (r *reply) prefix(kind byte, n int) {
	at := len(r.b)
	r.array(n)
	r.b[at] = kind
}

// The errors of Redis, word for word.
const (
	errSyntax    = "ERR syntax error"
	errNotInt    = "ERR value is not an integer or out of range"
	errOverflow  = "ERR increment or decrement would overflow"
	errWrongType = "WRONGTYPE Operation against a key holding the wrong kind of value"
	errTooLarge  = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
	errNoAuth    = "NOAUTH Authentication required."
	errWrongPass = "WRONGPASS invalid username-password pair or user is disabled."
	errTimeout   = "ERR timeout is not a float or out of range"
	errNegative  = "ERR timeout is negative"
	errMemory    = "OOM command not allowed when used memory > 'maxmemory'."
	errRange     = "ERR value is out of range, must be positive"
	errNoScript  = "NOSCRIPT No matching script. Please use EVAL."
	errNotScript = "ERR this script is not known here: there is no Lua, only the scripts of client libraries that give back or prolong a lock"
	errKeyLength = "ERR a key has at most 2048 bytes here"
)

func wrongCount(name string) string {
	return "ERR wrong number of arguments for '" + strings.ToLower(name) + "' command"
}

func badExpire(name string) string {
	return "ERR invalid expire time in '" + strings.ToLower(name) + "' command"
}

// say turns what a service said into the error of Redis that is nearest.
func (r *reply) say(err error) {
	var s said
	switch {
	case errors.As(err, &s):
		r.fail(string(s))
	case errors.Is(err, meta.NoSpace), errors.Is(err, meta.Quota), errors.Is(err, meta.WouldWait):
		r.fail(errMemory + " " + err.Error())
	case errors.Is(err, meta.TooLarge):
		r.fail(errTooLarge)
	case errors.Is(err, meta.Permission):
		r.fail("NOPERM " + err.Error())
	case errors.Is(err, meta.Unavailable), errors.Is(err, meta.TimedOut), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		r.fail("ERR no answer, and whether it was done is not known: " + err.Error())
	default:
		r.fail("ERR " + err.Error())
	}
}

// said is an error in the words that the client gets.
type said string

func (s said) Error() string { return string(s) }
