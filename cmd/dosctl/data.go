package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"dos/internal/admin"
	"dos/internal/node"
	"dos/procfs/cluster"
)

// dataVerbs are about what is stored.
var dataVerbs = []verb{
	{name: "status", flags: []string{"json", "long"}, run: status},
	{name: "events", flags: []string{"json", "follow"}, run: ask(events)},
	{name: "fsck", flags: []string{"verify", "salvage"}, run: fsck},
	{name: "scrub", run: ask(scrub)},
	{name: "replace", args: []string{"STORE"}, run: ask(replace)},
	{name: "dump", args: []string{"FILE"}, run: ask(dump)},
	{name: "restore", args: []string{"FILE"}, run: restore},
}

// status reads it from a mount if there is one: that needs no identity.
func status(ctx context.Context, c command) error {
	if c.mount != "" && !c.flags.json {
		text, err := os.ReadFile(filepath.Join(c.mount, "cluster", "status"))
		if err != nil {
			return err
		}
		_, err = c.out.Write(text)
		return err
	}
	client, err := c.client(ctx)
	if err != nil {
		return err
	}
	var s cluster.Status
	if err := client.Status(ctx, &s); err != nil {
		return err
	}
	if s.Meta.Leader != "" {
		c.freshen(ctx)
	}
	if c.flags.json {
		return printJSON(c.out, s)
	}
	text := s.Screen()
	if c.flags.long {
		text = s.Text()
	}
	_, err = io.WriteString(c.out, text)
	return err
}

// followEvery is the pause between two looks for events.
const followEvery = time.Second

func events(ctx context.Context, c command, client *admin.Client) error {
	after := uint64(0)
	for {
		var list []cluster.Event
		if err := client.Events(ctx, after, &list); err != nil {
			return err
		}
		if c.flags.json {
			if err := printJSON(c.out, list); err != nil {
				return err
			}
		} else if _, err := io.WriteString(c.out, cluster.Lines(list)); err != nil {
			return err
		}
		if !c.flags.follow {
			return nil
		}
		if len(list) > 0 {
			after = list[len(list)-1].Seq
		}
		wait := time.NewTimer(followEvery)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil
		}
	}
}

func fsck(ctx context.Context, c command) error {
	to, end := c.report("checking")
	defer end()
	var problems int
	client, err := c.client(ctx)
	switch {
	case errors.Is(err, node.ErrNotRunning) && c.data != "":
		problems, err = node.FsckOffline(ctx, c.data, node.FsckOptions{Data: c.flags.verify, Salvage: c.flags.salvage}, to)
	case c.flags.salvage && err == nil:
		return errors.New("--salvage works on a directory on which no dos runs")
	case err == nil:
		problems, err = client.Fsck(ctx, c.flags.verify, to)
	}
	if err == nil && problems > 0 {
		return errProblems
	}
	return err
}

func scrub(ctx context.Context, c command, client *admin.Client) error {
	to, end := c.report("reading")
	defer end()
	problems, err := client.Scrub(ctx, to)
	if err == nil && problems > 0 {
		return errProblems
	}
	return err
}

func replace(ctx context.Context, c command, client *admin.Client) error {
	return client.Replace(ctx, c.args[0])
}

// dump writes to a temporary name first: a FILE that exists is a whole dump.
func dump(ctx context.Context, c command, client *admin.Client) (err error) {
	name := c.args[0]
	f, err := os.CreateTemp(filepath.Dir(name), ".dump-*") // with mode 0600: it has secrets
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	defer f.Close()
	w := bufio.NewWriter(f)
	if err := client.Dump(ctx, w); err != nil {
		return err
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func restore(ctx context.Context, c command) error {
	if c.data == "" {
		return wrong("restore works on a directory on which no dos runs: --data DIR")
	}
	f, err := os.Open(c.args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	if err := node.Restore(ctx, c.data, bufio.NewReader(f)); err != nil {
		return err
	}
	fmt.Fprintln(c.out, "restored: the tree is as it was when the dump was made.")
	fmt.Fprintln(c.out, "The next dosmount deletes data that was written since, for nothing names it any more;")
	fmt.Fprintln(c.out, "if you kept the old meta folder and want to go back to it, do so before.")
	return nil
}
