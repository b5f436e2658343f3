package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"dos/internal/node"
	"dos/meta"
	"dos/meta/client"
	"dos/procfs"
	"dos/procfs/queues"
)

// queueVerbs are about queues: the files of /dos/queues, without a mount. NAME may go
// on as a path does there, as in jobs/groups/audit or jobs/dead/17.
var queueVerbs = []verb{
	{name: "queue list", flags: []string{"json"}, run: visit(queueList)},
	{name: "queue make", args: []string{"NAME"}, run: inQueues(makeObject)},
	{name: "queue remove", args: []string{"NAME"}, run: inQueues(removeObject)},
	{name: "queue status", args: []string{"NAME"}, run: inQueues(show("status"))},
	{name: "queue peek", args: []string{"NAME"}, run: inQueues(show("peek"))},
	{name: "queue inflight", args: []string{"NAME"}, run: inQueues(show("inflight"))},
	{name: "queue log", args: []string{"NAME"}, run: inQueues(show("log"))},
	{name: "queue ctl", args: []string{"NAME", "SETTING…"}, rest: 1, run: inQueues(control("ctl"))},
	{name: "queue push", args: []string{"NAME"}, run: inQueues(queueWrite("push", procfs.Open{Write: true}))},
	{name: "queue send", args: []string{"NAME"}, run: inQueues(queueWrite("send", procfs.Open{Read: true, Write: true}))},
	{name: "queue put", args: []string{"NAME"}, run: inQueues(queuePut)},
	{name: "queue pop", args: []string{"NAME"}, flags: []string{"wait"}, run: inQueues(queuePop)},
	{name: "queue take", args: []string{"NAME", "--", "COMMAND…"}, rest: 2, flags: []string{"wait", "follow"}, run: inQueues(queueTake)},
}

// A room is a special directory, as a mount would show it.
type room struct {
	procfs.Dir
	by procfs.Caller
}

// inQueues calls f with the directory. What is taken in it is kept as long.
func inQueues(f func(ctx context.Context, c command, d room) error) func(context.Context, command) error {
	return visit(func(ctx context.Context, c command, guest *node.Guest) error {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		taker := client.NewTaker(guest, nil)
		running, stop := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan error, 1)
		go func() { done <- taker.Run(running) }()
		err = f(ctx, c, room{queues.New(taker, host), caller()})
		stop()
		return errors.Join(err, <-done)
	})
}

// find returns what a path leads to.
func (d room) find(ctx context.Context, path string) (procfs.Node, error) {
	at := procfs.Node(d.Dir)
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		dir, ok := at.(procfs.Dir)
		if !ok {
			return nil, fmt.Errorf("%s: %w", path, meta.NotDir)
		}
		var err error
		if at, err = dir.Lookup(ctx, name); err == meta.NotExist {
			return nil, fmt.Errorf("%s: %w", path, err)
		} else if err != nil {
			return nil, err
		}
	}
	return at, nil
}

// parent returns the directory that a path is in, which has all of T, and its name there.
func parent[T any](ctx context.Context, d room, path string) (in T, name string, err error) {
	at := procfs.Node(d.Dir)
	name = strings.Trim(path, "/")
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		if at, err = d.find(ctx, name[:i]); err != nil {
			return in, "", err
		}
		name = name[i+1:]
	}
	in, ok := at.(T)
	if !ok {
		return in, "", fmt.Errorf("%s: %w", path, meta.Fixed)
	}
	return in, name, nil
}

// open opens a file of the object that the first argument names.
func (d room) open(ctx context.Context, c command, name string, how procfs.Open) (procfs.Handle, error) {
	n, err := d.find(ctx, c.args[0]+"/"+name)
	if err != nil {
		return nil, err
	}
	f, ok := n.(procfs.File)
	if !ok {
		return nil, fmt.Errorf("%s/%s: %w", c.args[0], name, meta.IsDir)
	}
	how.Caller = d.by
	return f.Open(ctx, how)
}

// closed closes what was opened, as a process does that is well, or that is killed if
// there was an error, which it returns.
func closed(ctx context.Context, h procfs.Handle, err error) error {
	ctx = context.WithoutCancel(ctx)
	if f, ok := h.(procfs.Flusher); ok {
		if e := f.Flush(ctx, procfs.Closer{Known: true, Opener: true, Wrote: true, Killed: err != nil}); err == nil {
			err = e
		}
	}
	if e := h.Close(ctx); err == nil {
		err = e
	}
	return err
}

// readAll gives w what a handle has to be read.
func readAll(ctx context.Context, h procfs.Handle, w io.Writer) error {
	buf := make([]byte, procfs.LineMax)
	for off := int64(0); ; {
		n, err := h.ReadAt(ctx, buf, off)
		off += int64(n)
		if _, e := w.Write(buf[:n]); e != nil {
			return e
		}
		switch {
		case err == io.EOF, n == 0 && err == nil:
			return nil
		case err != nil:
			return err
		}
	}
}

// writeAll writes as write(2) is used: the rest again, until there is an error.
func writeAll(ctx context.Context, h procfs.Handle, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := h.WriteAt(ctx, p, off)
		if err != nil {
			return err
		}
		off += int64(n)
		p = p[n:]
	}
	return nil
}

