package nodes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"dos/meta"
)

// A Node is one machine that runs dos.
type Node struct {
	Name    string    `json:"name"`
	State   string    `json:"state"` // up, down or drained
	Addr    string    `json:"addr,omitempty"`
	Zone    string    `json:"zone,omitempty"`
	Roles   []string  `json:"roles"`
	Version string    `json:"version"`
	Since   meta.Time `json:"since"` // when it started
	Seen    meta.Time `json:"seen"`  // when what is here was true
	Now     meta.Time `json:"now"`
	Load    Load      `json:"load"`
	Memory  Memory    `json:"memory"`
	Disks   []Disk    `json:"disks"`
	// Labels and what follows is what is said of it.
	Labels   map[string]string `json:"labels,omitempty"`
	Weight   float64           `json:"weight,omitempty"` // its share of what is spread; zero: 1
	Draining bool              `json:"draining,omitempty"`
	Held     bool              `json:"held,omitempty"` // no task starts there
	Why      string            `json:"why,omitempty"`  // it is drained or held
	// Lacks is what of a task's limits no cgroup of the machine holds it to, and why; empty: all are held.
	Lacks string `json:"lacks,omitempty"`
	// Charge says that it does the cluster's upkeep at the moment.
	Charge bool `json:"charge,omitempty"`
	// Damaged are shards that were found damaged of late, for whoever is in charge
	// to mend.
	Damaged []Shard `json:"damaged,omitempty"`
}

// A Shard is one shard of one stripe.
type Shard struct {
	Stripe uint64 `json:"stripe"`
	Index  uint8  `json:"index"`
}

// Load is how busy a machine is.
type Load struct {
	One, Five, Fifteen float64 // load averages over so many minutes
	Running, Threads   int     // runnable, and all
	CPUs               int
}

// Memory is in bytes.
type Memory struct {
	Total, Free, Available int64 // of the machine
	Resident               int64 // of dos
}

// A Disk is one store.
type Disk struct {
	ID       uint32 `json:"id"`
	State    string `json:"state"`
	Path     string `json:"path"`
	Device   uint64 `json:"device,omitempty"` // of the file system it lies on: the machine's number for it
	Capacity int64  `json:"capacity"`
	Free     int64  `json:"free"`
	Used     int64  `json:"used"`
	Shards   int64  `json:"shards"`
	Error    string `json:"error,omitempty"` // why it is not up, or its last
	// Unmounted, when it is lost, is where its file system was mounted and is not.
	Unmounted string `json:"unmounted,omitempty"`

	Scrubbed int64     `json:"scrubbed,omitempty"` // shards read in the round under way, or the last
	Bad      int64     `json:"bad,omitempty"`      // of those read since the start
	Finished meta.Time `json:"finished,omitempty"` // when the last round was
}

// A kind is a file of a node.
type kind struct {
	name string
	text func(Node) string
	do   func(ctx context.Context, n node, line string) error // of a control file
}

// kinds are in the order they are listed.
var kinds = []kind{
	{"status", Node.StatusText, nil},
	{"capacity", Node.CapacityText, nil},
	{"load", Node.LoadText, nil},
	{"memory", Node.MemoryText, nil},
	{"disks", Node.DisksText, nil},
	{"version", func(n Node) string { return n.Version + "\n" }, nil},
	{"roles", Node.RolesText, nil},
	{"labels", Node.LabelsText, label},
	{"ctl", Node.ControlText, command},
}

func find(name string) (kind, bool) {
	for _, k := range kinds {
		if k.name == name {
			return k, true
		}
	}
	return kind{}, false
}

// staleAfter is how old a state may be before the text says so. Machines are asked
// every second.
const staleAfter = 2 * time.Second

// deadAfter is how long a machine may not have answered before it counts as dead: by
// then its sessions are over, and what it held belongs to others.
const deadAfter = 15 * time.Second

// The words of Health.
const (
	alive    = "alive"
	suspect  = "suspect"
	dead     = "dead"
	held     = "held"
	draining = "draining"
)

