package locks

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/named"
	"dos/procfs"
)

// A command is what a line says: a verb, and what comes behind it.
type command func(ctx context.Context, h *handle, args []string, rest string) error

var commands = map[string]command{
	"acquire": func(ctx context.Context, h *handle, args []string, _ string) error { return h.acquire(ctx, args, true) },
	"try": func(ctx context.Context, h *handle, args []string, _ string) error {
		return h.acquire(ctx, args, false)
	},
	"renew":   renew,
	"release": release,
	"value": func(ctx context.Context, h *handle, _ []string, rest string) error {
		return h.set(ctx, named.Set{Value: &rest})
	},
	"limit":  limit,
	"delay":  delay,
	"onloss": onloss,
	"break":  breakLock,
	"fenced": fenced,
}

// do executes a line.
func (h *handle) do(ctx context.Context, line string) error {
	verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	c := commands[verb]
	if c == nil {
		return fmt.Errorf("%q is none of the commands in the file help: %w", verb, meta.Invalid)
	}
	if verb != "acquire" { // nothing else waits, and whoever did not hear of it would say it again
		ctx = context.WithoutCancel(ctx)
	}
	rest = strings.TrimSpace(rest)
	return stale(c(ctx, h, strings.Fields(rest), rest))
}

// acquire reads `[shared] [id S] [ttl 60s]`.
func (h *handle) acquire(ctx context.Context, args []string, wait bool) error {
	mode := meta.Exclusive
	how := client.How{Who: h.by}
	for len(args) > 0 {
		switch {
		case args[0] == "shared":
			mode, how.Shared, args = meta.Shared, true, args[1:]
		case args[0] == "id" && len(args) > 1:
			how.ID, args = args[1], args[2:]
		case args[0] == "ttl" && len(args) > 1:
			d, err := procfs.Duration(args[1])
			if err != nil {
				return err
			}
			how.TTL, args = d, args[2:]
		default:
			return fmt.Errorf("acquire [shared] [id S ttl 60s], not %q: %w", strings.Join(args, " "), meta.Invalid)
		}
	}
	switch {
	case (how.ID == "") != (how.TTL == 0):
		return fmt.Errorf("an id needs a ttl, and a ttl an id: %w", meta.Invalid)
	case how.ID == "":
		err := h.Lock(ctx, mode, wait)
		if !wait && err == error(meta.Busy) {
			err = meta.WouldWait
		}
		return err
	case !wait:
		held, err := h.lock.room.locks.TryLock(ctx, h.lock.name, how)
		if err == error(meta.Busy) {
			return meta.WouldWait
		}
		if err != nil {
			return err
		}
		return held.Unlock(ctx) // it is the ID's
	}
	held, err := h.lock.room.locks.Lock(ctx, h.lock.name, how)
	if err != nil {
		return err
	}
	return held.Unlock(ctx)
}

func renew(ctx context.Context, h *handle, args []string, rest string) error {
	req := named.ByID{Name: h.lock.name, UID: h.by.UID}
	switch {
	case len(args) == 3 && args[1] == "ttl":
		d, err := procfs.Duration(args[2])
		if err != nil {
			return err
		}
		req.TTL = d
	case len(args) != 1:
		return fmt.Errorf("renew ID [ttl 60s], not %q: %w", rest, meta.Invalid)
	}
	req.ID = args[0]
	_, err := h.lock.room.locks.ByID(ctx, req)
	return err
}

func release(ctx context.Context, h *handle, args []string, rest string) error {
	switch len(args) {
	case 0:
		h.mu.Lock()
		has := h.held != nil
		h.mu.Unlock()
		if !has {
			return fmt.Errorf("this descriptor does not have lock %q: %w", h.lock.name, meta.Conflict)
		}
		return h.Lock(ctx, meta.Unlocked, false)
	case 1:
		_, err := h.lock.room.locks.ByID(ctx, named.ByID{Name: h.lock.name, ID: args[0], Release: true, UID: h.by.UID})
		return err
	}
	return fmt.Errorf("release [ID], not %q: %w", rest, meta.Invalid)
}

func (h *handle) set(ctx context.Context, req named.Set) error {
	req.Name = h.lock.name
	return h.lock.room.locks.Set(ctx, req)
}

func limit(ctx context.Context, h *handle, _ []string, rest string) error {
	n, err := strconv.Atoi(rest)
	if err != nil {
		return fmt.Errorf("limit N, not %q: %w", rest, meta.Invalid)
	}
	return h.set(ctx, named.Set{Limit: &n})
}

