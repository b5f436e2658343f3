// Package tasks is /dos/tasks: programs that run on the machines of the cluster. Its
// help file is its manual page.
//
// A task is for whoever submitted it: its directory is the submitter's and has the mode
// 0700, so that nobody but root reads what it says or does anything with it. That there
// is one, and how it does, everybody may know: what is listed and the file status is for all.
package tasks

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

// Tasks is what this directory needs of the service (meta/client.Tasks).
type Tasks interface {
	Submit(ctx context.Context, owner task.Owner, specs ...task.Spec) ([]task.ID, error)
	Task(ctx context.Context, id task.ID) (task.Task, error)
	Follow(ctx context.Context, id task.ID, seen uint64) (task.Task, error)
	Spec(ctx context.Context, id task.ID) (task.Spec, error)
	List(ctx context.Context, req task.List) (task.Listed, error)
	Each(ctx context.Context, req task.List, fn func(task.Task) error) error
	Control(ctx context.Context, req task.Control) error
	Forget(ctx context.Context, id task.ID, uid uint32) error
	Events(ctx context.Context, after uint64, limit int) (task.Events, error)
	Status(ctx context.Context) (task.Status, error)
	Queue(ctx context.Context, name string) (task.Queue, error)
	Queues(ctx context.Context) ([]task.Queue, error)
	MakeQueue(ctx context.Context, req task.MakeQueue) error
	SetQueue(ctx context.Context, req task.SetQueue) error
	RemoveQueue(ctx context.Context, name string) error
}

// A Host is what this directory needs to know of the machine that it is shown on.
type Host interface {
	// Owner says who a caller is, with its groups and umask, and in which directory of
	// the tree it works; "" if that is elsewhere.
	Owner(by procfs.Caller) (owner task.Owner, cwd string, err error)
	// Settle looks for what a specification names in the tree, with the rights of its
	// owner, makes the paths those from the root, and says which machines are near.
	Settle(ctx context.Context, owner task.Owner, spec *task.Spec) error
	Output
}

// Output is what tasks read and write: their streams are kept in the tree, out of the
// way of every name.
type Output interface {
	// Stat says how long a stream is, in bytes, and when it changed last; zero if nothing
	// was written yet.
	Stat(ctx context.Context, id task.ID, stream Stream) (size int64, changed meta.Time, err error)
	// Open opens a stream to be read, or to append to it: then it is made, for the owner.
	Open(ctx context.Context, id task.ID, stream Stream, owner task.Owner, how procfs.Open) (procfs.Handle, error)
	// End says that nothing more comes; Ended whether that was said.
	End(ctx context.Context, id task.ID, stream Stream, owner task.Owner) error
	Ended(ctx context.Context, id task.ID, stream Stream) (bool, error)
}

// A Stream is one of the three of a task.
type Stream string

// The streams of a task.
const (
	Stdin  Stream = "stdin"
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// A room is the directory, of one mount.
type room struct {
	tasks  Tasks
	host   Host
	runner uint32
}

// New returns the directory. runner is the user who runs tasks: root, or else the only one
// whose tasks run.
func New(t Tasks, h Host, runner uint32) procfs.Dir { return root{&room{t, h, runner}} }

// runs reports whether a user without root's rights runs tasks.
func (r *room) runs(uid uint32) bool { return uid != 0 && uid == r.runner }

// The nodes of this directory are comparable values, so that the same thing has the
// same inode number each time it is looked up.
type (
	root struct{ *room }
	// A fixed is one of the files of the root.
	fixed struct {
		*room
		name string
	}
	hidden struct{ fixed }
	// A job is the directory of a task.
	job struct {
		*room
		id task.ID
	}
)

func (hidden) Unlisted() {}

// rootFiles are those of the root that are listed, with their modes.
var rootFiles = []struct {
	name string
	mode uint32
}{{"new", 0o666}, {"batch", 0o222}, {"status", 0o444}}

func (root) Stat(context.Context) (procfs.Info, error) {
	// Whoever submitted a task may forget it, as owner of its directory.
	return procfs.Info{Name: "tasks", Mode: meta.TypeDir | meta.Sticky | 0o777}, nil
}

func (r root) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	switch name {
	case "help":
		return manual.File(), nil
	case "events":
		return hidden{fixed{r.room, name}}, nil
	case partitionsName:
		return partitions(r), nil
	}
	for _, f := range rootFiles {
		if f.name == name {
			return fixed{r.room, name}, nil
		}
	}
	if by, ok := viewOf(name); ok {
		return view{r.room, by}, nil
	}
	id, err := task.ParseID(name)
	if err != nil {
		return nil, meta.NotExist
	}
	j := job{r.room, id}
	_, err = j.now(ctx)
	return j, err
}

