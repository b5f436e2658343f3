package redis

import (
	"bytes"
	"context"
	"errors"

	"dos/meta"
	"dos/meta/kv"
)

// transactionMax bounds the commands of a transaction.
const transactionMax = kv.StepsMax

// A transaction is what a client has said since MULTI.
type transaction struct {
	batch  batch
	failed bool // one of its commands was refused
}

// A watch is a value that must be as it was.
type watch struct {
	key     string
	version uint64
}

var transactionCommands = []command{
	{name: "multi", arity: 1, run: func(_ context.Context, c *client, _ [][]byte) {
		switch {
		case c.tx != nil:
			c.out.fail("ERR MULTI calls can not be nested")
		case c.db != 0:
			c.out.fail("ERR a cache has no transactions: SELECT 0")
		default:
			c.tx = &transaction{batch: batch{library: &c.server.library}}
			c.out.ok()
		}
	}},
	{name: "exec", arity: 1, run: runExec},
	{name: "discard", arity: 1, run: func(_ context.Context, c *client, _ [][]byte) {
		if c.tx == nil {
			c.out.fail("ERR DISCARD without MULTI")
			return
		}
		c.tx, c.watched = nil, nil
		c.out.ok()
	}},
	{name: "watch", arity: -2, run: runWatch},
	{name: "unwatch", arity: 1, run: func(_ context.Context, c *client, _ [][]byte) {
		c.watched = nil
		c.out.ok()
	}},
}

// ends says whether a command is executed between MULTI and EXEC.
func (cmd *command) ends() bool {
	switch cmd.name {
	case "multi", "exec", "discard", "watch", "quit", "reset":
		return true
	}
	return false
}

// queue keeps a command for EXEC. Its arguments are copied.
func (tx *transaction) queue(c *client, cmd *command, args [][]byte) {
	b := &tx.batch
	copied := make([][]byte, len(args))
	size := 0
	for i, a := range args {
		copied[i] = bytes.Clone(a)
		size += len(a)
	}
	from := len(b.steps)
	var err error
	switch {
	case cmd.plan == nil:
		err = said("ERR '" + cmd.name + "' cannot be in a transaction here, only commands about strings")
	case b.size+size > kv.UpdateMax || len(b.planned) == transactionMax:
		err = said("ERR a transaction has at most 256 commands of 256 KiB together")
	default:
		if err = cmd.plan(b, copied); err == nil && len(b.steps)+len(c.watched) > kv.StepsMax {
			err = said("ERR a transaction has at most 256 keys")
		}
	}
	if err != nil {
		tx.failed = true
		b.steps = b.steps[:from]
		c.out.say(err)
		return
	}
	b.size += size
	b.planned = append(b.planned, planned{cmd, copied, from, len(b.steps)})
	c.out.word("QUEUED")
}

func runExec(ctx context.Context, c *client, _ [][]byte) {
	tx, watched := c.tx, c.watched
	if tx == nil {
		c.out.fail("ERR EXEC without MULTI")
		return
	}
	c.tx, c.watched = nil, nil
	if tx.failed {
		c.out.fail("EXECABORT Transaction discarded because of previous errors.")
		return
	}
	b := tx.batch
	var steps []kv.Step
	for _, w := range watched {
		steps = append(steps, kv.Step{Key: w.key, If: kv.Version, Version: w.version, Must: true})
	}
	// MSETNX does not end a transaction: what it is conditional on is looked at by it alone.
	for _, p := range b.planned {
		if p.cmd.alone {
			c.out.fail("EXECABORT '" + p.cmd.name + "' cannot be in a transaction here")
			return
		}
	}
	steps = append(steps, b.steps...)
	if len(steps) == 0 {
		c.out.array(0)
		return
	}
	got, err := c.server.cfg.Strings.Update(ctx, steps, true)
	switch {
	case errors.Is(err, meta.Conflict):
		c.out.nothing()
	case err != nil:
		c.out.say(err)
	default:
		got = got[len(watched):]
		c.out.array(len(b.planned))
		for _, p := range b.planned {
			p.cmd.finish(ctx, c, p.args, got[p.from:p.to])
		}
	}
}

func runWatch(ctx context.Context, c *client, args [][]byte) {
	switch {
	case c.tx != nil:
		c.out.fail("ERR WATCH inside MULTI is not allowed")
		return
	case c.db != 0:
		c.out.fail("ERR a cache has no transactions: SELECT 0")
		return
	case len(c.watched)+len(args)-1 > kv.StepsMax/2:
		c.out.fail("ERR at most 128 keys can be watched")
		return
	}
	var b batch
	err := planLook(&b, args)
	var got []kv.Outcome
	if err == nil {
		got, err = c.server.cfg.Strings.Look(ctx, b.steps)
	}
	if err != nil {
		c.out.say(err)
		return
	}
	for i, o := range got {
		c.watched = append(c.watched, watch{b.steps[i].Key, o.Version})
	}
	c.out.ok()
}
