package queues

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/client"
	"dos/meta/queue"
	"dos/procfs"
)

// A reader has one message.
type reader struct {
	*client.Reader
	message queue.Got
}

// do executes what is written to a lease.
func (r reader) do(ctx context.Context, line string) error {
	words := strings.Fields(line)
	var d time.Duration
	var err error
	if len(words) == 2 {
		d, err = procfs.Duration(words[1])
	}
	switch verb := words[0]; {
	case err != nil:
		return err
	case verb == "ack" && len(words) == 1:
		return r.Do(ctx, queue.Ack, 0)
	case verb == "nack" && len(words) <= 2:
		return r.Do(ctx, queue.Nack, d)
	case verb == "extend" && len(words) == 2:
		return r.Do(ctx, queue.Extend, d)
	case verb == "dead" && len(words) == 1:
		return r.Do(ctx, queue.Discard, 0)
	}
	return fmt.Errorf("%.80q is none of ack, nack [TIME], extend TIME, dead: %w", line, meta.Invalid)
}

// parseSend reads `key=k prio=5 delay=10s dedup=ID expires=1h token=x:18 TEXT`.
func parseSend(line string) (m queue.Message, token *queue.Token, err error) {
	for {
		word, rest, more := strings.Cut(line, " ")
		name, val, is := strings.Cut(word, "=")
		if !is {
			break
		}
		switch name {
		case "key":
			m.Key = val
		case "dedup":
			m.Dedup = val
		case "prio":
			var n uint64
			n, err = strconv.ParseUint(val, 10, 8)
			if m.Priority = uint8(n); err != nil || n >= queue.Priorities {
				err = fmt.Errorf("%q is not a priority from 0 to %d: %w", val, queue.Priorities-1, meta.Invalid)
			}
		case "delay":
			m.Delay, err = procfs.Duration(val)
		case "expires":
			m.Expires, err = procfs.Duration(val)
		case "token":
			token, err = parseToken(val)
		default:
			is = false
		}
		if err != nil {
			return m, nil, err
		}
		if !is {
			break // the text begins with it
		}
		if line = rest; !more {
			break
		}
	}
	m.Body = []byte(line)
	return m, token, nil
}

func parseToken(text string) (*queue.Token, error) {
	i := strings.LastIndexByte(text, ':')
	if i > 0 {
		if n, err := strconv.ParseUint(text[i+1:], 10, 64); err == nil {
			return &queue.Token{Lock: text[:i], Number: n}, nil
		}
	}
	return nil, fmt.Errorf("%q is not LOCK:NUMBER: %w", text, meta.Invalid)
}

func openControl(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	return procfs.Control{
		Settings: func(ctx context.Context) (string, error) {
			st, _, err := f.at.status(ctx)
			return settingsText(st), err
		},
		Do: f.control,
	}.Open(ctx, how)
}

func openGroupControl(ctx context.Context, f file, how procfs.Open) (procfs.Handle, error) {
	return procfs.Control{
		Settings: func(ctx context.Context) (string, error) {
			_, g, err := f.at.status(ctx)
			return fmt.Sprintf("seek %d\n", g.Cursor), err
		},
		Do: f.seek,
	}.Open(ctx, how)
}

func bad(line, want string) error {
	return fmt.Errorf("%.80q is not %s: %w", line, want, meta.Invalid)
}

// control executes a line of a queue's ctl.
func (f file) control(ctx context.Context, line string) error {
	words := strings.Fields(line)
	q := f.at.room.queues
	set := queue.Set{Name: f.at.queue}
	if len(words) == 1 {
		paused := words[0] == "pause"
		switch words[0] {
		case "pause", "resume":
			set.Paused = &paused
			return q.Set(ctx, set)
		case "purge":
			return q.Purge(ctx, f.at.queue)
		}
	}
	if len(words) != 2 {
		return bad(line, "a setting and its value, pause, resume or purge")
	}
	var err error
	switch val := words[1]; words[0] {
	case "durable":
		durable, ok := find(durables, val)
		if !ok {
			return bad(line, "durable fsync or memory")
		}
		memory := durable == 1
		set.Memory = &memory
	case "max":
		set.Max, err = count(val)
	case "attempts":
		set.Attempts, err = count(val)
	case "full":
		full, ok := find(fulls, val)
		if !ok {
			return bad(line, "full block, reject or drop-old")
		}
		set.Full = (*queue.Full)(&full)
	case "order":
		order, ok := find(orders, val)
		if !ok {
			return bad(line, "order fifo, priority or key")
		}
		set.Order = (*queue.Order)(&order)
	case "ack":
		var d time.Duration
		d, err = procfs.Duration(val)
		set.Ack = &d
	case "dead":
		if val == "-" {
			val = ""
		}
		set.Dead = &val
	case "keep":
		set.KeepFor, set.KeepBytes, err = keep(val)
	case "default":
		switch val {
		case "on":
			return q.MakeGroup(ctx, f.at.queue, "")
		case "off":
			return q.RemoveGroup(ctx, f.at.queue, "")
		}
		return bad(line, "default on or off")
	case "seek":
		return f.seek(ctx, line)
	default:
		return bad(line, "a setting of a queue")
	}
	if err != nil {
		return err
	}
	return q.Set(ctx, set)
}

// fulls, orders and durables are the words for the values, in order.
var (
	fulls    = []string{"block", "reject", "drop-old"}
	orders   = []string{"fifo", "priority", "key"}
	durables = []string{"fsync", "memory"}
)

func find(words []string, word string) (uint8, bool) {
	for i, w := range words {
		if w == word {
			return uint8(i), true
		}
	}
	return 0, false
}

func count(text string) (*int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return nil, fmt.Errorf("%q is not a number: %w", text, meta.Invalid)
	}
	i := int(n)
	return &i, nil
}

// keep reads how long, or how much, as in 7d and 10g; 0 is nothing.
func keep(text string) (*time.Duration, *int64, error) {
	var d time.Duration
	var size int64
	if text == "0" {
		return &d, &size, nil
	}
	if unit := strings.IndexByte("kgt", text[len(text)-1]); unit >= 0 {
		n, err := strconv.ParseUint(text[:len(text)-1], 10, 20)
		if err != nil {
			return nil, nil, fmt.Errorf("%q is not a size such as 10g: %w", text, meta.Invalid)
		}
		size = int64(n) << []int{10, 30, 40}[unit]
		return &d, &size, nil
	}
	d, err := procfs.Duration(text)
	return &d, &size, err
}

// seek executes a line of a group's ctl.
func (f file) seek(ctx context.Context, line string) error {
	words := strings.Fields(line)
	to := queue.Seek{Name: f.at.queue, Group: f.at.group}
	if len(words) != 2 || words[0] != "seek" {
		return bad(line, "seek first, last, a number or a time")
	}
	switch val := words[1]; val {
	case "first":
		to.First = true
	case "last":
		to.Last = true
	default:
		if n, err := strconv.ParseUint(val, 10, 64); err == nil {
			to.Number = n
			break
		}
		when, err := time.Parse(time.RFC3339, val)
		if err != nil {
			return bad(line, "seek first, last, a number, or a time such as 2026-01-02T15:04:05Z")
		}
		to.Time = meta.At(when)
	}
	return f.at.room.queues.Seek(ctx, to)
}