// Health is how the machine does, in a word.
func (n Node) Health() string {
	switch {
	case n.State == "down" && n.Now.Std().Sub(n.Seen.Std()) > deadAfter:
		return dead
	case n.State == "down":
		return suspect
	case n.Draining:
		return draining
	case n.Held:
		return held
	}
	return alive
}

// StatusText is the contents of NODE/status.
func (n Node) StatusText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "name %s\nstate %s\nhealth %s\n", n.Name, n.State, n.Health())
	if n.Why != "" {
		fmt.Fprintf(&b, "why %s\n", oneLine(n.Why))
	}
	if old := n.Now.Std().Sub(n.Seen.Std()); old > staleAfter {
		fmt.Fprintf(&b, "stale %s\n", old.Round(time.Second))
	}
	fmt.Fprintf(&b, "roles %s\n", strings.Join(n.Roles, " "))
	if n.Lacks != "" {
		fmt.Fprintf(&b, "lacks %s\n", oneLine(n.Lacks))
	}
	if n.Addr != "" {
		fmt.Fprintf(&b, "addr %s\n", n.Addr)
	}
	if n.Zone != "" {
		fmt.Fprintf(&b, "zone %s\n", n.Zone)
	}
	up := n.Seen.Std().Sub(n.Since.Std())
	fmt.Fprintf(&b, "version %s\nstarted %s\nup %d %s\n", n.Version, n.Since.Std().UTC().Format(time.RFC3339), int64(up/time.Second), up.Round(time.Second))
	return b.String()
}

// CapacityText is the contents of NODE/capacity: sums over its stores.
func (n Node) CapacityText() string {
	var sum Disk
	for _, d := range n.Disks {
		sum.Capacity += d.Capacity
		sum.Free += d.Free
		sum.Used += d.Used
		sum.Shards += d.Shards
	}
	return fmt.Sprintf("capacity %d\nfree %d\nused %d\nshards %d\nstores %d\n", sum.Capacity, sum.Free, sum.Used, sum.Shards, len(n.Disks))
}

// LoadText is the contents of NODE/load.
func (n Node) LoadText() string {
	l := n.Load
	return fmt.Sprintf("load %.2f %.2f %.2f\nrunning %d\nthreads %d\ncpus %d\n", l.One, l.Five, l.Fifteen, l.Running, l.Threads, l.CPUs)
}

// MemoryText is the contents of NODE/memory.
func (n Node) MemoryText() string {
	m := n.Memory
	return fmt.Sprintf("total %d\nfree %d\navailable %d\ndos.resident %d\n", m.Total, m.Free, m.Available, m.Resident)
}

// RolesText is the contents of NODE/roles.
func (n Node) RolesText() string {
	var b strings.Builder
	for _, role := range n.Roles {
		b.WriteString(role + "\n")
	}
	return b.String()
}

// DisksText is the contents of NODE/disks. The path is last, since it may hold spaces.
func (n Node) DisksText() string {
	var b strings.Builder
	for _, d := range n.Disks {
		fmt.Fprintf(&b, "store %d %s used %d free %d capacity %d shards %d path %s\n", d.ID, d.State, d.Used, d.Free, d.Capacity, d.Shards,
			oneLine(d.Path))
	}
	return b.String()
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", " ") }

// LabelsText is the contents of NODE/labels.
func (n Node) LabelsText() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(n.Labels)) {
		b.WriteString(strings.TrimSpace(name+" "+n.Labels[name]) + "\n")
	}
	return b.String()
}

// ControlText is the contents of NODE/ctl: what is said of it, in lines that it takes.
func (n Node) ControlText() string {
	weight := n.Weight
	if weight == 0 {
		weight = 1
	}
	text := "resume"
	switch {
	case n.Draining:
		text = "drain " + oneLine(n.Why)
	case n.Held:
		text = "hold " + oneLine(n.Why)
	}
	return strings.TrimSpace(text) + "\nweight " + strconv.FormatFloat(weight, 'g', 6, 64) + "\n"
}
