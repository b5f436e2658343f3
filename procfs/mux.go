package procfs

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"dos/meta"
)

// reserved are the names in the root of a mount that belong to special
// directories, those that are not built yet too: no file may take one, or it
// would disappear behind the directory when that comes.
var reserved = []string{"cache", "cluster", "kv", "locks", "nodes", "queues", "rpc", "tasks"}

// Reserved reports whether name in the root belongs to a special directory.
func Reserved(name string) bool { return slices.Contains(reserved, name) }

// A Mux is the directory of all special directories. Package fuse shows its
// entries in the root of the mount, beside what is stored there. Fill it with
// Mount before it is used.
type Mux struct {
	names []string // in the order they were mounted
	dirs  map[string]Dir
}

// Mount puts dir at name, which must be one of the reserved names and free: the
// tree is put together once, by the program, before it is served. What a name stands for
// never changes.
func (m *Mux) Mount(name string, dir Dir) {
	if !Reserved(name) {
		panic(fmt.Sprintf("procfs: %q is not a reserved name", name))
	}
	if m.Has(name) {
		panic(fmt.Sprintf("procfs: two directories mounted at %q", name))
	}
	if m.dirs == nil {
		m.dirs = make(map[string]Dir)
	}
	m.names = append(m.names, name)
	m.dirs[name] = dir
}

// Has reports whether there is a directory at name.
func (m *Mux) Has(name string) bool { return m.dirs[name] != nil }

// Len is the number of directories.
func (m *Mux) Len() int { return len(m.names) }

func (m *Mux) Stat(context.Context) (Info, error) {
	return Info{Name: "/", Mode: meta.TypeDir | 0o555}, nil
}

func (m *Mux) Lookup(_ context.Context, name string) (Node, error) {
	if dir, ok := m.dirs[name]; ok {
		return dir, nil
	}
	return nil, meta.NotExist
}

func (m *Mux) Entries(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for _, name := range m.names {
			info, err := m.dirs[name].Stat(ctx)
			info.Name = name
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}
