package cluster

import (
	"fmt"
	"time"

	"dos/meta"
)

const (
	// fullBelow is the part of the capacity that should be free, in per cent.
	fullBelow = 10
	// takesLittle is that of a single store's, in per cent, which is said to be
	// full with less: others may have filled its disk.
	takesLittle = 1
)

// Advice says what a person should do: a line for each thing that is wrong and
// does not mend by itself, or not soon.
func (s Status) Advice() []string {
	var list []string
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, m := range s.machines(Machine.down) {
		say("%s", s.aboutDown(m))
	}
	_, m, _ := s.code()
	spent := s.stores(Lost)+s.stores(Down)+s.stores(Rebuilding) > m
	for _, st := range s.Stores {
		switch {
		case st.State != Lost || s.gone(st.Node):
		case st.Unmounted != "":
			say("store %d (%s%s) is not mounted: mount %s; dosctl replace %d gives up what it had", st.ID, st.Path, on(st.Node), st.Unmounted, st.ID)
		case spent:
			say("store %d (%s%s) is lost and may be needed: bring its folder back; dosctl replace %d gives up what it had", st.ID, st.Path, on(st.Node), st.ID)
		default:
			say("store %d (%s%s) is lost: see to its disk; it starts empty there by itself, and is rebuilt", st.ID, st.Path, on(st.Node))
		}
	}
	if k, m, ok := s.code(); ok && len(s.Stores) < k+m {
		say("%s: %s needs %d stores, %d more", s.moreStores(), s.Want, k+m, k+m-len(s.Stores))
	}
	for _, m := range s.Machines {
		switch {
		case m.moving() && !m.down():
			say("machine %s is being emptied, %s left: then dosctl node remove %s", m.Name, count(m.Left, "shard"), m.Name)
		case m.drained():
			say("machine %s is empty: dosctl node remove %s, which ends its dosd; or dosctl node resume %s", m.Name, m.Name, m.Name)
		}
	}
	if s.Worst > m && s.Spare > 0 && len(s.Machines) > 1 {
		say("a stripe has up to %d shards on one machine, and %s survives the loss of %d: spread the stores over more machines", s.Worst, s.Want, m)
	}
	if advice := s.aboutMetadata(); advice != "" {
		say("%s", advice)
	}
	for _, st := range s.Stores {
		if st.State == Up && st.Node != "" && st.Free < st.Capacity/100*takesLittle {
			say("store %d (%s%s) is full: others take what it should; make room on its disk", st.ID, st.Path, on(st.Node))
		}
	}
	if s.Code != "" && s.Capacity > 0 && s.Free < s.Capacity/100*fullBelow {
		say("%d%% of the space is used: remove files, or add %s", 100-100*s.Free/s.Capacity, map[bool]string{true: "room to the disk", false: "machines or disks"}[len(s.Machines) == 0])
	}
	return list
}

// aboutDown says what to do about a machine that does not answer.
func (s Status) aboutDown(m Machine) string {
	text := fmt.Sprintf("machine %s does not answer", m.Name)
	if m.Seen != 0 {
		text += fmt.Sprintf(" since %s (%s ago)", hour(m.Seen), span(s.Now.Std().Sub(m.Seen.Std())))
	}
	text += ": start dosd there"
	_, stores, _ := s.has(m.Name)
	switch {
	case stores == 0:
		return text
	case m.Out && m.Left > 0:
		return text + fmt.Sprintf("; what it had is being rebuilt elsewhere, %s left", count(m.Left, "shard"))
	case m.Out:
		return text + fmt.Sprintf(", or dosctl node remove %s: what it had is rebuilt elsewhere", m.Name)
	case m.Rebuild != 0:
		return text + "; else what it has is rebuilt elsewhere at " + hour(m.Rebuild)
	}
	return text + ", or let another machine join: there is no spare one to rebuild its shards on"
}

// moreStores says how to get more stores.
func (s Status) moreStores() string {
	if len(s.Machines) == 0 {
		return "the data directory has too few stores"
	}
	return "let another machine join (dosctl token create), or give one another --disk"
}

// aboutMetadata says what to do if no member may be lost.
func (s Status) aboutMetadata() string {
	if len(s.Machines) == 0 || s.Meta.Leader != "" && s.Meta.Spare() > 0 {
		return ""
	}
	var could, down []Machine // that have the role
	for _, m := range s.Machines {
		for _, role := range m.Roles {
			switch {
			case role != "meta":
			case m.down():
				down = append(down, m)
			default:
				could = append(could, m)
			}
		}
	}
	switch {
	case s.Meta.Leader == "" && len(down) > 0:
		return fmt.Sprintf("nothing can be changed until a majority of the machines with metadata answers: bring back %s", names(down))
	case s.Meta.Leader == "":
		return "the machines with metadata elect a leader: that takes seconds, unless they cannot reach each other"
	case len(down) > 0:
		return fmt.Sprintf("if one more machine with metadata is lost, nothing can be changed: bring back %s", names(down))
	case len(could) < 3:
		return fmt.Sprintf("the metadata is on %s: with 3 machines of role meta one of them may be lost", count(int64(len(could)), "machine"))
	}
	return "the metadata is being copied to more machines: it is safe in a moment"
}

func on(node string) string {
	if node == "" {
		return ""
	}
	return " on " + node
}

// hour is the time of day, in UTC as everything here.
func hour(t meta.Time) string { return t.Std().UTC().Format(time.TimeOnly) + "Z" }
