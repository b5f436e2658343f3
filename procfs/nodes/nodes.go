// Package nodes is the special directory /dos/nodes: one directory a node,
// with what that machine is, has and does. It owns the texts; it does not know
// where what they say comes from.
//
//	NODE/status    state, roles, since when; the last state of a dead node with `stale`
//	NODE/capacity  bytes: capacity, free, used; shards
//	NODE/load      the load averages and what runs, as in /proc/loadavg
//	NODE/memory    bytes: total, free, available; of the machine and of dos
//	NODE/disks     a line a store: its state, bytes, shards, path
//	NODE/version   what runs there
//	NODE/roles     a line a role
//	help           the above with examples
package nodes

import (
	"context"
	"iter"

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

// New returns the directory.
func New(n Nodes) procfs.Dir { return root{n} }

// The nodes of this directory are comparable values, so that the same thing
// has the same inode number each time it is looked up.
type (
	root struct{ nodes Nodes }
	node struct {
		root
		name string
	}
	file struct {
		node
		kind string
	}
	helpFile struct{ root }
)

func (r root) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: "nodes", Mode: meta.TypeDir | 0o555}, nil
}

func (r root) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	if name == "help" {
		return helpFile{r}, nil
	}
	if _, err := r.nodes.Node(ctx, name); err != nil {
		return nil, err
	}
	return node{r, name}, nil
}

func (r root) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
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
		yield(helpFile{r}.Stat(ctx))
	}
}

func (n node) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: n.name, Mode: meta.TypeDir | 0o555}, nil
}

func (n node) Lookup(_ context.Context, name string) (procfs.Node, error) {
	if _, ok := render(name); !ok {
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
	}
}

// text is the file as a text made anew by every open.
func (f file) text() procfs.File {
	return procfs.Text(f.kind, func(ctx context.Context) (string, error) {
		n, err := f.nodes.Node(ctx, f.name)
		if err != nil {
			return "", err
		}
		text, _ := render(f.kind)
		return text(n), nil
	})
}

func (f file) Stat(ctx context.Context) (procfs.Info, error) { return f.text().Stat(ctx) }

func (f file) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	return f.text().Open(ctx, how)
}

func (h helpFile) text() procfs.File {
	return procfs.Text("help", func(context.Context) (string, error) { return help, nil })
}

func (h helpFile) Stat(ctx context.Context) (procfs.Info, error) { return h.text().Stat(ctx) }

func (h helpFile) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	return h.text().Open(ctx, how)
}

const help = `/dos/nodes: one directory a node (a machine that runs dos).

NODE/status    what it is and whether it answers
                 grep . /dos/nodes/*/status
NODE/capacity  bytes that its stores hold in all, can still take, have used
                 awk '/^free/ { print FILENAME, $3 }' /dos/nodes/*/capacity
NODE/load      load averages over 1, 5 and 15 minutes, runnable and all threads
                 head -1 /dos/nodes/*/load
NODE/memory    bytes of the machine, and of dos on it
NODE/disks     a line a store: id, state, bytes, shards, path
                 grep -v ' up ' /dos/nodes/*/disks
NODE/version   what runs there
NODE/roles     a line a role: meta, chunk, mount
help           this text
`
