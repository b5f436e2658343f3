package redis

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"dos/meta"
	"dos/meta/queue"
)

const (
	// rangeMax and rangeBytes bound what is read of a list at once.
	rangeMax   = 64 << 10
	rangeBytes = 16 << 20
)

var rangeCommands = []command{
	{name: "lrange", arity: 4, run: runRange},
	{name: "lindex", arity: 3, run: runIndex},
	{name: "lrem", arity: 4, write: true, run: runRem},
	{name: "ltrim", arity: 4, write: true, run: runTrim},
}

// elements are those of a list from its left end on. They may be on their way to a
// consumer.
func (c *client) elements(ctx context.Context, key string) (list [][]byte, err error) {
	st, err := c.lists().status(ctx, c, key)
	if err == nil && ready(st) == 0 {
		err = c.noString(ctx, key)
	}
	if err != nil || ready(st) == 0 {
		return nil, err
	}
	size, at := 0, right
	for from := uint64(0); ; {
		log, err := c.server.cfg.Queues.Read(ctx, queue.Read{Name: st.Name, From: from, Limit: queue.TakeMax, Undone: true})
		if err != nil {
			return nil, err
		}
		for _, m := range log.Messages {
			if size += len(m.Got.Body); len(list) == rangeMax || size > rangeBytes {
				return nil, said("ERR the list is too long: at most 65536 elements of 16 MiB can be looked at")
			}
			if len(m.Got.Parts) > 0 {
				return nil, said("ERR an element of over 64 KiB can only be taken")
			}
			if len(list) == 0 && m.Got.Key == string(left) {
				at = left
			}
			list = append(list, m.Got.Body)
			from = m.Got.Number + 1
		}
		if !log.More || len(log.Messages) == 0 {
			break
		}
	}
	if at == left {
		slices.Reverse(list)
	}
	return list, nil
}

// span makes of a first and last index, which count from the end if they are below 0,
// those of a slice of n.
func span(args [][]byte, n int) (from, to int, err error) {
	var ends [2]int64
	for i, a := range args {
		if ends[i], err = integer(a); err != nil {
			return 0, 0, err
		}
		if ends[i] < 0 {
			ends[i] += int64(n)
		}
	}
	from, to = int(max(0, min(ends[0], int64(n)))), int(max(-1, min(ends[1], int64(n-1))))+1
	return from, max(from, to), nil
}

func runRange(ctx context.Context, c *client, args [][]byte) {
	_, _, err := span(args[2:], 0)
	var list [][]byte
	if err == nil {
		list, err = c.elements(ctx, string(args[1]))
	}
	if err != nil {
		c.out.say(err)
		return
	}
	from, to, _ := span(args[2:], len(list))
	c.out.array(to - from)
	for _, e := range list[from:to] {
		c.out.bulk(e)
	}
}

func runIndex(ctx context.Context, c *client, args [][]byte) {
	i, err := integer(args[2])
	var list [][]byte
	if err == nil {
		list, err = c.elements(ctx, string(args[1]))
	}
	if err != nil {
		c.out.say(err)
		return
	}
	if i < 0 {
		i += int64(len(list))
	}
	if i < 0 || i >= int64(len(list)) {
		c.out.null()
		return
	}
	c.out.bulk(list[i])
}

// pick takes elements out of a list by their places from its left end on.
func (c *client) pick(ctx context.Context, key string, choose func([][]byte) []int) (int, error) {
	st, err := c.lists().status(ctx, c, key)
	if err == nil && ready(st) == 0 {
		err = c.noString(ctx, key)
	}
	if err != nil || ready(st) == 0 {
		return 0, err
	}
	return c.server.cfg.Queues.Pick(ctx, st.Name, c.who(), func(all []queue.Got) (numbers []uint64) {
		if all[0].Key == string(left) {
			all = slices.Clone(all)
			slices.Reverse(all)
		}
		list := make([][]byte, len(all))
		for i, m := range all {
			list[i] = m.Body
		}
		for _, i := range choose(list) {
			numbers = append(numbers, all[i].Number)
		}
		return numbers
	})
}

