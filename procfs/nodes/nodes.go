// Package nodes is the special directory /dos/nodes: one directory a node, with
// what that machine is, has and does, and what an administrator says of it. It owns
// the texts and the commands; it does not know where what they say comes from, nor
// how it is done. Its help file is its manual page.
package nodes

import (
	"context"
	"iter"
	"slices"

	"dos/meta"
	"dos/procfs"
)

// Nodes is what this directory needs to know.
type Nodes interface {
	// Names lists the nodes, in a stable order.
	Names(ctx context.Context) ([]string, error)
	// Node describes one; NotExist if there is none of that name.
	Node(ctx context.Context, name string) (Node, error)
}

// Admin is what an administrator can do.
type Admin interface {
	// Change changes what is said of a node. What is nil stays.
	Change(ctx context.Context, node string, what Change) error
	// Drain has a node emptied: nothing new is put there, and what is there moves off.
	Drain(ctx context.Context, node, why string, on bool) error
	// Remove forgets a node that is empty.
	Remove(ctx context.Context, node string) error
	// Token makes a token with which one node can join: of that name, or of any if it
	// is empty.
	Token(ctx context.Context, name string) (string, error)
	// Joined waits until a node has joined with a token, and returns its name.
	Joined(ctx context.Context, token string) (string, error)
}

// A Change is what an administrator says of a node.
type Change struct {
	Label  string  // the one that is changed; empty: none
	Value  *string // what it is to be; nil: there is to be none
	Weight *uint32 // in hundredths
	Hold   *bool   // no task is to start there
	Why    string  // it is held
}

// New returns the directory. Owner may write to what is an administrator's. tasks lists
// what a node runs, by the names that it has in the directory tasks beside this one.
func New(n Nodes, a Admin, tasks func(ctx context.Context, node string) ([]string, error), owner uint32) procfs.Dir {
	return &root{n, a, tasks, owner}
}

type root struct {
	nodes Nodes
	admin Admin
	tasks func(ctx context.Context, node string) ([]string, error)
	owner uint32
}

// The nodes of this directory are comparable values, so that the same thing
// has the same inode number each time it is looked up.
type (
	node struct {
		*root
		name string
	}
	file struct {
		node
		kind string
	}
	// taskDir has a link to each task that runs there.
	taskDir  struct{ node }
	taskLink struct{ id string }
	// A join waits for somebody to join, in its writes.
	join struct{ *root }
)

func (r *root) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: "nodes", Mode: meta.TypeDir | 0o555}, nil
}

func (r *root) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	switch name {
	case "help":
		return manual.File(), nil
	case "join":
		return join{r}, nil
	}
	if _, err := r.nodes.Node(ctx, name); err != nil {
		return nil, err
	}
	return node{r, name}, nil
}

func (r *root) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		names, err := r.nodes.Names(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, name := range names {
			if !yield(node{r, name}.Stat(ctx)) {
				return
			}
		}
		_ = yield(join{r}.Stat(ctx)) && yield(manual.File().Stat(ctx))
	}
}

func (n node) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: n.name, Mode: meta.TypeDir | 0o555}, nil
}

func (n node) Lookup(_ context.Context, name string) (procfs.Node, error) {
	if name == tasksName {
		return taskDir{n}, nil
	}
	if _, ok := find(name); !ok {
		return nil, meta.NotExist
	}
	return file{n, name}, nil
}

func (n node) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		for _, kind := range kinds {
			if !yield(file{n, kind.name}.Stat(ctx)) {
				return
			}
		}
		yield(taskDir{n}.Stat(ctx))
	}
}

// tasksName is the directory of the tasks of a node, and of all.
const tasksName = "tasks"

func (d taskDir) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: tasksName, Mode: meta.TypeDir | 0o555}, nil
}

func (d taskDir) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	list, err := d.tasks(ctx, d.name)
	if err == nil && !slices.Contains(list, name) {
		err = meta.NotExist
	}
	return taskLink{name}, err
}

func (d taskDir) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		list, err := d.tasks(ctx, d.name)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, id := range list {
			if !yield(taskLink{id}.Stat(ctx)) {
				return
			}
		}
	}
}

