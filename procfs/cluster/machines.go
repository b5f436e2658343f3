package cluster

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"dos/meta"
)

// A Machine is one machine of a cluster of several.
type Machine struct {
	Name    string    `json:"name"`
	Addr    string    `json:"addr"`
	Zone    string    `json:"zone,omitempty"`
	Roles   []string  `json:"roles"`
	State   string    `json:"state"` // Up or Down
	Version string    `json:"version,omitempty"`
	Since   meta.Time `json:"since,omitempty"` // when it started
	Seen    meta.Time `json:"seen,omitempty"`  // when it answered last; zero: never since somebody asks
	Meta    string    `json:"meta,omitempty"`  // what it is of the metadata, below; empty: nothing

	// Rebuild is when what it has will be rebuilt elsewhere if it stays down; zero
	// if it will not, because nowhere else is room for it.
	Rebuild  meta.Time `json:"rebuild,omitempty"`
	Out      bool      `json:"out,omitempty"`      // it was away for too long: that is being done, or was
	Draining bool      `json:"draining,omitempty"` // it is to be emptied
	Left     int64     `json:"left,omitempty"`     // shards that are still on it, while it is Draining or Out

	Lacks string `json:"lacks,omitempty"` // what of a task's limits no cgroup holds it to there, and why
}

// What a machine can be of the metadata.
const (
	Leader  = "leader"
	Voter   = "voter"
	Learner = "learner" // it has the metadata and no vote
)

func (m Machine) down() bool    { return m.State == Down }
func (m Machine) drained() bool { return m.Draining && m.Left == 0 }
func (m Machine) moving() bool  { return m.Draining && m.Left > 0 }

// word is the state for people.
func (m Machine) word() string {
	switch {
	case m.down() && m.Out:
		return "out"
	case m.down():
		return Down
	case m.drained():
		return "empty"
	case m.Draining:
		return "draining"
	case m.Out:
		return "returning"
	}
	return m.State
}

// machines returns those for which is says so.
func (s Status) machines(is func(Machine) bool) []Machine {
	var list []Machine
	for _, m := range s.Machines {
		if is(m) {
			list = append(list, m)
		}
	}
	return list
}

// gone reports whether the machine of that name is down.
func (s Status) gone(name string) bool {
	for _, m := range s.Machines {
		if m.Name == name {
			return m.down()
		}
	}
	return false
}

func names(list []Machine) string {
	var all []string
	for _, m := range list {
		all = append(all, m.Name)
	}
	return strings.Join(all, ", ")
}

// spareMachines is how many machines may be lost from now on without loss of data.
func (s Status) spareMachines() int {
	if s.Worst > 0 {
		return s.Spare / s.Worst
	}
	k, m, ok := s.code()
	on := make(map[string]int)
	most := 0
	for _, st := range s.Stores {
		on[st.Node]++
		most = max(most, on[st.Node])
	}
	if !ok || len(on) < 2 {
		return 0
	}
	shards := min(k+m, len(s.Stores))
	each := min(most, (shards+len(on)-1)/len(on))
	return s.Spare / max(1, each)
}

// has sums up the stores of a machine.
func (s Status) has(name string) (sum Store, stores, up int) {
	for _, st := range s.Stores {
		if st.Node != name {
			continue
		}
		stores++
		if st.State == Up {
			up++
		}
		sum.Used += st.Used
		sum.Free += st.Free
		sum.Shards += st.Shards
	}
	return sum, stores, up
}

// machineLine is a machine in /dos/cluster/status.
func (s Status) machineLine(m Machine) string {
	sum, stores, up := s.has(m.Name)
	text := fmt.Sprintf("%s %s addr %s roles %s stores %d up %d shards %d", m.Name, m.word(), m.Addr, strings.Join(m.Roles, ","), stores, up, sum.Shards)
	if m.Meta != "" {
		text += " meta " + m.Meta
	}
	if m.Zone != "" {
		text += " zone " + m.Zone
	}
	if m.down() && m.Seen != 0 {
		text += " seen " + stamp(m.Seen)
	}
	if m.Left > 0 {
		text += fmt.Sprintf(" left %d", m.Left)
	}
	return text
}

// MachineTable is the machines as a table for people.
func (s Status) MachineTable() string {
	if len(s.Machines) == 0 {
		return ""
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MACHINE\tSTATE\tADDRESS\tZONE\tMETADATA\tSTORES\tUSED\tFREE\tSHARDS")
	for _, m := range s.Machines {
		sum, stores, up := s.has(m.Name)
		has := fmt.Sprint(stores)
		if up < stores {
			has = fmt.Sprintf("%d, %d up", stores, up)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", m.Name, m.word(), m.Addr, orDash(m.Zone), orDash(m.Meta), has, Size(sum.Used), Size(sum.Free), sum.Shards)
	}
	w.Flush() //nolint:errcheck // a Builder takes everything
	return b.String()
}

// lacks says which machines do not hold tasks to all of their limits.
func (s Status) lacks() (list []string) {
	say := func(machine, lacks string) {
		if lacks != "" {
			list = append(list, "not held to all limits"+on(machine)+": no cgroups for "+strings.Join(strings.Fields(lacks), " "))
		}
	}
	say("", s.Lacks)
	for _, m := range s.Machines {
		say(m.Name, m.Lacks)
	}
	return list
}
