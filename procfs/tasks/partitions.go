package tasks

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"dos/meta"
	"dos/meta/task"
	"dos/procfs"
)

// partitionsName is the directory of partitions, in that of tasks.
const partitionsName = "queues"

type (
	partitions struct{ *room }
	partition  struct {
		*room
		name string // of the service: "" is the default one
	}
	partitionFile struct {
		partition
		file string
	}
)

func (partitions) Stat(context.Context) (procfs.Info, error) {
	return procfs.Info{Name: partitionsName, Mode: meta.TypeDir | 0o755}, nil
}

func (p partitions) Lookup(ctx context.Context, name string) (procfs.Node, error) {
	if name == partitionDefault {
		name = ""
	} else if name == "" {
		return nil, meta.NotExist
	}
	_, err := p.tasks.Queue(ctx, name)
	return partition{p.room, name}, plain(err)
}

func (p partitions) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		list, err := p.tasks.Queues(ctx)
		if err != nil {
			yield(procfs.Info{}, err)
			return
		}
		for _, q := range list {
			if !yield(partitionInfo(q, partitionName(q.Name), meta.TypeDir|0o755), nil) {
				return
			}
		}
	}
}

func partitionInfo(q task.Queue, name string, mode uint32) procfs.Info {
	return procfs.Info{Name: name, Mode: mode, UID: q.UID, GID: q.GID, Mtime: q.Made}
}

// Create makes a partition.
func (p partitions) Create(ctx context.Context, name string, mode uint32, by procfs.Caller) (procfs.Node, error) {
	switch {
	case mode&meta.TypeMask != meta.TypeDir:
		return nil, fmt.Errorf("%q: a partition is made with mkdir: %w", name, meta.Fixed)
	case name == partitionDefault:
		return nil, meta.Exist
	}
	err := p.tasks.MakeQueue(ctx, task.MakeQueue{Name: name, UID: by.UID, GID: by.GID, Mode: mode &^ meta.TypeMask})
	return partition{p.room, name}, err
}

func (p partitions) Remove(ctx context.Context, name string, _ procfs.Caller) error {
	if name == partitionDefault {
		return fmt.Errorf("%q belongs to the directory: %w", name, meta.Fixed)
	}
	return plain(p.tasks.RemoveQueue(ctx, name))
}

func (p partition) now(ctx context.Context) (task.Queue, error) {
	q, err := p.tasks.Queue(ctx, p.name)
	return q, plain(err)
}

func (p partition) Stat(ctx context.Context) (procfs.Info, error) {
	q, err := p.now(ctx)
	return partitionInfo(q, partitionName(p.name), meta.TypeDir|0o755), err
}

// Set changes the owner and the mode of the partition.
func (p partition) Set(ctx context.Context, c procfs.Change, _ procfs.Caller) error {
	return p.tasks.SetQueue(ctx, task.SetQueue{Name: p.name, UID: c.UID, GID: c.GID, Mode: c.Mode})
}

var partitionFiles = []string{"ctl", "status"}

func (p partition) Lookup(_ context.Context, name string) (procfs.Node, error) {
	if !slices.Contains(partitionFiles, name) {
		return nil, meta.NotExist
	}
	return partitionFile{p, name}, nil
}

func (p partition) Entries(ctx context.Context) iter.Seq2[procfs.Info, error] {
	return func(yield func(procfs.Info, error) bool) {
		for _, name := range partitionFiles {
			if !yield(partitionFile{p, name}.Stat(ctx)) {
				return
			}
		}
	}
}

func (f partitionFile) text(ctx context.Context) (string, error) {
	q, err := f.now(ctx)
	if err != nil {
		return "", err
	}
	if f.file == "ctl" {
		return rulesText(q.Rules), nil
	}
	return fmt.Sprintf("running %d\nused %s\nwaiting %d\n", q.Tasks, Need(q.Used), q.Waits), nil
}

func (f partitionFile) Stat(ctx context.Context) (procfs.Info, error) {
	q, err := f.now(ctx)
	if err != nil {
		return procfs.Info{}, err
	}
	mode := uint32(0o444)
	if f.file == "ctl" {
		mode = 0o644
	}
	text, err := f.text(ctx)
	info := partitionInfo(q, f.file, meta.TypeFile|mode)
	info.Size = int64(len(text))
	return info, err
}

func (f partitionFile) Open(ctx context.Context, how procfs.Open) (procfs.Handle, error) {
	ctx = context.WithoutCancel(ctx) // opening waits for nobody
	if f.file != "ctl" {
		text, err := f.text(ctx)
		if err != nil {
			return nil, err
		}
		return procfs.OpenText(how, text)
	}
	return procfs.Control{Settings: f.text, Do: func(ctx context.Context, line string) error {
		q, err := f.now(ctx)
		if err != nil {
			return err
		}
		if err := setRule(&q.Rules, line); err != nil {
			return err
		}
		return f.tasks.SetQueue(context.WithoutCancel(ctx), task.SetQueue{Name: f.name, Rules: &q.Rules})
	}}.Open(ctx, how)
}