// runRem is LREM KEY COUNT ELEMENT: so many of those that are equal, from the right end
// on if COUNT is below 0, and all if it is 0.
func runRem(ctx context.Context, c *client, args [][]byte) {
	count, err := integer(args[2])
	n := 0
	if err == nil {
		n, err = c.pick(ctx, string(args[1]), func(list [][]byte) (places []int) {
			for i, e := range list {
				if bytes.Equal(e, args[3]) {
					places = append(places, i)
				}
			}
			switch {
			case count > 0 && count < int64(len(places)):
				places = places[:count]
			case count < 0 && -count > 0 && -count < int64(len(places)):
				places = places[int64(len(places))+count:]
			}
			return places
		})
	}
	if err != nil {
		c.out.say(err)
		return
	}
	c.out.number(int64(n))
}

// runTrim is LTRIM KEY FIRST LAST, which keeps these and what is between.
func runTrim(ctx context.Context, c *client, args [][]byte) {
	_, _, err := span(args[2:], 0)
	if err == nil {
		_, err = c.pick(ctx, string(args[1]), func(list [][]byte) (places []int) {
			from, to, _ := span(args[2:], len(list))
			for i := range list {
				if i < from || i >= to {
					places = append(places, i)
				}
			}
			return places
		})
	}
	if err != nil {
		c.out.say(err)
		return
	}
	c.out.ok()
}

var moveCommands = []command{
	{name: "lmove", arity: 5, write: true, run: func(ctx context.Context, c *client, args [][]byte) {
		from, to, err := ends(args[3], args[4])
		c.move(ctx, args[1:3], from, to, nil, err)
	}},
	{name: "blmove", arity: 6, write: true, run: func(ctx context.Context, c *client, args [][]byte) {
		from, to, err := ends(args[3], args[4])
		c.move(ctx, args[1:3], from, to, args[5], err)
	}},
	{name: "rpoplpush", arity: 3, write: true, run: func(ctx context.Context, c *client, args [][]byte) {
		c.move(ctx, args[1:3], right, left, nil, nil)
	}},
	{name: "brpoplpush", arity: 4, write: true, run: func(ctx context.Context, c *client, args [][]byte) {
		c.move(ctx, args[1:3], right, left, args[3], nil)
	}},
}

// ends reads which ends LMOVE takes from and puts at.
func ends(from, to []byte) (end, end, error) {
	var both [2]end
	for i, word := range [][]byte{from, to} {
		switch {
		case bytes.EqualFold(word, []byte("left")):
			both[i] = left
		case bytes.EqualFold(word, []byte("right")):
			both[i] = right
		default:
			return "", "", said(errSyntax)
		}
	}
	return both[0], both[1], nil
}

// move takes an element from an end of a list and puts it at one of another, in one
// command. It waits for one if timeout says how long.
func (c *client) move(ctx context.Context, keys [][]byte, from, to end, timeout []byte, err error) {
	var patience time.Duration
	if err == nil && timeout != nil {
		patience, err = waitTime(timeout)
	}
	src, dst := string(keys[0]), string(keys[1])
	var st queue.Status
	if err == nil {
		st, err = c.lists().status(ctx, c, src)
	}
	if err == nil && ready(st) == 0 {
		err = c.noString(ctx, src)
	}
	if err != nil {
		c.out.say(err)
		return
	}
	if ready(st) == 0 && timeout == nil {
		c.out.null()
		return
	}
	if err := c.lists().prepare(ctx, c, dst, to, src == dst); err != nil {
		c.out.say(err)
		return
	}
	if timeout == nil {
		m, err := c.server.cfg.Queues.Move(ctx, nameOf(src), nameOf(dst), string(to), c.who(), false, c.lists().fits(ctx, nameOf(src), from))
		c.moved(m, err)
		return
	}
	if err := c.lists().make(ctx, c, src); err != nil {
		c.out.say(err)
		return
	}
	c.while(ctx, func(ctx context.Context) {
		fits := c.lists().fits(ctx, nameOf(src), from)
		if patience > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, patience, meta.TimedOut)
			defer cancel()
		}
		m, err := c.server.cfg.Queues.Move(ctx, nameOf(src), nameOf(dst), string(to), c.who(), true, func(list []queue.Got) error {
			if err := fits(list); err != nil {
				return err
			}
			return context.Cause(ctx) // nobody is there any more to get it
		})
		if err != nil && errors.Is(context.Cause(ctx), meta.TimedOut) {
			c.out.null()
			return
		}
		c.moved(m, err)
	})
}

func (c *client) moved(m queue.Got, err error) {
	switch {
	case err != nil:
		c.out.say(err)
	case m.Number == 0: // another was faster
		c.out.null()
	default:
		c.out.bulk(m.Body)
	}
}
