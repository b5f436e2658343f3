package tasks

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

// A by is what a view sorts tasks by.
type by string

const (
	byState by = "by-state"
	byNode  by = "by-node"
	byName  by = "by-name"
	byUser  by = "by-user"
)

var views = []by{byState, byNode, byName, byUser}

func viewOf(name string) (by, bool) { return by(name), slices.Contains(views, by(name)) }

type (
	// A view has a directory for each value of what it sorts by.
	view struct {
		*room
		by by
	}
	// A group is the tasks that have one value, as links.
	group struct {
		view
		value string
	}
	link struct {
		id   task.ID
		deep int // directories from it up to that of tasks
	}
)

func (v view) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: string(v.by), Mode: meta.TypeDir | 0o555}, nil
}

// list asks for the tasks that have a value.
func (v view) list(value string) (req task.List, err error) {
	switch v.by {
	case byState:
		for _, s := range task.States() {
			if s.String() == value {
				req.State = s
				return req, nil
			}
		}
		return req, meta.NotExist
	case byNode:
		req.Node = value
	case byName:
		req.Name = unescape(value)
	case byUser:
		uid, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return req, meta.NotExist
		}
		n := uint32(uid)
		req.UID = &n
	}
	return req, nil
}

// values are the values that there are.
func (v view) values(ctx context.Context) ([]string, error) {
	var list []string
	switch v.by {
	case byState:
		for _, s := range task.States() {
			list = append(list, s.String())
		}
		return list, nil
	case byNode:
		st, err := v.tasks.Status(ctx)
		for _, n := range st.Nodes {
			list = append(list, n.Offer.Node)
		}
		return list, err
	}
	found := make(map[string]bool)
	err := v.tasks.Each(ctx, task.List{}, func(t task.Task) error {
		if v.by == byUser {
			found[fmt.Sprint(t.Owner.UID)] = true
		} else if name := escape(t.Name); name != "" && len(name) <= meta.NameMax {
			found[name] = true
		}
		return nil
	})
	for name := range found {
		list = append(list, name)
	}
	slices.Sort(list)
	return list, err
}

// escape makes a name of a task one of a directory, with %XX for what that cannot hold.
func escape(name string) string {
	var b strings.Builder
	for i, c := range []byte(name) {
		if c == '/' || c == '%' || c == 0 || c == '.' && i == 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func unescape(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '%' && i+2 < len(name) {
			if n, err := strconv.ParseUint(name[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

func (v view) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	req, err := v.list(name)
	if err != nil {
		return nil, err
	}
	if v.by == byName || v.by == byUser {
		req.Limit = 1
		for { // a part of the list may have none of them
			got, err := v.tasks.List(ctx, req)
			switch {
			case err != nil:
				return nil, err
			case len(got.Tasks) == 0 && got.More:
				req.After = got.Last
				continue
			case len(got.Tasks) == 0:
				return nil, meta.NotExist
			}
			break
		}
	} else if list, err := v.values(ctx); err != nil || !slices.Contains(list, name) {
		return nil, orNotExist(err)
	}
	return group{v, name}, nil
}

func orNotExist(err error) error {
	if err == nil {
		return meta.NotExist
	}
	return err
}

func (v view) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		list, err := v.values(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, name := range list {
			if !yield(group{v, name}.Stat(ctx)) {
				return
			}
		}
	}
}

func (g group) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: g.value, Mode: meta.TypeDir | 0o555}, nil
}

func (g group) has(t task.Task) bool {
	switch g.by {
	case byState:
		return t.State.String() == g.value
	case byNode:
		return t.Node == g.value && t.State == task.Running
	case byName:
		return escape(t.Name) == g.value
	}
	return fmt.Sprint(t.Owner.UID) == g.value
}

func (g group) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	id, err := task.ParseID(name)
	if err != nil {
		return nil, meta.NotExist
	}
	t, err := g.tasks.Task(ctx, id)
	if err == nil && !g.has(t) {
		err = meta.NotExist
	}
	return link{id, 2}, plain(err)
}

func (g group) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		req, err := g.list(g.value)
		if err == nil {
			err = g.tasks.Each(ctx, req, func(t task.Task) error {
				if info, err := (link{t.ID, 2}).Stat(ctx); !yield(info, err) {
					return errStop
				}
				return nil
			})
		}
		if err != nil && err != errStop {
			yield(procfs.Info{}, err)
		}
	}
}

func (l link) Stat(context.Context) (procfs.Info, error) {
	target := l.target()
	return procfs.Info{Name: l.id.String(), Mode: meta.TypeSymlink | 0o777, Size: int64(len(target))}, nil
}

func (l link) target() string { return strings.Repeat("../", l.deep) + l.id.String() }

func (l link) Target(context.Context) (string, error) { return l.target(), nil }
