package lock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dos/meta"
)

// TestScripts plays the conversations in testdata. A case begins with a comment
// that names it. A line is an owner, a session's letter and a number, what he
// does, and after " => " what comes of it:
//
//	a1 try   flock x f          an exclusive lock of inode f, without waiting
//	a1 lock  record s f 0 9     a shared one of bytes 0 to 9, waiting: "waits" means a place in the queue
//	a1 undo                     takes back what he waited for last
//	a1 drop  flock f            gives up all he has
//	a1 who   record x f 3 3     who is in the way
//	a  end                      ends the session
//
// After " ! " stand the owners that get what they wait for, in order.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, name := range scripts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(text), "\n\n") {
			title, lines, _ := strings.Cut(strings.TrimSpace(block), "\n")
			t.Run(strings.TrimPrefix(title, "# "), func(t *testing.T) {
				p := &player{world: newWorld(t, 4), waits: make(map[string]wanted)}
				for line := range strings.Lines(lines) {
					if !p.play(strings.TrimSpace(line)) {
						return
					}
				}
			})
		}
	}
}

type player struct {
	*world
	waits map[string]wanted // what each owner waits for, or waited for last
	order []string          // in which they began to
}

type wanted struct {
	ino    meta.Ino
	number uint64
	kind   meta.LockKind
	got    bool
}

func (p *player) play(line string) bool {
	line, granted, _ := strings.Cut(line, " ! ")
	line, want, _ := strings.Cut(line, " => ")
	got, err := p.run(strings.Fields(line))
	var kind meta.Kind
	if errors.As(err, &kind) {
		got = kind.Error()
	} else if err != nil {
		got = err.Error()
	}
	if got != want {
		p.t.Errorf("%s: got %q (%v), want %q", line, got, err, want)
	}
	var lucky []string
	for _, who := range p.order {
		w := p.waits[who]
		if now := load(p.store, w.ino); !w.got {
			at := now.find(sessionOf(who), w.number)
			if w.got = at < 0 || now.Waits[at].Granted; w.got {
				lucky = append(lucky, who)
				p.waits[who] = w
			}
		}
	}
	if got := strings.Join(lucky, " "); got != granted {
		p.t.Errorf("%s: granted to %q, want %q", line, got, granted)
	}
	p.check()
	return !p.t.Failed()
}

func sessionOf(who string) meta.SessionID { return meta.SessionID(who[0]-'a') + 1 }

func (p *player) run(f []string) (string, error) {
	who, verb, args := f[0], f[1], f[2:]
	s := sessionOf(who)
	number, _ := strconv.ParseUint(who[1:], 10, 64)
	switch verb {
	case "end":
		p.end(s)
		for other, w := range p.waits {
			if sessionOf(other) == s {
				w.got = true
				p.waits[other] = w
			}
		}
		return "", nil
	case "undo":
		w := p.waits[who]
		w.got = true
		p.waits[who] = w
		p.cancel(s, w.ino, w.number, w.kind, number)
		return "", nil
	case "drop":
		w := p.waits[who]
		w.got = true
		p.waits[who] = w
		p.drop(s, meta.Ino(args[1][0]), kinds[args[0]], number)
		return "", nil
	}
	l := flock(meta.Ino(args[2][0]), modes[args[1]], number)
	if l.Kind = kinds[args[0]]; l.Kind == meta.Record {
		fmt.Sscan(args[3], &l.First)
		if args[4] != "end" {
			fmt.Sscan(args[4], &l.Last)
		}
	}
	if verb == "who" {
		h, err := call[meta.LockHolder](p.world, 0, OpTest, Test{Session: s, Lock: l})
		if err != nil || h.Session == 0 {
			return "nobody", err
		}
		last := fmt.Sprint(h.Lock.Last)
		if h.Lock.Last == meta.LockEnd {
			last = "end"
		}
		return fmt.Sprintf("%c%d %s %d %s", 'a'+rune(h.Session)-1, h.Lock.Owner, map[meta.LockMode]string{meta.Shared: "s", meta.Exclusive: "x"}[h.Lock.Mode], h.Lock.First, last), nil
	}
	out, err := p.set(s, l, verb == "lock")
	switch {
	case err != nil:
		return "", err
	case out.Busy:
		return "busy", nil
	case out.Wait != 0:
		if old, ok := p.waits[who]; !ok || old.number != out.Wait {
			p.order = append(p.order, who)
		}
		p.waits[who] = wanted{ino: l.Ino, number: out.Wait, kind: l.Kind}
		return "waits", nil
	}
	return "", nil
}

var (
	kinds = map[string]meta.LockKind{"flock": meta.Flock, "record": meta.Record}
	modes = map[string]meta.LockMode{"u": meta.Unlocked, "s": meta.Shared, "x": meta.Exclusive}
)
