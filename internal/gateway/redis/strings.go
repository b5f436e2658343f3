package redis

import (
	"bytes"
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/kv"
)

// strings does steps in the database of the client: all in one if they change
// something.
func (c *client) strings(ctx context.Context, steps []kv.Step, write bool) ([]kv.Outcome, error) {
	db := c.database()
	if write {
		return db.Update(ctx, steps, false)
	}
	return db.Look(ctx, steps)
}

func (c *client) database() DB {
	if c.db == 1 {
		return c.server.cfg.Cache
	}
	return c.server.cfg.Strings
}

var stringCommands = []command{
	{name: "get", arity: 2, plan: planGet, finish: finishGet},
	{name: "set", arity: -3, write: true, plan: planSet, finish: finishSet},
	{name: "setnx", arity: 3, write: true, plan: func(b *batch, args [][]byte) error {
		return b.set(args[1], args[2], kv.Step{If: kv.Absent})
	}, finish: finishTruth},
	{name: "setex", arity: 4, write: true, plan: planSetEx(time.Second), finish: finishOK},
	{name: "psetex", arity: 4, write: true, plan: planSetEx(time.Millisecond), finish: finishOK},
	{name: "getset", arity: 3, write: true, plan: func(b *batch, args [][]byte) error {
		return b.set(args[1], args[2], kv.Step{Tell: true})
	}, finish: finishGet},
	{name: "getdel", arity: 2, write: true, plan: func(b *batch, args [][]byte) error {
		return b.add(args[1], kv.Step{Do: kv.Remove, Tell: true})
	}, finish: finishGet},
	{name: "getex", arity: -2, write: true, plan: planGetEx, finish: finishGet},
	{name: "getrange", arity: 4, plan: planRange, finish: finishRange},
	{name: "strlen", arity: 2, plan: planLook, finish: func(_ context.Context, c *client, _ [][]byte, got []kv.Outcome) {
		c.out.number(int64(got[0].Size))
	}},
	{name: "mget", arity: -2, plan: planGet, finish: func(_ context.Context, c *client, _ [][]byte, got []kv.Outcome) {
		c.out.array(len(got))
		for _, o := range got {
			c.out.value(o)
		}
	}},
	{name: "mset", arity: -3, write: true, plan: planMSet("mset", kv.Step{}), finish: finishOK},
	{name: "msetnx", arity: -3, write: true, alone: true, plan: planMSet("msetnx", kv.Step{If: kv.Absent}), finish: finishTruth},
	{name: "append", arity: 3, write: true, plan: func(b *batch, args [][]byte) error {
		if len(args[2]) > kv.ValueMax {
			return said(errTooLarge)
		}
		return b.add(args[1], kv.Step{Do: kv.Append, Data: args[2], Clock: kv.Keep})
	}, finish: finishNumber},
	{name: "incr", arity: 2, write: true, plan: planAdd(1, false), finish: finishNumber},
	{name: "decr", arity: 2, write: true, plan: planAdd(-1, false), finish: finishNumber},
	{name: "incrby", arity: 3, write: true, plan: planAdd(1, true), finish: finishNumber},
	{name: "decrby", arity: 3, write: true, plan: planAdd(-1, true), finish: finishNumber},
}

// add adds a step about a key.
func (b *batch) add(key []byte, s kv.Step) error {
	if len(key) > keyMax {
		return said(errKeyLength)
	}
	s.Key = string(key)
	b.steps = append(b.steps, s)
	return nil
}

func (b *batch) set(key, val []byte, s kv.Step) error {
	if len(val) > kv.ValueMax {
		return said(errTooLarge)
	}
	s.Do, s.Data = kv.Write, val
	return b.add(key, s)
}

// clock is the time, the same for all of a batch.
func (b *batch) clock() time.Time {
	if b.now.IsZero() {
		b.now = time.Now()
	}
	return b.now
}

func planGet(b *batch, args [][]byte) error {
	for _, key := range args[1:] {
		if err := b.add(key, kv.Step{Tell: true}); err != nil {
			return err
		}
	}
	return nil
}

func planLook(b *batch, args [][]byte) error {
	for _, key := range args[1:] {
		if err := b.add(key, kv.Step{}); err != nil {
			return err
		}
	}
	return nil
}

func planRange(b *batch, args [][]byte) error {
	for _, a := range args[2:] {
		if _, err := integer(a); err != nil {
			return err
		}
	}
	return planGet(b, args[:2])
}

func finishRange(_ context.Context, c *client, args [][]byte, got []kv.Outcome) {
	from, _ := integer(args[2])
	to, _ := integer(args[3])
	size := int64(len(got[0].Data))
	if from < 0 {
		from = max(0, size+from)
	}
	if to < 0 {
		to += size
	}
	if to = min(to, size-1); from > to {
		c.out.bulk(nil)
		return
	}
	c.out.bulk(got[0].Data[from : to+1])
}