func (r root) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		for _, f := range rootFiles {
			if !yield(procfs.Info{Name: f.name, Mode: meta.TypeFile | f.mode}, nil) {
				return
			}
		}
		for _, by := range views {
			if !yield(view{r.room, by}.Stat(ctx)) {
				return
			}
		}
		if !yield(partitions(r).Stat(ctx)) || !yield(manual.File().Stat(ctx)) {
			return
		}
		err := r.tasks.Each(ctx, task.List{}, func(t task.Task) error {
			if !yield(dirInfo(t), nil) {
				return errStop
			}
			return nil
		})
		if err != nil && err != errStop {
			yield(procfs.Info{}, err)
		}
	}
}

// errStop ends a list of which no more is wanted.
var errStop = errors.New("that is enough")

// Create makes nothing: a task is made by writing to new.
func (root) Create(_ context.Context, name string, _ uint32, _ procfs.Caller) (procfs.Node, error) {
	return nil, fmt.Errorf("%q: a task is submitted by writing to tasks/new: %w", name, meta.Fixed)
}

// Remove forgets a task.
func (r root) Remove(ctx context.Context, name string, by procfs.Caller) error {
	id, err := task.ParseID(name)
	if err != nil {
		return fmt.Errorf("%q belongs to the directory: %w", name, meta.Fixed)
	}
	return plain(r.tasks.Forget(ctx, id, by.UID))
}

// plain says that something is not there without saying more: that is an everyday answer.
func plain(err error) error {
	if errors.Is(err, meta.NotExist) {
		return meta.NotExist
	}
	return err
}

func (f fixed) Stat(ctx context.Context) (procfs.Info, error) {
	info := procfs.Info{Name: f.name, Mode: meta.TypeFile | 0o444}
	for _, known := range rootFiles {
		if known.name == f.name {
			info.Mode = meta.TypeFile | known.mode
		}
	}
	var err error
	switch f.name {
	case "new":
		info.Size = int64(len(newText()))
	case "status":
		var text string
		text, err = f.overview(ctx)
		info.Size = int64(len(text))
	}
	return info, err
}

func (f fixed) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	ctx = context.WithoutCancel(ctx) // opening waits for nobody
	switch f.name {
	case "new":
		return f.openNew(how)
	case "batch":
		return f.openBatch(ctx, how)
	case "events":
		return f.openEvents(ctx, how, nil)
	}
	text, err := f.overview(ctx)
	if err != nil {
		return nil, err
	}
	return procfs.OpenText(how, text)
}

func (j job) now(ctx context.Context) (task.Task, error) {
	t, err := j.tasks.Task(ctx, j.id)
	return t, plain(err)
}

func dirInfo(t task.Task) procfs.Info {
	return procfs.Info{Name: t.ID.String(), Mode: meta.TypeDir | 0o700, UID: t.Owner.UID, GID: t.Owner.GID, Mtime: changed(t)}
}

// changed is when a task changed last, as far as it is known.
func changed(t task.Task) meta.Time { return max(t.Submitted, t.Claimed, t.Started, t.Ended) }

func (j job) Stat(ctx context.Context) (procfs.Info, error) {
	t, err := j.now(ctx)
	return dirInfo(t), err
}

func (j job) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	base, patience, err := procfs.Patience(name)
	if err != nil {
		return nil, meta.NotExist
	}
	f := file{job: j, name: base}
	k, ok := f.kind()
	if !ok || patience != nil && !k.waits {
		return nil, meta.NotExist
	}
	if patience != nil {
		f.patient, f.patience = true, *patience
	}
	_, err = j.now(ctx)
	return f, err
}

func (j job) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		t, err := j.now(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, k := range kinds {
			if k.listed && !yield(j.info(k, t), nil) {
				return
			}
		}
	}
}

// Remove removes nothing, so that rm -r fails on the files as it does in cgroupfs.
func (j job) Remove(_ context.Context, name string, _ procfs.Caller) error {
	return fmt.Errorf("%q belongs to the directory, which rmdir removes: %w", name, meta.Fixed)
}
