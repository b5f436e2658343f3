package tasks

import (
	"context"
	"fmt"
	"io"
	"time"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

// A kind of file of a task.
type kind struct {
	name   string
	mode   uint32
	listed bool
	waits  bool // it may have a patience
	open   func(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error)
	text   func(t task.Task) string // of a snapshot, instead of open
	stream Stream                   // instead of either
}

func (r *room) info(k kind, t task.Task) procfs.Info {
	mode := k.mode
	if (k.stream != "" || k.name == string(Stdin)) && r.runs(t.Owner.UID) {
		mode = 0o600 // the runner passes them on, through the mount, and has no more rights
	}
	return procfs.Info{Name: k.name, Mode: meta.TypeFile | mode, UID: t.Owner.UID, GID: t.Owner.GID, Mtime: changed(t)}
}

var kinds = []kind{
	{name: "ctl", mode: 0o600, listed: true, open: openControl},
	{name: "status", mode: 0o400, listed: true, text: StatusText},
	{name: "state", mode: 0o400, listed: true, text: func(t task.Task) string { return t.State.String() + "\n" }},
	{name: "reason", mode: 0o400, listed: true, text: func(t task.Task) string { return line(t.Reason) }},
	{name: "exit", mode: 0o400, listed: true, text: exitText},
	{name: "node", mode: 0o400, listed: true, text: func(t task.Task) string { return line(t.Node) }},
	{name: "usage", mode: 0o400, listed: true, text: usageText},
	{name: "attempts", mode: 0o400, listed: true, text: attemptsText},
	{name: "spec", mode: 0o400, listed: true, open: openSpec},
	{name: "stdout", mode: 0o400, listed: true, stream: Stdout},
	{name: "stderr", mode: 0o400, listed: true, stream: Stderr},
	{name: "stdin", mode: 0o200, open: openStdin},
	{name: "wait", mode: 0o400, waits: true, open: openWait},
	{name: "events", mode: 0o400, open: openEvents},
}

// A file is one file of a task.
type file struct {
	job
	name     string
	patient  bool
	patience time.Duration
}

func (f file) kind() (kind, bool) {
	for _, k := range kinds {
		if k.name == f.name {
			return k, true
		}
	}
	return kind{}, false
}

func (f file) Stat(ctx context.Context) (procfs.Info, error) {
	t, err := f.now(ctx)
	if err != nil {
		return procfs.Info{}, err
	}
	k, _ := f.kind()
	info := f.info(k, t)
	switch {
	case k.stream != "":
		var when meta.Time
		info.Size, when, err = f.host.Stat(ctx, f.id, k.stream)
		info.Mtime = max(info.Mtime, when)
	case k.text != nil:
		info.Size = int64(len(k.text(t)))
	case f.name == "spec":
		var text string
		text, err = f.specText(ctx)
		info.Size = int64(len(text))
	}
	return info, err
}

func (f file) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	k, _ := f.kind()
	if !k.waits {
		ctx = context.WithoutCancel(ctx) // a signal that is no end, as Go programs get, makes no error
	}
	if k.open != nil {
		return k.open(ctx, f, how)
	}
	t, err := f.now(ctx)
	if err != nil {
		return nil, err
	}
	if k.text != nil {
		return procfs.OpenText(how, k.text(t))
	}
	if how.Write && how.Caller.UID != 0 && !f.runs(how.Caller.UID) {
		return nil, fmt.Errorf("%s is written by the task: %w", f.name, meta.Permission)
	}
	return f.host.Open(ctx, f.id, k.stream, t.Owner, how)
}

func (f file) specText(ctx context.Context) (string, error) {
	s, err := f.tasks.Spec(ctx, f.id)
	if err != nil {
		return "", plain(err)
	}
	return specText(s), nil
}

func openSpec(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	text, err := f.specText(ctx)
	if err != nil {
		return nil, err
	}
	return procfs.OpenText(how, text)
}

// openWait waits until the task has ended.
func openWait(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	if how.Write {
		return nil, meta.Permission
	}
	t := procfs.Take{Take: func(ctx context.Context, wait bool) (procfs.Taken, error) {
		var seen uint64
		for {
			var t task.Task
			var err error
			if seen == 0 {
				t, err = f.now(ctx)
			} else {
				t, err = f.tasks.Follow(ctx, f.id, seen)
			}
			switch {
			case ctx.Err() != nil:
				return procfs.Taken{}, ctx.Err()
			case err != nil:
				return procfs.Taken{}, plain(err)
			case t.State.Ended():
				return procfs.Taken{Data: exitText(t)}, nil
			case !wait:
				return procfs.Taken{}, fmt.Errorf("task %v is %v: %w", f.id, t.State, meta.WouldWait)
			}
			seen = t.Version
		}
	}}
	if f.patient {
		t.Patience = &f.patience
	}
	return t.Open(ctx, how)
}

func openEvents(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	return fixed{f.room, "events"}.openEvents(ctx, how, &f.id)
}

// eventsAtOnce bounds what one read of events asks for.
const eventsAtOnce = 256

// openEvents follows the transitions of all tasks from now on, or all of one, and of the
// elements of one that is an array, until it has ended.
func (f fixed) openEvents(ctx context.Context, how procfs.Open, of *task.ID) (procfs.Handle, error) {
	if how.Write {
		return nil, meta.Permission
	}
	var after uint64
	if of == nil {
		got, err := f.tasks.Events(ctx, 0, 1)
		if err != nil {
			return nil, err
		}
		after = got.Last
	}
	return procfs.OpenStream(func(ctx context.Context) (string, error) {
		for {
			ended := false
			if of != nil { // asked before the events, so that none is missing
				t, err := f.tasks.Task(ctx, *of)
				switch {
				case ctx.Err() != nil:
					return "", ctx.Err()
				case err != nil:
					return "", endOf(err)
				}
				ended = t.State.Ended()
			}
			from := after
			if ended && from > 0 {
				from-- // there is one at least, and so nobody waits
			}
			got, err := f.tasks.Events(ctx, from, eventsAtOnce)
			switch {
			case ctx.Err() != nil:
				return "", ctx.Err()
			case err != nil:
				return "", err
			}
			text, more := "", false
			for _, e := range got.List {
				if e.Seq <= after {
					continue
				}
				after, more = e.Seq, true
				if of == nil || e.ID == *of || e.ID.Array() == *of {
					text += eventText(e)
				}
			}
			switch {
			case text != "":
				return text, nil
			case ended && !more:
				return "", io.EOF
			}
		}
	}, nil), nil
}

// endOf is the end of the stream of a task that was forgotten.
func endOf(err error) error {
	if plain(err) == error(meta.NotExist) {
		return io.EOF
	}
	return err
}