func (l taskLink) Stat(ctx context.Context) (procfs.Info, error) {
	target, err := l.Target(ctx)
	return procfs.Info{Name: l.id, Mode: meta.TypeSymlink | 0o777, Size: int64(len(target))}, err
}

func (l taskLink) Target(context.Context) (string, error) {
	return "../../../" + tasksName + "/" + l.id, nil
}

// text is what the file says now.
func (f file) text(ctx context.Context) (string, error) {
	n, err := f.nodes.Node(ctx, f.name)
	if err != nil {
		return "", err
	}
	k, _ := find(f.kind)
	return k.text(n), nil
}

// Blocks says that writing may wait: for what is to be removed.
func (f file) Blocks() {}

func (f file) Stat(ctx context.Context) (procfs.Info, error) {
	text, err := f.text(ctx)
	info := procfs.Info{Name: f.kind, Mode: meta.TypeFile | 0o444, Size: int64(len(text))}
	if k, _ := find(f.kind); k.do != nil {
		info.Mode, info.UID = meta.TypeFile|0o644, f.owner
	}
	return info, err
}

func (f file) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	ctx = context.WithoutCancel(ctx) // opening waits for nobody
	k, _ := find(f.kind)
	if k.do == nil {
		text, err := f.text(ctx)
		if err != nil {
			return nil, err
		}
		return procfs.OpenText(how, text)
	}
	return procfs.Control{
		Settings: f.text,
		Do:       func(ctx context.Context, line string) error { return k.do(ctx, f.node, line) },
	}.Open(ctx, how)
}

func (j join) Blocks() {}

func (j join) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: "join", Mode: meta.TypeFile | 0o600, UID: j.owner}, nil
}

func (j join) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	return procfs.Transaction{Say: j.say}.Open(ctx, how)
}

var manual = procfs.Help{
	About: "/dos/nodes: one directory a node (a machine that runs dos).",
	Topics: []procfs.Topic{
		{Name: "N/status", Text: "what it is and whether it answers: health is alive, suspect (it has not answered for\nsome seconds), dead, held (no task starts there) or draining; stale is how old the rest is;\nlacks is for what of a task the machine has no cgroups: memory and the number of processes are\nlimited process by process then, and cpu is not", Examples: []string{"grep . /dos/nodes/*/status"}},
		{Name: "N/capacity", Text: "bytes that its stores hold in all, can still take, have used", Examples: []string{"awk '/^free/ { print FILENAME, $2 }' /dos/nodes/*/capacity"}},
		{Name: "N/load", Text: "load averages over 1, 5 and 15 minutes, runnable and all threads", Examples: []string{"head -1 /dos/nodes/*/load"}},
		{Name: "N/memory", Text: "bytes of the machine, and of dos on it", Examples: []string{"cat /dos/nodes/*/memory"}},
		{Name: "N/disks", Text: "a line a store: id, state, bytes, shards, path", Examples: []string{"cat /dos/nodes/*/disks"}},
		{Name: "N/version", Text: "what runs there", Examples: []string{"cat /dos/nodes/*/version"}},
		{Name: "N/roles", Text: "a line a role: meta, chunk, task, mount", Examples: []string{"cat /dos/nodes/*/roles"}},
		{Name: "N/labels", Text: "for tasks that ask for label=; an administrator writes NAME [VALUE], or -NAME to take one\naway. They count before those that dosd was started with", Examples: []string{"for n in /dos/nodes/*/; do echo disk ssd >$n/labels; cat $n/labels; echo -disk >$n/labels; done"}},
		{Name: "N/ctl", Text: "an administrator writes hold [WHY]: no task starts there; drain [WHY]: that, and its data moves\noff; resume: neither; weight 2: twice the share of data and tasks of others; remove: it is\nempty and leaves for good. Draining is refused where there would be no place for the data", Examples: []string{"cat /dos/nodes/*/ctl", "for n in /dos/nodes/*/; do echo hold a new fan >$n/ctl; grep health $n/status; echo resume >$n/ctl; done"}},
		{Name: "N/tasks/", Text: "links to the tasks that run there", Examples: []string{"ls /dos/nodes/*/tasks"}},
		{Name: "join", Text: "for an administrator. Write `new [NAME]` and read a token, good once, for an hour: dosd --join\ntakes it. Write a token, which waits until a node has joined with it, and read its name"},
	},
}
