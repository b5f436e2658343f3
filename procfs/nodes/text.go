package nodes

import (
	"fmt"
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

// kinds are the files of a node, in the order they are listed.
var kinds = []struct {
	name string
	text func(Node) string
}{
	{"status", Node.StatusText},
	{"capacity", Node.CapacityText},
	{"load", Node.LoadText},
	{"memory", Node.MemoryText},
	{"disks", Node.DisksText},
	{"version", func(n Node) string { return n.Version + "\n" }},
	{"roles", Node.RolesText},
}

func render(kind string) (text func(Node) string, ok bool) {
	for _, k := range kinds {
		if k.name == kind {
			return k.text, true
		}
	}
	return nil, false
}

// staleAfter is how old a state may be before the text says so.
const staleAfter = 3 * time.Second

// StatusText is the contents of NODE/status.
func (n Node) StatusText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "name %s\nstate %s\n", n.Name, n.State)
	if old := n.Now.Std().Sub(n.Seen.Std()); old > staleAfter {
		fmt.Fprintf(&b, "stale %s\n", old.Round(time.Second))
	}
	fmt.Fprintf(&b, "roles %s\n", strings.Join(n.Roles, " "))
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
			strings.ReplaceAll(d.Path, "\n", " "))
	}
	return b.String()
}
