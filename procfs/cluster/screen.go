package cluster

import (
	"fmt"
	"strings"
)

// Screen is the same as Text for a person who looks at a terminal: what is good
// is said shortly, and what is not at length.
func (s Status) Screen() string {
	var t lines
	row := func(key, format string, args ...any) { t.add(fmt.Sprintf("%-9s", key), format, args...) }
	h := s.Health()
	row("health", "%s", strings.TrimSpace(h.Line()))
	row("safe", "%s", s.safe())
	row("doing", "%s", s.doing())
	for _, advice := range s.Advice() {
		row("advice", "%s", advice)
	}
	t.WriteString("\n")
	if table := s.MachineTable(); table != "" {
		t.WriteString(table + "\n")
	}
	for _, st := range s.Stores {
		if st.State != Up && !s.gone(st.Node) {
			row("store", "%s", st.line())
		}
	}
	switch r := s.Stripes; {
	case r.Total() == 0 && s.Used > 0:
		row("data", "not counted yet: that is done every minute; new stripes are written %s", s.writing())
	case r.Total() == 0 && s.Meta.Leader == "":
		row("data", "not known without a leader of the metadata")
	case r.Total() == 0 && s.Code == "":
		row("data", "no stripes yet, and none can be written")
	case r.Total() == 0:
		row("data", "no stripes yet; they are written %s", s.writing())
	case r.Full == r.Total():
		row("data", "%s, all with full redundancy; new ones are written %s", count(r.Total(), "stripe"), s.writing())
	default:
		row("data", "%s: %d full, %d short, %d degraded, %d endangered, %d lost; new ones are written %s",
			count(r.Total(), "stripe"), r.Full, r.Short, r.Degraded, r.Endangered, r.Lost, s.writing())
	}
	for _, lacks := range s.lacks() {
		row("tasks", "%s", lacks)
	}
	row("stores", "%d, %d up", len(s.Stores), s.stores(Up))
	row("space", "%s", s.space())
	row("metadata", "%s", s.Meta.sentence(len(s.Machines) > 0))
	row("scrub", "%s", s.Scrub.line())
	if s.Since == 0 {
		row("dos", "%s", s.Version)
	} else {
		row("dos", "%s on %s, up %s", s.Version, orDash(s.Name), span(s.Now.Std().Sub(s.Since.Std())))
	}
	return t.String()
}

// space says what is used and free, as far as that is known.
func (s Status) space() string {
	if s.Capacity == 0 {
		return "not known yet"
	}
	text := fmt.Sprintf("%s used by %s, %s free of %s", Size(s.Used), count(s.Files, "file"), Size(s.Free), Size(s.Capacity))
	if len(s.Machines) == 0 { // else only each mount knows
		text += fmt.Sprintf("; %s not yet stored", Size(s.Dirty))
	}
	return text
}

// writing is the code that new stripes have.
func (s Status) writing() string {
	switch s.Code {
	case "":
		return "not at all"
	case s.Want:
		return s.Code
	}
	return fmt.Sprintf("%s instead of %s", s.Code, s.Want)
}

// sentence is the state of the metadata for people.
func (m Metadata) sentence(several bool) string {
	switch {
	case m.Leader == "":
		return fmt.Sprintf("no leader: %d of %d members answer", m.Alive, m.Members)
	case !several:
		return "one copy, in the data directory: dosctl dump makes another"
	}
	return fmt.Sprintf("led by %s; %d of %d members answer, %s may be lost", m.Leader, m.Alive, m.Members, orNo(m.Spare()))
}

func orNo(n int) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}
