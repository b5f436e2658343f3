package cluster

import (
	"fmt"
	"strings"
	"time"

	"dos/meta"
)

// Text is the contents of /dos/cluster/status. The first lines are for a
// person: is my data safe, what is going on. Each line is a key and its value;
// numbers come as they are, in bytes or as counts, with the same for a human
// eye after them.
func (s Status) Text() string {
	var t lines
	h := s.Health()
	t.add("health", "%s", h.Word)
	for _, why := range h.Why {
		t.add("why", "%s", why)
	}
	t.add("safe", "%s", s.safe())
	t.add("doing", "%s", s.doing())
	for _, advice := range s.Advice() {
		t.add("advice", "%s", advice)
	}

	t.add("stripes", "%d", s.Stripes.Total())
	t.add("stripes.full", "%d", s.Stripes.Full)
	t.add("stripes.short", "%d", s.Stripes.Short)
	t.add("stripes.degraded", "%d", s.Stripes.Degraded)
	t.add("stripes.endangered", "%d", s.Stripes.Endangered)
	t.add("stripes.lost", "%d", s.Stripes.Lost)
	t.add("code", "%s of %s", orNone(s.Code), s.Want)

	if len(s.Machines) > 0 {
		t.add("machines", "%d", len(s.Machines))
		t.add("machines.down", "%d", len(s.machines(Machine.down)))
		for _, m := range s.Machines {
			t.add("machine", "%s", s.machineLine(m))
		}
	}
	t.add("stores", "%d", len(s.Stores))
	for _, state := range []string{Up, Rebuilding, Down, Lost} {
		t.add("stores."+state, "%d", s.stores(state))
	}
	for _, st := range s.Stores {
		t.add("store", "%s", st.line())
	}

	t.add("repair", "%s", s.Repair.line())
	t.add("scrub", "%s", s.Scrub.line())
	t.add("fold", "waiting %d done %d", s.Fold.Waiting, s.Fold.Done)
	t.add("garbage", "stripes %d bytes %d %s", s.Garbage.Stripes, s.Garbage.Bytes, Size(s.Garbage.Bytes))

	for _, lacks := range s.lacks() {
		t.add("tasks", "%s", lacks)
	}
	t.size("capacity", s.Capacity)
	t.size("free", s.Free)
	t.size("used", s.Used)
	t.size("dirty", s.Dirty)
	t.add("files", "%d", s.Files)

	t.add("meta", "%s", s.Meta.line())
	t.add("node", "%s", orDash(s.Name))
	t.add("version", "%s", s.Version)
	t.add("up", "%d %s", seconds(s.Since, s.Now), span(s.Now.Std().Sub(s.Since.Std())))
	return t.String()
}

// Line is the contents of /dos/cluster/health: the word and why.
func (h Health) Line() string {
	if len(h.Why) == 0 {
		return h.Word + "\n"
	}
	return h.Word + " " + strings.Join(h.Why, "; ") + "\n"
}

// safe answers the question that a person has.
func (s Status) safe() string {
	switch h := s.Health(); {
	case s.Stripes.Lost > 0:
		return fmt.Sprintf("no: %s cannot be read until a store comes back", count(s.Stripes.Lost, "stripe"))
	case h.Word == NoQuorum && s.Stripes.Total() == 0:
		return "not known: nobody leads the metadata, and nothing can be changed"
	case h.Word == NoQuorum:
		return "yes, but nothing can be changed until the metadata service has a leader"
	case s.Spare <= 0:
		return "yes, but not if another store is lost"
	case len(s.Machines) == 0:
		return fmt.Sprintf("yes: %s may be lost", count(int64(s.Spare), "more store"))
	case s.Meta.Members == 1:
		return fmt.Sprintf("yes, but not if machine %s is lost: it alone has the metadata", s.Meta.Leader)
	case s.Meta.Spare() == 0:
		return "yes, but nothing can be changed if another machine with metadata is lost"
	case s.spareMachines() == 0:
		return fmt.Sprintf("yes: %s may be lost, but no whole machine", count(int64(s.Spare), "more store"))
	}
	return fmt.Sprintf("yes: %s may be lost", count(int64(min(s.spareMachines(), s.Meta.Spare())), "more machine"))
}

func (s Status) doing() string {
	switch {
	case s.Repair.Running && s.Repair.Total == 0:
		return "looking whether every shard is there"
	case s.Repair.Running:
		return "repairing " + s.Repair.line()
	case s.Repair.Error != "":
		return "waiting to repair: " + s.Repair.Error
	case len(s.machines(Machine.moving)) > 0:
		return "emptying " + names(s.machines(Machine.moving))
	case s.Fold.Waiting > 0:
		return fmt.Sprintf("folding %s", count(s.Fold.Waiting, "file"))
	}
	return "nothing special"
}

func (r Repair) line() string {
	text := "idle"
	if r.Running && r.Total == 0 {
		text = "looking"
	} else if r.Running {
		percent := int64(100)
		if r.Total > 0 {
			percent = min(100, 100*r.Done/r.Total)
		}
		text = fmt.Sprintf("%d%% done %d of %d rate %d %s/s", percent, r.Done, r.Total, r.Rate, Size(r.Rate))
		if r.Left > 0 {
			text += " left " + span(r.Left)
		}
	}
	if r.Error != "" {
		text += " error " + oneLine(r.Error)
	}
	return text
}

func (s Scrub) line() string {
	percent, total := int64(0), max(s.Total, s.Done) // it also read what is gone since
	if total > 0 {
		percent = 100 * s.Done / total
	}
	last := "never"
	if s.Finished != 0 {
		last = stamp(s.Finished)
	}
	return fmt.Sprintf("%d%% done %d of %d bad %d last %s", percent, s.Done, total, s.Bad, last)
}

func (s Store) line() string {
	text := fmt.Sprintf("%d %s used %d free %d capacity %d shards %d", s.ID, s.State, s.Used, s.Free, s.Capacity, s.Shards)
	if s.Node != "" {
		text += " node " + s.Node
	}
	text += " path " + s.Path
	if s.Error != "" {
		text += " error " + oneLine(s.Error)
	}
	return text
}

// lines collects lines of a key and a value.
type lines struct{ strings.Builder }

func (t *lines) add(key, format string, args ...any) {
	fmt.Fprintf(t, "%s %s\n", key, oneLine(fmt.Sprintf(format, args...)))
}

func (t *lines) size(key string, n int64) { t.add(key, "%d %s", n, Size(n)) }

// oneLine keeps a text that came from elsewhere from looking like several lines.
func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", " ") }

func (m Metadata) line() string {
	return fmt.Sprintf("leader %s members %d alive %d spare %d term %d applied %d", orDash(m.Leader), m.Members, m.Alive, m.Spare(), m.Term, m.Applied)
}

func orNone(code string) string {
	if code == "" {
		return "none"
	}
	return code
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Size says a number of bytes as a person does.
func Size(n int64) string {
	const unit = 1024
	if n < unit && n > -unit {
		return fmt.Sprintf("%dB", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit || f <= -unit {
		f, i = f/unit, i+1
	}
	return fmt.Sprintf("%.1f%ciB", f, "KMGTPE"[i])
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func stamp(t meta.Time) string { return t.Std().UTC().Format("2006-01-02T15:04:05Z") }

func seconds(from, to meta.Time) int64 { return int64(to.Std().Sub(from.Std()) / time.Second) }

// span says how long something lasts, to the second.
func span(d time.Duration) string { return d.Round(time.Second).String() }