// feed writes what the command reads as it comes, and calls after each time.
func (c command) feed(ctx context.Context, h procfs.Handle, after func() error) error {
	buf := make([]byte, procfs.LineMax)
	for off := int64(0); ; {
		n, err := c.in.Read(buf)
		if e := writeAll(ctx, h, buf[:n], off); e != nil {
			return e
		}
		off += int64(n)
		if e := after(); e != nil {
			return e
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

func queueList(ctx context.Context, c command, guest *node.Guest) error {
	q := client.Queues{Caller: guest}
	names, err := q.List(ctx)
	if err != nil {
		return err
	}
	type row struct {
		Name                           string
		Depth, InFlight, Delayed, Dead int64
		Groups                         int
	}
	rows := []row{}
	text := table{{"NAME", "DEPTH", "IN FLIGHT", "DELAYED", "DEAD", "GROUPS"}}
	for _, name := range names {
		st, err := q.Status(ctx, name)
		switch {
		case errors.Is(err, meta.NotExist): // it was removed meanwhile
			continue
		case err != nil:
			return err
		}
		r := row{Name: name, Depth: st.Depth(), Delayed: st.Delayed, Dead: st.Dead, Groups: len(st.Groups)}
		for _, g := range st.Groups {
			r.InFlight += g.Out
		}
		rows = append(rows, r)
		cells := []string{name}
		for _, n := range []int64{r.Depth, r.InFlight, r.Delayed, r.Dead, int64(r.Groups)} {
			cells = append(cells, strconv.FormatInt(n, 10))
		}
		text = append(text, cells)
	}
	if c.flags.json {
		return printJSON(c.out, rows)
	}
	return text.print(c.out)
}

func makeObject(ctx context.Context, c command, d room) error {
	in, name, err := parent[procfs.Creator](ctx, d, c.args[0])
	if err == nil {
		_, err = in.Create(ctx, name, meta.TypeDir|0o755, d.by)
	}
	return err
}

func removeObject(ctx context.Context, c command, d room) error {
	in, name, err := parent[procfs.Remover](ctx, d, c.args[0])
	if err == nil {
		err = in.Remove(ctx, name, d.by)
	}
	return err
}

// show prints a file.
func show(file string) func(context.Context, command, room) error {
	return func(ctx context.Context, c command, d room) error {
		h, err := d.open(ctx, c, file, procfs.Open{Read: true})
		if err == nil {
			err = closed(ctx, h, readAll(ctx, h, c.out))
		}
		return err
	}
}

// control prints the settings that a file has, or changes one.
func control(file string) func(context.Context, command, room) error {
	return func(ctx context.Context, c command, d room) error {
		if len(c.args) == 1 {
			return show(file)(ctx, c, d)
		}
		h, err := d.open(ctx, c, file, procfs.Open{Write: true})
		if err == nil {
			err = closed(ctx, h, writeAll(ctx, h, []byte(strings.Join(c.args[1:], " ")+"\n"), 0))
		}
		return err
	}
}

// queueWrite writes what it reads to a file as it comes, and prints what that answers.
func queueWrite(file string, how procfs.Open) func(context.Context, command, room) error {
	return func(ctx context.Context, c command, d room) error {
		h, err := d.open(ctx, c, file, how)
		if err != nil {
			return err
		}
		return closed(ctx, h, c.feed(ctx, h, func() error {
			if how.Read {
				return readAll(ctx, h, c.out)
			}
			return nil
		}))
	}
}

// queuePut makes one message of all that it reads.
func queuePut(ctx context.Context, c command, d room) error {
	in, name, err := parent[procfs.Maker](ctx, d, c.args[0]+"/put/message")
	if err != nil {
		return err
	}
	_, h, err := in.Make(ctx, name, 0o666, procfs.Open{Write: true, Create: true, Caller: d.by})
	if err == nil {
		err = closed(ctx, h, c.feed(ctx, h, func() error { return nil }))
	}
	return err
}

// pop opens a pop.
func (d room) pop(ctx context.Context, c command) (procfs.Handle, error) {
	name := "pop"
	if c.flags.wait != "" {
		if _, _, err := procfs.Patience(name + "@" + c.flags.wait); err != nil {
			return nil, wrong("--wait %s: a time such as 5s is needed, or 0", c.flags.wait)
		}
		name += "@" + c.flags.wait
	}
	h, err := d.open(ctx, c, name, procfs.Open{Read: true})
	if errors.Is(err, meta.WouldWait) || errors.Is(err, meta.TimedOut) {
		err = fmt.Errorf("%s: no message: %w", c.args[0], err)
	}
	return h, err
}

// queuePop prints a message, and acknowledges it when it is printed.
func queuePop(ctx context.Context, c command, d room) error {
	h, err := d.pop(ctx, c)
	if err == nil {
		err = closed(ctx, h, readAll(ctx, h, c.out))
	}
	return err
}

// queueTake runs a command that reads a message, and acknowledges that if the command
// ends well; else it goes back to the head, with an attempt counted.
func queueTake(ctx context.Context, c command, d room) error {
	for {
		h, err := d.pop(ctx, c)
		if ctx.Err() != nil && c.flags.follow {
			return nil
		}
		if err != nil {
			return err
		}
		var text bytes.Buffer
		err = readAll(ctx, h, &text)
		if err == nil {
			err = c.execute(ctx, &text, c.args[1:])
		}
		err = closed(ctx, h, err)
		var status errStatus
		switch {
		case !c.flags.follow:
			return err
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &status), errors.Is(err, meta.Fenced): // it goes to somebody again
			fmt.Fprintf(c.errout, "dosctl: %s: %v\n", c.args[1], err)
		case err != nil:
			return err
		}
	}
}
