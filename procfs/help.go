package procfs

import "strings"

// A Help is what a directory's file `help` says: what the directory is for, and
// each file in it with examples that can be typed.
type Help struct {
	About  string // one line: "/dos/kv: …"
	Topics []Topic
}

// A Topic is one file, or a group of files, or anything else that needs a word.
type Topic struct {
	Name     string // as in Q/push
	Text     string // a line, or several
	Examples []string
}

// File is the file `help`. It is comparable.
func (h Help) File() Fixed { return Fixed{"help", h.String()} }

// String aligns the texts, with examples below each, further in.
func (h Help) String() string {
	width := len("help")
	for _, t := range h.Topics {
		width = max(width, len(t.Name))
	}
	var b strings.Builder
	b.WriteString(h.About + "\n\n")
	margin := strings.Repeat(" ", width+2)
	for _, t := range append(h.Topics[:len(h.Topics):len(h.Topics)], Topic{Name: "help", Text: "this text"}) {
		b.WriteString(t.Name + margin[len(t.Name):] + strings.ReplaceAll(t.Text, "\n", "\n"+margin) + "\n")
		for _, example := range t.Examples {
			b.WriteString(margin + "  " + strings.ReplaceAll(example, "\n", "\n"+margin+"  ") + "\n")
		}
	}
	return b.String()
}