// rulesText is what the ctl of a partition says, in lines that it takes.
func rulesText(r task.Rules) string {
	var l lines
	l.add("weight", "%d", max(1, r.Weight))
	for _, limits := range []struct {
		of string
		l  task.Limits
	}{{"max", r.Limits}, {"user", r.PerUser}} {
		text := Need(limits.l.Need)
		if limits.l.Need.CPU == 0 {
			text = strings.TrimPrefix(strings.TrimPrefix(text, "cpu=0"), " ")
		}
		if limits.l.Tasks > 0 {
			text = strings.TrimSpace(fmt.Sprintf("tasks=%d %s", limits.l.Tasks, text))
		}
		l.add(limits.of, "%s", orNone(text))
	}
	l.add("timeout", "%s", durationOr(r.Timeout))
	l.add("default", "%s", durationOr(r.Default))
	l.add("preempt", "%v", r.Preempt)
	l.add("label", "%s", orNone(r.Label))
	for _, uid := range slices.Sorted(maps.Keys(r.Shares)) {
		l.add("share", "%d %d", uid, r.Shares[uid])
	}
	if r.Paused {
		l.WriteString("pause\n")
	}
	return l.String()
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func durationOr(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return d.String()
}

// setRule does what a line of the ctl of a partition says.
func setRule(r *task.Rules, line string) (err error) {
	words := strings.Fields(line)
	verb, args := words[0], words[1:]
	val := strings.Join(args, " ")
	number := func(text string, low int) int {
		n, e := strconv.Atoi(text)
		if e != nil || n < low || n > 1_000_000 {
			err = fmt.Errorf("%.40q is not a number from %d to 1000000: %w", text, low, meta.Invalid)
		}
		return n
	}
	duration := func() (d time.Duration) {
		if val != "none" {
			d, err = task.ParseDuration(val)
		}
		return d
	}
	switch {
	case verb == "pause" && len(args) == 0, verb == "resume" && len(args) == 0:
		r.Paused = verb == "pause"
	case len(args) == 0:
		err = errRule(line)
	case verb == "weight":
		r.Weight = number(val, 1)
	case verb == "max":
		r.Limits, err = parseLimits(args)
	case verb == "user":
		r.PerUser, err = parseLimits(args)
	case verb == "timeout":
		r.Timeout = duration()
	case verb == "default":
		r.Default = duration()
	case verb == "label" && len(args) == 1:
		if r.Label = val; val == "none" {
			r.Label = ""
		}
	case verb == "preempt":
		for _, p := range []task.Preemption{task.Keep, task.PreemptRetry, task.PreemptCancel} {
			if p.String() == val {
				r.Preempt = p
				return nil
			}
		}
		err = errRule(line)
	case verb == "share" && len(args) == 2:
		uid, e := strconv.ParseUint(args[0], 10, 32)
		if e != nil || uid == math.MaxUint32 { // which is nobody's, and "no change" to chown(2)
			return fmt.Errorf("%.40q is not the number of a user: %w", args[0], meta.Invalid)
		}
		share := number(args[1], 1)
		if r.Shares = maps.Clone(r.Shares); r.Shares == nil {
			r.Shares = make(map[uint32]int)
		}
		if r.Shares[uint32(uid)] = share; share == 1 {
			delete(r.Shares, uint32(uid))
		}
	default:
		err = errRule(line)
	}
	return err
}

func errRule(line string) error {
	return fmt.Errorf("%.80q is none of weight N, max OPTIONS|none, user OPTIONS|none, timeout TIME|none, default TIME|none, preempt off|requeue|cancel, label L|none, share UID N, pause, resume: %w", line, meta.Invalid)
}

// parseLimits reads `tasks=10 cpu=8 mem=4g gpu=1 res=x:2`; what is not there is not bounded.
func parseLimits(words []string) (l task.Limits, err error) {
	if len(words) == 1 && words[0] == "none" {
		return l, nil
	}
	var s task.Spec
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "tasks":
			l.Tasks, err = strconv.Atoi(value)
			if err != nil || l.Tasks < 1 {
				return l, fmt.Errorf("%.40q is no number of tasks: %w", w, meta.Invalid)
			}
		case "cpu", "mem", task.GPU, "res":
			if err := s.Set(key, value, time.Time{}); err != nil {
				return l, err
			}
		default:
			return l, fmt.Errorf("%.40q is none of tasks=, cpu=, mem=, gpu=, res=: %w", w, meta.Invalid)
		}
	}
	l.Need = s.Need
	return l, nil
}
