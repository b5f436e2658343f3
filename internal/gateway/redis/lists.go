package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"dos/internal/trust"
	"dos/meta"
	"dos/meta/kv"
	"dos/meta/queue"
)

// Queues are what lists need (meta/client.Taker).
type Queues interface {
	Make(ctx context.Context, name string, mode, uid, gid uint32) error
	Append(ctx context.Context, name, key string, bodies ...[]byte) (queue.Pushed, error)
	Pop(ctx context.Context, name, who string, max int, wait bool, keep func([]queue.Got) error) ([]queue.Got, error)
	Move(ctx context.Context, from, to, key, who string, wait bool, keep func([]queue.Got) error) (queue.Got, error)
	Pick(ctx context.Context, name, who string, choose func([]queue.Got) []uint64) (int, error)
	Read(ctx context.Context, req queue.Read) (queue.Log, error)
	Status(ctx context.Context, name string) (queue.Status, error)
	Purge(ctx context.Context, name string) error
	List(ctx context.Context) ([]string, error)
}

// An end is where a list is filled. It is the key of what was put there.
type end string

const (
	left  end = "lpush"
	right end = "rpush"
)

var listCommands = []command{
	{name: "lpush", arity: -3, write: true, many: manyPush(left, false)},
	{name: "rpush", arity: -3, write: true, many: manyPush(right, false)},
	{name: "lpushx", arity: -3, write: true, many: manyPush(left, true)},
	{name: "rpushx", arity: -3, write: true, many: manyPush(right, true)},
	{name: "lpop", arity: -2, write: true, many: manyPop(left)},
	{name: "rpop", arity: -2, write: true, many: manyPop(right)},
	{name: "blpop", arity: -3, write: true, run: runWait(left)},
	{name: "brpop", arity: -3, write: true, run: runWait(right)},
	{name: "llen", arity: 2, run: func(ctx context.Context, c *client, args [][]byte) {
		key := string(args[1])
		st, err := c.lists().status(ctx, c, key)
		if err == nil && ready(st) == 0 {
			err = c.noString(ctx, key)
		}
		if err != nil {
			c.out.say(err)
			return
		}
		c.out.number(ready(st))
	}},
}

// lists are the queues by their keys.
type lists struct {
	queues Queues
	uid    uint32 // whose the queues are that are made

	mu    sync.Mutex
	names map[string]bool // queues that there were at; guarded by mu
	at    time.Time       // guarded by mu
}

func (c *client) lists() *lists { return c.server.lists }

// namesFor is for how long it is believed which queues there are, where it saves a
// question for each value that is not there.
const namesFor = time.Second

// listMode is the mode of queues that are made.
const listMode = 0o700

// toEnter is the bit of a queue's mode that lets somebody use it.
const toEnter = 0o1

// ready is how many elements a list has.
func ready(st queue.Status) int64 {
	g, _ := st.Group("")
	return g.Ready
}

// status describes a list that the client may use. One that is not there is empty.
func (l *lists) status(ctx context.Context, c *client, key string) (queue.Status, error) {
	st, err := l.queues.Status(ctx, nameOf(key))
	switch {
	case errors.Is(err, meta.NotExist), errors.Is(err, meta.Invalid), errors.Is(err, meta.NameTooLong):
		return queue.Status{}, nil
	case err != nil:
		return st, err
	}
	bit := uint32(toEnter)
	if st.UID == l.uid {
		bit <<= 6
	}
	if c.rights < trust.Admin && st.Mode&bit == 0 {
		return st, fmt.Errorf("/dos/queues/%s is not for everybody: %w", st.Name, meta.Permission)
	}
	return st, nil
}

// there says whether a key is a list.
func (l *lists) there(ctx context.Context, key string) bool {
	st, err := l.queues.Status(ctx, nameOf(key))
	return err == nil && ready(st) > 0
}

// known is there, for keys that mostly are not: a list may be as young as namesFor and
// not be known.
func (l *lists) known(ctx context.Context, key []byte) bool {
	l.mu.Lock()
	if time.Since(l.at) > namesFor {
		l.at = time.Now()
		l.mu.Unlock()
		list, err := l.queues.List(ctx)
		l.mu.Lock()
		if err == nil {
			l.names = make(map[string]bool, len(list))
			for _, name := range list {
				l.names[name] = true
			}
		}
	}
	is := len(l.names) > 0 && l.names[nameOf(string(key))]
	l.mu.Unlock()
	return is && l.there(ctx, string(key))
}

// remove empties a list.
func (l *lists) remove(ctx context.Context, c *client, key string) (bool, error) {
	st, err := l.status(ctx, c, key)
	if err != nil || ready(st) == 0 {
		return false, err
	}
	return true, l.queues.Purge(ctx, st.Name)
}

// noString says that a key is a string, if it is.
func (c *client) noString(ctx context.Context, key string) error {
	if c.database() == nil {
		return nil
	}
	got, err := c.database().Look(ctx, []kv.Step{{Key: key}})
	if err == nil && got[0].Version != 0 {
		err = said(errWrongType)
	}
	return err
}

