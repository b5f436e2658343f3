package main

import (
	"context"
	"fmt"
	"io"

	"dos/internal/admin"
	"dos/procfs/cluster"
)

// nodeVerbs are about the machines of a cluster.
var nodeVerbs = []verb{
	{name: "node list", flags: []string{"json"}, run: ask(listNodes)},
	{name: "node drain", args: []string{"NAME"}, run: ask(drain)},
	{name: "node resume", args: []string{"NAME"}, run: ask(resume)},
	{name: "node remove", args: []string{"NAME"}, run: ask(remove)},
}

func listNodes(ctx context.Context, c command, client *admin.Client) error {
	var s cluster.Status
	if err := client.Status(ctx, &s); err != nil {
		return err
	}
	if c.flags.json {
		return printJSON(c.out, s.Machines)
	}
	if len(s.Machines) == 0 {
		fmt.Fprintln(c.errout, "dosctl: no machines: an embedded cluster has none of its own, one just founded has none yet")
	}
	_, err := io.WriteString(c.out, s.MachineTable())
	return err
}

func drain(ctx context.Context, c command, client *admin.Client) error {
	name := c.args[0]
	if err := client.Drain(ctx, name, true); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s is being emptied: dosctl status shows how far; then dosctl node remove %s\n", name, name)
	return nil
}

func resume(ctx context.Context, c command, client *admin.Client) error {
	name := c.args[0]
	if err := client.Drain(ctx, name, false); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s is in use again\n", name)
	return nil
}

func remove(ctx context.Context, c command, client *admin.Client) error {
	name := c.args[0]
	if err := client.Remove(ctx, name); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s is no machine of the cluster any more: its dosd ends by itself; its data directory can be deleted\n", name)
	return nil
}
