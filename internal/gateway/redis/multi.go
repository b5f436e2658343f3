package redis

import (
	"bytes"
	"context"
	"errors"

	"dos/meta"
	"dos/meta/kv"
	"dos/meta/queue"
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
	case cmd.name == "lpush" || cmd.name == "rpush":
		err = tx.push(cmd, copied, size)
		if err == nil {
			c.out.word("QUEUED")
			return
		}
	case cmd.plan == nil || b.many != nil:
		err = said("ERR '" + cmd.name + "' cannot be in this transaction: they are about strings, or put something in one list")
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

// push keeps a command that puts something in a list: all of it goes there in one.
func (tx *transaction) push(cmd *command, args [][]byte, size int) error {
	b := &tx.batch
	n := len(args) - 2
	for _, a := range b.args {
		n += len(a) - 1
	}
	switch {
	case len(b.planned) > 0, b.many != nil && (b.many != cmd || !bytes.Equal(b.args[0][0], args[1])):
		return said("ERR '" + cmd.name + "' cannot be in this transaction: they are about strings, or put something in one list")
	case n > queue.PushMax || b.size+size > queue.PushBytes:
		return said("ERR a transaction puts at most 1024 elements of 1 MiB together in a list")
	}
	b.many, b.args = cmd, append(b.args, args[1:])
	b.size += size
	return nil
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
	switch {
	case b.many != nil && len(watched) > 0:
		c.out.fail("EXECABORT a transaction that puts something in a list watches nothing here")
		return
	case b.many != nil:
		c.out.array(len(b.args))
		b.many.many(ctx, c, b.args)
		return
	case c.db != 0 && len(watched) > 0:
		c.out.fail("EXECABORT what is watched is in database 0")
		return
	}
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
	got, err := c.database().Update(ctx, steps, c.db == 0)
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
		c.out.fail("ERR nothing of a cache can be watched: SELECT 0")
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