// manyPush puts what commands bring, all that are for one list in one.
func manyPush(at end, only bool) func(context.Context, *client, [][][]byte) {
	return func(ctx context.Context, c *client, args [][][]byte) {
		for len(args) > 0 {
			n, size := 0, 0
			var bodies [][]byte
			for _, a := range args {
				more := 0
				for _, body := range a[1:] {
					more += len(body)
				}
				if string(a[0]) != string(args[0][0]) || n > 0 && (size+more > queue.PushBytes || len(bodies)+len(a) > queue.PushMax) {
					break
				}
				bodies = append(bodies, a[1:]...)
				size += more
				n++
			}
			length, err := c.lists().push(ctx, c, string(args[0][0]), at, only, bodies)
			for i := range args[:n] {
				if err != nil {
					c.out.say(err)
					continue
				}
				later := int64(0)
				for _, b := range args[i+1 : n] {
					later += int64(len(b) - 1)
				}
				c.out.number(max(0, length-later))
			}
			args = args[n:]
		}
	}
}

// push puts elements at an end of a list, and returns how many it has.
func (l *lists) push(ctx context.Context, c *client, key string, at end, only bool, bodies [][]byte) (int64, error) {
	if only {
		st, err := l.status(ctx, c, key)
		if err == nil && ready(st) == 0 {
			err = c.noString(ctx, key)
		}
		if err != nil || ready(st) == 0 {
			return 0, err
		}
	}
	if err := l.prepare(ctx, c, key, at, false); err != nil {
		return 0, err
	}
	length := int64(0)
	for part := range slices.Chunk(bodies, queue.PushMax) {
		out, err := l.queues.Append(ctx, nameOf(key), string(at), part...)
		if err != nil {
			return 0, err
		}
		length = out.Ready
	}
	return length, nil
}

// prepare has a list ready to be filled at an end. turns says that what is put there is
// what is taken from it, so that it may be the only one that was put at the other.
func (l *lists) prepare(ctx context.Context, c *client, key string, at end, turns bool) error {
	if len(nameOf(key)) > queue.NameMax {
		return said("ERR the key of a list has at most 255 bytes here")
	}
	st, err := l.status(ctx, c, key)
	if err != nil {
		return err
	}
	if err := c.noString(ctx, key); err != nil {
		return err
	}
	if n := ready(st); n > 1 || n == 1 && !turns {
		if first := l.first(ctx, st.Name); first != at && first != "" {
			return said(fmt.Sprintf("ERR the list is a queue, /dos/queues/%s, which was filled by %s: it cannot be filled at both ends until it is empty", st.Name, first))
		}
	}
	if st.ID == 0 {
		return l.make(ctx, c, key)
	}
	return nil
}

// make makes the queue of a list if there is none.
func (l *lists) make(ctx context.Context, c *client, key string) error {
	st, err := l.status(ctx, c, key)
	if err != nil || st.ID != 0 {
		return err
	}
	err = l.queues.Make(ctx, nameOf(key), listMode, l.uid, l.uid)
	if errors.Is(err, meta.Exist) { // somebody else's, perhaps
		_, err = l.status(ctx, c, key)
	}
	return err
}

// first says where the first of a list's elements was put.
func (l *lists) first(ctx context.Context, name string) end {
	log, err := l.queues.Read(ctx, queue.Read{Name: name, Limit: 1, Undone: true})
	if err != nil || len(log.Messages) == 0 {
		return ""
	}
	return end(log.Messages[0].Got.Key)
}

// manyPop takes what commands ask for, of one list in one.
func manyPop(at end) func(context.Context, *client, [][][]byte) {
	return func(ctx context.Context, c *client, args [][][]byte) {
		for len(args) > 0 {
			n := 1
			for n < len(args) && len(args[0]) == 1 && len(args[n]) == 1 && string(args[n][0]) == string(args[0][0]) {
				n++
			}
			c.pop(ctx, args[0], at, n)
			args = args[n:]
		}
	}
}

// pop replies to n pops, or to one with a count.
func (c *client) pop(ctx context.Context, args [][]byte, at end, n int) {
	count := n
	if len(args) == 2 {
		wish, err := integer(args[1])
		if err != nil || wish < 0 {
			c.out.fail(errRange)
			return
		}
		count = int(min(wish, queue.TakeMax))
	}
	if len(args) > 2 {
		c.out.fail(wrongCount(popName(at)))
		return
	}
	list, err := c.lists().pop(ctx, c, string(args[0]), at, count)
	if err == nil && len(list) == 0 {
		err = c.noString(ctx, string(args[0]))
	}
	switch {
	case err != nil:
		for range n {
			c.out.say(err)
		}
	case len(args) == 2 && len(list) == 0 && count > 0:
		c.out.nothing()
	case len(args) == 2:
		c.out.array(len(list))
		for _, m := range list {
			c.out.bulk(m.Body)
		}
	default:
		for i := range n {
			if i < len(list) {
				c.out.bulk(list[i].Body)
			} else {
				c.out.null()
			}
		}
	}
}

