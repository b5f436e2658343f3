package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"dos/internal/admin"
	"dos/meta"
)

func printJSON(out io.Writer, value any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// A table is rows of cells, the first of them the names of the columns.
type table [][]string

func (t table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range t {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

func clock(t meta.Time) string {
	if t == 0 {
		return "-"
	}
	return t.Std().UTC().Format(time.RFC3339)
}

// report prints what long work says. On a terminal a line that is written again
// and again shows how far it is; end takes that away.
func (c command) report(doing string) (to admin.Report, end func()) {
	shown := false
	clear := func() {
		if shown {
			fmt.Fprint(c.errout, "\r\x1b[K")
			shown = false
		}
	}
	began := time.Now()
	at := func(done, of int64) {
		clear()
		text := fmt.Sprintf("%s %d%%", doing, 100*done/max(of, 1))
		if took := time.Since(began); done > 0 && took > 2*time.Second {
			left := time.Duration(float64(took) * float64(of-done) / float64(done))
			text += fmt.Sprintf(", about %v left", left.Round(time.Second))
		}
		fmt.Fprint(c.errout, text)
		shown = true
	}
	if !terminal(c.errout) {
		at = func(int64, int64) {}
	}
	return admin.Report{Say: func(line string) { clear(); fmt.Fprintln(c.out, line) }, At: at}, clear
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
