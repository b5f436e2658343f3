// Package queues is /dos/queues: queues and logs, for all machines. Its help file is
// its manual page.
package queues

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/queue"
	"dos/procfs"
)

// A Room is the directory, of one mount.
type Room struct {
	queues *client.Taker
	node   string
}

// New returns the directory. node is the name of the machine that it is on.
func New(t *client.Taker, node string) procfs.Dir { return root{&Room{t, node}} }

// root is the directory of queues.
type root struct{ room *Room }

func (d root) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: "queues", Mode: meta.TypeDir | meta.Sticky | 0o777}, nil
}

func (d root) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	if name == "help" {
		return manual.File(), nil
	}
	if strings.HasPrefix(name, ".") {
		return nil, meta.NotExist
	}
	if _, err := d.room.queues.Status(ctx, name); err != nil {
		return nil, err
	}
	return at{d.room, name, "", folder, queueDir}, nil
}

func (d root) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		if info, err := manual.File().Stat(ctx); !yield(info, err) {
			return
		}
		names, err := d.room.queues.List(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, name := range names {
			if !yield(procfs.Info{Name: name, Mode: meta.TypeDir | 0o755}, nil) {
				return
			}
		}
	}
}

func (d root) Create(ctx context.Context, name string, mode uint32, by procfs.Caller) (procfs.Node, error) {
	switch {
	case mode&meta.TypeMask != meta.TypeDir:
		return nil, fmt.Errorf("%q: a queue is made with mkdir: %w", name, meta.Fixed)
	case name == "help":
		return nil, meta.Exist
	}
	err := d.room.queues.Make(ctx, name, mode&^meta.TypeMask, by.UID, by.GID)
	return at{d.room, name, "", folder, queueDir}, err
}

func (d root) Remove(ctx context.Context, name string, _ procfs.Caller) error {
	if name == "help" {
		return fmt.Errorf("%q belongs to the directory: %w", name, meta.Fixed)
	}
	return d.room.queues.Remove(ctx, name)
}

// An at is where in a queue's directory a node is.
type at struct {
	room  *Room
	queue string
	group string
	in    place
	name  string // of the file; of a folder what it is
}

// A place is a directory of a queue.
type place int

const (
	folder place = iota
	inQueue
	inGroup
)

// What a folder is.
const (
	queueDir  = ""
	groupsDir = "groups"
	groupDir  = "group"
	deadDir   = "dead"
	putDir    = "put"
)

func (a at) status(ctx context.Context) (queue.Status, queue.GroupStatus, error) {
	st, err := a.room.queues.Status(ctx, a.queue)
	if err != nil {
		return st, queue.GroupStatus{}, err
	}
	g, ok := st.Group(a.group)
	if !ok && a.group != "" {
		return st, g, fmt.Errorf("queue %q: group %q: %w", a.queue, a.group, meta.NotExist)
	}
	return st, g, nil
}

// info is what a node of a queue says of itself.
func info(st queue.Status, name string, mode uint32) procfs.Info {
	return procfs.Info{Name: name, Mode: mode, UID: st.UID, GID: st.GID, Mtime: st.Changed}
}

func (a at) Stat(ctx context.Context) (procfs.Info, error) {
	st, _, err := a.status(ctx)
	if err != nil {
		return procfs.Info{}, err
	}
	switch a.name {
	case queueDir:
		return info(st, a.queue, meta.TypeDir|st.Mode), nil
	case putDir:
		return info(st, putDir, meta.TypeDir|0o777), nil
	}
	return info(st, a.name, meta.TypeDir|0o755), nil
}

// Set changes the owner and the mode of the queue.
func (a at) Set(ctx context.Context, c procfs.Change, _ procfs.Caller) error {
	if a.name != queueDir {
		return fmt.Errorf("queue %q: its owner and mode are those of its directory: %w", a.queue, meta.Fixed)
	}
	return a.room.queues.Set(ctx, queue.Set{Name: a.queue, UID: c.UID, GID: c.GID, Mode: c.Mode})
}

// Unlisted: see Entries; what is not to be listed is left out there.

func (a at) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	switch a.name {
	case queueDir, groupDir:
		return a.fixed(name)
	case groupsDir:
		sub := at{a.room, a.queue, name, folder, groupDir}
		_, g, err := sub.status(ctx)
		if err == nil && g.Name == "" {
			err = meta.NotExist
		}
		return sub, err
	case deadDir:
		n, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			return nil, meta.NotExist
		}
		l := letter{a.room, a.queue, n}
		_, err = l.load(ctx)
		return l, err
	}
	return nil, meta.NotExist // what was put is a message already
}

func (a at) fixed(name string) (procfs.Node, error) {
	base, patience, err := procfs.Patience(name)
	if err != nil {
		return nil, meta.NotExist
	}
	var list []kind = queueFiles
	where := inQueue
	if a.name == groupDir {
		list, where = groupFiles, inGroup
	}
	for _, k := range list {
		if k.name == base && (patience == nil || k.waits) {
			f := file{at{a.room, a.queue, a.group, where, base}, patience != nil, 0}
			if patience != nil {
				f.patience = *patience
			}
			return f, nil
		}
	}
	if a.name == queueDir {
		switch name {
		case groupsDir, deadDir, putDir:
			return at{a.room, a.queue, "", folder, name}, nil
		}
	}
	return nil, meta.NotExist
}

func (a at) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		st, _, err := a.status(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		switch a.name {
		case queueDir:
			for _, name := range []string{groupsDir, deadDir} {
				if !yield(info(st, name, meta.TypeDir|0o755), nil) {
					return
				}
			}
			listed(st, queueFiles, yield)
		case groupDir:
			listed(st, groupFiles, yield)
		case groupsDir:
			for _, g := range st.Groups {
				if g.Name != "" && !yield(info(st, g.Name, meta.TypeDir|0o755), nil) {
					return
				}
			}
		case deadDir:
			a.dead(ctx, st, yield)
		}
	}
}

