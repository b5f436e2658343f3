package redis

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"dos/meta"
	"dos/meta/kv"
)

const (
	// keyMax bounds a key: what is escaped in it takes up to three times the room.
	keyMax = kv.KeyMax
	// ttlMax bounds a time to live, as the service does.
	ttlMax = 100 * 365 * 24 * time.Hour
	// scanMax bounds how many keys one SCAN looks at, whatever COUNT says.
	scanMax = kv.ListMax
	// keysMax bounds the bytes that KEYS answers with.
	keysMax = 16 << 20
	// cursorsMax bounds the scans that can go on.
	cursorsMax = 10_000
)

var keyCommands = []command{
	{name: "del", arity: -2, write: true, plan: planRemove, finish: finishRemove},
	{name: "unlink", arity: -2, write: true, plan: planRemove, finish: finishRemove},
	{name: "exists", arity: -2, plan: planLook, finish: finishExists},
	{name: "touch", arity: -2, plan: planLook, finish: finishExists},
	{name: "type", arity: 2, plan: planLook, finish: func(ctx context.Context, c *client, args [][]byte, got []kv.Outcome) {
		switch {
		case got[0].Version != 0:
			c.out.word("string")
		case c.lists().there(ctx, string(args[1])):
			c.out.word("list")
		default:
			c.out.word("none")
		}
	}},
	{name: "expire", arity: -3, write: true, plan: planExpire("expire", time.Second, false), finish: finishTruth},
	{name: "pexpire", arity: -3, write: true, plan: planExpire("pexpire", time.Millisecond, false), finish: finishTruth},
	{name: "expireat", arity: -3, write: true, plan: planExpire("expireat", time.Second, true), finish: finishTruth},
	{name: "pexpireat", arity: -3, write: true, plan: planExpire("pexpireat", time.Millisecond, true), finish: finishTruth},
	{name: "persist", arity: 2, write: true, plan: func(b *batch, args [][]byte) error {
		return b.add(args[1], kv.Step{Do: kv.Time, Alarm: kv.Ticking})
	}, finish: finishTruth},
	{name: "ttl", arity: 2, plan: planLook, finish: finishTTL(time.Second, false)},
	{name: "pttl", arity: 2, plan: planLook, finish: finishTTL(time.Millisecond, false)},
	{name: "expiretime", arity: 2, plan: planLook, finish: finishTTL(time.Second, true)},
	{name: "pexpiretime", arity: 2, plan: planLook, finish: finishTTL(time.Millisecond, true)},
	{name: "keys", arity: 2, run: runKeys},
	{name: "scan", arity: -2, run: runScan},
	{name: "dbsize", arity: 1, run: func(ctx context.Context, c *client, _ [][]byte) {
		n, err := c.database().Size(ctx)
		if err != nil {
			c.out.say(err)
			return
		}
		c.out.number(n)
	}},
	{name: "flushdb", arity: -1, write: true, run: runFlush},
	{name: "flushall", arity: -1, write: true, run: runFlush},
}

func planRemove(b *batch, args [][]byte) error {
	for _, key := range args[1:] {
		if err := b.add(key, kv.Step{Do: kv.Remove}); err != nil {
			return err
		}
	}
	return nil
}

// finishRemove removes what was no string: then it may be a list.
func finishRemove(ctx context.Context, c *client, args [][]byte, got []kv.Outcome) {
	n := 0
	for i, o := range got {
		if o.Why == kv.Fine {
			n++
			continue
		}
		removed, err := c.lists().remove(ctx, c, string(args[1+i]))
		if err != nil {
			c.out.say(err)
			return
		}
		if removed {
			n++
		}
	}
	c.out.number(int64(n))
}

func finishExists(ctx context.Context, c *client, args [][]byte, got []kv.Outcome) {
	n := 0
	for i, o := range got {
		if o.Version != 0 || c.lists().there(ctx, string(args[1+i])) {
			n++
		}
	}
	c.out.number(int64(n))
}

// planExpire reads EXPIRE KEY N [NX|XX|GT|LT]. A time that is over removes the key.
func planExpire(name string, unit time.Duration, absolute bool) func(*batch, [][]byte) error {
	alarms := map[string]kv.Alarm{"nx": kv.Unset, "xx": kv.Ticking, "gt": kv.Later, "lt": kv.Sooner}
	return func(b *batch, args [][]byte) error {
		n, err := integer(args[2])
		if err != nil {
			return err
		}
		if n > math.MaxInt64/int64(unit) || n < math.MinInt64/int64(unit) {
			return said(badExpire(name))
		}
		s := kv.Step{Do: kv.Time, TTL: time.Duration(n) * unit}
		if absolute {
			s.TTL = time.UnixMilli(0).Add(s.TTL).Sub(b.clock())
		}
		if s.TTL > ttlMax {
			return said(badExpire(name))
		}
		if len(args) > 4 {
			return said("ERR NX and XX, GT or LT options at the same time are not compatible")
		}
		if len(args) == 4 {
			var ok bool
			if s.Alarm, ok = alarms[strings.ToLower(string(args[3]))]; !ok {
				return said("ERR Unsupported option " + clip(args[3]))
			}
		}
		if s.TTL <= 0 {
			s.Do, s.TTL = kv.Remove, 0
		}
		return b.add(args[1], s)
	}
}

