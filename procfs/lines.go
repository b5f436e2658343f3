package procfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"dos/meta"
)

// LineMax is how long a line may be, in bytes without its newline: what fits a
// pipe, so that a program that writes a line at once writes it whole.
const LineMax = 64 << 10

// lines cuts what is written into lines, and has each executed inside the write
// that brings its newline, so that an error reaches the shell. bash's echo writes
// one line per write(2), /bin/echo and heredocs all at once, and pipes cut lines
// anywhere.
type lines struct {
	// do executes lines in order. It returns how many it did, and why not the next.
	do func(ctx context.Context, lines []string) (done int, err error)
	// verbatim says that blank lines and those that begin with # are lines too.
	verbatim bool

	turn turn
	part []byte // a line without its newline yet; owned by whose turn it is
	// What the line that made the last write short failed with: the rest comes
	// again, and gets that errno without being executed again.
	failed string
	err    error
	// long says that a line was too long whose newline has not come, or of which some
	// was taken: what comes is the rest of it, or its retry, and no command by itself.
	long bool
}

// write returns how much of p was executed or kept. If that is not all, but not
// nothing either, there is no error: it is for the retry of the rest.
func (l *lines) write(ctx context.Context, p []byte) (int, error) {
	if err := l.turn.take(ctx); err != nil {
		return 0, err
	}
	defer l.turn.pass()
	if l.long {
		return 0, errLong()
	}
	whole, tail := l.cut(p)
	part := l.part
	l.part = nil
	done, err := l.execute(ctx, whole)
	switch {
	case done < len(whole) && done == 0:
		if len(part) > 0 {
			l.refuse(whole[0].text[len(part):], err)
		}
		return 0, err
	case done < len(whole):
		l.refuse(whole[done].text, err)
		return whole[done-1].end, nil
	case len(whole) == 0:
		tail = append(part, tail...)
	}
	if len(tail) > LineMax {
		if len(whole) == 0 {
			l.long = true
			return 0, errLong()
		}
		return whole[len(whole)-1].end, nil // the retry of the rest meets it
	}
	l.part = bytes.Clone(tail)
	return len(p), nil
}

func errLong() error { return fmt.Errorf("a line of more than %d bytes: %w", LineMax, meta.TooLong) }

// refuse has the retry of what is left of a line fail as the line did. Of a write(2) that
// the kernel cut, the program hears of no failure but in that retry, which begins within
// the line.
func (l *lines) refuse(left string, err error) {
	switch {
	case errors.Is(err, context.Canceled): // it was not tried
	case errors.Is(err, meta.TooLong):
		l.long = true
	default:
		l.failed, l.err = left, err
	}
}

// A wholeLine is a line, and where in a write its newline ended.
type wholeLine struct {
	text string
	end  int
}

func (l *lines) cut(p []byte) (whole []wholeLine, tail []byte) {
	begin := 0
	for {
		n := bytes.IndexByte(p[begin:], '\n')
		if n < 0 {
			return whole, p[begin:]
		}
		text := string(p[begin : begin+n])
		if len(whole) == 0 {
			text = string(l.part) + text
		}
		begin += n + 1
		whole = append(whole, wholeLine{text, begin})
	}
}

// execute does lines and returns how many, counting those that mean nothing.
func (l *lines) execute(ctx context.Context, whole []wholeLine) (done int, err error) {
	failed, was := l.failed, l.err
	l.failed, l.err = "", nil
	if was != nil && len(whole) > 0 && whole[0].text == failed {
		return 0, was
	}
	var batch []string
	var at []int // of each in batch: how many lines of whole come before it
	for i, line := range whole {
		if len(line.text) > LineMax {
			err = fmt.Errorf("a line of %d bytes, at most %d: %w", len(line.text), LineMax, meta.TooLong)
			whole = whole[:i]
			break
		}
		if l.verbatim || means(line.text) {
			batch, at = append(batch, line.text), append(at, i)
		}
	}
	if len(batch) > 0 {
		if n, failure := l.do(ctx, batch); n < len(batch) {
			if failure == nil {
				panic(fmt.Sprintf("procfs: %d of %d lines were executed, and no error", n, len(batch)))
			}
			return at[n], failure
		}
	}
	return len(whole), err
}

// means says whether a line means something.
func means(line string) bool {
	line = strings.TrimSpace(line)
	return line != "" && line[0] != '#'
}

// finish executes a line that has no newline.
func (l *lines) finish(ctx context.Context) error {
	if err := l.turn.take(ctx); err != nil {
		return err
	}
	defer l.turn.pass()
	last := string(l.part)
	l.part = nil
	if last == "" {
		return nil
	}
	_, err := l.execute(ctx, []wholeLine{{last, len(last)}})
	return err
}

// drop forgets a line that has no newline.
func (l *lines) drop(ctx context.Context) error {
	if err := l.turn.take(ctx); err != nil {
		return err
	}
	defer l.turn.pass()
	l.part = nil
	return nil
}

// one makes the do of lines out of a function for one line.
func one(do func(ctx context.Context, line string) error) func(context.Context, []string) (int, error) {
	return func(ctx context.Context, batch []string) (int, error) {
		for i, line := range batch {
			if err := do(ctx, line); err != nil {
				return i, err
			}
		}
		return len(batch), nil
	}
}
