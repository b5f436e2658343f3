package redis

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidwall/redcon"
)

// TestTalk holds conversations, one file of testdata/talk each: a line with > is what a
// client says, whose name may come before it, and the lines after it what it gets;
// the beginning of that, if it ends in an ellipsis.
func TestTalk(t *testing.T) {
	files, err := filepath.Glob("testdata/talk/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			addr, _, _ := start(t, &passes{})
			callers := make(map[string]*caller)
			got, said := "", ""
			var now *caller
			for n, line := range strings.Split(string(text), "\n") {
				if line == "" || line[0] == '#' {
					continue
				}
				who, command, says := strings.Cut(line+" ", "> ")
				if !says || strings.Contains(who, " ") {
					if now == nil {
						t.Fatalf("line %d: nobody said anything", n+1)
					}
					got = now.reply()
					want, part := strings.CutSuffix(line, "…")
					if got != want && !(part && strings.HasPrefix(got, want)) {
						t.Fatalf("line %d: %s\n got %s\nwant %s", n+1, said, got, line)
					}
					continue
				}
				if callers[who] == nil {
					callers[who] = dial(t, addr)
				}
				now, said = callers[who], line
				if command == "" {
					continue
				}
				whole, args, _, _, err := redcon.ReadNextCommand([]byte(strings.TrimSuffix(command, " ")+"\n"), nil)
				if err != nil || !whole {
					t.Fatalf("line %d: %v", n+1, err)
				}
				var words []string
				for _, a := range args {
					words = append(words, string(a))
				}
				now.send(encode(words...))
			}
		})
	}
}