func delay(ctx context.Context, h *handle, _ []string, rest string) error {
	d, err := procfs.Duration(rest)
	if err != nil {
		return err
	}
	return h.set(ctx, named.Set{Delay: &d})
}

func fenced(ctx context.Context, h *handle, _ []string, rest string) error {
	on := rest == "yes"
	if !on && rest != "no" {
		return fmt.Errorf("fenced yes or no, not %q: %w", rest, meta.Invalid)
	}
	return h.set(ctx, named.Set{Fenced: &on})
}

func onloss(_ context.Context, h *handle, _ []string, rest string) error {
	s := unix.SignalNum("SIG" + strings.TrimPrefix(rest, "SIG"))
	if s == 0 {
		return fmt.Errorf("%q is no signal: %w", rest, meta.Invalid)
	}
	l, err := newLoss(h.by.PID, s)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signal.end()
	h.signal = l
	l.watch(h.held)
	return nil
}

func breakLock(ctx context.Context, h *handle, _ []string, _ string) error {
	if h.by.UID != 0 {
		return fmt.Errorf("only root breaks locks: %w", meta.Permission)
	}
	return h.lock.room.locks.Break(ctx, h.lock.name)
}

// A holder is a file in .hold: whoever has it open has the lock.
type holder struct {
	room    *Room
	name    string
	bounded bool
	wait    time.Duration
}

func (f holder) Unlisted() {}

func (f holder) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Mode: meta.TypeFile | 0o444}, nil
}

func (f holder) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	t := procfs.Take{Take: func(ctx context.Context, wait bool) (procfs.Taken, error) {
		claim := claim(f.room.who(how.Caller))
		ask := f.room.locks.Lock
		if !wait {
			ask = f.room.locks.TryLock
		}
		held, err := ask(ctx, f.name, claim)
		if err == error(meta.Busy) {
			err = meta.WouldWait
		}
		if err != nil {
			return procfs.Taken{}, err
		}
		token, err := held.Token(ctx)
		if err != nil {
			_ = held.Unlock(context.WithoutCancel(ctx)) // it is tried until it is done
			return procfs.Taken{}, stale(err)
		}
		return procfs.Taken{
			Data: fmt.Sprintf("%d\n", token),
			End:  func(ctx context.Context, _ bool) error { return held.Unlock(ctx) },
		}, nil
	}}
	if f.bounded {
		t.Patience = &f.wait
	}
	return t.Open(ctx, how)
}

// A watcher is a file in .watch.
type watcher struct {
	room *Room
	name string
}

func (f watcher) Unlisted() {}

func (f watcher) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Mode: meta.TypeFile | 0o444}, nil
}

func (f watcher) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	if how.Write {
		return nil, meta.Permission
	}
	if err := f.room.watch(ctx, f.name, 1); err != nil {
		return nil, err
	}
	was := named.Info{Version: ^uint64(0)}
	next := func(ctx context.Context) (string, error) {
		for {
			now, err := f.room.locks.Follow(ctx, f.name, was.Version)
			if err != nil {
				return "", err
			}
			text := changes(was, now)
			was = now
			if text != "" {
				return text, nil
			}
		}
	}
	return procfs.OpenStream(next, func(ctx context.Context) error { return f.room.watch(ctx, f.name, -1) }), nil
}

// watch counts the watchers of a lock. The first and the last of them count for others.
func (r *Room) watch(ctx context.Context, name string, n int) error {
	r.mu.Lock()
	was := r.watched[name]
	r.watched[name] += n
	if r.watched[name] == 0 {
		delete(r.watched, name)
	}
	r.mu.Unlock()
	if was > 0 && was+n > 0 {
		return nil
	}
	err := r.locks.Watch(ctx, name, n < 0)
	if err != nil && n > 0 {
		r.mu.Lock()
		r.watched[name] -= n
		r.mu.Unlock()
	}
	return err
}

// changes says what is different.
func changes(was, now named.Info) string {
	var b strings.Builder
	first := was.Version == ^uint64(0)
	if !first && now.Lost != was.Lost {
		b.WriteString("lost\n")
	}
	had := make(map[uint64]bool)
	for _, c := range was.Lock.Holds {
		had[c.Token] = true
	}
	for _, c := range now.Lock.Holds {
		if !had[c.Token] {
			fmt.Fprintf(&b, "held token=%d node=%s pid=%d\n", c.Token, c.Who.Node, c.Who.PID)
		}
	}
	if len(now.Lock.Holds) == 0 && (first || len(was.Lock.Holds) > 0) {
		b.WriteString("free\n")
	}
	if now.Lock.Value != was.Lock.Value {
		fmt.Fprintf(&b, "value %s\n", now.Lock.Value)
	}
	return b.String()
}
