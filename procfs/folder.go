package procfs

import (
	"context"
	"iter"

	"dos/meta"
)

// Unlisted is a Node that its Folder finds but does not list, because it
// consumes or blocks.
type Unlisted interface {
	Unlisted()
}

// Folder is a fixed directory of the nodes given, in that order. Those that
// are Unlisted are found, and not listed.
func Folder(name string, nodes ...Node) Dir { return &folder{name, nodes} }

type folder struct {
	name  string
	nodes []Node
}

func (d *folder) Stat(context.Context) (Info, error) {
	return Info{Name: d.name, Mode: meta.TypeDir | 0o555}, nil
}

func (d *folder) called() string { return d.name }

func (d *folder) Lookup(ctx context.Context, name string) (Node, error) {
	for _, n := range d.nodes {
		if called(ctx, n) == name {
			return n, nil
		}
	}
	return nil, meta.NotExist
}

// called returns the name of a node, without making a text only to know how
// long it is.
func called(ctx context.Context, n Node) string {
	if n, ok := n.(interface{ called() string }); ok {
		return n.called()
	}
	info, err := n.Stat(ctx)
	if err != nil {
		return ""
	}
	return info.Name
}

func (d *folder) Entries(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for _, n := range d.nodes {
			if _, hidden := n.(Unlisted); hidden {
				continue
			}
			info, err := n.Stat(ctx)
			if err != nil { // it is there, though its text cannot be made now
				info.Name = called(ctx, n)
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}
