package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"dos/internal/admin"
	"dos/internal/node"
	"dos/meta"
)

// accessVerbs are about who may take part.
var accessVerbs = []verb{
	{name: "token create", flags: []string{"node", "client", "password", "rights", "ttl"}, run: createToken},
	{name: "token list", flags: []string{"json"}, run: ask(listTokens)},
	{name: "token delete", args: []string{"HASH"}, run: ask(deleteToken)},
	{name: "login", args: []string{"TOKEN"}, flags: []string{"name"}, run: login},
	{name: "identity list", flags: []string{"json"}, run: ask(listIdentities)},
	{name: "identity revoke", args: []string{"NAME"}, flags: []string{"node"}, run: ask(revoke)},
	{name: "authority rotate", flags: []string{"now"}, run: ask(rotate)},
}

// createToken prints the token alone, so that $(…) takes it.
func createToken(ctx context.Context, c command) error {
	w := admin.Wish{Node: !c.flags.client && !c.flags.password, Password: c.flags.password, Rights: c.flags.rights, Life: c.flags.ttl.Duration}
	if len(c.args) > 0 {
		w.Name = c.args[0]
	}
	switch {
	case c.flags.node && c.flags.client:
		return wrong("token create: a token is for a machine (--node) or for who mounts and administers (--client)")
	case c.flags.password && (c.flags.node || c.flags.client):
		return wrong("token create: --password makes what lets programs use a port, and nobody join")
	case w.Node && w.Rights != "":
		return wrong("token create: --rights goes with --client or --password")
	case w.Rights == "" && !w.Node: // of a client or a password
		w.Rights = "rw"
	}
	if w.Rights != "" && w.Rights != "ro" && w.Rights != "rw" && w.Rights != "admin" {
		return wrong("--rights %q: ro, rw or admin is needed", w.Rights)
	}
	client, err := c.client(ctx)
	if err != nil {
		return err
	}
	token, err := client.CreateToken(ctx, w)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.out, token)
	return nil
}

func listTokens(ctx context.Context, c command, client *admin.Client) error {
	list, err := client.Tokens(ctx)
	if err != nil {
		return err
	}
	if c.flags.json {
		return printJSON(c.out, list)
	}
	t := table{{"TOKEN", "FOR", "NAME", "RIGHTS", "STATE"}}
	for _, k := range list {
		state := "good until " + clock(k.Expires)
		switch {
		case k.Used != 0:
			state = "used by " + k.By + " " + clock(k.Used)
		case k.Expires < meta.At(time.Now()):
			state = "over since " + clock(k.Expires)
		}
		t = append(t, []string{k.Hash[:min(len(k.Hash), hashShown)], k.Kind, orAny(k.Name), k.Rights, state})
	}
	return t.print(c.out)
}

// hashShown is how many digits of a hash tell tokens apart.
const hashShown = 12

func orAny(name string) string {
	if name == "" {
		return "any"
	}
	return name
}

func deleteToken(ctx context.Context, c command, client *admin.Client) error {
	return client.DeleteToken(ctx, c.args[0])
}

func login(ctx context.Context, c command) error {
	name := c.flags.name
	if name == "" {
		name = ownName()
	}
	if err := node.Login(ctx, c.args[0], name, c.identity); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s proves now that this is %s\n", c.identity, name)
	return nil
}

// ownName is what a client is called that does not say: USER-HOST.
func ownName() string {
	name := "client"
	if u, err := user.Current(); err == nil {
		name = filepath.Base(u.Username)
	}
	if host, err := os.Hostname(); err == nil {
		name += "-" + host
	}
	return name
}

func listIdentities(ctx context.Context, c command, client *admin.Client) error {
	list, err := client.Identities(ctx)
	if err != nil {
		return err
	}
	if c.flags.json {
		return printJSON(c.out, list)
	}
	t := table{{"NAME", "KIND", "RIGHTS", "CERTIFICATE GOOD UNTIL"}}
	for _, id := range list {
		t = append(t, []string{id.Name, id.Kind, id.Rights, clock(id.Until)})
	}
	return t.print(c.out)
}

func revoke(ctx context.Context, c command, client *admin.Client) error {
	if err := client.Revoke(ctx, c.flags.node, c.args[0]); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s is turned out: its connections end within seconds, and its name is free\n", c.args[0])
	return nil
}

// rotateEvery is the pause between two looks how far a rotation is.
const rotateEvery = time.Second

// rotate waits until everybody has renewed.
func rotate(ctx context.Context, c command, client *admin.Client) error {
	now, err := client.Rotation(ctx)
	switch {
	case err != nil:
		return err
	case c.flags.now:
		return client.Retire(ctx)
	case !now.Underway:
		if err := client.Rotate(ctx); err != nil {
			return err
		}
		fmt.Fprintln(c.out, "a new authority signs from now on; all renew their certificates by themselves")
	}
	said := ""
	for {
		c.freshen(ctx)
		if client, err = c.client(ctx); err != nil { // as whom it is now
			return err
		}
		if now, err = client.Rotation(ctx); err != nil {
			return err
		}
		if !now.Underway {
			fmt.Fprintln(c.out, "done: the old authority is good for nothing any more")
			return nil
		}
		waiting := strings.Join(now.Waiting, ", ")
		if now.More > 0 {
			waiting += fmt.Sprintf(" and %d more", now.More)
		}
		if waiting != said {
			said = waiting
			fmt.Fprintf(c.out, "waiting for %s: each renews when it runs; who is gone for good: dosctl identity revoke NAME, with --node a machine; --now turns all of them out\n", waiting)
		}
		pause := time.NewTimer(rotateEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			fmt.Fprintln(c.out, "it goes on by itself; dosctl authority rotate shows how far")
			return nil
		}
	}
}
