// Package special tries the special files on a real mount as people use them: in a
// real shell.
//
// A conversation is a file in testdata:
//
//	# Anything after a # at the beginning of a line.
//	$ echo v > kv/t/k      what bash does at the mount point; each in a bash of its own
//	> cat kv/t/k           more lines of the same
//	v                      what it prints, errors too; … stands for anything
//	exit 1                 and its status, if it is not 0, or "signal: killed"
//	~ cat kv/t/k           as $, but tried again until it prints that
//	! stop                 the mount is stopped cleanly, and started again
//	! kill                 it is killed, and started again
//
// Where bash says in which line of the script something was, that is left out.
package special

import (
	"fmt"
	"regexp"
	"strings"
)

// A turn is one step of a conversation.
type turn struct {
	line int    // where it begins
	verb string // $, ~ or !
	say  string
	want string
}

// parse reads a conversation.
func parse(text string) ([]turn, error) {
	var turns []turn
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		verb, rest, _ := strings.Cut(line, " ")
		last := len(turns) - 1
		switch {
		case strings.HasPrefix(line, "#"), line == "" && last < 0:
		case verb == "$", verb == "~", verb == "!":
			turns = append(turns, turn{line: i + 1, verb: verb, say: rest})
		case last < 0:
			return nil, fmt.Errorf("line %d: nothing was said yet", i+1)
		case verb == ">":
			turns[last].say += "\n" + rest
		default:
			turns[last].want += line + "\n"
		}
	}
	return turns, nil
}

var where = regexp.MustCompile(`(?m)^bash: (-c: )?line \d+: ( *\d+ )?`)

// plain leaves out of what bash prints where in the script it was.
func plain(text string) string { return where.ReplaceAllString(text, "") }

// alike reports whether text is what is wanted.
func alike(text, want string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*")
	return regexp.MustCompile(`^(?s:` + pattern + `)$`).MatchString(text)
}

// examples returns the scripts of a help: the lines of one topic that are further
// in than its text, which has two spaces more than the longest name.
func examples(help string) []string {
	lines := strings.Split(help, "\n")
	text := -1 // where texts begin
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, "help "); ok {
			text = len(line) - len(strings.TrimLeft(rest, " "))
		}
	}
	var scripts []string
	fresh := true
	for _, line := range lines {
		in := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case text < 0 || in != text+2 || line == "":
			fresh = true
			continue
		case fresh:
			scripts = append(scripts, "")
		}
		scripts[len(scripts)-1] += line[in:] + "\n"
		fresh = false
	}
	return scripts
}