func listed(st queue.Status, kinds []kind, yield func(procfs.Info, error) bool) {
	for _, k := range kinds {
		if k.listed && !yield(info(st, k.name, meta.TypeFile|k.mode), nil) {
			return
		}
	}
}

func (a at) dead(ctx context.Context, st queue.Status, yield func(procfs.Info, error) bool) {
	for from := uint64(0); ; {
		list, err := a.room.queues.Dead(ctx, queue.Dead{Name: a.queue, From: from, Limit: queue.ListMax})
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, l := range list.List {
			from = l.Got.Number + 1
			if !yield(info(st, strconv.FormatUint(l.Got.Number, 10), meta.TypeFile|0o444), nil) {
				return
			}
		}
		if !list.More {
			return
		}
	}
}

// Create makes a group.
func (a at) Create(ctx context.Context, name string, mode uint32, _ procfs.Caller) (procfs.Node, error) {
	if a.name != groupsDir || mode&meta.TypeMask != meta.TypeDir {
		return nil, fmt.Errorf("creating %q: this directory is not for files of your own: %w", name, meta.Fixed)
	}
	err := a.room.queues.MakeGroup(ctx, a.queue, name)
	return at{a.room, a.queue, name, folder, groupDir}, err
}

func (a at) Remove(ctx context.Context, name string, _ procfs.Caller) error {
	switch a.name {
	case groupsDir:
		return a.room.queues.RemoveGroup(ctx, a.queue, name)
	case deadDir:
		n, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			return meta.NotExist
		}
		return a.room.queues.Bury(ctx, a.queue, n)
	}
	return fmt.Errorf("%q belongs to the directory: %w", name, meta.Fixed)
}

// Make makes a message of a whole file.
func (a at) Make(ctx context.Context, name string, _ uint32, how procfs.Open) (procfs.Node, procfs.MadeHandle, error) {
	if a.name != putDir {
		return nil, nil, fmt.Errorf("creating %q: this directory is not for files of your own: %w", name, meta.Fixed)
	}
	st, _, err := a.status(ctx)
	if err != nil {
		return nil, nil, err
	}
	how.Exclusive = false // each is new
	h, err := procfs.Object{Value: &message{room: a.room, queue: a.queue}, Max: queue.SizeMax}.Make(ctx, how, info(st, name, meta.TypeFile|0o222))
	return putFile{at{a.room, a.queue, "", folder, name}}, h, err
}

// putFile is a file that becomes a message when it is closed.
type putFile struct{ at at }

func (f putFile) Stat(ctx context.Context) (procfs.Info, error) {
	st, _, err := f.at.status(ctx)
	return info(st, f.at.name, meta.TypeFile|0o222), err
}

// message is the value that such a file stores.
type message struct {
	room  *Room
	queue string
	// failed is why it was not sent. Who closed it was told, so that it is not tried
	// again when the last one closes.
	failed error
}

func (m *message) Load(context.Context) ([]byte, uint64, error) { return nil, 0, meta.NotExist }

// Check refuses what Store would. Nobody waits for room in close(2).
func (m *message) Check(ctx context.Context, size int, _ *uint64) error {
	st, err := m.room.queues.Status(ctx, m.queue)
	if err == nil && st.Settings.Memory && size > queue.BodyMax {
		return fmt.Errorf("a message in memory has at most %d bytes: %w", queue.BodyMax, meta.TooLarge)
	}
	if s := st.Settings; err == nil && s.Max > 0 && s.Full != queue.DropOld && st.Depth() >= int64(s.Max) {
		err = fmt.Errorf("queue %q is full: %w", m.queue, meta.WouldWait)
	}
	return err
}

func (m *message) Store(ctx context.Context, data []byte, _ *uint64) (uint64, error) {
	if m.failed == nil {
		m.failed = m.room.queues.Put(ctx, m.queue, data)
	}
	return 0, m.failed
}

// Remove is for what was made before it was written, which a message is not.
func (*message) Remove(context.Context, uint64) error { return nil }

// A letter is a dead message.
type letter struct {
	room   *Room
	queue  string
	number uint64
}

func (l letter) load(ctx context.Context) (queue.Letter, error) {
	list, err := l.room.queues.Dead(ctx, queue.Dead{Name: l.queue, From: l.number, Limit: 1})
	if err == nil && (len(list.List) == 0 || list.List[0].Got.Number != l.number) {
		err = fmt.Errorf("queue %q: dead message %d: %w", l.queue, l.number, meta.NotExist)
	}
	if err != nil {
		return queue.Letter{}, err
	}
	return list.List[0], nil
}

func (l letter) Stat(ctx context.Context) (procfs.Info, error) {
	d, err := l.load(ctx)
	if err != nil {
		return procfs.Info{}, err
	}
	st, err := l.room.queues.Status(ctx, l.queue)
	out := info(st, strconv.FormatUint(l.number, 10), meta.TypeFile|0o444)
	out.Size, out.Mtime = size(d.Got), d.Died
	return out, err
}

func (l letter) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	d, err := l.load(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.room.queues.Load(ctx, &d.Got); err != nil {
		return nil, err
	}
	return procfs.OpenText(how, text(d.Got))
}

// text is a message as a file shows it: a line, or what was put.
func text(m queue.Got) string {
	if m.Whole {
		return string(m.Body)
	}
	return string(m.Body) + "\n"
}

// size is how long text is, also before the body is loaded.
func size(m queue.Got) int64 {
	if len(m.Parts) > 0 {
		m.Body = nil
	}
	return int64(len(text(m))) + m.Size
}