// planSet reads SET KEY VALUE [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL].
func planSet(b *batch, args [][]byte) error {
	var s kv.Step
	timed := false
	for i := 3; i < len(args); i++ {
		switch word := strings.ToLower(string(args[i][:min(len(args[i]), 8)])); word {
		case "nx", "xx":
			if s.If != kv.Always {
				return said(errSyntax)
			}
			if s.If = kv.Present; word == "nx" {
				s.If = kv.Absent
			}
		case "get":
			s.Tell = true
		case "keepttl":
			if timed {
				return said(errSyntax)
			}
			timed, s.Clock = true, kv.Keep
		case "ex", "px", "exat", "pxat":
			if timed || i+1 == len(args) {
				return said(errSyntax)
			}
			timed = true
			i++
			var err error
			if s.TTL, err = b.expiry("set", word, args[i]); err != nil {
				return err
			}
		default:
			return said(errSyntax)
		}
	}
	return b.set(args[1], args[2], s)
}

// expiry reads a time to live, or a time, of a value that is put: in the past it is
// wrong, or, as a time, all but over.
func (b *batch) expiry(name, word string, arg []byte) (time.Duration, error) {
	n, err := integer(arg)
	if err != nil {
		return 0, err
	}
	unit := time.Second
	if word[0] == 'p' {
		unit = time.Millisecond
	}
	if n <= 0 || n > math.MaxInt64/int64(unit) {
		return 0, said(badExpire(name))
	}
	d := time.Duration(n) * unit
	if strings.HasSuffix(word, "at") {
		d = max(time.UnixMilli(0).Add(d).Sub(b.clock()), time.Nanosecond)
	}
	if d > ttlMax {
		return 0, said(badExpire(name))
	}
	return d, nil
}

func planSetEx(unit time.Duration) func(*batch, [][]byte) error {
	name, word := "setex", "ex"
	if unit == time.Millisecond {
		name, word = "psetex", "px"
	}
	return func(b *batch, args [][]byte) error {
		d, err := b.expiry(name, word, args[2])
		if err != nil {
			return err
		}
		return b.set(args[1], args[3], kv.Step{TTL: d})
	}
}

func planGetEx(b *batch, args [][]byte) error {
	s := kv.Step{Tell: true}
	switch {
	case len(args) == 2:
	case len(args) == 3 && strings.EqualFold(string(args[2]), "persist"):
		s.Do = kv.Time
	case len(args) == 4:
		word := strings.ToLower(string(args[2]))
		if word != "ex" && word != "px" && word != "exat" && word != "pxat" {
			return said(errSyntax)
		}
		s.Do = kv.Time
		var err error
		if s.TTL, err = b.expiry("getex", word, args[3]); err != nil {
			return err
		}
	default:
		return said(errSyntax)
	}
	return b.add(args[1], s)
}

func planMSet(name string, s kv.Step) func(*batch, [][]byte) error {
	s.Must = s.If != kv.Always
	return func(b *batch, args [][]byte) error {
		switch {
		case len(args)%2 == 0:
			return said(wrongCount(name))
		case len(args)/2 > kv.StepsMax:
			return said("ERR " + name + " of more than 256 keys")
		}
		for i := 1; i < len(args); i += 2 {
			if err := b.set(args[i], args[i+1], s); err != nil {
				return err
			}
		}
		return nil
	}
}

func planAdd(sign int64, by bool) func(*batch, [][]byte) error {
	return func(b *batch, args [][]byte) error {
		n := int64(1)
		if by {
			var err error
			if n, err = integer(args[2]); err != nil {
				return err
			}
			if sign < 0 && n == math.MinInt64 {
				return said("ERR decrement would overflow")
			}
		}
		return b.add(args[1], kv.Step{Do: kv.Add, Number: sign * n, Clock: kv.Keep})
	}
}

// integer reads a number as Redis does: no spaces, no plus sign, no leading zeros.
func integer(b []byte) (int64, error) {
	if len(b) > 20 {
		return 0, said(errNotInt)
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || b[0] == '+' || (b[0] == '0' || bytes.HasPrefix(b, []byte("-0"))) && len(b) > 1 {
		return 0, said(errNotInt)
	}
	return n, nil
}

func (r *reply) value(o kv.Outcome) {
	if o.Version == 0 {
		r.null()
		return
	}
	r.bulk(o.Data)
}

func finishOK(_ context.Context, c *client, _ [][]byte, _ []kv.Outcome) { c.out.ok() }

func finishTruth(_ context.Context, c *client, _ [][]byte, got []kv.Outcome) {
	c.out.truth(got[0].Why == kv.Fine)
}

// finishGet replies the value that was there. That it is a list is said if so.
func finishGet(ctx context.Context, c *client, args [][]byte, got []kv.Outcome) {
	if got[0].Version == 0 && c.lists().known(ctx, args[1]) {
		c.out.fail(errWrongType)
		return
	}
	c.out.value(got[0])
}

func finishSet(_ context.Context, c *client, args [][]byte, got []kv.Outcome) {
	switch {
	case len(args) > 3 && tells(args[3:]):
		c.out.value(got[0])
	case got[0].Why == kv.NotSo:
		c.out.null()
	default:
		c.out.ok()
	}
}

func tells(options [][]byte) bool {
	for _, o := range options {
		if strings.EqualFold(string(o), "get") {
			return true
		}
	}
	return false
}

func finishNumber(_ context.Context, c *client, _ [][]byte, got []kv.Outcome) {
	switch got[0].Why {
	case kv.Fine:
		c.out.number(got[0].Number)
	case kv.NoNumber:
		c.out.fail(errNotInt)
	case kv.Overflows:
		c.out.fail(errOverflow)
	case kv.TooLong:
		c.out.fail(errTooLarge)
	default:
		c.out.say(meta.Busy)
	}
}
