package redis

import (
	"errors"
	"strconv"

	"github.com/tidwall/redcon"
)

// Limits of what one client may send. Redis has the same ones, where we have room.
const (
	// argsMax bounds the arguments of a command.
	argsMax = 64 << 10
	// bulkMax bounds one argument, in bytes: what is more than a value may have is
	// read up to here and then refused, so that the connection lives on.
	bulkMax = 64 << 20
	// commandMax bounds a command.
	commandMax = bulkMax + 64<<10
	// inlineMax bounds a line of a person who types. What it is split into takes up to
	// the square of that.
	inlineMax = 4 << 10
	// headMax bounds a line that says a number.
	headMax = 32
)

// A protocolError ends a connection.
type protocolError struct{ text string }

func (e protocolError) Error() string { return "ERR Protocol error: " + e.text }

var errShort = errors.New("there is more to come")

// A frame is how far the command at the beginning of a buffer has been looked at, so
// that nothing is looked at twice when more of it comes. The zero value is a new one.
type frame struct {
	at   int // the next byte to look at
	left int // arguments that follow
	open bool
}

// measure returns how long the command is that b begins with: errShort if it is not
// whole, with at least how long it is. b may have grown since, and is the same otherwise.
func (f *frame) measure(b []byte) (int, error) {
	if len(b) == 0 {
		return 1, errShort
	}
	if b[0] != '*' {
		for ; f.at < len(b); f.at++ {
			if b[f.at] == '\n' {
				return f.at + 1, nil
			}
			if f.at > inlineMax {
				return 0, protocolError{"too big inline request"}
			}
		}
		return len(b) + 1, errShort
	}
	if !f.open {
		count, at, err := head(b, 0)
		switch {
		case err == errBad || err == nil && count > argsMax:
			return 0, protocolError{"invalid multibulk length"}
		case err != nil:
			return at, err
		}
		f.at, f.left, f.open = at, count, true
	}
	for ; f.left > 0; f.left-- {
		if f.at >= len(b) {
			return f.at + 1, errShort
		}
		if b[f.at] != '$' {
			return 0, protocolError{"expected '$', got '" + printable(b[f.at]) + "'"}
		}
		size, next, err := head(b, f.at)
		switch {
		case err == errBad || err == nil && (size < 0 || size > bulkMax):
			return 0, protocolError{"invalid bulk length"}
		case err != nil:
			return next, err
		}
		end := next + size + 2
		switch {
		case end > commandMax:
			return 0, protocolError{"too big mbulk count string"}
		case end > len(b):
			return end, errShort
		case b[end-2] != '\r' || b[end-1] != '\n':
			return 0, protocolError{"invalid bulk length"}
		}
		f.at = end
	}
	return f.at, nil
}

func printable(c byte) string {
	if c < ' ' || c > '~' {
		return "?"
	}
	return string(rune(c))
}

var errBad = errors.New("no number")

// head reads the number in the line at an offset, after its first byte, and where the
// next line begins.
func head(b []byte, at int) (n, next int, err error) {
	for i := at + 1; i < len(b); i++ {
		if b[i] != '\n' {
			if i-at > headMax {
				return 0, 0, errBad
			}
			continue
		}
		if b[i-1] != '\r' {
			return 0, 0, errBad
		}
		n, err := strconv.Atoi(string(b[at+1 : i-1]))
		if err != nil {
			return 0, 0, errBad
		}
		return n, i + 1, nil
	}
	return 0, len(b) + 1, errShort
}

// split returns the arguments of the command that b begins with, as parts of b, and
// how long it is. One without arguments is to be passed over.
func (f *frame) split(b []byte, args [][]byte) ([][]byte, int, error) {
	n, err := f.measure(b)
	if err != nil {
		return nil, n, err
	}
	*f = frame{}
	switch {
	case b[0] == '*' && b[1] == '-': // passed over, as Redis does
		return args[:0], n, nil
	case b[0] == '$': // redcon would take it for another protocol
		return nil, n, protocolError{"unexpected '$'"}
	}
	whole, args, _, _, err := redcon.ReadNextCommand(b[:n:n], args)
	switch {
	case err != nil:
		return nil, n, protocolError{"unbalanced quotes in request"}
	case !whole:
		return nil, n, protocolError{"invalid multibulk length"}
	}
	return args, n, nil
}