func popName(at end) string {
	if at == left {
		return "lpop"
	}
	return "rpop"
}

// who says for people who takes from a queue.
func (c *client) who() string {
	who := "redis " + c.conn.RemoteAddr().String()
	if c.name != "" {
		who += " " + c.name
	}
	return who
}

// pop takes up to max elements from an end of a list.
func (l *lists) pop(ctx context.Context, c *client, key string, at end, max int) (all []queue.Got, err error) {
	st, err := l.status(ctx, c, key)
	if err != nil || ready(st) == 0 || max == 0 {
		return nil, err
	}
	for len(all) < max {
		list, err := l.queues.Pop(ctx, st.Name, c.who(), min(max-len(all), queue.TakeMax), false, l.fits(ctx, st.Name, at))
		all = append(all, list...)
		if err != nil && len(all) == 0 {
			return nil, err
		}
		if err != nil || len(list) == 0 {
			break
		}
	}
	return all, nil
}

// fits says whether messages are what is at an end of their list: what was put at the
// other end, what nobody put at any, or all there is.
func (l *lists) fits(ctx context.Context, name string, at end) func([]queue.Got) error {
	return func(list []queue.Got) error {
		if !slices.ContainsFunc(list, func(m queue.Got) bool { return m.Key == string(at) }) {
			return nil
		}
		st, err := l.queues.Status(ctx, name)
		if err == nil && len(list) == 1 && ready(st) == 0 {
			return nil
		}
		return errors.Join(err, said(fmt.Sprintf("ERR the list is a queue, /dos/queues/%s, which gives first what came first: what %s puts is taken at the other end", name, at)))
	}
}

// waitTime reads for how many seconds somebody waits; 0: for ever.
func waitTime(arg []byte) (time.Duration, error) {
	seconds, err := strconv.ParseFloat(string(arg), 64)
	switch {
	case err != nil || seconds != seconds || seconds > 1e9:
		return 0, said(errTimeout)
	case seconds < 0:
		return 0, said(errNegative)
	case seconds > 0:
		return max(1, time.Duration(seconds*float64(time.Second))), nil
	}
	return 0, nil
}

// runWait is BLPOP and BRPOP KEY… TIMEOUT.
func runWait(at end) func(context.Context, *client, [][]byte) {
	return func(ctx context.Context, c *client, args [][]byte) {
		patience, err := waitTime(args[len(args)-1])
		if err != nil {
			c.out.say(err)
			return
		}
		if len(args)-2 > waitMax {
			c.out.fail("ERR at most " + strconv.Itoa(waitMax) + " lists can be waited for")
			return
		}
		keys := args[1 : len(args)-1]
		for _, key := range keys {
			list, err := c.lists().pop(ctx, c, string(key), at, 1)
			if err == nil && len(list) == 0 {
				err = c.noString(ctx, string(key))
			}
			if err != nil {
				c.out.say(err)
				return
			}
			if len(list) > 0 {
				c.popped(key, list[0])
				return
			}
		}
		c.while(ctx, func(ctx context.Context) {
			if patience > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, patience, meta.TimedOut)
				defer cancel()
			}
			key, m, err := c.lists().wait(ctx, c, keys, at)
			switch {
			case err == nil:
				c.popped(key, m)
			case errors.Is(context.Cause(ctx), meta.TimedOut):
				c.out.nothing()
			default:
				c.out.say(err)
			}
		})
	}
}

// waitMax bounds the lists that one client waits for.
const waitMax = 64

func (c *client) popped(key []byte, m queue.Got) {
	c.out.array(2)
	c.out.bulk(key)
	c.out.bulk(m.Body)
}

// errLate says that another list was faster.
var errLate = errors.New("another list had something")

// wait takes the first element that comes to one of some lists.
func (l *lists) wait(ctx context.Context, c *client, keys [][]byte, at end) (key []byte, got queue.Got, err error) {
	for _, key := range keys { // who waits for what is not there waits for what will be
		if err := l.make(ctx, c, string(key)); err != nil {
			return nil, got, err
		}
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		key  []byte
		list []queue.Got
		err  error
	}
	var mu sync.Mutex
	won := false // guarded by mu
	outcomes := make(chan outcome, len(keys))
	for _, key := range keys {
		name := nameOf(string(key))
		fits := l.fits(ctx, name, at)
		go func() {
			list, err := l.queues.Pop(waiting, name, c.who(), 1, true, func(list []queue.Got) error {
				if err := fits(list); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				if won || ctx.Err() != nil { // nobody is there any more to get it
					return errLate
				}
				won = true
				return nil
			})
			outcomes <- outcome{key, list, err}
		}()
	}
	for range keys {
		o := <-outcomes
		if err == nil && len(o.list) == 0 && key == nil {
			err = o.err
		}
		if len(o.list) > 0 {
			key, got, err = o.key, o.list[0], nil
		}
		cancel()
	}
	return key, got, err
}
