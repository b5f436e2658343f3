package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
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
	{name: "recover", flags: []string{"salvage", "yes"}, run: recoverGroup},
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
	fmt.Fprintln(c.out, "The next start deletes data that was written since, for nothing names it any more;")
	fmt.Fprintln(c.out, "if you kept the old meta folder and want to go back to it, do so before.")
	fmt.Fprintln(c.out, "If this is a machine of a cluster, then start the others without their meta folders.")
	return nil
}

// recoverGroup says first what it would do: there is no way back.
func recoverGroup(ctx context.Context, c command) error {
	if c.data == "" {
		return wrong("recover works on a machine's directory on which no dos runs: --data DIR")
	}
	s, err := node.Inspect(ctx, c.data, c.flags.salvage)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "machine %s has the metadata up to entry %d; those with a vote were %s\n", s.Name, s.Last, strings.Join(s.Voters, ", "))
	if !c.flags.yes {
		fmt.Fprint(c.out, recoverWarning)
		return errors.New("nothing was done: say --yes if that is what you want")
	}
	if err := node.Recover(ctx, c.data, c.flags.salvage); err != nil {
		return err
	}
	fmt.Fprintf(c.out, recovered, s.Name)
	return nil
}

const recoverWarning = `
dosctl recover makes this machine the only one with metadata. It is for a cluster
that lost most of those with a vote, for good. What this one had not got by then is
lost: where several have survived, do it on the one with the highest entry, and on
no other. Do not do it while the others may come back: they would be a cluster of
their own. If this directory is the last copy, copy it first.

`

const recovered = `machine %s is the only one with metadata now. Start its dosd, and then, for each
machine that is gone: dosctl identity revoke NAME --node, and join it again under its
name with an empty --data and a new token, or else dosctl node drain and remove it.
Other survivors just start: they get what this one has.
`
