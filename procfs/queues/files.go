package queues

import (
	"context"
	"fmt"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/queue"
	"dos/procfs"
)

// A kind of file of a queue or a group.
type kind struct {
	name   string
	mode   uint32
	listed bool
	waits  bool // it may have a patience
	open   func(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error)
	text   func(ctx context.Context, f file) (string, error) // of a snapshot, instead of open
}

var groupFiles = []kind{
	{name: "ctl", mode: 0o644, listed: true, open: openGroupControl},
	{name: "status", mode: 0o444, listed: true, text: groupStatusText},
	{name: "peek", mode: 0o444, listed: true, text: peekText},
	{name: "inflight", mode: 0o444, listed: true, text: inflightText},
	{name: "pop", mode: 0o444, waits: true, open: openPop},
	{name: "lease", mode: 0o666, waits: true, open: openLease},
	{name: "stream", mode: 0o444, open: openStream},
}

var queueFiles = []kind{
	{name: "ctl", mode: 0o644, listed: true, open: openControl},
	{name: "status", mode: 0o444, listed: true, text: statusText},
	{name: "peek", mode: 0o444, listed: true, text: peekText},
	{name: "inflight", mode: 0o444, listed: true, text: inflightText},
	{name: "push", mode: 0o222, listed: true, open: openPush},
	{name: "log", mode: 0o444, listed: true, open: openLog},
	{name: "send", mode: 0o666, open: openSend},
	{name: "pop", mode: 0o444, waits: true, open: openPop},
	{name: "lease", mode: 0o666, waits: true, open: openLease},
	{name: "stream", mode: 0o444, open: openStream},
}

// A file is one file of a queue or a group.
type file struct {
	at       at
	patient  bool
	patience time.Duration
}

func (f file) kind() kind {
	list := queueFiles
	if f.at.in == inGroup {
		list = groupFiles
	}
	for _, k := range list {
		if k.name == f.at.name {
			return k
		}
	}
	panic(fmt.Sprintf("queues: there is no file %q", f.at.name))
}

// Blocks says that writing may wait, for room in a queue.
func (f file) Blocks() {}

func (f file) Stat(ctx context.Context) (procfs.Info, error) {
	st, _, err := f.at.status(ctx)
	if err != nil {
		return procfs.Info{}, err
	}
	k := f.kind()
	out := info(st, f.at.name, meta.TypeFile|k.mode)
	switch {
	case k.text != nil:
		text, err := k.text(ctx, f)
		out.Size = int64(len(text))
		return out, err
	case f.at.name == "log" && st.Settings.Keeps():
		out.Size = st.End - st.Begin
	}
	return out, nil
}

func (f file) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	k := f.kind()
	if k.text == nil {
		return k.open(ctx, f, how)
	}
	text, err := k.text(ctx, f)
	if err != nil {
		return nil, err
	}
	return procfs.OpenText(how, text)
}

func openPush(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	// Its mode lets only root read it, and root's grep -r is to pass by.
	nothing := func(context.Context) (string, error) { return "", nil }
	return procfs.Control{Settings: nothing, Batch: func(ctx context.Context, lines []string) (int, error) {
		list := make([]queue.Message, len(lines))
		for i, line := range lines {
			list[i].Body = []byte(line)
		}
		return f.at.room.push(ctx, f.at.queue, list, !how.Nonblock)
	}}.Open(ctx, how)
}

// push sends messages, and returns how many.
func (r *Room) push(ctx context.Context, name string, list []queue.Message, wait bool) (int, error) {
	if wait {
		ids, err := r.queues.Push(ctx, name, list...)
		return len(ids), err
	}
	list = list[:min(len(list), queue.PushMax)]
	ids, err := r.queues.TryPush(context.WithoutCancel(ctx), queue.Push{Name: name, Messages: list, Part: true})
	if err == nil && len(ids) < len(list) {
		err = fmt.Errorf("queue %q is full: %w", name, meta.WouldWait)
	}
	return len(ids), err
}

func openSend(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	return procfs.Transaction{Say: func(ctx context.Context, line string) (string, error) {
		m, token, err := parseSend(line)
		if err != nil {
			return "", err
		}
		for {
			ids, err := f.at.room.queues.TryPush(context.WithoutCancel(ctx), queue.Push{Name: f.at.queue, Messages: []queue.Message{m}, Part: true, Token: token})
			switch {
			case err != nil:
				return "", err
			case len(ids) == 1:
				return fmt.Sprintln(ids[0]), nil
			case how.Nonblock:
				return "", fmt.Errorf("queue %q is full: %w", f.at.queue, meta.WouldWait)
			}
			if err := f.at.room.queues.Room(ctx, f.at.queue); err != nil {
				return "", err
			}
		}
	}}.Open(ctx, how)
}

// who names a consumer for people.
func (f file) who(by procfs.Caller) string { return fmt.Sprintf("%s pid %d", f.at.room.node, by.PID) }

func (f file) take(by procfs.Caller, taken func(reader) procfs.Taken) procfs.Take {
	t := procfs.Take{Take: func(ctx context.Context, wait bool) (procfs.Taken, error) {
		r, m, err := f.at.room.queues.Take(ctx, f.at.queue, f.at.group, f.who(by), process(by), wait)
		if err != nil {
			return procfs.Taken{}, err
		}
		out := taken(reader{r, m})
		out.Data = text(m)
		return out, nil
	}}
	if f.patient {
		t.Patience = &f.patience
	}
	return t
}

func openPop(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	if how.Write {
		return nil, meta.Permission
	}
	return f.take(how.Caller, func(r reader) procfs.Taken { return procfs.Taken{End: r.Close} }).Open(ctx, how)
}

func openLease(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	if !how.Read {
		return nil, fmt.Errorf("a lease is opened to be read and written: %w", meta.Invalid)
	}
	return f.take(how.Caller, func(r reader) procfs.Taken {
		r.Manual()
		return procfs.Taken{Do: r.do, End: func(ctx context.Context, _ bool) error { return r.Close(ctx, false) }}
	}).Open(ctx, how)
}

func openStream(_ context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	if how.Write {
		return nil, meta.Permission
	}
	r := f.at.room.queues.Open(f.at.queue, f.at.group, f.who(how.Caller))
	return procfs.OpenStream(func(ctx context.Context) (string, error) {
		m, err := r.Next(ctx, !how.Nonblock)
		if err != nil {
			return "", err
		}
		return strings.TrimSuffix(string(m.Body), "\n") + "\n", nil
	}, func(ctx context.Context) error { return r.Close(ctx, false) }), nil
}
