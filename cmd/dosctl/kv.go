package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"dos/internal/node"
	"dos/meta"
	"dos/meta/client"
	"dos/meta/kv"
	"dos/meta/txn"
)

// kvVerbs are about tables of values. A key that ends in nothing is a whole table.
var kvVerbs = []verb{
	{name: "kv get", args: []string{"TABLE/KEY"}, run: values(kvGet)},
	{name: "kv put", args: []string{"TABLE/KEY"}, flags: []string{"only", "ttl"}, run: values(kvPut)},
	{name: "kv del", args: []string{"TABLE/KEY"}, flags: []string{"only"}, run: values(kvDel)},
	{name: "kv scan", args: []string{"TABLE/PREFIX"}, flags: []string{"json"}, run: values(kvScan)},
	{name: "kv watch", args: []string{"TABLE/PREFIX"}, flags: []string{"after"}, run: values(kvWatch)},
	{name: "kv txn", run: values(kvTxn)},
}

// version is a flag that may be 0, and need not be there.
type version struct{ at *uint64 }

func (v *version) Type() string { return "version" }

func (v *version) String() string {
	if v.at == nil {
		return ""
	}
	return strconv.FormatUint(*v.at, 10)
}

func (v *version) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return errors.New("a number is needed")
	}
	v.at = &n
	return nil
}

// values calls f with the tables of the dos that is meant.
func values(f func(ctx context.Context, c command, k client.KV) error) func(context.Context, command) error {
	return visit(func(ctx context.Context, c command, guest *node.Guest) error {
		return f(ctx, c, client.KV{Caller: guest})
	})
}

// visit calls f with a session of the dos that is meant.
func visit(f func(ctx context.Context, c command, guest *node.Guest) error) func(context.Context, command) error {
	return func(ctx context.Context, c command) (err error) {
		if err := c.resolve(ctx); err != nil {
			return err
		}
		guest, err := node.Visit(ctx, c.data, c.cluster, c.identity)
		if err != nil {
			return err
		}
		err = f(ctx, c, guest)
		if e := guest.Close(context.WithoutCancel(ctx)); err == nil {
			err = e
		}
		if err == nil {
			c.freshen(ctx)
		}
		return err
	}
}

// target is the table and the key of the first argument.
func (c command) target() (table, key string, err error) {
	table, key, ok := strings.Cut(c.args[0], "/")
	if !ok || table == "" || key == "" {
		return "", "", fmt.Errorf("%q is not TABLE/KEY", c.args[0])
	}
	return table, key, nil
}

func kvGet(ctx context.Context, c command, k client.KV) error {
	table, key, err := c.target()
	if err != nil {
		return err
	}
	e, err := k.Get(ctx, table, key)
	switch {
	case err != nil:
		return err
	case e.Dir:
		return fmt.Errorf("%s: %w", c.args[0], meta.IsDir)
	}
	_, err = c.out.Write(e.Data)
	return err
}

// kvPut puts what it reads, and says the version.
func kvPut(ctx context.Context, c command, k client.KV) error {
	table, key, err := c.target()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(c.in, kv.ValueMax+1))
	if err != nil {
		return err
	}
	req := kv.Put{Table: table, Key: key, Data: data, Only: c.flags.only.at, Mode: 0o644}
	if c.flags.ttl.Duration > 0 {
		req.TTL = &c.flags.ttl.Duration
	}
	v, err := k.Put(ctx, req)
	if err == nil {
		fmt.Fprintln(c.out, v)
	}
	return err
}

func kvDel(ctx context.Context, c command, k client.KV) error {
	table, key, err := c.target()
	if err != nil {
		return err
	}
	_, err = k.Delete(ctx, kv.Delete{Table: table, Key: key, Only: c.flags.only.at})
	return err
}

func kvScan(ctx context.Context, c command, k client.KV) error {
	table, prefix, _ := strings.Cut(c.args[0], "/")
	req := kv.Scan{Table: table, From: prefix, Limit: kv.ListMax}
	list := []kv.Entry{}
	for more := true; more; {
		reply, err := k.Scan(ctx, req)
		if err != nil {
			return err
		}
		more = reply.More
		for _, e := range reply.Entries {
			if !strings.HasPrefix(e.Key, prefix) {
				more = false
				break
			}
			list = append(list, e)
			req.From = e.Key + "\x00"
		}
	}
	if c.flags.json {
		out := json.NewEncoder(c.out)
		for _, e := range list {
			row := struct {
				Key     string
				Version uint64
				Size    int
				Mtime   string
				Expires string `json:",omitempty"`
			}{Key: e.Key, Version: e.Version, Size: e.Size, Mtime: clock(e.Mtime)}
			if e.Expires != 0 {
				row.Expires = clock(e.Expires)
			}
			if err := out.Encode(row); err != nil {
				return err
			}
		}
		return nil
	}
	for _, e := range list {
		fmt.Fprintf(c.out, "%s\t%d\t%d\n", strconv.Quote(e.Key), e.Version, e.Size)
	}
	return nil
}

var changed = map[kv.Verb]string{kv.WasPut: "put", kv.WasDeleted: "del", kv.WasExpired: "expired"}

// kvWatch goes on until it is interrupted.
func kvWatch(ctx context.Context, c command, k client.KV) error {
	table, prefix, _ := strings.Cut(c.args[0], "/")
	var after uint64
	if c.flags.after.at != nil {
		after = *c.flags.after.at
	} else {
		now, err := k.Scan(ctx, kv.Scan{Table: table, Limit: 1})
		if err != nil {
			return err
		}
		after = now.Rev
	}
	for {
		reply, err := k.Follow(ctx, table, after)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		after = reply.Rev
		for _, one := range reply.Changes {
			if strings.HasPrefix(one.Key, prefix) {
				if _, err := fmt.Fprintf(c.out, "%d %s %s\n", one.Rev, changed[one.Verb], strconv.Quote(one.Key)); err != nil {
					return err
				}
			}
		}
	}
}

// kvTxn commits the steps that it reads, one a line, as .txn takes them, with whole
// names TABLE/KEY.
func kvTxn(ctx context.Context, c command, k client.KV) error {
	var steps []txn.Step
	lines := bufio.NewScanner(c.in)
	lines.Buffer(nil, kv.InlineMax)
	for lines.Scan() {
		verb, rest, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if verb == "" || verb[0] == '#' || verb == "commit" {
			continue
		}
		object, data, _ := strings.Cut(rest, " ")
		step := txn.Step{Verb: verb, Args: []string{object}}
		if verb == "if" || verb == "del" {
			step.Args = append(step.Args, strings.Fields(data)...)
		} else {
			step.Data = []byte(data)
		}
		steps = append(steps, step)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	answers, err := k.Commit(ctx, steps)
	if err != nil {
		return err
	}
	for i, answer := range answers {
		if answer != "" {
			fmt.Fprintln(c.out, steps[i].Verb, steps[i].Args[0], answer)
		}
	}
	return nil
}
