// Package cluster is the special directory /dos/cluster: is my data safe, and
// what is going on. It owns what a Status, an Event and the texts made of them
// look like; it does not know where they come from.
//
//	status        everything about the safety of what is stored, `key value` lines
//	health        one line: ok, degraded, endangered, lost or no-quorum, and why
//	version       what runs here
//	events        (not listed) waits for events and gives each as a line
//	log           the last thousand events
//	metrics       all that can be counted, for Prometheus
//	config/KEY    the settings, a value a file
//	self/error    the sentence behind the last error of this mount
//	self/session  the mount's session with the metadata service
//	self/node     the name of the node that serves this mount
//	self/locks    the locks that programs hold through this mount
//	self/tasks    the tasks of who reads it that have not ended
//	help          the above with examples
package cluster

import (
	"context"
	"fmt"

	"dos/meta"
	"dos/procfs"
)

// Cluster is what this directory needs to know.
type Cluster interface {
	Status(ctx context.Context) (Status, error)
	// Log returns the events that are kept, at most a thousand, the oldest first.
	Log() []Event
	// Since waits for events with a number above after.
	Since(ctx context.Context, after uint64) ([]Event, error)
}

// Self is the mount that the directory is looked at through.
type Self struct {
	Node    string
	Session func() meta.SessionID
	Error   *LastError
	// Locks are those that are held through it, a line each.
	Locks func() string
	// Tasks are those of a user that have not ended, a line each.
	Tasks func(ctx context.Context, uid uint32) (string, error)
}

// Parts are what the directory is made of.
type Parts struct {
	Cluster  Cluster
	Settings Settings
	Metrics  func(ctx context.Context) (string, error) // for Prometheus
	Self     Self
	Owner    uint32 // who may change settings
}

// New returns the directory.
func New(p Parts) procfs.Dir {
	c, self := p.Cluster, p.Self
	text := func(name string, of func(Status) string) procfs.Node {
		return procfs.Text(name, func(ctx context.Context) (string, error) {
			s, err := c.Status(ctx)
			if err != nil {
				return "", err
			}
			return of(s), nil
		})
	}
	return procfs.Folder("cluster",
		text("status", Status.Text),
		text("health", func(s Status) string { return s.Health().Line() }),
		text("version", func(s Status) string { return s.Version + "\n" }),
		procfs.Stream("events", func(context.Context) (procfs.Next, error) { return follow(c), nil }),
		procfs.Text("log", func(context.Context) (string, error) { return Lines(c.Log()), nil }),
		procfs.Text("metrics", p.Metrics),
		configDir{p.Settings, p.Owner},
		procfs.Folder("self",
			fixed("error", self.Error.Text),
			fixed("session", func() string { return fmt.Sprintf("%d\n", uint64(self.Session())) }),
			fixed("node", func() string { return self.Node + "\n" }),
			fixed("locks", self.Locks),
			ownTasks{&self},
		),
		fixed("help", func() string { return help }),
	)
}

func fixed(name string, text func() string) procfs.Node {
	return procfs.Text(name, func(context.Context) (string, error) { return text(), nil })
}

// ownTasks is self/tasks, which is different for each who reads it.
type ownTasks struct{ self *Self }

func (ownTasks) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: "tasks", Mode: meta.TypeFile | 0o444}, nil
}

func (o ownTasks) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	text, err := o.self.Tasks(ctx, how.Caller.UID)
	if err != nil {
		return nil, err
	}
	return procfs.OpenText(how, text)
}

// follow gives the events that come after this moment.
func follow(c Cluster) procfs.Next {
	after := uint64(0)
	if log := c.Log(); len(log) > 0 {
		after = log[len(log)-1].Seq
	}
	return func(ctx context.Context) (string, error) {
		events, err := c.Since(ctx, after)
		if err != nil {
			return "", err
		}
		if len(events) > 0 {
			after = events[len(events)-1].Seq
		}
		return Lines(events), nil
	}
}

// Lines is events as lines.
func Lines(events []Event) string {
	var text []byte
	for _, e := range events {
		text = append(text, e.Line()...)
	}
	return string(text)
}

const help = `/dos/cluster: is my data safe, and what is going on.

status        everything, as lines of a key and its value
                cat /dos/cluster/status
                awk '$1 == "stripes.lost" { print $2 }' /dos/cluster/status
              health, why, safe, doing: for people, first
              stripes.*: how many have full redundancy, a smaller code than
              wanted (short), shards missing (degraded), none to spare
              (endangered), too few left (lost)
              store: id, state (up, rebuilding, down, lost), bytes, shards, path
health        one line: ok, degraded, endangered, lost or no-quorum, and why
                grep -q ^ok /dos/cluster/health || mail -s dos root
version       what runs here
                cat /dos/cluster/version
events        not listed; waits for events, one a line: number, time, text
                timeout 60 cat /dos/cluster/events
log           the last thousand events
                tail -5 /dos/cluster/log
metrics       all that can be counted, for Prometheus: its text format. --debug ADDR
              serves the same at http://ADDR/metrics, with the process's own
                grep '^dos_node_load1' /dos/cluster/metrics
config/KEY    settings, a value a file, writable by an administrator; "default"
              takes one back. rebuild-after: how long a store may be away before
              what it had is rebuilt elsewhere
                grep . /dos/cluster/config/*
                echo 20m >/dos/cluster/config/rebuild-after; echo default >/dos/cluster/config/rebuild-after
self/error    the sentence behind the last error of this mount
                cat /dos/cluster/self/error
self/session  this mount's session with the metadata service
self/node     the node that serves this mount
self/locks    the locks held through this mount: name, token, mode, who
                cat /dos/cluster/self/locks
self/tasks    the tasks of who reads it that have not ended: id, state, name
                cat /dos/cluster/self/tasks
help          this text
`