func finishTTL(unit time.Duration, absolute bool) func(context.Context, *client, [][]byte, []kv.Outcome) {
	return func(_ context.Context, c *client, _ [][]byte, got []kv.Outcome) {
		o := got[0]
		switch {
		case o.Version == 0:
			c.out.number(-2)
		case o.Expires == 0:
			c.out.number(-1)
		case absolute:
			c.out.number(int64(o.Expires) / int64(unit))
		default:
			left := max(0, time.Duration(o.Expires-meta.At(time.Now())))
			c.out.number(int64((left + unit/2) / unit))
		}
	}
}

func runKeys(ctx context.Context, c *client, args [][]byte) {
	var list []string
	size, from := 0, ""
	for more := true; more; {
		var part []string
		var err error
		if part, from, err = c.database().Scan(ctx, from, scanMax); err != nil {
			c.out.say(err)
			return
		}
		more = from != ""
		for _, key := range part {
			if match(args[1], key) {
				list = append(list, key)
				if size += len(key) + 16; size > keysMax {
					c.out.fail("ERR the answer would be over 16 MiB: use SCAN")
					return
				}
			}
		}
	}
	c.out.array(len(list))
	for _, key := range list {
		c.out.text(key)
	}
}

// runScan is SCAN CURSOR [MATCH PATTERN] [COUNT N] [TYPE T].
func runScan(ctx context.Context, c *client, args [][]byte) {
	cursor, err := strconv.ParseUint(string(args[1]), 10, 64)
	from, known := c.server.cursors.at(cursor)
	if err != nil || !known {
		c.out.fail("ERR invalid cursor")
		return
	}
	count, pattern, wanted := int64(10), []byte("*"), true
	for i := 2; i < len(args); i += 2 {
		if i+1 == len(args) {
			c.out.fail(errSyntax)
			return
		}
		switch strings.ToLower(string(args[i])) {
		case "match":
			pattern = args[i+1]
		case "count":
			if count, err = integer(args[i+1]); err != nil {
				c.out.say(err)
				return
			}
			if count < 1 {
				c.out.fail(errSyntax)
				return
			}
		case "type":
			wanted = strings.EqualFold(string(args[i+1]), "string")
		default:
			c.out.fail(errSyntax)
			return
		}
	}
	list, next, err := c.database().Scan(ctx, from, int(min(count, scanMax)))
	if err != nil {
		c.out.say(err)
		return
	}
	matching := list[:0]
	for _, key := range list {
		if wanted && match(pattern, key) {
			matching = append(matching, key)
		}
	}
	c.out.array(2)
	c.out.text(strconv.FormatUint(c.server.cursors.put(next), 10))
	c.out.array(len(matching))
	for _, key := range matching {
		c.out.text(key)
	}
}

// cursors are the numbers that stand for how far scans have come. They are random, so
// that one of another machine is not taken for one of this.
type cursors struct {
	mu   sync.Mutex
	from map[uint64]string // guarded by mu
	last []uint64          // in the order in which they were made; guarded by mu
}

func (s *cursors) put(from string) uint64 {
	if from == "" {
		return 0
	}
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // it does not fail
	n := binary.BigEndian.Uint64(b[:])>>1 | 1
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from == nil {
		s.from = make(map[uint64]string)
	}
	if len(s.last) == cursorsMax {
		delete(s.from, s.last[0])
		s.last = s.last[1:]
	}
	s.from[n] = from
	s.last = append(s.last, n)
	return n
}

func (s *cursors) at(n uint64) (from string, ok bool) {
	if n == 0 {
		return "", true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	from, ok = s.from[n]
	return from, ok
}

func runFlush(ctx context.Context, c *client, args [][]byte) {
	if len(args) > 2 || len(args) == 2 && !strings.EqualFold(string(args[1]), "sync") && !strings.EqualFold(string(args[1]), "async") {
		c.out.fail(errSyntax)
		return
	}
	list := []DB{c.database()}
	if strings.EqualFold(string(args[0]), "flushall") {
		list = []DB{c.server.cfg.Strings}
		if c.server.cfg.Cache != nil {
			list = append(list, c.server.cfg.Cache)
		}
	}
	for _, db := range list {
		if err := db.Clear(ctx); err != nil {
			c.out.say(err)
			return
		}
	}
	c.out.ok()
}
