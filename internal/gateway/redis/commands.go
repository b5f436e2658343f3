package redis

import (
	"context"
	"errors"
	"strings"
	"time"

	"dos/internal/gateway/passwords"
	"dos/internal/trust"
	"dos/meta"
	"dos/meta/kv"
)

// A command is one of Redis'. It has plan and finish, or run.
type command struct {
	name  string
	arity int  // arguments with the name; below 0: at least so many, as in Redis
	write bool // it changes something
	open  bool // for those who have shown no password too
	alone bool // of a batch: what it is conditional on is not for others to fail by

	// plan adds to b what is to be done with strings. What is wrong is said, or nil.
	plan func(b *batch, args [][]byte) error
	// finish replies to what plan asked for.
	finish func(ctx context.Context, c *client, args [][]byte, got []kv.Outcome)
	// run does the whole.
	run func(ctx context.Context, c *client, args [][]byte)
	// many does the same for some commands of that name in one, if that is better.
	// Their arguments without the names are in args.
	many func(ctx context.Context, c *client, args [][][]byte)
}

// table is all commands by their names.
func table() map[string]*command {
	all := make(map[string]*command)
	for _, list := range [][]command{stringCommands, keyCommands, scriptCommands, listCommands, rangeCommands, moveCommands, topicCommands, connectionCommands, serverCommands, transactionCommands} {
		for i := range list {
			all[list[i].name] = &list[i]
		}
	}
	return all
}

// find returns the command of a name in whatever case.
func (s *Server) find(name []byte) *command {
	var low [32]byte
	if len(name) > len(low) {
		return nil
	}
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		low[i] = c
	}
	return s.commands[string(low[:len(name)])]
}

// do executes a command, or has it wait for those that come with it.
func (c *client) do(ctx context.Context, args [][]byte) {
	cmd := c.server.find(args[0])
	if refuse := c.refuse(ctx, cmd, args); refuse != "" {
		c.settle(ctx)
		if c.tx != nil {
			c.tx.failed = true
		}
		c.out.fail(refuse)
		return
	}
	if c.tx != nil && !cmd.ends() {
		c.tx.queue(c, cmd, args)
		return
	}
	if cmd.plan == nil {
		if cmd.many != nil {
			c.batch.queue(ctx, c, cmd, args)
			return
		}
		c.settle(ctx)
		cmd.run(ctx, c, args)
		return
	}
	c.batch.plan(ctx, c, cmd, args)
}

// refuse says why a command is not executed, or nothing.
func (c *client) refuse(ctx context.Context, cmd *command, args [][]byte) string {
	if cmd == nil {
		if c.rights == trust.None {
			return errNoAuth
		}
		return unknown(args)
	}
	if n := len(args); cmd.arity >= 0 && n != cmd.arity || n < -cmd.arity {
		return wrongCount(cmd.name)
	}
	if cmd.open {
		return ""
	}
	if c.secret == "" && c.rights != trust.None && c.server.cfg.Door.Needed() {
		c.rights = trust.None // the first was made meanwhile
	}
	if c.secret != "" && time.Since(c.checked) > passwords.RecheckEvery {
		c.settle(ctx)
		c.authenticate(ctx)
	}
	switch {
	case c.rights == trust.None:
		return errNoAuth
	case cmd.write && c.rights < trust.ReadWrite:
		return "NOPERM this user has no permissions to run the '" + cmd.name + "' command"
	case len(c.topics) > 0 && c.out.resp == 2 && !cmd.whileSubscribed():
		return "ERR Can't execute '" + cmd.name + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
	case c.db == 1 && c.server.cfg.Cache == nil && (cmd.plan != nil || cmd.name == "scan" || cmd.name == "keys" || cmd.name == "dbsize" || cmd.name == "flushdb"):
		return "ERR there is no cache here"
	}
	return ""
}

func unknown(args [][]byte) string {
	var b strings.Builder
	b.WriteString("ERR unknown command '" + clip(args[0]) + "', with args beginning with: ")
	for _, a := range args[1:min(len(args), 8)] {
		b.WriteString("'" + clip(a) + "' ")
	}
	return b.String()
}

// clip makes what somebody sent fit for a line.
func clip(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, string(b[:min(len(b), 128)]))
}

// A batch is commands that wait to be executed in one.
type batch struct {
	library *library
	now     time.Time // of its first command
	planned []planned
	steps   []kv.Step
	size    int  // bytes of the steps
	write   bool // they change something
	many    *command
	args    [][][]byte // of many
}

type planned struct {
	cmd      *command
	args     [][]byte
	from, to int // of the steps
}

// queue has a command wait for others of its name.
func (b *batch) queue(ctx context.Context, c *client, cmd *command, args [][]byte) {
	if b.many != cmd {
		c.settle(ctx)
		b.many = cmd
	}
	b.args = append(b.args, args[1:])
}

// plan has a command wait for others that are as it is: reading or changing.
func (b *batch) plan(ctx context.Context, c *client, cmd *command, args [][]byte) {
	if b.many != nil || len(b.planned) > 0 && (cmd.write != b.write || cmd.alone) {
		c.settle(ctx)
	}
	from := len(b.steps)
	if err := cmd.plan(b, args); err != nil {
		b.steps = b.steps[:from]
		c.settle(ctx)
		c.out.say(err)
		return
	}
	size := 0
	for _, s := range b.steps[from:] {
		size += len(s.Key) + len(s.Data) + len(s.Match)
	}
	if from > 0 && (len(b.steps) > kv.StepsMax || b.size+size > kv.UpdateMax) {
		steps := append([]kv.Step(nil), b.steps[from:]...)
		b.steps = b.steps[:from]
		c.settle(ctx)
		b.steps, from = append(b.steps, steps...), 0
	}
	b.write = cmd.write
	b.size += size
	b.planned = append(b.planned, planned{cmd, args, from, len(b.steps)})
	if cmd.alone || len(b.steps) > kv.StepsMax {
		c.settle(ctx)
	}
}

// settle executes what waits.
func (c *client) settle(ctx context.Context) {
	b := &c.batch
	if b.many != nil {
		cmd, args := b.many, b.args
		b.many, b.args = nil, b.args[:0]
		cmd.many(ctx, c, args)
		return
	}
	if len(b.planned) == 0 {
		return
	}
	got, err := c.strings(ctx, b.steps, b.write)
	switch {
	case err == nil:
		for _, p := range b.planned {
			p.cmd.finish(ctx, c, p.args, got[p.from:p.to])
		}
	case b.planned[0].cmd.alone && errors.Is(err, meta.Conflict):
		c.out.truth(false)
	case len(b.planned) == 1 || !refusal(err):
		for range b.planned {
			c.out.say(err)
		}
	default: // nothing was done, because of one of them
		for _, p := range b.planned {
			got, err := c.strings(ctx, b.steps[p.from:p.to], b.write)
			if err != nil {
				c.out.say(err)
				continue
			}
			p.cmd.finish(ctx, c, p.args, got)
		}
	}
	clear(b.steps)
	b.planned, b.steps, b.size, b.now = b.planned[:0], b.steps[:0], 0, time.Time{}
}
