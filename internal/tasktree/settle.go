package tasktree

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"dos/internal/access"
	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
	"dos/procfs/tasks"
)

// prefix is how paths of the tree begin in documents and in specifications, wherever it
// is mounted.
const prefix = "/dos"

// Owner reads of a process who it is, and where it works (proc_pid_status(5)).
func (t *Tree) Owner(by procfs.Caller) (o task.Owner, cwd string, err error) {
	o = task.Owner{UID: by.UID, GID: by.GID, Umask: 0o022}
	if by.PID == 0 { // in another PID namespace
		return o, "", nil
	}
	dir := fmt.Sprintf("/proc/%d", by.PID)
	text, err := os.ReadFile(dir + "/status")
	if errors.Is(err, os.ErrNotExist) {
		return o, "", nil
	}
	if err != nil {
		return o, "", err
	}
	for lines := bufio.NewScanner(strings.NewReader(string(text))); lines.Scan(); {
		key, rest, _ := strings.Cut(lines.Text(), ":")
		switch key {
		case "Umask":
			if n, err := strconv.ParseUint(strings.TrimSpace(rest), 8, 32); err == nil {
				o.Umask = uint32(n)
			}
		case "Groups":
			for _, word := range strings.Fields(rest) {
				if n, err := strconv.ParseUint(word, 10, 32); err == nil && len(o.Groups) < task.GroupsMax {
					o.Groups = append(o.Groups, uint32(n))
				}
			}
		}
	}
	if at, err := os.Readlink(dir + "/cwd"); err == nil {
		if below, ok := t.below(at); ok && !strings.HasSuffix(at, " (deleted)") {
			if first, _, _ := strings.Cut(below[1:], "/"); !procfs.Reserved(first) { // no task can work there
				cwd = path.Join(prefix, below)
			}
		}
	}
	return o, cwd, nil
}

// below is a path of this machine as one of the tree.
func (t *Tree) below(at string) (string, bool) {
	rest, ok := strings.CutPrefix(path.Clean(at), path.Clean(t.cfg.Mount))
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return path.Clean("/" + rest), true
}

// inTree is a path of an option as one of the tree.
func (t *Tree) inTree(option, text, cwd string) (string, error) {
	if !strings.HasPrefix(text, "/") {
		return path.Join("/", cwd, text), nil
	}
	if below, ok := t.below(text); ok {
		return below, nil
	}
	if rest, ok := strings.CutPrefix(text, prefix); ok && (rest == "" || rest[0] == '/') {
		return path.Clean("/" + rest), nil
	}
	return "", fmt.Errorf("%s=%.200s is not in the tree, which is %s here: %w", option, text, t.cfg.Mount, meta.Invalid)
}

// walk finds what a path of the tree leads to, if the owner may go there and do what is
// wanted with it.
func (t *Tree) walk(ctx context.Context, owner task.Owner, at string, want uint32) (meta.Attr, error) {
	w := access.Walker{Tree: t.cfg.FS, Absolute: func(target string) (string, error) { return t.inTree("symlink", target, "") }}
	return w.Reach(ctx, access.User{UID: owner.UID, GID: owner.GID, Groups: owner.Groups}, at, want)
}

// Settle looks for what a specification names.
func (t *Tree) Settle(ctx context.Context, owner task.Owner, s *task.Spec) error {
	if s.Cwd != "" {
		at, err := t.inTree("cwd", s.Cwd, "")
		if err != nil {
			return err
		}
		a, err := t.walk(ctx, owner, at, access.Enter)
		if err == nil && !a.IsDir() {
			err = meta.NotDir
		}
		if err != nil {
			return fmt.Errorf("cwd=%.200s: %w", s.Cwd, err)
		}
		s.Cwd = at
	}
	if s.Stdin != "" && s.Stdin != tasks.StdinPipe {
		at, err := t.inTree("stdin", s.Stdin, s.Cwd)
		if err != nil {
			return err
		}
		a, err := t.walk(ctx, owner, at, access.Read)
		if err == nil && a.IsDir() {
			err = meta.IsDir
		}
		if err != nil {
			return fmt.Errorf("stdin=%.200s: %w", s.Stdin, err)
		}
		s.Stdin = at
	}
	if s.Near == "" {
		return nil
	}
	at, err := t.inTree("near", s.Near, s.Cwd)
	if err != nil {
		return err
	}
	a, err := t.walk(ctx, owner, at, access.Read)
	if err != nil {
		return fmt.Errorf("near=%.200s: %w", s.Near, err)
	}
	s.Near = at
	if !a.IsFile() || t.cfg.Near == nil {
		return nil
	}
	has, err := t.cfg.Near(ctx, a.Ino)
	s.Prefer = nearest(has)
	return err
}

// nearest are the machines that have half as much as the one that has most, or more.
func nearest(has map[string]int64) []string {
	most := int64(0)
	for _, n := range has {
		most = max(most, n)
	}
	list := slices.Collect(maps.Keys(has))
	list = slices.DeleteFunc(list, func(name string) bool { return has[name] == 0 || has[name] < most/2 })
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(cmp.Compare(has[b], has[a]), cmp.Compare(a, b)) })
	return list[:min(len(list), task.PreferMax)]
}
